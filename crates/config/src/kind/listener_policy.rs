//! `ListenerPolicy` (`tulle.dev/v1alpha1`): what Gateway API has no words for on a Gateway's
//! listeners.

use model::gateway::ProxyProtocol;
use serde::{Deserialize, Serialize};

use super::GATEWAY_GROUP;
use super::limits::LimitsSpec;
use crate::check::Check;
use crate::reference::{TargetRef, check_targets};

/// More proxies than anybody has in a row.
const MOST_HOPS: u32 = 32;

/// `spec` of a `ListenerPolicy`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerPolicySpec {
    /// The Gateways, or listeners of them by `sectionName`.
    #[serde(default)]
    pub target_refs: Vec<TargetRef>,
    /// Whether connections begin with a PROXY header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocolSpec>,
    /// Proxies in front of the listener that are believed about whom a request comes from: as many
    /// of the last entries of `X-Forwarded-For`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_trusted_hops: Option<u32>,
    /// Bounds for clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsSpec>,
}

/// Whether connections begin with a PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyProtocolSpec {
    /// Whether they do.
    pub mode: ProxyProtocolMode,
}

/// Whether connections begin with a PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ProxyProtocolMode {
    /// They do not.
    #[default]
    Off,
    /// They may. Anybody who can connect can then claim any address.
    Accept,
    /// They must.
    Require,
}

impl ListenerPolicySpec {
    pub(crate) fn check(&self, c: &mut Check<'_>) {
        c.at("spec", |c| {
            check_targets(&self.target_refs, &[(GATEWAY_GROUP, "Gateway")], &[], c);
            if let Some(limits) = &self.limits {
                c.at("limits", |c| limits.check(c));
            }
            if self.num_trusted_hops.is_some_and(|hops| hops > MOST_HOPS) {
                let message = format!("must be at most {MOST_HOPS}");
                c.error_at(
                    "numTrustedHops",
                    message,
                    "count the proxies in front of Tulle",
                );
            }
            if self.proxy_protocol.is_none()
                && self.num_trusted_hops.is_none()
                && self.limits.is_none()
            {
                c.warn(
                    "sets nothing",
                    "add `limits`, `numTrustedHops` or `proxyProtocol`",
                );
            }
        });
    }
}

impl From<ProxyProtocolMode> for ProxyProtocol {
    fn from(mode: ProxyProtocolMode) -> Self {
        match mode {
            ProxyProtocolMode::Off => Self::Off,
            ProxyProtocolMode::Accept => Self::Accept,
            ProxyProtocolMode::Require => Self::Require,
        }
    }
}
