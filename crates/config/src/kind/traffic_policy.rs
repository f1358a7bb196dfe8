//! `TrafficPolicy` (`tulle.dev/v1alpha1`): how a Service's clients reach its endpoints.
//!
//! One object becomes one policy of the model for each target; merging policies of several objects
//! is the proxy's business, which of them wins a setting is reported on their status.

use std::collections::BTreeMap;
use std::time::Duration;

use model::traffic::{self, FallbackOn, TrafficPolicy};
use model::{ObjectName, ServiceName, retry};
use serde::{Deserialize, Serialize};

use crate::check::Check;
use crate::duration::Span;
use crate::kind::balancing::LoadBalancer;
use crate::kind::health_check::HealthCheck;
use crate::kind::http_route::check_attempts;
use crate::kind::overload::{AdaptiveConcurrency, LoadShedding};
use crate::reference::{TargetRef, check_targets, shorten};
use crate::suggest;

/// `spec` of a `TrafficPolicy`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrafficPolicySpec {
    /// The Services that it is for.
    #[serde(default)]
    pub target_refs: Vec<TargetRef>,
    /// How an endpoint is chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancer>,
    /// Bounds on connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<Connections>,
    /// When an endpoint is left alone for a while.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outlier_detection: Option<OutlierDetection>,
    /// Whether endpoints are checked without a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// Bounds on time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
    /// Retries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retries>,
    /// More than one try at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hedging: Option<Hedging>,
    /// A limit on requests at once that finds itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adaptive_concurrency: Option<AdaptiveConcurrency>,
    /// Which requests go first when there are too many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_shedding: Option<LoadShedding>,
    /// What is answered instead of a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
}

/// What is answered instead of a failure: by another Service, or where that fails too (or none is
/// named) always the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fallback {
    /// Failures, any of which suffices.
    #[serde(default)]
    pub on: Vec<String>,
    /// Another Service of the same namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend_ref: Option<FallbackBackend>,
    /// The last good answer to the same request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
    /// Always the same answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<StaticResponse>,
}

/// The last good answer to the same request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cache {
    /// If it is not older than this.
    pub max_age: Span,
}

/// Another Service of the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FallbackBackend {
    /// Its name.
    pub name: String,
    /// Its port.
    pub port: u16,
}

/// An answer that needs nobody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticResponse {
    /// Its status.
    #[serde(default = "ok")]
    pub status: u16,
    /// Its fields.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub headers: BTreeMap<String, String>,
    /// Its content.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub body: String,
}

fn ok() -> u16 {
    200
}

/// When a request without an answer is sent to a second endpoint beside the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hedging {
    /// Without an answer for so long.
    pub delay: Span,
    /// Tries beside the first.
    #[serde(default = "one")]
    pub max: u32,
}

fn one() -> u32 {
    1
}

/// Bounds on connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Connections {
    /// To connect, TLS included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<Span>,
    /// After which an unused connection is closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Span>,
    /// Connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// Requests in flight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_requests: Option<u32>,
    /// Requests that wait for a connection; 0: none does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_pending_requests: Option<u32>,
    /// Requests on one connection, after which it is closed; 0 for no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_requests_per_connection: Option<u32>,
    /// Retries in flight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<u32>,
    /// The PROXY header with which connections begin, to say whom they are made for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyVersion>,
}

/// A version of the PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// When an endpoint is left alone for a while.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OutlierDetection {
    /// Statuses of 500 to 599 in a row; 0 switches it off.
    #[serde(rename = "consecutive5xx")]
    pub consecutive_5xx: u32,
    /// Failed connections, resets and 502, 503, 504 in a row; 0 switches it off.
    pub consecutive_gateway_errors: u32,
    /// Failed connections, resets and timeouts in a row, told apart from answers; 0 switches it off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consecutive_local_origin_failures: Option<u32>,
    /// How often rates are compared.
    pub interval: Span,
    /// Ejects those that succeed less often than the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success_rate: Option<SuccessRate>,
    /// Ejects those that fail more often than so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_percentage: Option<FailurePercentage>,
    /// Length of the first ejection.
    pub base_ejection_time: Span,
    /// Share of the endpoints that may be ejected at once.
    pub max_ejection_percent: u32,
}

