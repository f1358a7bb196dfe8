//! `Gateway` (Gateway API v1.6): listeners for traffic from outside.
//!
//! Defaults and rules are those of the CRD of the experimental channel, its CEL rules among them.
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
    /// What the value is.
    #[serde(rename = "type", default)]
    pub address_type: AddressType,
    /// The address.
    pub value: String,
}

/// What the value of an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "Gateway API's own words")]
pub enum AddressType {
    #[default]
    IPAddress,
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
            c.at_most("listeners", self.listeners.len(), 64);
            if self.listeners.is_empty() {
                c.error_at(
                    "listeners",
                    "must have at least one item",
                    "add `listeners: [{name: http, port: 80, protocol: HTTP}]`",
                );
            }
            let mut seen: Vec<&ListenerSpec> = Vec::new();
            c.each("listeners", &self.listeners, |c, listener| {
                listener.check(c);
                listener.check_unique(&seen, c);
                seen.push(listener);
            });
            c.at_most("addresses", self.addresses.len(), 16);
            c.each("addresses", &self.addresses, |c, address| {
                if address.value.parse::<IpAddr>().is_err() {
                    let message = format!("\"{}\" is not an IP address", shorten(&address.value));
                    c.error_at(
                        "value",
                        message,
                        "leave `addresses` out to listen everywhere",
                    );
                }
            });
            if let Some(tls) = &self.tls {
                c.at("tls", |c| tls.check(c));
            }
        });
    }

    /// Where its listeners are bound; everywhere if empty.
    pub(crate) fn bound_to(&self) -> Vec<IpAddr> {
        let parsed = self.addresses.iter().filter_map(|a| a.value.parse().ok());
        let mut addresses: Vec<IpAddr> = parsed.collect();
        addresses.sort();
        addresses.dedup();
        addresses
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
        check_name("name", &self.name, c);
        if self.port == 0 {
            c.error_at("port", "must be from 1 to 65535", "");
        }
        let host = self.hostname.as_deref().unwrap_or_default();
        if !host.is_empty() && self.hostname().is_none() {
            let message = format!("\"{}\" is not a host's name", shorten(host));
            c.error_at("hostname", message, NAME_RULE);
        }
        self.check_protocol(host, c);
        c.at("allowedRoutes", |c| self.allowed_routes.check(c));
    }

    fn check_protocol(&self, host: &str, c: &mut Check<'_>) {
        let Some(protocol) = self.protocol() else {
            let message = format!("\"{}\" is not served", shorten(&self.protocol));
            c.warn_at("protocol", message, "use HTTP, HTTPS, TLS, TCP or UDP");
            return;
        };
        if matches!(protocol, Protocol::Tcp | Protocol::Udp) && !host.is_empty() {
            let message = format!("a listener for {} sees no host names", self.protocol);
            c.error_at("hostname", message, "take it out");
        }
        match (protocol, &self.tls) {
            (Protocol::Https | Protocol::Tls, None) => {
                let message = format!("is required for {}", self.protocol);
                c.error_at(
                    "tls",
                    message,
                    "add `tls: {certificateRefs: [{name: ...}]}`",
                );
            }
            (Protocol::Http | Protocol::Tcp | Protocol::Udp, Some(_)) => {
                let message = format!("is not for a listener for {}", self.protocol);
                c.error_at("tls", message, "take it out, or write HTTPS or TLS");
            }
            (Protocol::Https, Some(tls)) if tls.mode == TlsMode::Passthrough => c.at("tls", |c| {
                c.error_at(
                    "mode",
                    "must be Terminate for HTTPS",
                    "to pass TLS through, write `protocol: TLS`",
                );
            }),
            _ => {}
        }
        if let Some(tls) = &self.tls {
            c.at("tls", |c| tls.check(c));
        }
    }

    fn check_unique(&self, others: &[&Self], c: &mut Check<'_>) {
        if others.iter().any(|o| o.name == self.name) {
            let message = format!("two listeners are named \"{}\"", shorten(&self.name));
            c.error_at("name", message, "give each its own name");
        }
        let same = |o: &&&Self| {
            o.port == self.port && o.protocol == self.protocol && o.hostname() == self.hostname()
        };
        if let Some(other) = others.iter().find(same) {
            let message = format!(
                "has port, protocol and hostname of the listener \"{}\"",
                other.name
            );
            c.error(message, "give one of them another port or hostname");
        }
    }
}

impl AllowedRoutes {
    fn check(&self, c: &mut Check<'_>) {
        c.at_most("kinds", self.kinds.len(), 8);
        c.at("namespaces", |c| {
            let selecting = self.namespaces.from == FromNamespaces::Selector;
            match &self.namespaces.selector {
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
