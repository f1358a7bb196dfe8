//! `ListenerSet` (Gateway API v1.6, GEP-1713): further listeners of a Gateway, written by somebody
//! else, often in another namespace.
//!
//! Defaults and rules are those of the CRD, its CEL rules among them. Whether the Gateway takes
//! the set, and which of its listeners conflict with others, is found out in translation.

use serde::{Deserialize, Serialize};

use super::gateway::{ListenerSpec, check_listeners};
use super::{GATEWAY_GROUP, ObjectKind};
use crate::check::Check;
use crate::object::ObjectKey;
use crate::reference::{check_name, check_namespace};

/// `spec` of a `ListenerSet`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerSetSpec {
    /// The Gateway.
    pub parent_ref: ParentGatewayRef,
    /// Its listeners.
    pub listeners: Vec<ListenerSpec>,
}

/// The Gateway that a `ListenerSet` is attached to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParentGatewayRef {
    /// API group.
    #[serde(default = "gateway_group")]
    pub group: String,
    /// Kind.
    #[serde(default = "gateway_kind")]
    pub kind: String,
    /// Name.
    pub name: String,
    /// Namespace; that of the set if `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

fn gateway_group() -> String {
    GATEWAY_GROUP.to_owned()
}

fn gateway_kind() -> String {
    "Gateway".to_owned()
}

impl ListenerSetSpec {
    pub(crate) fn check(&self, c: &mut Check<'_>) {
        c.at("spec", |c| {
            c.at("parentRef", |c| {
                check_name("name", &self.parent_ref.name, c);
                if let Some(namespace) = &self.parent_ref.namespace {
                    check_namespace("namespace", namespace, c);
                }
                c.mark();
            });
            check_listeners(&self.listeners, c);
        });
    }

    /// The Gateway of a set in this namespace; `None` if its parent is something else.
    pub(crate) fn gateway(&self, namespace: &str) -> Option<ObjectKey> {
        let parent = &self.parent_ref;
        let namespace = parent.namespace.as_deref().unwrap_or(namespace);
        (parent.kind == "Gateway" && parent.group == GATEWAY_GROUP)
            .then(|| ObjectKey::new(ObjectKind::Gateway, namespace, &parent.name))
    }
}
