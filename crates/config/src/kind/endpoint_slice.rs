//! `EndpointSlice` (Kubernetes `discovery.k8s.io/v1`): addresses behind a Service that no label
//! selects, such as hosts without a Workload of their own.
//!
//! As in Kubernetes the label `kubernetes.io/service-name` names the Service, and a port of the
//! slice belongs to the Service's port of the same name. The label
//! `multicluster.kubernetes.io/service-name` names a `ServiceImport` likewise (KEP-1645).

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::SpiffeId;
use model::endpoint::{Endpoint, Health};
use model::workload::{Locality, Tunnel};
use model::{ObjectName, ServiceName};
use serde::{Deserialize, Serialize};

use super::service::{ServicePort, Transport, check_app_protocol};
use crate::check::Check;
use crate::reference::shorten;

/// The label that names the Service.
pub const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// The label that names the `ServiceImport`.
pub const IMPORT_LABEL: &str = "multicluster.kubernetes.io/service-name";

/// An `EndpointSlice` without its metadata; these fields stand beside it, not below `spec`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSliceSpec {
    /// What the addresses are.
    pub address_type: SliceAddressType,
    /// Endpoints.
    #[serde(default)]
    pub endpoints: Vec<SliceEndpoint>,
    /// Ports that each of them serves.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub ports: Vec<SlicePort>,
}

/// What the addresses of a slice are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "Kubernetes' own words")]
pub enum SliceAddressType {
    IPv4,
    IPv6,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SliceEndpoint {
    /// Addresses of one and the same thing.
    pub addresses: Vec<String>,
    /// Whether it may be chosen.
    #[serde(default)]
    pub conditions: SliceConditions,
    /// Kept as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Kept as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// What is behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<SliceTarget>,
    /// Zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Kept as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hints: Option<serde_json::Value>,
    /// Kept as written.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub deprecated_topology: BTreeMap<String, String>,
}

/// Whether an endpoint may be chosen; what is absent counts as good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SliceConditions {
    /// Takes new connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
    /// Serves, perhaps while it terminates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serving: Option<bool>,
    /// Is about to end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminating: Option<bool>,
}

/// What is behind an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SliceTarget {
    /// Kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Kept as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Kept as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// Kept as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
    /// Kept as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field_path: Option<String>,
}

/// A port of all endpoints of a slice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlicePort {
    /// Name, as the Service's port has it.
    #[serde(default)]
    pub name: String,
    /// Number.
    pub port: u16,
    /// Transport.
    #[serde(default)]
    pub protocol: Transport,
    /// What is spoken there; the Service's word counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
}

impl EndpointSliceSpec {
    pub(crate) fn check(&self, c: &mut Check<'_>) {
        c.at_most("endpoints", self.endpoints.len(), 1000);
        c.at("endpoints", Check::mark);
        c.each("endpoints", &self.endpoints, |c, endpoint| {
            c.at_most("addresses", endpoint.addresses.len(), 100);
            if endpoint.addresses.is_empty() {
                c.error_at("addresses", "must have at least one item", "");
            }
            c.each("addresses", &endpoint.addresses, |c, text| {
                self.check_address(text, c);
            });
        });
        c.at_most("ports", self.ports.len(), 100);
        c.at("ports", Check::mark);
        let mut seen: Vec<&str> = Vec::new();
        c.each("ports", &self.ports, |c, port| {
            if port.port == 0 {
                c.error_at("port", "must be from 1 to 65535", "");
            }
            if seen.contains(&port.name.as_str()) {
                let message = format!("two ports are named \"{}\"", shorten(&port.name));
                c.error_at("name", message, "name each as the Service's port is named");
            }
            check_app_protocol(port.app_protocol.as_deref(), c);
            seen.push(&port.name);
        });
    }

