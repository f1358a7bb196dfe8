//! `Workload` (`tulle.dev/v1alpha1`): a running instance outside Kubernetes.
//!
//! Beside the contract's fields there are `addresses` (further ones, for both families), `tunnel`
//! (the inbound port of its proxy, written by the registry; without it the workload is plain) and
//! `ready`. Services select it by its labels and its namespace.

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::endpoint::{Endpoint, Health};
use model::workload::{Locality, Mtls, PortLimits, Tunnel, Workload, WorkloadPort};
use model::{ServiceName, SpiffeId, WorkloadName};
use serde::{Deserialize, Serialize};

use super::service::{
    PortRef, ServiceSpec, Transport, check_app_protocol, check_once, check_port, protocol_of,
};
use crate::check::Check;
use crate::reference::{check_name, shorten};

/// The label whose value goes into [`Endpoint::version`].
pub(crate) const VERSION_LABEL: &str = "version";

/// `spec` of a `Workload`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadSpec {
    /// Where it is reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Further addresses, the preferred one first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub addresses: Vec<String>,
    /// Ports on which it serves; none for a mere client.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub ports: Vec<PortSpec>,
    /// Who it is.
    #[serde(default = "default_account")]
    pub service_account: String,
    /// Where it is.
    #[serde(skip_serializing_if = "LocalitySpec::is_unknown", default)]
    pub locality: LocalitySpec,
    /// The network that its address belongs to; only the one without a name is served.
    #[serde(default)]
    pub network: String,
    /// Share of traffic relative to its peers.
    #[serde(default = "one")]
    pub weight: u32,
    /// How its proxy is reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<TunnelSpec>,
    /// Whether it may be chosen.
    #[serde(default = "yes")]
    pub ready: bool,
}

/// A port of a workload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortSpec {
    /// Name.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub name: String,
    /// Number.
    pub port: u16,
    /// Transport.
    #[serde(default)]
    pub protocol: Transport,
    /// What is spoken there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
}

/// Region and zone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LocalitySpec {
    /// Region.
    #[serde(default)]
    pub region: String,
    /// Zone.
    #[serde(default)]
    pub zone: String,
}

impl LocalitySpec {
    fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

/// How a workload's proxy is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelSpec {
    /// Inbound port of the proxy.
    pub port: u16,
    /// What it understands.
    #[serde(default)]
    pub protocol: TunnelProtocol,
}

/// What a workload's proxy understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum TunnelProtocol {
    /// Both of Tulle's forms.
    #[default]
    Tulle,
    /// HBONE only.
    #[serde(rename = "HBONE")]
    Hbone,
}

fn default_account() -> String {
    "default".to_owned()
}

fn one() -> u32 {
    1
}

fn yes() -> bool {
    true
}

impl WorkloadSpec {
    pub(crate) fn check(&self, c: &mut Check<'_>) {
        c.at("spec", |c| {
            if self.address.is_none() && self.addresses.is_empty() {
                c.error_at("address", "is required", "add `address: 10.0.0.1`");
            }
            if let Some(address) = &self.address {
                c.at("address", |c| check_address(address, c));
            }
            c.each("addresses", &self.addresses, |c, address| {
                check_address(address, c);
            });
            self.check_ports(c);
            check_name("serviceAccount", &self.service_account, c);
            if !self.network.is_empty() {
                c.error_at(
                    "network",
                    "several networks are not served by this version",
                    "leave it empty",
                );
            }
            if !(1..=10_000).contains(&self.weight) {
                c.error_at(
                    "weight",
                    "must be from 1 to 10000",
                    "to send it no traffic, write `ready: false`",
                );
            }
            if self.tunnel.as_ref().is_some_and(|t| t.port == 0) {
                c.at("tunnel", |c| {
                    c.error_at("port", "must be from 1 to 65535", "");
                });
            }
        });
    }

