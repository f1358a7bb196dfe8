//! Traffic policies: how a service's clients reach its endpoints.

use std::time::Duration;

use crate::name::{ObjectName, ServiceName};
use crate::retry;

/// A `TrafficPolicy` as attached to one service. What is `None` is left to a less specific
/// policy or to the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrafficPolicy {
    /// Its own name.
    pub name: ObjectName,
    /// The service it is attached to.
    pub target: ServiceName,
    /// The service's port; `None` for all.
    pub port: Option<u16>,
    /// Seconds since 1970 at which it was created: older policies win.
    pub created: u64,
    /// How an endpoint is chosen.
    pub load_balancer: Option<Algorithm>,
    /// Bounds on connections.
    pub connections: Connections,
    /// When an endpoint is left alone for a while.
    pub outlier_detection: Option<OutlierDetection>,
    /// Bounds on time.
    pub timeouts: Timeouts,
    /// Retries.
    pub retries: Option<retry::Policy>,
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Algorithm {
    /// Of two drawn at random, the one with fewer requests in flight for its weight.
    #[default]
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
}

/// Bounds on connections and requests, for each proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Connections {
    /// To connect and finish the TLS handshake.
    pub connect_timeout: Option<Duration>,
    /// After which an unused connection is closed.
    pub idle_timeout: Option<Duration>,
    /// Connections to the service.
    pub max_connections: Option<u32>,
    /// Requests in flight.
    pub max_requests: Option<u32>,
    /// Whether connections begin with a PROXY header that says whom they are made for.
    pub proxy_protocol: Option<ProxyVersion>,
}

/// A version of the PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Bounds on time for requests to the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timeouts {
    /// As [`crate::route::Timeouts::request`].
    pub request: Option<Duration>,
    /// As [`crate::route::Timeouts::per_try`].
    pub per_try: Option<Duration>,
    /// Without a byte in either direction.
    pub idle: Option<Duration>,
}

/// When an endpoint is ejected; Envoy's `outlier_detection`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutlierDetection {
    /// Statuses of 500 to 599 in a row; 0 switches it off.
    pub consecutive_5xx: u32,
    /// Failed connections, resets and 502, 503, 504 in a row; 0 switches it off.
    pub consecutive_gateway_errors: u32,
    /// Length of the first ejection; the n-th lasts n times as long.
    pub base_ejection_time: Duration,
    /// Share of the endpoints that may be ejected at once, in percent.
    pub max_ejection_percent: u32,
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            consecutive_5xx: 5,
            consecutive_gateway_errors: 3,
            base_ejection_time: Duration::from_secs(30),
            max_ejection_percent: 50,
        }
    }
}