    fn check_address(&self, text: &str, c: &mut Check<'_>) {
        let wanted = match self.address_type {
            SliceAddressType::IPv4 => "IPv4",
            SliceAddressType::IPv6 => "IPv6",
        };
        let right = text.parse::<IpAddr>().is_ok_and(|address| {
            address.is_ipv4() == (self.address_type == SliceAddressType::IPv4)
                && !address.is_unspecified()
                && !address.is_multicast()
        });
        if !right {
            let message = format!("\"{}\" is not an {wanted} address of a host", shorten(text));
            c.error(message, "change it, or `addressType`");
        }
    }

    /// From the Service's ports to those of the slice; not those that have no port of their name.
    pub(crate) fn ports_of(&self, service: &[ServicePort]) -> BTreeMap<u16, u16> {
        let number = |name: &str| self.ports.iter().find(|p| p.name == name).map(|p| p.port);
        let ports = service.iter();
        ports
            .filter_map(|p| Some((p.port, number(&p.name)?)))
            .collect()
    }

    /// Its endpoints as members of a Service, with what is known of who is behind each.
    pub(crate) fn to_endpoints(
        &self,
        slice: &ObjectName,
        service: &ServiceName,
        ports: &BTreeMap<u16, u16>,
        mut behind: impl FnMut(&SliceEndpoint) -> Behind,
    ) -> Vec<Endpoint> {
        self.endpoints
            .iter()
            .filter_map(|endpoint| {
                let parsed = endpoint.addresses.iter().filter_map(|a| a.parse().ok());
                let addresses: Vec<IpAddr> = parsed.collect();
                let Behind {
                    identity,
                    version,
                    mut locality,
                } = behind(endpoint);
                if let Some(zone) = &endpoint.zone {
                    locality.zone.clone_from(zone);
                }
                Some(Endpoint {
                    service: service.clone(),
                    workload: endpoint.name(slice, *addresses.first()?)?,
                    addresses,
                    ports: ports.clone(),
                    tunnel: Tunnel::None,
                    identity,
                    health: endpoint.conditions.health(),
                    weight: 1,
                    locality,
                    version,
                })
            })
            .collect()
    }
}

/// What is known of who is behind an endpoint.
#[derive(Debug)]
pub(crate) struct Behind {
    /// Who it is.
    pub(crate) identity: SpiffeId,
    /// Value of its label `version`; may be empty.
    pub(crate) version: String,
    /// Where it is, as its node says.
    pub(crate) locality: Locality,
}

impl SliceEndpoint {
    /// The Pod behind it, if it is one.
    pub(crate) fn pod(&self) -> Option<&str> {
        let target = self.target_ref.as_ref()?;
        let is_pod = target.kind.as_deref() == Some("Pod");
        target.name.as_deref().filter(|_| is_pod)
    }

    /// A name that stays the same while the endpoint does: that of what is behind it or its
    /// address, and the slice's, since one Pod may be in several.
    fn name(&self, slice: &ObjectName, address: IpAddr) -> Option<ObjectName> {
        let behind = self.target_ref.as_ref().and_then(|t| t.name.as_deref());
        let named = behind.and_then(|name| {
            ObjectName::new(slice.namespace(), &format!("{name}.{}", slice.name())).ok()
        });
        named.or_else(|| {
            let digits = match address {
                IpAddr::V4(v4) => v4.octets().map(|o| o.to_string()).join("-"),
                IpAddr::V6(v6) => v6.segments().map(|s| format!("{s:x}")).join("-"),
            };
            let name = format!("{digits}.{}", slice.name());
            let long = ObjectName::new(slice.namespace(), &name);
            long.or_else(|_| ObjectName::new(slice.namespace(), &digits))
                .ok()
        })
    }
}

impl SliceConditions {
    fn health(self) -> Health {
        let ready = self.ready.unwrap_or(true);
        match (ready, self.terminating.unwrap_or(false)) {
            (true, false) => Health::Healthy,
            (_, true) if self.serving.unwrap_or(true) => Health::Draining,
            _ => Health::Unhealthy,
        }
    }
}