/// Ejects endpoints that succeed less often than the others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SuccessRate {
    /// Endpoints with enough requests that there must be.
    pub minimum_hosts: u32,
    /// Requests in an interval without which an endpoint is not looked at.
    pub minimum_requests: u32,
    /// Standard deviations below the mean.
    pub stdev_factor: f64,
}

/// Ejects endpoints that fail more often than so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FailurePercentage {
    /// Share of failures, in percent.
    pub threshold: u32,
    /// Endpoints with enough requests that there must be.
    pub minimum_hosts: u32,
    /// Requests in an interval without which an endpoint is not looked at.
    pub minimum_requests: u32,
}

impl Default for SuccessRate {
    fn default() -> Self {
        let model = traffic::SuccessRate::default();
        Self {
            minimum_hosts: model.minimum_hosts,
            minimum_requests: model.minimum_requests,
            stdev_factor: f64::from(model.stdev_factor) / 1000.0,
        }
    }
}

impl Default for FailurePercentage {
    fn default() -> Self {
        let model = traffic::FailurePercentage::default();
        Self {
            threshold: model.threshold,
            minimum_hosts: model.minimum_hosts,
            minimum_requests: model.minimum_requests,
        }
    }
}

impl Default for OutlierDetection {
    fn default() -> Self {
        let model = traffic::OutlierDetection::default();
        Self {
            consecutive_5xx: model.consecutive_5xx,
            consecutive_gateway_errors: model.consecutive_gateway_errors,
            consecutive_local_origin_failures: None,
            interval: Span::from(model.interval),
            success_rate: None,
            failure_percentage: None,
            base_ejection_time: Span::from(model.base_ejection_time),
            max_ejection_percent: model.max_ejection_percent,
        }
    }
}

/// Bounds on time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// For the whole request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Span>,
    /// For one try.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_try: Option<Span>,
    /// Without a byte in either direction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<Span>,
}

/// Retries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Retries {
    /// Tries after the first.
    pub attempts: u32,
    /// Conditions, any of which suffices.
    pub on: Vec<Condition>,
    /// Waiting between tries.
    pub backoff: Backoff,
    /// Bound on retries as a share of the requests.
    pub budget: Budget,
}

/// A reason to try again: a word, or a status as a number or a string.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "must be a condition or a status")]
pub enum Condition {
    /// A status.
    Status(u16),
    /// A word.
    Word(String),
}

/// Waiting between tries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Backoff {
    /// Upper bound of the first wait.
    pub base: Span,
    /// Upper bound of all.
    pub max: Span,
}

/// Bound on retries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Budget {
    /// Percent of the active and recent requests.
    pub percent: u32,
    /// Retries a second that are always allowed.
    pub min_per_second: u32,
}

impl Default for Retries {
    fn default() -> Self {
        let model = retry::Policy::default();
        Self {
            attempts: model.attempts,
            on: WORDS
                .iter()
                .filter(|(_, condition)| model.on.contains(condition))
                .map(|(word, _)| Condition::Word((*word).to_owned()))
                .collect(),
            backoff: Backoff::default(),
            budget: Budget::default(),
        }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        let model = retry::Backoff::default();
        Self {
            base: Span::from(model.base),
            max: Span::from(model.max),
        }
    }
}

impl Default for Budget {
    fn default() -> Self {
        let model = retry::Budget::default();
        Self {
            percent: model.percent,
            min_per_second: model.min_per_second,
        }
    }
}

/// Words for conditions: Envoy's `retry_on` and `x-envoy-retry-grpc-on`.
const WORDS: [(&str, retry::Condition); 11] = [
    ("connect-failure", retry::Condition::ConnectFailure),
    ("reset", retry::Condition::Reset),
    ("refused-stream", retry::Condition::RefusedStream),
    ("gateway-error", retry::Condition::GatewayError),
    ("5xx", retry::Condition::ServerError),
    ("cancelled", retry::Condition::GrpcStatus(1)),
    ("deadline-exceeded", retry::Condition::GrpcStatus(4)),
    ("resource-exhausted", retry::Condition::GrpcStatus(8)),
    ("aborted", retry::Condition::GrpcStatus(10)),
    ("internal", retry::Condition::GrpcStatus(13)),
    ("unavailable", retry::Condition::GrpcStatus(14)),
];

