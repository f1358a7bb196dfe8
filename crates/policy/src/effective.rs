//! What holds for a destination after all its policies are merged with the defaults.
//!
//! Precedence (GEP-713, direct attachment): a policy for the port before one for the whole
//! service; of equals the older; of equally old the alphabetically first. The merge is per field:
//! what a policy leaves out comes from the next. A rule's own timeouts and retries win over all of
//! it. Computed once per change of configuration; a request only reads the result.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use model::balancing::{LoadBalancer, LocalityMode};
use model::health_check::HealthCheck;
use model::overload::{AdaptiveConcurrency, LoadShedding};
use model::retry;
use model::route::Rule;
use model::service::Service;
use model::traffic::{Fallback, Hedging, OutlierDetection, ProxyVersion, TrafficPolicy};

/// To connect and finish the TLS handshake, where nobody said otherwise.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// After which an unused connection is closed, where nobody said otherwise.
pub const IDLE_TIMEOUT: Duration = Duration::from_mins(1);
/// Connections to a service from one proxy, where nobody said otherwise.
pub const MAX_CONNECTIONS: u32 = 1024;
/// Requests in flight to a service from one proxy, where nobody said otherwise.
pub const MAX_REQUESTS: u32 = 8192;
/// Requests that wait for a connection in one proxy, where nobody said otherwise.
pub const MAX_PENDING: u32 = 1024;

/// Everything that governs requests to one port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// How an endpoint is chosen: all of it from one policy, whose parts are made for each other.
    pub balancer: LoadBalancer,
    /// To connect and finish the TLS handshake.
    pub connect_timeout: Duration,
    /// After which an unused connection is closed; `None`: never.
    pub idle_timeout: Option<Duration>,
    /// Connections from one proxy.
    pub max_connections: u32,
    /// Requests in flight from one proxy.
    pub max_requests: u32,
    /// Requests that wait for a connection in one proxy.
    pub max_pending: u32,
    /// Requests on one connection, after which it is closed.
    pub max_per_connection: u32,
    /// Retries in flight from one proxy.
    pub max_retries: u32,
    /// The PROXY header with which connections begin.
    pub proxy_protocol: Option<ProxyVersion>,
    /// When an endpoint is left alone for a while; `None`: never.
    pub outlier: Option<OutlierDetection>,
    /// How endpoints are checked without a request; `None`: not at all.
    pub health_check: Option<Arc<HealthCheck>>,
    /// From the request's arrival to the response's end, all tries included.
    pub request_timeout: Option<Duration>,
    /// For one try.
    pub per_try_timeout: Option<Duration>,
    /// Without a byte in either direction.
    pub stream_idle: Option<Duration>,
    /// Retries.
    pub retry: retry::Policy,
    /// More than one try at once.
    pub hedging: Option<Hedging>,
    /// What is answered instead of a failure.
    pub fallback: Option<Box<Fallback>>,
    /// A limit on requests at once that finds itself.
    pub adaptive: Option<Box<AdaptiveConcurrency>>,
    /// Which requests go first when there are too many.
    pub shedding: Option<Box<LoadShedding>>,
}

/// What governs one request: a rule's own settings over its backend's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits<'a> {
    /// From the request's arrival to the response's end, all tries included.
    pub request_timeout: Option<Duration>,
    /// For one try.
    pub per_try_timeout: Option<Duration>,
    /// Without a byte in either direction.
    pub stream_idle: Option<Duration>,
    /// Retries.
    pub retry: &'a retry::Policy,
}

impl Default for Effective {
    /// What holds where there is no policy. Requests have no time limit, as in Gateway API.
    fn default() -> Self {
        Self {
            balancer: LoadBalancer::default(),
            connect_timeout: CONNECT_TIMEOUT,
            idle_timeout: Some(IDLE_TIMEOUT),
            max_connections: MAX_CONNECTIONS,
            max_requests: MAX_REQUESTS,
            max_pending: MAX_PENDING,
            max_per_connection: u32::MAX,
            max_retries: u32::MAX,
            proxy_protocol: None,
            outlier: Some(OutlierDetection::default()),
            health_check: None,
            request_timeout: None,
            per_try_timeout: None,
            stream_idle: None,
            retry: retry::Policy::default(),
            hedging: None,
            fallback: None,
            adaptive: None,
            shedding: None,
        }
    }
}

