//! `TrafficPolicy` (`tulle.dev/v1alpha1`): how a Service's clients reach its endpoints.
//!
//! One object becomes one policy of the model for each target; merging policies of several objects
//! is the proxy's business, which of them wins a setting is reported on their status.

use std::time::Duration;

use model::traffic::{self, TrafficPolicy};
use model::{ObjectName, ServiceName, retry};
use serde::{Deserialize, Serialize};

use crate::check::Check;
use crate::duration::Span;
use crate::kind::http_route::check_attempts;
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
    /// Bounds on time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
    /// Retries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retries>,
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadBalancer {
    /// The algorithm.
    #[serde(default)]
    pub algorithm: Algorithm,
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "each is the model's algorithm of the same name"
)]
pub enum Algorithm {
    #[default]
    LeastRequest,
    RoundRobin,
    Random,
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OutlierDetection {
    /// Statuses of 500 to 599 in a row; 0 switches it off.
    #[serde(rename = "consecutive5xx")]
    pub consecutive_5xx: u32,
    /// Failed connections, resets and 502, 503, 504 in a row; 0 switches it off.
    pub consecutive_gateway_errors: u32,
    /// Length of the first ejection.
    pub base_ejection_time: Span,
    /// Share of the endpoints that may be ejected at once.
    pub max_ejection_percent: u32,
}

impl Default for OutlierDetection {
    fn default() -> Self {
        let model = traffic::OutlierDetection::default();
        Self {
            consecutive_5xx: model.consecutive_5xx,
            consecutive_gateway_errors: model.consecutive_gateway_errors,
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
        TrafficPolicy {
            name,
            target,
            port,
            created,
            load_balancer: self.load_balancer.as_ref().map(|lb| match lb.algorithm {
                Algorithm::LeastRequest => traffic::Algorithm::LeastRequest,
                Algorithm::RoundRobin => traffic::Algorithm::RoundRobin,
                Algorithm::Random => traffic::Algorithm::Random,
            }),
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
        traffic::OutlierDetection {
            consecutive_5xx: self.consecutive_5xx,
            consecutive_gateway_errors: self.consecutive_gateway_errors,
            base_ejection_time: self.base_ejection_time.get(),
            max_ejection_percent: self.max_ejection_percent,
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
