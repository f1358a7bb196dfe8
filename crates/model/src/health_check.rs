//! Active health checks: what is asked of endpoints, whether requests come or not. The settings are
//! Envoy's, by other names.

use std::ops::RangeInclusive;
use std::time::Duration;

/// How endpoints are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// From one check to the next.
    pub interval: Duration,
    /// For one check, its connection included.
    pub timeout: Duration,
    /// Checks in a row that an unhealthy endpoint must pass.
    pub healthy_threshold: u32,
    /// Checks in a row that a healthy one must fail.
    pub unhealthy_threshold: u32,
}

impl HealthCheck {
    /// From one check to the next, where nobody said otherwise.
    pub const INTERVAL: Duration = Duration::from_secs(5);
    /// For one check, where nobody said otherwise.
    pub const TIMEOUT: Duration = Duration::from_secs(1);
    /// Checks to pass, where nobody said otherwise.
    pub const HEALTHY_THRESHOLD: u32 = 2;
    /// Checks to fail, where nobody said otherwise.
    pub const UNHEALTHY_THRESHOLD: u32 = 3;
}

/// What is asked of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// A GET request.
    Http(HttpProbe),
    /// `grpc.health.v1.Health/Check` for this service; empty for the whole server.
    Grpc(String),
    /// That it takes a connection.
    Tcp,
}

/// A GET request and what counts as an answer to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpProbe {
    /// Its path, with query.
    pub path: String,
    /// The host that it names; `None`: the service's.
    pub host: Option<String>,
    /// Statuses that pass, never none.
    pub statuses: Vec<RangeInclusive<u16>>,
}

impl HttpProbe {
    /// Whether a status passes.
    pub fn takes(&self, status: u16) -> bool {
        self.statuses.iter().any(|range| range.contains(&status))
    }
}
