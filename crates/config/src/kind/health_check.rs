//! `spec.healthCheck` of a `TrafficPolicy`: how endpoints are checked without a request.

use std::ops::RangeInclusive;
use std::time::Duration;

use model::health_check::{self, HttpProbe, Probe};
use serde::{Deserialize, Serialize};

use crate::check::Check;
use crate::duration::Span;
use crate::reference::shorten;

/// How endpoints are checked without a request; one of `http`, `grpc` and `tcp`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    /// By a GET request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// By `grpc.health.v1.Health`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcCheck>,
    /// By a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpCheck>,
    /// From one check to the next.
    #[serde(default = "interval")]
    pub interval: Span,
    /// For one check.
    #[serde(default = "timeout")]
    pub timeout: Span,
    /// Checks in a row that an unhealthy endpoint must pass.
    #[serde(default = "healthy_threshold")]
    pub healthy_threshold: u32,
    /// Checks in a row that a healthy one must fail.
    #[serde(default = "unhealthy_threshold")]
    pub unhealthy_threshold: u32,
}

/// A GET request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpCheck {
    /// Its path, with query.
    pub path: String,
    /// The host that it names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Statuses that pass: `200`, or `"200-399"`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub expected_statuses: Vec<Statuses>,
}

/// A status, or the first and last of several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "must be a status, or two with a dash between them"
)]
pub enum Statuses {
    /// One.
    One(u16),
    /// From one to another.
    Range(String),
}

/// A call of `grpc.health.v1.Health/Check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrpcCheck {
    /// The service that is asked about.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub service: String,
}

/// A connection, and nothing more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpCheck {}

fn interval() -> Span {
    health_check::HealthCheck::INTERVAL.into()
}

fn timeout() -> Span {
    health_check::HealthCheck::TIMEOUT.into()
}

fn healthy_threshold() -> u32 {
    health_check::HealthCheck::HEALTHY_THRESHOLD
}

fn unhealthy_threshold() -> u32 {
    health_check::HealthCheck::UNHEALTHY_THRESHOLD
}

/// Endpoints have other things to do.
const SHORTEST: Duration = Duration::from_millis(100);

impl HealthCheck {
    pub(crate) fn to_model(&self, c: &mut Check<'_>) -> Option<health_check::HealthCheck> {
        for (field, span) in [("interval", &self.interval), ("timeout", &self.timeout)] {
            if span.get() < SHORTEST {
                c.error_at(
                    field,
                    "must be at least 100ms",
                    "leave it out for the default",
                );
            }
        }
        for (field, number) in [
            ("healthyThreshold", self.healthy_threshold),
            ("unhealthyThreshold", self.unhealthy_threshold),
        ] {
            if !(1..=100).contains(&number) {
                c.error_at(
                    field,
                    "must be from 1 to 100",
                    "leave it out for the default",
                );
            }
        }
        let probe = match (&self.http, &self.grpc, &self.tcp) {
            (Some(http), None, None) => Probe::Http(c.at("http", |c| http.to_model(c))),
            (None, Some(grpc), None) => {
                if grpc.service.len() > 256 {
                    let message = "has more than 256 characters";
                    c.at("grpc", |c| c.error_at("service", message, ""));
                }
                Probe::Grpc(grpc.service.clone())
            }
            (None, None, Some(TcpCheck {})) => Probe::Tcp,
            _ => {
                c.error(
                    "must have one of http, grpc and tcp",
                    "`tcp: {}` only looks whether a connection is taken",
                );
                return None;
            }
        };
        Some(health_check::HealthCheck {
            probe,
            interval: self.interval.get(),
            timeout: self.timeout.get(),
            healthy_threshold: self.healthy_threshold,
            unhealthy_threshold: self.unhealthy_threshold,
        })
    }
}

impl HttpCheck {
    fn to_model(&self, c: &mut Check<'_>) -> HttpProbe {
        let graphic = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
        if !self.path.starts_with('/') || !graphic(&self.path) || self.path.len() > 1024 {
            let message = format!("\"{}\" is not a path", shorten(&self.path));
            c.error_at("path", message, "begin it with a slash");
        }
        if let Some(host) = &self.host
            && http::uri::Authority::try_from(host.as_str()).is_err()
        {
            let message = format!("\"{}\" is not a host", shorten(host));
            c.error_at("host", message, "leave it out for the Service's own");
        }
        c.at_most("expectedStatuses", self.expected_statuses.len(), 16);
        let given = c.each(
            "expectedStatuses",
            &self.expected_statuses,
            |c, statuses| {
                let range = statuses.range();
                if range.is_none() {
                    c.error(
                        "is neither a status nor a range of them",
                        "write 200, or \"200-399\"",
                    );
                }
                range
            },
        );
        let mut statuses: Vec<_> = given.into_iter().flatten().collect();
        if statuses.is_empty() {
            statuses.push(200..=200);
        }
        HttpProbe {
            path: self.path.clone(),
            host: self.host.clone(),
            statuses,
        }
    }
}

impl Statuses {
    fn range(&self) -> Option<RangeInclusive<u16>> {
        let range = match self {
            Self::One(status) => *status..=*status,
            Self::Range(text) => {
                let (first, last) = text.split_once('-').unwrap_or((text, text));
                first.trim().parse().ok()?..=last.trim().parse().ok()?
            }
        };
        let known = 100..=599;
        let fits = known.contains(range.start()) && known.contains(range.end());
        (fits && range.start() <= range.end()).then_some(range)
    }
}
