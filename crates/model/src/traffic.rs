//! Traffic policies: how a service's clients reach its endpoints.

use std::time::Duration;

use crate::balancing::LoadBalancer;
use crate::health_check::HealthCheck;
use crate::name::{ObjectName, ServiceName};
use crate::overload::{AdaptiveConcurrency, LoadShedding};
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
    pub load_balancer: Option<LoadBalancer>,
    /// Bounds on connections.
    pub connections: Connections,
    /// When an endpoint is left alone for a while.
    pub outlier_detection: Option<OutlierDetection>,
    /// Whether endpoints are checked without a request.
    pub health_check: Option<HealthCheck>,
    /// Bounds on time.
    pub timeouts: Timeouts,
    /// Retries.
    pub retries: Option<retry::Policy>,
    /// More than one try at once.
    pub hedging: Option<Hedging>,
    /// A limit on requests at once that finds itself.
    pub adaptive_concurrency: Option<AdaptiveConcurrency>,
    /// Which requests go first when there are too many.
    pub load_shedding: Option<LoadShedding>,
    /// What is answered instead of a failure.
    pub fallback: Option<Fallback>,
}

/// What is answered instead of a failure: what the first of these can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallback {
    /// Failures, any of which suffices.
    pub on: Vec<FallbackOn>,
    /// A port of another service.
    pub backend: Option<(ServiceName, u16)>,
    /// The last good answer to the same request, if it is not older than this.
    pub cache: Option<Duration>,
    /// Always the same answer.
    pub response: Option<StaticResponse>,
}

/// A failure that a fallback is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FallbackOn {
    /// There is no endpoint, or none that may be chosen.
    NoHealthyEndpoint,
    /// A limit on connections or requests was reached.
    CircuitOpen,
    /// The time for the request or its last try was over.
    Timeout,
    /// The endpoint could not be reached, or broke the connection.
    Unreachable,
    /// The answer's status was 500 to 599.
    ServerError,
}

/// An answer that needs nobody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticResponse {
    /// Its status.
    pub status: u16,
    /// Its fields.
    pub headers: Vec<(String, String)>,
    /// Its content.
    pub body: String,
}

/// When a request without an answer is sent to a second endpoint beside the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hedging {
    /// Without an answer for so long; again after as long for each further one.
    pub delay: Duration,
    /// Tries beside the first.
    pub max: u32,
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
    /// Requests that wait for a connection when there are as many as may be.
    pub max_pending_requests: Option<u32>,
    /// Requests on one connection, after which it is closed; 0 for no bound.
    pub max_requests_per_connection: Option<u32>,
    /// Retries in flight.
    pub max_retries: Option<u32>,
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
    /// Failed connections, resets and timeouts in a row; 0 switches it off. `None`: they are not told
    /// apart from gateway errors.
    pub consecutive_local_origin_failures: Option<u32>,
    /// How often rates are compared.
    pub interval: Duration,
    /// Ejects those that succeed less often than the others.
    pub success_rate: Option<SuccessRate>,
    /// Ejects those that fail more often than so.
    pub failure_percentage: Option<FailurePercentage>,
    /// Length of the first ejection; the n-th lasts n times as long.
    pub base_ejection_time: Duration,
    /// Share of the endpoints that may be ejected at once, in percent.
    pub max_ejection_percent: u32,
}

/// Ejects endpoints whose share of successes in an interval lies below the mean of all by more than
/// so many standard deviations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SuccessRate {
    /// Endpoints with enough requests that there must be.
    pub minimum_hosts: u32,
    /// Requests in the interval without which an endpoint is not looked at.
    pub minimum_requests: u32,
    /// Standard deviations, in thousandths.
    pub stdev_factor: u32,
}

/// Ejects endpoints whose share of failures in an interval reaches a threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailurePercentage {
    /// The share, in percent.
    pub threshold: u32,
    /// Endpoints with enough requests that there must be.
    pub minimum_hosts: u32,
    /// Requests in the interval without which an endpoint is not looked at.
    pub minimum_requests: u32,
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self {
            minimum_hosts: 5,
            minimum_requests: 100,
            stdev_factor: 1900,
        }
    }
}

impl Default for FailurePercentage {
    fn default() -> Self {
        Self {
            threshold: 85,
            minimum_hosts: 5,
            minimum_requests: 50,
        }
    }
}

impl OutlierDetection {
    /// Whether rates are compared at all.
    pub fn has_rates(&self) -> bool {
        self.success_rate.is_some() || self.failure_percentage.is_some()
    }
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            consecutive_5xx: 5,
            consecutive_gateway_errors: 3,
            consecutive_local_origin_failures: None,
            interval: Duration::from_secs(10),
            success_rate: None,
            failure_percentage: None,
            base_ejection_time: Duration::from_secs(30),
            max_ejection_percent: 50,
        }
    }
}
