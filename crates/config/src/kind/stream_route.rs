//! `TLSRoute`, `TCPRoute` and `UDPRoute` (Gateway API v1.6): where connections and datagrams go that
//! a Gateway, or the proxy beside a Service's client, takes and does not read as HTTP.

use model::gateway::StreamBackend;
use serde::{Deserialize, Serialize};

use super::backend::{BackendTarget, Resolve, unresolved};
use super::gateway::DefaultScope;
use crate::check::Check;
use crate::reference::{ParentRef, check_parents};

/// `spec` of a `TLSRoute`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TlsRouteSpec {
    /// The Gateways and Services it is attached to.
    #[serde(default)]
    pub parent_refs: Vec<ParentRef>,
    /// Whether it is attached to default Gateways too.
    #[serde(skip_serializing_if = "DefaultScope::is_none", default)]
    pub use_default_gateways: DefaultScope,
    /// Server names that clients ask for.
    #[serde(default)]
    pub hostnames: Vec<String>,
    /// Where connections go.
    pub rules: Vec<StreamRule>,
}

/// `spec` of a `TCPRoute` or `UDPRoute`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamRouteSpec {
    /// The Gateways and Services it is attached to.
    #[serde(default)]
    pub parent_refs: Vec<ParentRef>,
    /// Whether it is attached to default Gateways too.
    #[serde(skip_serializing_if = "DefaultScope::is_none", default)]
    pub use_default_gateways: DefaultScope,
    /// Where connections or datagrams go.
    pub rules: Vec<StreamRule>,
}

/// A rule; there is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamRule {
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where connections go, by weight.
    pub backend_refs: Vec<StreamBackendRef>,
}

/// Where connections go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamBackendRef {
    /// API group; empty for a Service.
    #[serde(default)]
    pub group: String,
    /// Kind.
    #[serde(default = "service_kind")]
    pub kind: String,
    /// Namespace; that of the route if `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// Port of the Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Share of the connections.
    #[serde(default = "one")]
    pub weight: u32,
}

fn service_kind() -> String {
    "Service".to_owned()
}

fn one() -> u32 {
    1
}

impl TlsRouteSpec {
    pub(crate) fn check(&mut self, c: &mut Check<'_>) {
        c.at("spec", |c| {
            let scope = self.use_default_gateways;
            check_parents(&mut self.parent_refs, scope, c);
            backends(&self.rules, c, &mut unresolved);
        });
    }
}

impl StreamRouteSpec {
    pub(crate) fn check(&mut self, c: &mut Check<'_>) {
        c.at("spec", |c| {
            let scope = self.use_default_gateways;
            check_parents(&mut self.parent_refs, scope, c);
            backends(&self.rules, c, &mut unresolved);
        });
    }
}

/// The backends of the one rule; the check stands at `spec`.
pub(crate) fn backends(
    rules: &[StreamRule],
    c: &mut Check<'_>,
    resolve: &mut Resolve<'_>,
) -> Vec<StreamBackend> {
    if rules.len() != 1 {
        let message = format!("has {} items; there must be one", rules.len());
        c.error_at("rules", message, "write a route for each");
    }
    let rules = c.each("rules", rules, |c, rule| {
        let references = &rule.backend_refs;
        if !references.is_empty() && references.iter().all(|r| r.weight == 0) {
            c.warn_at(
                "backendRefs",
                "all have weight 0: every connection is refused",
                "give one of them a weight",
            );
        }
        c.each("backendRefs", references, |c, r| r.to_model(c, resolve))
    });
    rules.into_iter().next().unwrap_or_default()
}

impl StreamBackendRef {
    fn to_model(&self, c: &mut Check<'_>, resolve: &mut Resolve<'_>) -> StreamBackend {
        StreamBackend {
            target: self.target().check(c, resolve),
            weight: self.weight,
        }
    }

    pub(crate) fn target(&self) -> BackendTarget<'_> {
        BackendTarget {
            group: &self.group,
            kind: &self.kind,
            namespace: self.namespace.as_deref(),
            name: &self.name,
            port: self.port,
        }
    }
}