impl TrafficPolicySpec {
    pub(crate) fn check(&self, c: &mut Check<'_>) {
        c.at("spec", |c| {
            let later = ["ExternalService", "Gateway", "HTTPRoute", "GRPCRoute"];
            check_targets(&self.target_refs, &[("", "Service")], &later, c);
            if let Ok(name) = ObjectName::new("default", "check") {
                self.to_model(name.clone(), name, None, 0, c);
            }
        });
    }

    /// The policy as attached to one Service; the check stands at `spec`.
    pub(crate) fn to_model(
        &self,
        name: ObjectName,
        target: ServiceName,
        port: Option<u16>,
        created: u64,
        c: &mut Check<'_>,
    ) -> TrafficPolicy {
        let namespace = name.namespace().to_owned();
        let namespace = namespace.as_str();
        TrafficPolicy {
            name,
            target,
            port,
            created,
            load_balancer: self
                .load_balancer
                .as_ref()
                .map(|x| c.at("loadBalancer", |c| x.to_model(c))),
            connections: self
                .connections
                .as_ref()
                .map(|x| c.at("connections", |c| x.to_model(c)))
                .unwrap_or_default(),
            outlier_detection: self
                .outlier_detection
                .as_ref()
                .map(|x| c.at("outlierDetection", |c| x.to_model(c))),
            timeouts: self
                .timeouts
                .as_ref()
                .map(|x| c.at("timeouts", |c| x.to_model(c)))
                .unwrap_or_default(),
            retries: self
                .retries
                .as_ref()
                .map(|x| c.at("retries", |c| x.to_model(c))),
            health_check: self
                .health_check
                .as_ref()
                .and_then(|x| c.at("healthCheck", |c| x.to_model(c))),
            hedging: self
                .hedging
                .as_ref()
                .map(|x| c.at("hedging", |c| x.to_model(c))),
            adaptive_concurrency: self
                .adaptive_concurrency
                .as_ref()
                .and_then(|x| c.at("adaptiveConcurrency", |c| x.to_model(c))),
            load_shedding: self
                .load_shedding
                .as_ref()
                .and_then(|x| c.at("loadShedding", |c| x.to_model(c))),
            fallback: self
                .fallback
                .as_ref()
                .map(|x| c.at("fallback", |c| x.to_model(namespace, c))),
        }
    }

    /// The names of the settings that it makes, for reporting which are overridden.
    pub(crate) fn settings(&self) -> Vec<&'static str> {
        let connections = self.connections.as_ref();
        let timeouts = self.timeouts.as_ref();
        [
            ("loadBalancer", self.load_balancer.is_some()),
            (
                "connections.connectTimeout",
                connections.is_some_and(|x| x.connect_timeout.is_some()),
            ),
            (
                "connections.idleTimeout",
                connections.is_some_and(|x| x.idle_timeout.is_some()),
            ),
            (
                "connections.maxConnections",
                connections.is_some_and(|x| x.max_connections.is_some()),
            ),
            (
                "connections.maxRequests",
                connections.is_some_and(|x| x.max_requests.is_some()),
            ),
            (
                "connections.maxPendingRequests",
                connections.is_some_and(|x| x.max_pending_requests.is_some()),
            ),
            (
                "connections.maxRequestsPerConnection",
                connections.is_some_and(|x| x.max_requests_per_connection.is_some()),
            ),
            (
                "connections.maxRetries",
                connections.is_some_and(|x| x.max_retries.is_some()),
            ),
            (
                "connections.proxyProtocol",
                connections.is_some_and(|x| x.proxy_protocol.is_some()),
            ),
            ("outlierDetection", self.outlier_detection.is_some()),
            (
                "timeouts.request",
                timeouts.is_some_and(|x| x.request.is_some()),
            ),
            (
                "timeouts.perTry",
                timeouts.is_some_and(|x| x.per_try.is_some()),
            ),
            ("timeouts.idle", timeouts.is_some_and(|x| x.idle.is_some())),
            ("retries", self.retries.is_some()),
            ("healthCheck", self.health_check.is_some()),
            ("hedging", self.hedging.is_some()),
            ("adaptiveConcurrency", self.adaptive_concurrency.is_some()),
            ("loadShedding", self.load_shedding.is_some()),
            ("fallback", self.fallback.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, made)| made.then_some(name))
        .collect()
    }
}

