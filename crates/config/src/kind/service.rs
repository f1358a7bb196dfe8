//! `Service` (Kubernetes core): a name, its ports, and the labels of the workloads behind it.
//!
//! Read as Kubernetes does. Fields that only expose a Service to the outside of a cluster
//! (`nodePort`, `externalIPs`, ...) are kept and mean nothing in the mesh.

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::ServiceName;
use model::name::is_label;
use model::service::{Port, Protocol, Service};
use serde::{Deserialize, Serialize};

use crate::check::Check;
use crate::reference::{LABEL_RULE, shorten};
use crate::suggest;

/// `spec` of a `Service`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSpec {
    /// Labels of the workloads that serve it; without any, nothing does.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub selector: BTreeMap<String, String>,
    /// Its ports.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub ports: Vec<ServicePort>,
    /// `None` for headless, an address, or empty for one that the control plane chooses.
    #[serde(rename = "clusterIP", skip_serializing_if = "Option::is_none")]
    pub cluster_ip: Option<String>,
    /// The same for both address families.
    #[serde(rename = "clusterIPs", skip_serializing_if = "Vec::is_empty", default)]
    pub cluster_ips: Vec<String>,
    /// How it is exposed outside the mesh.
    #[serde(rename = "type", default)]
    pub service_type: ServiceType,
    /// Whether a client stays with one endpoint.
    #[serde(default)]
    pub session_affinity: SessionAffinity,
    /// Address families; kept as written.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub ip_families: Vec<String>,
    /// Kept as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_family_policy: Option<String>,
    /// Kept as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub internal_traffic_policy: Option<String>,
    /// Kept as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_traffic_policy: Option<String>,
    /// Which endpoints clients prefer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traffic_distribution: Option<TrafficDistribution>,
    /// Kept as written.
    #[serde(rename = "externalIPs", skip_serializing_if = "Vec::is_empty", default)]
    pub external_ips: Vec<String>,
    /// Kept as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocate_load_balancer_node_ports: Option<bool>,
    /// Kept as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancer_class: Option<String>,
}

/// `spec.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "Kubernetes' own words")]
pub enum ServiceType {
    #[default]
    ClusterIP,
    NodePort,
    LoadBalancer,
}

/// `spec.sessionAffinity`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "Kubernetes' own words")]
pub enum SessionAffinity {
    #[default]
    None,
}

/// `spec.trafficDistribution`: endpoints in the client's zone, as long as there are some. Kubernetes has
/// two words for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "Kubernetes' own words")]
pub enum TrafficDistribution {
    PreferClose,
    PreferSameZone,
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// Name; required where there are several ports.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub name: String,
    /// Number that clients use.
    pub port: u16,
    /// The workload's port: number or name; the same number if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_port: Option<PortRef>,
    /// Transport.
    #[serde(default)]
    pub protocol: Transport,
    /// What is spoken there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
    /// Kept as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_port: Option<u16>,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Transport {
    /// TCP.
    #[default]
    #[serde(rename = "TCP")]
    Tcp,
    /// UDP.
    #[serde(rename = "UDP")]
    Udp,
}

/// A port of a workload by number or by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "must be the number or the name of a port")]
pub enum PortRef {
    /// By number.
    Number(u16),
    /// By name.
    Name(String),
}

const PROTOCOLS: [&str; 12] = [
    "http",
    "http2",
    "h2c",
    "grpc",
    "grpc-web",
    "https",
    "tls",
    "tcp",
    "ws",
    "kubernetes.io/h2c",
    "kubernetes.io/ws",
    "kubernetes.io/wss",
];

/// What is spoken on a port: what is declared, else what its name begins with.
pub(crate) fn protocol_of(declared: Option<&str>, name: &str) -> Protocol {
    match declared {
        Some(word) => Protocol::from_declared(word),
        None => Protocol::from_declared(name.split('-').next().unwrap_or_default()),
    }
}

/// Warns of an `appProtocol` that is probably misspelt; any word is allowed.
pub(crate) fn check_app_protocol(word: Option<&str>, c: &mut Check<'_>) {
    let Some(word) = word else { return };
    if Protocol::from_declared(word) == Protocol::Detect {
        c.warn_at(
            "appProtocol",
            format!(
                "\"{}\" is not a protocol that the mesh knows; it will look at the first bytes",
                shorten(word)
            ),
            suggest::hint(word, PROTOCOLS),
        );
    }
}

/// The number of a port, and its name if it has one.
pub(crate) fn check_port(number: u16, name: &str, c: &mut Check<'_>) {
    if number == 0 {
        c.error_at("port", "must be from 1 to 65535", "");
    }
    if !name.is_empty() {
        check_port_name("name", name, c);
    }
}

fn check_port_name(field: &'static str, name: &str, c: &mut Check<'_>) {
    if !is_label(name) {
        let message = format!("\"{}\" is not a port's name", shorten(name));
        c.error_at(field, message, LABEL_RULE);
    }
}

