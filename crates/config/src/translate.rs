//! From objects to resources of the model, incrementally.

use std::sync::Arc;

use ipnet::IpNet;
use model::TrustDomain;
use model::resource::{Key, Resource};
use serde::{Deserialize, Serialize};

use crate::diagnostic::Diagnostic;
use crate::object::{Object, ObjectKey};
use crate::reference::ParentRef;

/// What holds where no object says otherwise.
#[derive(Debug, Clone, Default)]
pub struct Defaults {
    /// The trust domain that the certificate authority serves.
    pub trust_domain: TrustDomain,
    /// Where services and workloads have their addresses.
    pub networks: Vec<IpNet>,
}

/// A change of one object.
#[derive(Debug, Clone)]
pub enum Change {
    /// The object is new or another.
    Put(Arc<Object>),
    /// The object is gone.
    Delete(ObjectKey),
}

/// What a set of changes led to.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Resources that are new or different, and `None` for those that are gone.
    pub resources: Vec<(Key, Option<Resource>)>,
    /// All conditions of each object whose conditions are new or different.
    pub conditions: Vec<(ObjectKey, Vec<Condition>)>,
    /// Findings about the objects that were looked at again.
    pub diagnostics: Vec<Diagnostic>,
}

/// A status condition as Kubernetes has them; `Programmed` is not decided here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// `Accepted` or `ResolvedRefs`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it holds.
    pub status: bool,
    /// One word.
    pub reason: String,
    /// For people.
    pub message: String,
    /// The parent it is about, for routes (`status.parents[].conditions`).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub parent: Option<ParentRef>,
}

/// Keeps objects and what was made of them.
#[derive(Debug)]
pub struct Translator {
    _defaults: Defaults,
}

impl Translator {
    /// A translator without objects. The first [`apply`](Self::apply) emits the mesh's defaults.
    pub fn new(defaults: Defaults) -> Self {
        Self {
            _defaults: defaults,
        }
    }

    /// Takes in changes, all together, and says what they lead to.
    pub fn apply(&mut self, _changes: Vec<Change>) -> Outcome {
        Outcome::default()
    }

    /// The resources that an object has a part in, for its `Programmed` condition.
    pub fn emits(&self, _object: &ObjectKey) -> Vec<Key> {
        Vec::new()
    }

    /// The object as it was last put.
    pub fn object(&self, _key: &ObjectKey) -> Option<&Arc<Object>> {
        None
    }

    /// The conditions of an object.
    pub fn conditions(&self, _object: &ObjectKey) -> &[Condition] {
        &[]
    }
}
