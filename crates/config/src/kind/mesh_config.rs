//! `MeshConfig` (`tulle.dev/v1alpha1`): what holds for the whole mesh. There is one, named `default`.

use model::limits::Limits;
use model::mesh::{AccessLog as ModelLog, Mesh, OutboundPolicy as ModelOutbound};
use model::{TrustDomain, workload::MtlsMode};
use serde::{Deserialize, Serialize};

use super::authentication_policy::Mode;
use super::limits::LimitsSpec;
use super::rate_limit_service::RateLimitServiceSpec;
use crate::check::Check;
use crate::reference::shorten;

/// `spec` of a `MeshConfig`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshConfigSpec {
    /// The trust domain of the mesh. It is the certificate authority that decides it, when it is
    /// created; one that differs is reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust_domain: Option<String>,
    /// What becomes of traffic to hosts that the mesh does not know.
    #[serde(default)]
    pub outbound_policy: OutboundPolicy,
    /// Mode for workloads that no policy names.
    #[serde(default)]
    pub mtls: MeshMtls,
    /// Traces.
    #[serde(default)]
    pub tracing: Tracing,
    /// Access logs.
    #[serde(default)]
    pub access_log: AccessLog,
    /// Bounds for clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsSpec>,
    /// Who counts for limits on requests that are the whole mesh's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimitServiceSpec>,
}

/// What becomes of traffic to hosts that the mesh does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum OutboundPolicy {
    /// It is passed on.
    #[default]
    AllowAny,
    /// It is refused.
    RegistryOnly,
}

/// Mode for workloads that no policy names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshMtls {
    /// The mode.
    #[serde(default = "strict")]
    pub mode: Mode,
}

fn strict() -> Mode {
    Mode::Strict
}

impl Default for MeshMtls {
    fn default() -> Self {
        Self { mode: strict() }
    }
}

/// Traces.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tracing {
    /// Share of new traces that are sampled, in percent, to a hundredth. Unset: see [`Tracing::shares`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_percent: Option<f64>,
    /// New traces in a second that each thread of a proxy samples before the share counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reservoir: Option<u32>,
}

impl Tracing {
    /// The share, in hundredths of a percent, and the reservoir. Who says one means just that: the
    /// other is then nothing.
    fn shares(self) -> (u32, u32) {
        let default = Mesh::default();
        let hundredths = |percent: f64| (percent * 100.0).round().clamp(0.0, 10_000.0) as u32;
        match (self.sample_percent.map(hundredths), self.reservoir) {
            (None, None) => (default.trace_sampling, default.trace_reservoir),
            (share, reservoir) => (share.unwrap_or(0), reservoir.unwrap_or(0)),
        }
    }
}

/// Access logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessLog {
    /// Whether proxies write one.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// What stands in it.
    #[serde(default)]
    pub requests: LoggedRequests,
    /// Its format.
    #[serde(default)]
    pub format: LogFormat,
}

fn yes() -> bool {
    true
}

impl Default for AccessLog {
    fn default() -> Self {
        Self {
            enabled: true,
            requests: LoggedRequests::default(),
            format: LogFormat::Json,
        }
    }
}

/// What stands in the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum LoggedRequests {
    /// Requests and connections that failed, and those that are sampled for traces.
    #[default]
    Notable,
    /// All.
    All,
}

/// Format of the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
}

impl MeshConfigSpec {
    pub(crate) fn check(&self, name: &str, c: &mut Check<'_>) {
        if name != "default" {
            c.at("metadata", |c| {
                c.error_at(
                    "name",
                    "there is one MeshConfig, named \"default\"",
                    "write \"default\"",
                );
            });
        }
        c.at("spec", |c| {
            c.at("trustDomain", Check::mark);
            if let Some(domain) = &self.trust_domain
                && TrustDomain::new(domain).is_err()
            {
                let message = format!("\"{}\" is not a trust domain", shorten(domain));
                c.error_at(
                    "trustDomain",
                    message,
                    "use lower-case letters, digits, '.', '-' and '_'",
                );
            }
            if let Some(limits) = &self.limits {
                c.at("limits", |c| limits.check(c));
            }
            if let Some(service) = &self.rate_limit {
                c.at("rateLimit", |c| service.check(None, c));
            }
            let percent = self.tracing.sample_percent.unwrap_or(0.0);
            if !(0.0..=100.0).contains(&percent) {
                c.at("tracing", |c| {
                    c.error_at("samplePercent", "must be from 0 to 100", "");
                });
            }
        });
    }

    /// The mode for workloads that no policy names.
    pub(crate) fn mtls_mode(&self) -> MtlsMode {
        self.mtls.mode.into()
    }

    pub(crate) fn to_model(&self, defaults: &crate::translate::Defaults) -> Mesh {
        let mut limits = Limits::default();
        if let Some(spec) = &self.limits {
            spec.apply(&mut limits);
        }
        let (trace_sampling, trace_reservoir) = self.tracing.shares();
        Mesh {
            trust_domain: defaults.trust_domain.clone(),
            outbound: match self.outbound_policy {
                OutboundPolicy::AllowAny => ModelOutbound::AllowAny,
                OutboundPolicy::RegistryOnly => ModelOutbound::RegistryOnly,
            },
            mtls: self.mtls_mode(),
            trace_sampling,
            trace_reservoir,
            access_log: match (self.access_log.enabled, self.access_log.requests) {
                (false, _) => ModelLog::Off,
                (true, LoggedRequests::Notable) => ModelLog::Notable,
                (true, LoggedRequests::All) => ModelLog::All,
            },
            networks: defaults.networks.clone(),
            limits,
            session_key: defaults.session_key.clone(),
        }
    }
}