impl Connections {
    fn to_model(&self, c: &mut Check<'_>) -> traffic::Connections {
        for (field, zero) in [
            (
                "connectTimeout",
                self.connect_timeout
                    .as_ref()
                    .is_some_and(|s| s.get().is_zero()),
            ),
            ("maxConnections", self.max_connections == Some(0)),
            ("maxRequests", self.max_requests == Some(0)),
        ] {
            if zero {
                c.error_at(
                    field,
                    "must not be 0: nothing would ever get through",
                    "leave it out for the default",
                );
            }
        }
        traffic::Connections {
            connect_timeout: get(self.connect_timeout.as_ref()),
            idle_timeout: get(self.idle_timeout.as_ref()),
            max_connections: self.max_connections,
            max_requests: self.max_requests,
            max_pending_requests: self.max_pending_requests,
            max_requests_per_connection: self.max_requests_per_connection,
            max_retries: self.max_retries,
            proxy_protocol: self.proxy_protocol.map(|version| match version {
                ProxyVersion::V1 => traffic::ProxyVersion::V1,
                ProxyVersion::V2 => traffic::ProxyVersion::V2,
            }),
        }
    }
}

impl OutlierDetection {
    fn to_model(&self, c: &mut Check<'_>) -> traffic::OutlierDetection {
        if self.max_ejection_percent > 100 {
            c.error_at("maxEjectionPercent", "must be from 0 to 100", "");
        }
        if self.base_ejection_time.get().is_zero() {
            c.error_at(
                "baseEjectionTime",
                "must not be 0",
                "to switch ejection off, write `maxEjectionPercent: 0`",
            );
        }
        if self.interval.get().is_zero() {
            c.error_at("interval", "must not be 0", "leave it out for 10s");
        }
        traffic::OutlierDetection {
            consecutive_5xx: self.consecutive_5xx,
            consecutive_gateway_errors: self.consecutive_gateway_errors,
            consecutive_local_origin_failures: self.consecutive_local_origin_failures,
            interval: self.interval.get(),
            success_rate: self
                .success_rate
                .as_ref()
                .map(|x| c.at("successRate", |c| x.to_model(c))),
            failure_percentage: self
                .failure_percentage
                .as_ref()
                .map(|x| c.at("failurePercentage", |c| x.to_model(c))),
            base_ejection_time: self.base_ejection_time.get(),
            max_ejection_percent: self.max_ejection_percent,
        }
    }
}

impl SuccessRate {
    fn to_model(&self, c: &mut Check<'_>) -> traffic::SuccessRate {
        // More than so many deviations below the mean there is nobody (Samuelson's inequality).
        if !(0.001..=100.0).contains(&self.stdev_factor) {
            c.error_at(
                "stdevFactor",
                "must be from 0.001 to 100",
                "1.9 is the default",
            );
        }
        check_minimum(self.minimum_hosts, self.minimum_requests, c);
        let hosts = f64::from(self.minimum_hosts.max(2));
        if self.minimum_hosts > 0 && self.stdev_factor >= (hosts - 1.0).sqrt() {
            c.warn_at(
                "stdevFactor",
                format!(
                    "of {hosts} endpoints none can be {} standard deviations below the mean",
                    self.stdev_factor
                ),
                "make it smaller, or minimumHosts larger",
            );
        }
        traffic::SuccessRate {
            minimum_hosts: self.minimum_hosts,
            minimum_requests: self.minimum_requests,
            stdev_factor: (self.stdev_factor.clamp(0.0, 100.0) * 1000.0).round() as u32,
        }
    }
}

