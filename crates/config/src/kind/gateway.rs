//! `Gateway` (Gateway API v1.6): listeners for traffic from outside.
//!
//! What the CRD refuses is refused by its schema ([`crate::Schemas`]) and not looked at again here.
//! Listeners' protocols that no version of Tulle knows are a finding of the listener, not an error
//! of the object, as Gateway API asks.

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::gateway::Protocol;
use model::hostname::Hostname;
use serde::{Deserialize, Serialize};

use crate::check::Check;
use crate::reference::{NAME_RULE, check_name, check_namespace, shorten};

mod tls;

pub use tls::{
    BackendClient, Frontend, FrontendMode, FrontendTls, FrontendValidation, GatewayTls,
    ListenerTls, ObjectRef, PortTls, SecretRef, TlsMode,
};

/// `spec` of a `Gateway`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewaySpec {
    /// Name of its `GatewayClass`.
    pub gateway_class_name: String,
    /// Its listeners.
    pub listeners: Vec<ListenerSpec>,
    /// Where they are bound; everywhere if empty.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub addresses: Vec<AddressSpec>,
    /// Which `ListenerSet`s may add listeners; none if `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_listeners: Option<AllowedListeners>,
    /// Which routes it claims that do not name it.
    #[serde(skip_serializing_if = "DefaultScope::is_none", default)]
    pub default_scope: DefaultScope,
    /// Labels and annotations for what serves it in Kubernetes; kept as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub infrastructure: Option<Infrastructure>,
    /// TLS with clients and backends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<GatewayTls>,
}

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerSpec {
    /// Name, for `sectionName`.
    pub name: String,
    /// Hosts that it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Port.
    pub port: u16,
    /// `HTTP`, `HTTPS`, `TLS`, `TCP` or `UDP`.
    pub protocol: String,
    /// TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
    /// Which routes may attach.
    #[serde(default)]
    pub allowed_routes: AllowedRoutes,
}

/// Which routes a default Gateway claims (GEP-3793).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "Gateway API's own words")]
pub enum DefaultScope {
    All,
    #[default]
    None,
}

impl DefaultScope {
    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde hands in a reference"
    )]
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// Which routes may attach to a listener.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AllowedRoutes {
    /// From which namespaces.
    #[serde(default)]
    pub namespaces: RouteNamespaces,
    /// Of which kinds; those that fit the protocol if empty.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub kinds: Vec<RouteGroupKind>,
}

/// Which `ListenerSet`s may add listeners.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AllowedListeners {
    /// From which namespaces.
    #[serde(default)]
    pub namespaces: ListenerNamespaces,
}

/// From which namespaces `ListenerSet`s may add listeners.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ListenerNamespaces {
    /// Which.
    #[serde(default)]
    pub from: ListenersFrom,
    /// With [`ListenersFrom::Selector`]: their labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// From which namespaces `ListenerSet`s are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "Gateway API's own words")]
pub enum ListenersFrom {
    All,
    Selector,
    Same,
    #[default]
    None,
}

/// From which namespaces routes may attach.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RouteNamespaces {
    /// Which.
    #[serde(default)]
    pub from: FromNamespaces,
    /// With [`FromNamespaces::Selector`]: their labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// From which namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "Gateway API's own words")]
pub enum FromNamespaces {
    All,
    Selector,
    #[default]
    Same,
}

/// Kubernetes' `LabelSelector`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelector {
    /// All of these.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub match_labels: BTreeMap<String, String>,
    /// And all of these.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub match_expressions: Vec<LabelExpression>,
}

/// One requirement of a selector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelExpression {
    /// Key of the label.
    pub key: String,
    /// What must hold of it.
    pub operator: LabelOperator,
    /// For `In` and `NotIn`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub values: Vec<String>,
}

/// What must hold of a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "Kubernetes' own words")]
pub enum LabelOperator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

/// A kind of route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteGroupKind {
    /// API group.
    #[serde(default = "gateway_group")]
    pub group: String,
    /// Kind.
    pub kind: String,
}

/// Where listeners are bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressSpec {
    /// What the value is; only [`IP_ADDRESS`] is served.
    #[serde(rename = "type", default = "ip_address")]
    pub address_type: String,
    /// The address; any if `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// The type of an address that is served.
pub const IP_ADDRESS: &str = "IPAddress";

fn ip_address() -> String {
    IP_ADDRESS.to_owned()
}

/// For what serves a Gateway in Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Infrastructure {
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub annotations: BTreeMap<String, String>,
    /// Parameters; none are served, so that a Gateway with any is not accepted.
    #[serde(rename = "parametersRef", skip_serializing_if = "Option::is_none")]
    pub parameters_ref: Option<ParametersRef>,
}

/// A reference to parameters; of no kind that this version serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParametersRef {
    /// API group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

fn gateway_group() -> String {
    super::GATEWAY_GROUP.to_owned()
}

