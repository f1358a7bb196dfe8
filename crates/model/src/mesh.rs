//! What holds for the whole mesh, and whom it trusts.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::limits::Limits;
use crate::session;
use crate::spiffe::TrustDomain;
use crate::workload::MtlsMode;

/// Settings of the whole mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mesh {
    /// The trust domain of its own workloads.
    pub trust_domain: TrustDomain,
    /// What becomes of traffic to hosts that the mesh does not know.
    pub outbound: OutboundPolicy,
    /// Mode for workloads that no policy names.
    pub mtls: MtlsMode,
    /// Share of new traces that are sampled, from 0 to 10,000 (hundredths of a percent).
    pub trace_sampling: u32,
    /// New traces in a second that each thread of a proxy samples before the share counts.
    pub trace_reservoir: u32,
    /// What stands in the access log.
    pub access_log: AccessLog,
    /// Where services and workloads of the mesh have their addresses: an address outside these
    /// is never looked up.
    pub networks: Vec<IpNet>,
    /// Bounds for clients, where a listener has none of its own.
    pub limits: Limits,
    /// What tokens of sessions are sealed with; without one each proxy makes its own.
    pub session_key: Option<session::Key>,
}

/// What becomes of traffic to hosts that the mesh does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OutboundPolicy {
    /// It is passed on.
    #[default]
    AllowAny,
    /// It is refused.
    RegistryOnly,
}

/// What stands in the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum AccessLog {
    /// No access log is written.
    Off,
    /// Requests and connections that failed, and those that are sampled.
    #[default]
    Notable,
    /// Every request and every connection.
    All,
}

impl Default for Mesh {
    fn default() -> Self {
        Self {
            trust_domain: TrustDomain::default(),
            outbound: OutboundPolicy::default(),
            mtls: MtlsMode::default(),
            trace_sampling: 100,
            trace_reservoir: 100,
            access_log: AccessLog::default(),
            networks: Vec::new(),
            limits: Limits::default(),
            session_key: None,
        }
    }
}

/// Root certificates by trust domain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrustBundle {
    /// DER certificates of each trust domain's roots.
    pub roots: BTreeMap<TrustDomain, Vec<Vec<u8>>>,
}
