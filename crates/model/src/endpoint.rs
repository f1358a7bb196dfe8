//! Endpoints: one workload as a member of one service, as its clients see it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::name::{ServiceName, WorkloadName};
use crate::spiffe::SpiffeId;
use crate::workload::{Locality, Tunnel};

/// A workload that serves a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The service it belongs to.
    pub service: ServiceName,
    /// The workload behind it.
    pub workload: WorkloadName,
    /// Where to connect, the preferred address first.
    pub addresses: Vec<IpAddr>,
    /// From the service's port to the workload's.
    pub ports: BTreeMap<u16, u16>,
    /// How to connect.
    pub tunnel: Tunnel,
    /// Whom to expect there.
    pub identity: SpiffeId,
    /// Whether it may be chosen, as the control plane knows.
    pub health: Health,
    /// Share of traffic relative to the others; at least 1.
    pub weight: u32,
    /// Where it is.
    pub locality: Locality,
    /// Value of the `version` label, for metrics; may be empty.
    pub version: String,
}

/// What the control plane knows of an endpoint's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Health {
    /// May be chosen.
    #[default]
    Healthy,
    /// Not to be chosen.
    Unhealthy,
    /// No new connections; those in flight may end.
    Draining,
}