/// That no port before has the number or the name, each with whether one has.
pub(crate) fn check_once(
    (number, twice): (u16, bool),
    (name, named): (&str, bool),
    c: &mut Check<'_>,
) {
    if twice {
        let message = format!("port {number} is there twice");
        c.error_at("port", message, "give each port its own number");
    }
    if named && !name.is_empty() {
        let message = format!("two ports are named \"{name}\"");
        c.error_at("name", message, "give each port its own name");
    }
}

/// `spec.ports`, which stand where the check does.
pub(crate) fn check_ports(ports: &[ServicePort], c: &mut Check<'_>) {
    if ports.is_empty() {
        c.warn_at(
            "ports",
            "without ports nobody can reach the Service",
            "add `ports: [{port: 80}]`",
        );
    }
    c.at_most("ports", ports.len(), 100);
    let mut seen: Vec<&ServicePort> = Vec::new();
    c.each("ports", ports, |c, port| {
        check_port(port.port, &port.name, c);
        match &port.target_port {
            Some(PortRef::Number(0)) => c.error_at("targetPort", "must be from 1 to 65535", ""),
            Some(PortRef::Name(name)) => check_port_name("targetPort", name, c),
            _ => {}
        }
        if port.name.is_empty() && ports.len() > 1 {
            c.error("a Service with several ports must name each", "add `name`");
        }
        let same = |p: &&&ServicePort| p.port == port.port && p.protocol == port.protocol;
        let twice = seen.iter().any(|p| same(&p));
        let named = seen.iter().any(|p| p.name == port.name);
        check_once((port.port, twice), (&port.name, named), c);
        check_app_protocol(port.app_protocol.as_deref(), c);
        seen.push(port);
    });
}

/// The port that a reference means, by number or by name.
pub(crate) fn find_port<'p>(
    ports: &'p [ServicePort],
    number: Option<u16>,
    name: Option<&str>,
) -> Option<&'p ServicePort> {
    ports.iter().find(|p| {
        number.is_none_or(|n| p.port == n)
            && name.is_none_or(|n| p.name == n || n.parse() == Ok(p.port))
    })
}

/// One for each number: what serves both TCP and UDP is the same place.
pub(crate) fn model_ports(ports: &[ServicePort]) -> Vec<Port> {
    let mut all: Vec<Port> = Vec::new();
    for port in ports {
        if all.iter().all(|p| p.number != port.port) {
            all.push(Port {
                name: port.name.clone(),
                number: port.port,
                protocol: port.protocol(),
            });
        }
    }
    all
}

impl ServiceSpec {
    pub(crate) fn check(&self, name: &str, c: &mut Check<'_>) {
        if !is_label(name) {
            c.at("metadata", |c| {
                c.error_at(
                    "name",
                    format!("\"{}\" is not a valid name of a Service", shorten(name)),
                    LABEL_RULE,
                );
            });
        }
        c.at("spec", |c| {
            check_ports(&self.ports, c);
            let headless = self.is_headless();
            for (field, text) in self.addresses_written() {
                if !headless && text.parse::<IpAddr>().is_err() {
                    let message = format!("\"{}\" is not an IP address", shorten(text));
                    c.error_at(
                        field,
                        message,
                        "leave it out to have one chosen, or write None for a headless Service",
                    );
                }
            }
        });
    }

    /// Whether it has no address of its own.
    pub fn is_headless(&self) -> bool {
        self.addresses_written().any(|(_, text)| text == "None")
    }

    fn addresses_written(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let one = self.cluster_ip.iter().map(|ip| ("clusterIP", ip.as_str()));
        let all = self
            .cluster_ips
            .iter()
            .map(|ip| ("clusterIPs", ip.as_str()));
        one.chain(all).filter(|(_, ip)| !ip.is_empty())
    }

    /// Its addresses, each once.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let mut found = Vec::new();
        for (_, text) in self.addresses_written() {
            if let Ok(address) = text.parse()
                && !found.contains(&address)
            {
                found.push(address);
            }
        }
        found
    }

    /// Whether a workload with these labels serves it.
    pub(crate) fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.selector.is_empty() && self.selector.iter().all(|(k, v)| labels.get(k) == Some(v))
    }

    pub(crate) fn to_model(&self, name: ServiceName) -> Service {
        let headless = self.is_headless();
        Service {
            name,
            addresses: if headless {
                Vec::new()
            } else {
                self.addresses()
            },
            ports: model_ports(&self.ports),
            headless,
            near: self.traffic_distribution.is_some(),
        }
    }
}

impl ServicePort {
    /// The workload's port.
    pub(crate) fn target(&self) -> PortRef {
        let same = PortRef::Number(self.port);
        self.target_port.clone().unwrap_or(same)
    }

    /// What is spoken there.
    pub fn protocol(&self) -> Protocol {
        if self.protocol == Transport::Udp {
            return Protocol::Tcp;
        }
        protocol_of(self.app_protocol.as_deref(), &self.name)
    }
}
