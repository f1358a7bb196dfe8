//! `Pod` and `Node` (Kubernetes core), as far as they say something of endpoints: who a pod is, its
//! version, and where its node stands.
//!
//! An `EndpointSlice` names the Pod behind an endpoint; off Kubernetes a `Workload` says the same in
//! one object. Nothing is run from a Pod, and what else Kubernetes keeps in these objects means
//! nothing here.

use std::collections::BTreeMap;

use model::workload::Locality;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};

use super::workload::VERSION_LABEL;
use crate::check::Check;
use crate::reference::check_name;

/// The labels of a Pod that mean something here.
pub const POD_LABELS: [&str; 1] = [VERSION_LABEL];
/// The labels of a Node that mean something here: its region and its zone.
pub const NODE_LABELS: [&str; 2] = [
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

/// `spec` of a `Pod`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec {
    /// Who it is.
    #[serde(default = "default_account")]
    pub service_account_name: String,
    /// Where it runs, once it does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub node_name: Option<String>,
    #[serde(flatten, skip_serializing)]
    _rest: IgnoredAny,
}

fn default_account() -> String {
    "default".to_owned()
}

impl PodSpec {
    pub(crate) fn check(&self, c: &mut Check<'_>) {
        c.at("spec", |c| {
            check_name("serviceAccountName", &self.service_account_name, c);
        });
    }
}

/// `spec` of a `Node`, of which nothing matters: a Node is here for its labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeSpec {}

impl<'de> Deserialize<'de> for NodeSpec {
    fn deserialize<D: Deserializer<'de>>(spec: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(spec).map(|_| Self {})
    }
}

/// Where a Node with these labels stands.
pub(crate) fn locality(labels: &BTreeMap<String, String>) -> Locality {
    let [region, zone] = NODE_LABELS.map(|label| labels.get(label).cloned().unwrap_or_default());
    Locality { region, zone }
}