impl FailurePercentage {
    fn to_model(&self, c: &mut Check<'_>) -> traffic::FailurePercentage {
        if !(1..=100).contains(&self.threshold) {
            c.error_at("threshold", "must be from 1 to 100", "85 is the default");
        }
        check_minimum(self.minimum_hosts, self.minimum_requests, c);
        traffic::FailurePercentage {
            threshold: self.threshold,
            minimum_hosts: self.minimum_hosts,
            minimum_requests: self.minimum_requests,
        }
    }
}

fn check_minimum(hosts: u32, requests: u32, c: &mut Check<'_>) {
    for (field, number) in [("minimumHosts", hosts), ("minimumRequests", requests)] {
        if number == 0 {
            c.error_at(field, "must be at least 1", "leave it out for the default");
        }
    }
}

impl Hedging {
    fn to_model(&self, c: &mut Check<'_>) -> traffic::Hedging {
        if self.delay.get().is_zero() {
            c.error_at(
                "delay",
                "must not be 0: each request would be sent twice",
                "write about the 95th percentile of how long an answer takes",
            );
        }
        if !(1..=5).contains(&self.max) {
            c.error_at("max", "must be from 1 to 5", "1 is the default");
        }
        traffic::Hedging {
            delay: self.delay.get(),
            max: self.max,
        }
    }
}

/// Words for failures that a fallback is for.
const FAILURES: [(&str, FallbackOn); 5] = [
    ("no-healthy-endpoint", FallbackOn::NoHealthyEndpoint),
    ("circuit-open", FallbackOn::CircuitOpen),
    ("timeout", FallbackOn::Timeout),
    ("unreachable", FallbackOn::Unreachable),
    ("5xx", FallbackOn::ServerError),
];
/// Of the content of an answer that is always the same, which each proxy keeps.
const BODY_LIMIT: usize = 64 * 1024;

impl Fallback {
    fn to_model(&self, namespace: &str, c: &mut Check<'_>) -> traffic::Fallback {
        if self.on.is_empty() {
            let words: Vec<&str> = FAILURES.iter().map(|(word, _)| *word).collect();
            let hint = format!("name some of {}", words.join(", "));
            c.error_at("on", "without a failure it is never needed", hint);
        }
        if self.backend_ref.is_none() && self.cache.is_none() && self.response.is_none() {
            c.error(
                "says nothing to fall back to",
                "add `backendRef`, `cache` or `response`",
            );
        }
        c.at_most("on", self.on.len(), FAILURES.len());
        let on = c.each("on", &self.on, |c, word| {
            let known = FAILURES.iter().find(|(known, _)| known == word);
            if known.is_none() {
                let message = format!("\"{}\" is not one of its values", shorten(word));
                let words = FAILURES.map(|(word, _)| word);
                let hint = suggest::hint(word, words);
                c.error(
                    message,
                    if hint.is_empty() {
                        format!("use {}", words.join(", "))
                    } else {
                        hint
                    },
                );
            }
            known.map(|(_, on)| *on)
        });
        let backend = self.backend_ref.as_ref().and_then(|backend| {
            c.at("backendRef", |c| {
                if backend.port == 0 {
                    c.error_at("port", "must be from 1 to 65535", "");
                }
                match ObjectName::new(namespace, &backend.name) {
                    Ok(name) => Some((name, backend.port)),
                    Err(error) => {
                        c.error_at("name", error.to_string(), "");
                        None
                    }
                }
            })
        });
        let cache = self.cache.as_ref().map(|cache| cache.max_age.get());
        if cache.is_some_and(|age| age.is_zero()) {
            c.at("cache", |c| {
                c.error_at("maxAge", "must not be 0", "1m is a good beginning");
            });
        }
        let response = self.response.as_ref();
        traffic::Fallback {
            on: on.into_iter().flatten().collect(),
            backend,
            cache,
            response: response.map(|x| c.at("response", |c| x.to_model(c))),
        }
    }
}

