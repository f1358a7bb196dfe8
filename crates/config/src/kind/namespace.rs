//! `Namespace` (Kubernetes core): what objects and policies are grouped by.
//!
//! A namespace exists as soon as an object names it; the object is there for its labels and for
//! policies to attach to. What Kubernetes keeps in it (`spec.finalizers`) means nothing here.

use serde::{Deserialize, Serialize};

/// `spec` of a `Namespace`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NamespaceSpec {
    /// Kubernetes' own; kept as written.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub finalizers: Vec<String>,
}