impl Effective {
    /// Merges the policies of a service as they hold for one of its ports. Policies for other
    /// ports are left out; the order of `policies` does not matter.
    pub fn merge(policies: &[Arc<TrafficPolicy>], port: u16) -> Self {
        let mut ranked: Vec<&TrafficPolicy> = policies
            .iter()
            .map(Arc::as_ref)
            .filter(|p| p.port.is_none_or(|own| own == port))
            .collect();
        ranked.sort_by_key(|p| (Reverse(p.port.is_some()), p.created, p.name.clone()));

        let first = Self::default();
        let connect_timeout = pick(&ranked, |p| p.connections.connect_timeout);
        let idle_timeout = pick(&ranked, |p| p.connections.idle_timeout);
        let outlier = pick(&ranked, |p| p.outlier_detection);
        Self {
            balancer: own(&ranked, |p| p.load_balancer.as_ref()).unwrap_or(first.balancer),
            connect_timeout: connect_timeout
                .and_then(positive)
                .unwrap_or(first.connect_timeout),
            idle_timeout: idle_timeout.map_or(first.idle_timeout, positive),
            max_connections: pick(&ranked, |p| p.connections.max_connections)
                .map_or(first.max_connections, zero_is_unlimited),
            max_requests: pick(&ranked, |p| p.connections.max_requests)
                .map_or(first.max_requests, zero_is_unlimited),
            max_pending: pick(&ranked, |p| p.connections.max_pending_requests)
                .unwrap_or(first.max_pending),
            max_per_connection: pick(&ranked, |p| p.connections.max_requests_per_connection)
                .map_or(first.max_per_connection, zero_is_unlimited),
            max_retries: pick(&ranked, |p| p.connections.max_retries).unwrap_or(first.max_retries),
            proxy_protocol: pick(&ranked, |p| p.connections.proxy_protocol),
            outlier: outlier.map_or(first.outlier, can_eject),
            health_check: own(&ranked, |p| p.health_check.as_ref()).map(Arc::new),
            request_timeout: pick(&ranked, |p| p.timeouts.request).and_then(positive),
            per_try_timeout: pick(&ranked, |p| p.timeouts.per_try).and_then(positive),
            stream_idle: pick(&ranked, |p| p.timeouts.idle).and_then(positive),
            retry: own(&ranked, |p| p.retries.as_ref()).unwrap_or(first.retry),
            hedging: pick(&ranked, |p| p.hedging).filter(|hedging| hedging.max > 0),
            fallback: own(&ranked, |p| p.fallback.as_ref()).map(Box::new),
            adaptive: pick(&ranked, |p| p.adaptive_concurrency).map(Box::new),
            shedding: own(&ranked, |p| p.load_shedding.as_ref()).map(Box::new),
        }
    }

    /// Where the endpoints of a service are looked for: where the policy says, else where the Service
    /// does.
    pub fn locality(&self, service: &Service) -> &LocalityMode {
        match &self.balancer.locality {
            Some(mode) => mode,
            None if service.near => &LocalityMode::Failover,
            None => &LocalityMode::None,
        }
    }

    /// What holds for a request that `rule` sends here; `None` where no route was involved.
    pub fn limits<'a>(&'a self, rule: Option<&'a Rule>) -> Limits<'a> {
        let own = rule.map(|r| r.timeouts).unwrap_or_default();
        Limits {
            request_timeout: own.request.map_or(self.request_timeout, positive),
            per_try_timeout: own.per_try.map_or(self.per_try_timeout, positive),
            stream_idle: self.stream_idle,
            retry: rule.and_then(|r| r.retry.as_ref()).unwrap_or(&self.retry),
        }
    }
}

fn pick<T>(ranked: &[&TrafficPolicy], field: impl Fn(&TrafficPolicy) -> Option<T>) -> Option<T> {
    ranked.iter().find_map(|p| field(p))
}

/// The same of what is not copied lightly.
fn own<T: Clone>(
    ranked: &[&TrafficPolicy],
    field: impl Fn(&TrafficPolicy) -> Option<&T>,
) -> Option<T> {
    ranked.iter().find_map(|p| field(p)).cloned()
}

/// A duration of zero means that there is no bound.
fn positive(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}

fn zero_is_unlimited(limit: u32) -> u32 {
    if limit == 0 { u32::MAX } else { limit }
}