impl GatewaySpec {
    pub(crate) fn check(&self, c: &mut Check<'_>) {
        c.at("spec", |c| {
            check_name("gatewayClassName", &self.gateway_class_name, c);
            c.at("gatewayClassName", Check::mark);
            check_listeners(&self.listeners, c);
            if let Some(allowed) = &self.allowed_listeners {
                c.at("allowedListeners", |c| allowed.check(c));
            }
            if let Some(tls) = &self.tls {
                c.at("tls", |c| tls.check(c));
            }
        });
    }

    /// Where its listeners are bound; everywhere if empty.
    pub(crate) fn bound_to(&self) -> Vec<IpAddr> {
        let values = self.addresses.iter().filter_map(|a| a.value.as_deref());
        let mut addresses: Vec<IpAddr> = values.filter_map(|v| v.parse().ok()).collect();
        addresses.sort();
        addresses.dedup();
        addresses
    }
}

/// The listeners of a Gateway or `ListenerSet`; the check stands at `spec`.
pub(crate) fn check_listeners(listeners: &[ListenerSpec], c: &mut Check<'_>) {
    c.each("listeners", listeners, |c, listener| listener.check(c));
}

impl AllowedListeners {
    fn check(&self, c: &mut Check<'_>) {
        let selecting = self.namespaces.from == ListenersFrom::Selector;
        c.at("namespaces", |c| {
            check_selector(self.namespaces.selector.as_ref(), selecting, c);
        });
    }
}

/// A selector is there where one is asked for, and only there.
fn check_selector(selector: Option<&LabelSelector>, selecting: bool, c: &mut Check<'_>) {
    match selector {
        None if selecting => {
            c.error_at(
                "selector",
                "is required",
                "say which labels the namespaces have",
            );
        }
        Some(_) if !selecting => {
            c.warn_at("selector", "has no effect", "write `from: Selector`");
        }
        _ => {}
    }
}

impl ListenerSpec {
    /// The protocol, if it is one that is known.
    pub(crate) fn protocol(&self) -> Option<Protocol> {
        Some(match self.protocol.as_str() {
            "HTTP" => Protocol::Http,
            "HTTPS" => Protocol::Https,
            "TLS" => Protocol::Tls,
            "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            _ => return None,
        })
    }

    /// Its host; an empty one counts as none.
    pub(crate) fn hostname(&self) -> Option<Hostname> {
        self.hostname.as_deref()?.parse().ok()
    }

    fn check(&self, c: &mut Check<'_>) {
        c.mark();
        let host = self.hostname.as_deref().unwrap_or_default();
        if !host.is_empty() && self.hostname().is_none() {
            let message = format!("\"{}\" is not a host's name", shorten(host));
            c.error_at("hostname", message, NAME_RULE);
        }
        self.check_protocol(c);
        c.at("allowedRoutes", |c| self.allowed_routes.check(c));
    }

    fn check_protocol(&self, c: &mut Check<'_>) {
        let Some(protocol) = self.protocol() else {
            let message = format!("\"{}\" is not served", shorten(&self.protocol));
            c.warn_at("protocol", message, "use HTTP, HTTPS, TLS, TCP or UDP");
            return;
        };
        // The CRD asks for it for TLS alone.
        if protocol == Protocol::Https && self.tls.is_none() {
            let hint = "add `tls: {certificateRefs: [{name: ...}]}`";
            c.error_at("tls", "is required for HTTPS", hint);
        }
        if let Some(tls) = &self.tls {
            c.at("tls", |c| tls.check(c));
        }
    }
}

impl AllowedRoutes {
    fn check(&self, c: &mut Check<'_>) {
        c.at("namespaces", |c| {
            let selecting = self.namespaces.from == FromNamespaces::Selector;
            check_selector(self.namespaces.selector.as_ref(), selecting, c);
        });
    }
}

impl LabelSelector {
    /// Whether it takes what has these labels.
    pub(crate) fn takes(&self, labels: &BTreeMap<String, String>) -> bool {
        let exact = |(key, value): (&String, &String)| labels.get(key) == Some(value);
        self.match_labels.iter().all(exact)
            && self.match_expressions.iter().all(|e| {
                let value = labels.get(&e.key);
                match e.operator {
                    LabelOperator::In => value.is_some_and(|v| e.values.contains(v)),
                    LabelOperator::NotIn => value.is_none_or(|v| !e.values.contains(v)),
                    LabelOperator::Exists => value.is_some(),
                    LabelOperator::DoesNotExist => value.is_none(),
                }
            })
    }
}

/// Name and namespace of a reference.
pub(crate) fn check_object_ref(name: &str, namespace: Option<&str>, c: &mut Check<'_>) {
    check_name("name", name, c);
    if let Some(namespace) = namespace {
        check_namespace("namespace", namespace, c);
    }
    c.mark();
}
