//! `ListenerPolicy` (`tulle.dev/v1alpha1`): what Gateway API has no words for on a Gateway's
//! listeners.

use std::time::Duration;

use model::gateway::{Http3, ProxyProtocol};
use serde::{Deserialize, Serialize};

use super::GATEWAY_GROUP;
use super::limits::LimitsSpec;
use crate::check::Check;
use crate::duration::Span;
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
    /// HTTP/3 on HTTPS listeners.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http3: Option<Http3Spec>,
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

/// HTTP/3 on HTTPS listeners: on where this is written, even as `{}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Http3Spec {
    /// `false` takes a listener out of what a policy for its Gateway says.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// What clients are told in `Alt-Svc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<AdvertiseSpec>,
}

/// What clients are told in `Alt-Svc`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdvertiseSpec {
    /// The port under which clients reach the listener; its own if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// How long they may remember it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Span>,
}

/// RFC 7838 3.1: what `ma` is without being written.
const MAX_AGE: Duration = Duration::from_hours(24);

fn yes() -> bool {
    true
}

impl Http3Spec {
    /// For a listener on `port`; `None` where it is turned off.
    pub(crate) fn to_model(&self, port: u16) -> Option<Http3> {
        let advertise = self.advertise.as_ref();
        self.enabled.then(|| Http3 {
            port: advertise.and_then(|a| a.port).unwrap_or(port),
            max_age: advertise
                .and_then(|a| a.max_age.as_ref())
                .map_or(MAX_AGE, Span::get),
        })
    }
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
            let port = self.http3.as_ref().and_then(|h| h.advertise.as_ref()?.port);
            if port == Some(0) {
                c.at("http3", |c| {
                    c.at("advertise", |c| {
                        let hint = "leave it out for the listener's own";
                        c.error_at("port", "must be from 1 to 65535", hint);
                    });
                });
            }
            if self.proxy_protocol.is_none()
                && self.num_trusted_hops.is_none()
                && self.http3.is_none()
                && self.limits.is_none()
            {
                c.warn(
                    "sets nothing",
                    "add `limits`, `http3`, `numTrustedHops` or `proxyProtocol`",
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