    fn check_ports(&self, c: &mut Check<'_>) {
        c.at_most("ports", self.ports.len(), 100);
        c.at("ports", Check::mark);
        let mut seen: Vec<&PortSpec> = Vec::new();
        c.each("ports", &self.ports, |c, port| {
            check_port(port.port, &port.name, c);
            let twice = seen.iter().any(|p| p.port == port.port);
            let named = seen.iter().any(|p| p.name == port.name);
            check_once((port.port, twice), (&port.name, named), c);
            check_app_protocol(port.app_protocol.as_deref(), c);
            seen.push(port);
        });
    }

    /// Its addresses, the preferred one first, each once.
    pub fn all_addresses(&self) -> Vec<IpAddr> {
        let mut found = Vec::new();
        for text in self.address.iter().chain(&self.addresses) {
            if let Ok(address) = text.parse()
                && !found.contains(&address)
            {
                found.push(address);
            }
        }
        found
    }

    fn tunnel(&self) -> Tunnel {
        match &self.tunnel {
            None => Tunnel::None,
            Some(TunnelSpec { port, protocol }) => match protocol {
                TunnelProtocol::Tulle => Tunnel::Tulle { port: *port },
                TunnelProtocol::Hbone => Tunnel::Hbone { port: *port },
            },
        }
    }

    fn locality(&self) -> Locality {
        Locality {
            region: self.locality.region.clone(),
            zone: self.locality.zone.clone(),
        }
    }

    /// The number of the port that a Service's `targetPort` means. It must be one on which the
    /// workload says that it serves: on a host shared by many, another number is another program.
    pub(crate) fn resolve_port(&self, target: &PortRef) -> Option<u16> {
        match target {
            PortRef::Number(number) => self
                .ports
                .iter()
                .any(|p| p.port == *number)
                .then_some(*number),
            PortRef::Name(name) => self.ports.iter().find(|p| p.name == *name).map(|p| p.port),
        }
    }

    pub(crate) fn to_model(
        &self,
        name: WorkloadName,
        labels: &BTreeMap<String, String>,
        identity: SpiffeId,
        mtls: Mtls,
        limits: Vec<PortLimits>,
    ) -> Workload {
        Workload {
            name,
            addresses: self.all_addresses(),
            ports: self
                .ports
                .iter()
                .map(|p| WorkloadPort {
                    name: p.name.clone(),
                    number: p.port,
                    protocol: protocol_of(p.app_protocol.as_deref(), &p.name),
                })
                .collect(),
            identity,
            labels: labels.clone(),
            locality: self.locality(),
            tunnel: self.tunnel(),
            mtls,
            limits,
        }
    }

    /// The workload as a member of a service; `None` where it serves none of the service's ports.
    pub(crate) fn to_endpoint(
        &self,
        workload: &WorkloadName,
        labels: &BTreeMap<String, String>,
        identity: &SpiffeId,
        service_name: ServiceName,
        service: &ServiceSpec,
    ) -> Option<Endpoint> {
        // A workload without ports is a client, whatever labels it has.
        if self.ports.is_empty() {
            return None;
        }
        let ports: BTreeMap<u16, u16> = service
            .ports
            .iter()
            .filter_map(|p| Some((p.port, self.resolve_port(&p.target())?)))
            .collect();
        (!ports.is_empty()).then(|| Endpoint {
            service: service_name,
            workload: workload.clone(),
            addresses: self.all_addresses(),
            ports,
            tunnel: self.tunnel(),
            identity: identity.clone(),
            health: if self.ready {
                Health::Healthy
            } else {
                Health::Unhealthy
            },
            weight: self.weight,
            locality: self.locality(),
            version: labels.get(VERSION_LABEL).cloned().unwrap_or_default(),
        })
    }
}

fn check_address(text: &str, c: &mut Check<'_>) {
    match text.parse::<IpAddr>() {
        Err(_) => c.error(
            format!("\"{}\" is not an IP address", shorten(text)),
            "host names are not looked up; write the address itself",
        ),
        Ok(address) if address.is_unspecified() || address.is_multicast() => c.error(
            format!("{address} is not the address of a single host"),
            "write the address on which the workload is reached",
        ),
        Ok(_) => {}
    }
}
