//! What is said of an object in its `status`, as Gateway API and Kubernetes shape it, but for what
//! only proxies can tell.
//!
//! `Programmed` stands here only where it is certain that nothing can come of an object or of one
//! of its listeners; otherwise whoever shows the status asks the proxies that hold the resources
//! ([`Translator::emits`](super::Translator::emits), [`ListenerStatus::resource`]).

use model::resource::Key;
use serde::{Deserialize, Serialize};

use crate::kind::gateway::RouteGroupKind;
use crate::reference::ParentRef;

/// All that is said of one object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// `metadata.generation` of the object that was translated: `observedGeneration` of all
    /// conditions.
    pub generation: Option<u64>,
    /// Conditions of the object, and of a route's parents or a policy's targets.
    pub conditions: Vec<Condition>,
    /// The listeners of a Gateway or `ListenerSet`, in the order in which they were written.
    pub listeners: Vec<ListenerStatus>,
    /// Of a Gateway: how many `ListenerSet`s are attached to it.
    pub attached_listener_sets: Option<u32>,
}

/// What is said of one listener (`status.listeners[]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerStatus {
    /// Name within the Gateway or `ListenerSet`.
    pub name: String,
    /// The kinds of routes that can be attached.
    pub supported_kinds: Vec<RouteGroupKind>,
    /// Routes that are attached and accepted, whether or not the listener itself is.
    pub attached_routes: u32,
    /// `Accepted`, `ResolvedRefs`, `Conflicted`, and where it is certain, `Programmed`.
    pub conditions: Vec<Condition>,
    /// The resource that proxies must hold for it to be programmed; `None` if it leads to none.
    pub resource: Option<Key>,
}

/// A status condition as Kubernetes has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// `Accepted`, `ResolvedRefs` and the like.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it holds.
    pub status: bool,
    /// One word.
    pub reason: String,
    /// For people.
    pub message: String,
    /// The parent it is about, for routes (`status.parents[].conditions`); for policies the
    /// Gateway or target (`status.ancestors[].conditions`).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub parent: Option<ParentRef>,
    /// Whether it is about something that Tulle does not serve, or that does not exist. It is said
    /// where nobody else would say so; on Kubernetes, where others may serve it, it must not be
    /// written.
    #[serde(skip)]
    pub foreign: bool,
}

impl Condition {
    pub(super) fn holds(kind: &str, reason: &str, message: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            status: true,
            reason: reason.to_owned(),
            message: message.to_owned(),
            parent: None,
            foreign: false,
        }
    }

    pub(super) fn accepted() -> Self {
        Self::holds("Accepted", "Accepted", "valid and in force")
    }

    pub(super) fn failed(kind: &str, reason: &str, message: impl Into<String>) -> Self {
        Self {
            status: false,
            ..Self::holds(kind, reason, &message.into())
        }
    }

    pub(super) fn about(self, parent: ParentRef) -> Self {
        Self {
            parent: Some(parent),
            ..self
        }
    }

    pub(super) fn foreign(self) -> Self {
        Self {
            foreign: true,
            ..self
        }
    }

    /// That nothing can be programmed, for the same reason for which this does not hold.
    pub(super) fn unprogrammed(&self) -> Self {
        Self {
            kind: "Programmed".to_owned(),
            ..self.clone()
        }
    }
}
