//! References from one object to another.

use serde::{Deserialize, Serialize};

/// The parent that a route attaches to, as in `spec.parentRefs` and `status.parents`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentRef {
    /// API group; empty for a Service.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Namespace; that of the route if `None`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// Name of the parent's port.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub section_name: Option<String>,
    /// Number of the parent's port.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub port: Option<u16>,
}