fn can_eject(settings: OutlierDetection) -> Option<OutlierDetection> {
    let any = settings.consecutive_5xx > 0
        || settings.consecutive_gateway_errors > 0
        || settings.consecutive_local_origin_failures > Some(0)
        || settings.has_rates();
    (any && settings.max_ejection_percent > 0).then_some(settings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::balancing::Algorithm;
    use model::name::ObjectName;
    use model::route::Timeouts as RuleTimeouts;
    use model::traffic::{Connections, Timeouts};

    fn policy(name: &str, port: Option<u16>, created: u64) -> TrafficPolicy {
        TrafficPolicy {
            name: ObjectName::new("shop", name).expect("valid"),
            target: ObjectName::new("shop", "reviews").expect("valid"),
            port,
            created,
            load_balancer: None,
            connections: Connections::default(),
            outlier_detection: None,
            health_check: None,
            timeouts: Timeouts::default(),
            retries: None,
            hedging: None,
            adaptive_concurrency: None,
            load_shedding: None,
            fallback: None,
        }
    }

    fn with_request_timeout(mut policy: TrafficPolicy, seconds: u64) -> Arc<TrafficPolicy> {
        policy.timeouts.request = Some(Duration::from_secs(seconds));
        Arc::new(policy)
    }

    fn rule(timeouts: RuleTimeouts, retry: Option<retry::Policy>) -> Rule {
        Rule {
            name: None,
            matches: vec![model::route::Match::default()],
            filters: Vec::new(),
            backends: Vec::new(),
            timeouts,
            retry,
            session: None,
        }
    }

    #[test]
    fn without_a_policy_the_defaults_hold() {
        let merged = Effective::merge(&[], 80);
        assert_eq!(merged, Effective::default());
        assert_eq!(merged.request_timeout, None);
        assert!(merged.outlier.is_some());
    }

    #[test]
    fn the_port_wins_then_age_then_name() {
        let of = |policies: &[Arc<TrafficPolicy>]| {
            Effective::merge(policies, 80)
                .request_timeout
                .map(|d| d.as_secs())
        };
        let wide_old = with_request_timeout(policy("a", None, 1), 1);
        let wide_young = with_request_timeout(policy("b", None, 9), 2);
        let wide_old_later_name = with_request_timeout(policy("c", None, 1), 3);
        let port_young = with_request_timeout(policy("z", Some(80), 99), 4);
        let other_port = with_request_timeout(policy("0", Some(81), 0), 5);
        assert_eq!(of(&[wide_young.clone(), wide_old.clone()]), Some(1));
        assert_eq!(of(&[wide_old_later_name, wide_old.clone()]), Some(1));
        assert_eq!(of(&[wide_old, port_young, wide_young]), Some(4));
        assert_eq!(of(&[other_port]), None);
    }

    #[test]
    fn what_one_policy_leaves_out_comes_from_the_next() {
        let mut first = policy("a", Some(80), 5);
        first.connections.max_connections = Some(7);
        let mut second = policy("b", None, 1);
        second.connections.max_connections = Some(9);
        second.connections.max_requests = Some(0);
        second.load_balancer = Some(LoadBalancer {
            algorithm: Algorithm::Random,
            ..LoadBalancer::default()
        });
        let merged = Effective::merge(&[Arc::new(second), Arc::new(first)], 80);
        assert_eq!(merged.max_connections, 7);
        assert_eq!(merged.max_requests, u32::MAX);
        assert_eq!(merged.balancer.algorithm, Algorithm::Random);
    }

    #[test]
    fn zero_means_no_bound_and_outlier_detection_can_be_switched_off() {
        let mut off = policy("a", None, 1);
        off.connections.idle_timeout = Some(Duration::ZERO);
        off.timeouts.request = Some(Duration::ZERO);
        off.outlier_detection = Some(OutlierDetection {
            consecutive_5xx: 0,
            consecutive_gateway_errors: 0,
            ..OutlierDetection::default()
        });
        let merged = Effective::merge(&[Arc::new(off)], 80);
        assert_eq!(
            (merged.idle_timeout, merged.request_timeout, merged.outlier),
            (None, None, None)
        );
    }

    #[test]
    fn a_rule_wins_over_the_policies_and_zero_lifts_their_bound() {
        let mut base = policy("a", None, 1);
        base.timeouts.request = Some(Duration::from_secs(10));
        base.timeouts.per_try = Some(Duration::from_secs(2));
        let merged = Effective::merge(&[Arc::new(base)], 80);

        let plain = merged.limits(None);
        assert_eq!(plain.request_timeout, Some(Duration::from_secs(10)));

        let rule = rule(
            RuleTimeouts {
                request: Some(Duration::ZERO),
                per_try: None,
            },
            Some(retry::Policy::none()),
        );
        let limits = merged.limits(Some(&rule));
        assert_eq!(limits.request_timeout, None);
        assert_eq!(limits.per_try_timeout, Some(Duration::from_secs(2)));
        assert_eq!(limits.retry.attempts, 0);
    }
}