impl StaticResponse {
    fn to_model(&self, c: &mut Check<'_>) -> traffic::StaticResponse {
        if !(200..=599).contains(&self.status) {
            c.error_at("status", "must be from 200 to 599", "leave it out for 200");
        }
        if self.body.len() > BODY_LIMIT {
            let message = format!(
                "has {} bytes; at most {BODY_LIMIT} are kept",
                self.body.len()
            );
            c.error_at("body", message, "let a Service answer: backendRef");
        }
        c.at_most("headers", self.headers.len(), 16);
        let framing = ["content-length", "transfer-encoding", "connection"];
        for (name, value) in &self.headers {
            let lower = name.to_ascii_lowercase();
            let valid = name.parse::<http::HeaderName>().is_ok()
                && value.parse::<http::HeaderValue>().is_ok();
            if !valid || framing.contains(&lower.as_str()) {
                let message = format!("\"{}\" is no field that can be set", shorten(name));
                c.error_at("headers", message, "take it out");
            }
        }
        let header = |(name, value): (&String, &String)| (name.clone(), value.clone());
        traffic::StaticResponse {
            status: self.status,
            headers: self.headers.iter().map(header).collect(),
            body: self.body.clone(),
        }
    }
}

impl Timeouts {
    fn to_model(&self, c: &mut Check<'_>) -> traffic::Timeouts {
        let found = traffic::Timeouts {
            request: get(self.request.as_ref()),
            per_try: get(self.per_try.as_ref()),
            idle: get(self.idle.as_ref()),
        };
        if let (Some(all), Some(one)) = (found.request, found.per_try)
            && !all.is_zero()
            && one > all
        {
            c.error_at(
                "perTry",
                "is longer than `request`, which ends first",
                "make it at most as long",
            );
        }
        found
    }
}

impl Retries {
    fn to_model(&self, c: &mut Check<'_>) -> retry::Policy {
        check_attempts(self.attempts, c);
        c.at_most("on", self.on.len(), 32);
        if self.on.is_empty() && self.attempts > 0 {
            c.error_at(
                "on",
                "without a condition nothing is ever tried again",
                "leave it out for the default, or write `attempts: 0`",
            );
        }
        let on = c.each("on", &self.on, |c, condition| condition.to_model(c));
        let backoff = retry::Backoff {
            base: self.backoff.base.get(),
            max: self.backoff.max.get(),
        };
        if backoff.base > backoff.max {
            c.at("backoff", |c| {
                c.error_at(
                    "base",
                    "is longer than `max`",
                    "make `max` at least as long",
                );
            });
        }
        if self.budget.percent > 100 {
            c.at("budget", |c| {
                c.error_at("percent", "must be from 0 to 100", "");
            });
        }
        retry::Policy {
            attempts: self.attempts,
            on: on.into_iter().flatten().collect(),
            backoff,
            budget: retry::Budget {
                percent: self.budget.percent,
                min_per_second: self.budget.min_per_second,
            },
        }
    }
}

impl Condition {
    fn to_model(&self, c: &mut Check<'_>) -> Option<retry::Condition> {
        let word = match self {
            Self::Status(status) => return retry_status(*status, c),
            Self::Word(word) => word,
        };
        if let Some((_, condition)) = WORDS.iter().find(|(w, _)| w == word) {
            return Some(*condition);
        }
        if let Ok(status) = word.parse() {
            return retry_status(status, c);
        }
        let words = WORDS.map(|(w, _)| w);
        let hint = match suggest::hint(word, words) {
            hint if hint.is_empty() => format!("use a status, or {}", words.join(", ")),
            hint => hint,
        };
        c.error(format!("\"{}\" is not a condition", shorten(word)), hint);
        None
    }
}

fn retry_status(status: u16, c: &mut Check<'_>) -> Option<retry::Condition> {
    if (400..600).contains(&status) {
        Some(retry::Condition::Status(status))
    } else {
        c.error(
            format!("{status} is not a status of a failure"),
            "use 400 to 599",
        );
        None
    }
}

fn get(span: Option<&Span>) -> Option<Duration> {
    span.map(Span::get)
}
