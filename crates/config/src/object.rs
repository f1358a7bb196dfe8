//! Objects as users know them: kind, name, metadata and the specification with its defaults.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::kind::ObjectKind;

/// Kind, namespace and name: what there is one object of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectKey {
    /// Kind.
    pub kind: ObjectKind,
    /// Namespace; empty for kinds that live in none.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl ObjectKey {
    /// A key. The namespace is dropped for kinds that live in none.
    pub fn new(kind: ObjectKind, namespace: &str, name: &str) -> Self {
        let namespace = if kind.namespaced() { namespace } else { "" };
        Self {
            kind,
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// What is known of an object beside its specification.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metadata {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// `creationTimestamp`, in seconds since 1970; the store sets it.
    pub created: Option<u64>,
    /// `generation`: counts changes of the specification; the store sets it.
    pub generation: Option<u64>,
    /// `resourceVersion`; the store sets it.
    pub resource_version: Option<String>,
}

/// Where an object was read from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Source {
    /// The file, or what else the text came from; empty if unknown.
    pub file: Arc<str>,
    /// The line on which the object begins, from 1; 0 if unknown.
    pub line: u32,
}

/// An object that was read, defaulted and found valid.
///
/// Serialises to what the user wrote plus defaults; deserialising checks as [`crate::parse`] does.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Kind and name.
    pub key: ObjectKey,
    /// Labels and such.
    pub metadata: Metadata,
    /// The specification.
    pub spec: Spec,
    /// Where it was read.
    pub source: Source,
}

/// A specification, by kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Spec {
    /// `Namespace`.
    Namespace,
}

impl Serialize for Object {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_unit()
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: serde::Deserializer<'de>>(_d: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("not written yet"))
    }
}
