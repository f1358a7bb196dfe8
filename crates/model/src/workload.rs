//! Workloads: running instances, as their own proxy sees them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::name::{ObjectName, ServiceName, WorkloadName};
use crate::request::Limits;
use crate::service::Protocol;
use crate::spiffe::SpiffeId;

/// A running instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Namespace and name.
    pub name: WorkloadName,
    /// Addresses, the preferred one first.
    pub addresses: Vec<IpAddr>,
    /// Ports on which it serves.
    pub ports: Vec<WorkloadPort>,
    /// Who it is.
    pub identity: SpiffeId,
    /// Labels, as the user gave them.
    pub labels: BTreeMap<String, String>,
    /// Where it is.
    pub locality: Locality,
    /// How peers reach it.
    pub tunnel: Tunnel,
    /// What it demands of those who call it.
    pub mtls: Mtls,
    /// How many requests it takes.
    pub limits: Vec<PortLimits>,
}

/// How many requests some ports of a workload take: those of a service that has a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortLimits {
    /// Name of the policy that says so.
    pub policy: ObjectName,
    /// Whose requests it is about.
    pub service: ServiceName,
    /// The workload's ports, in order.
    pub ports: Vec<u16>,
    /// What it says.
    pub limits: Limits,
}

/// A port of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadPort {
    /// Name; may be empty.
    pub name: String,
    /// Number on which the application listens.
    pub number: u16,
    /// What is spoken there.
    pub protocol: Protocol,
}

/// Region and zone; empty where unknown.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Locality {
    /// Region.
    pub region: String,
    /// Zone within the region.
    pub zone: String,
}

/// How traffic to a workload is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Tunnel {
    /// As it is: the workload has no proxy.
    #[default]
    None,
    /// Mutual TLS to this port, where a Tulle proxy takes both its direct forms and HBONE.
    Tulle {
        /// Port of the proxy's inbound listener.
        port: u16,
    },
    /// Mutual TLS and HTTP/2 CONNECT to this port.
    Hbone {
        /// Port of the tunnel.
        port: u16,
    },
}

/// Which callers a workload takes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mtls {
    /// For ports without a mode of their own.
    pub mode: MtlsMode,
    /// By port number of the workload.
    pub ports: BTreeMap<u16, MtlsMode>,
}

/// Whether plain text is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MtlsMode {
    /// Mutual TLS only.
    #[default]
    Strict,
    /// Mutual TLS and plain text, for migration.
    Permissive,
    /// Plain text only.
    Disable,
}

impl Mtls {
    /// The mode that holds for a port.
    pub fn for_port(&self, port: u16) -> MtlsMode {
        self.ports.get(&port).copied().unwrap_or(self.mode)
    }
}
