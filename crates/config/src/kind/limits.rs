//! `limits` of a `MeshConfig` or `ListenerPolicy`: what one client may cost.

use std::time::Duration;

use model::limits::Limits;
use serde::{Deserialize, Serialize};

use crate::check::Check;
use crate::duration::Span;
use crate::quantity::Quantity;

/// Bounds for clients; what is left out stays as it is otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LimitsSpec {
    /// Bytes of a request's header section.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_header_bytes: Option<Quantity>,
    /// Fields of a request's header section.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_header_count: Option<u32>,
    /// Bytes of a request's target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_target_bytes: Option<Quantity>,
    /// Bytes of a trailer section.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trailers_bytes: Option<Quantity>,
    /// From a request's first byte to the end of its header section.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_head_timeout: Option<Span>,
    /// For a connection on which nothing happens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Span>,
    /// For a body that makes no progress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_idle_timeout: Option<Span>,
    /// To the end of the TLS handshake.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_handshake_timeout: Option<Span>,
    /// Bytes of a request's body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_request_body_bytes: Option<Quantity>,
    /// Connections at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// Streams at once on one HTTP/2 connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrent_streams: Option<u32>,
    /// Streams of one HTTP/2 connection that were reset and are not yet wound up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_reset_streams: Option<u32>,
    /// PING and SETTINGS frames of one HTTP/2 connection in a minute, beyond those for which a request
    /// or data came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_pings_per_minute: Option<u32>,
}

/// The largest number of bytes that a head or trailers may be allowed.
const MAX_SECTION: u64 = 16 << 20;

impl LimitsSpec {
    pub(crate) fn check(&self, c: &mut Check<'_>) {
        for (field, bytes, least) in [
            ("requestHeaderBytes", &self.request_header_bytes, 1024),
            ("requestTargetBytes", &self.request_target_bytes, 256),
            ("trailersBytes", &self.trailers_bytes, 0),
        ] {
            if bytes
                .as_ref()
                .is_some_and(|b| !(least..=MAX_SECTION).contains(&b.get()))
            {
                let message = format!("must be from {least} bytes to 16Mi");
                c.error_at(field, message, "leave it out for the default");
            }
        }
        for (field, count) in [
            ("requestHeaderCount", self.request_header_count),
            ("maxConnections", self.max_connections),
            ("maxConcurrentStreams", self.max_concurrent_streams),
            ("maxPingsPerMinute", self.max_pings_per_minute),
        ] {
            if count == Some(0) {
                c.error_at(field, "must be at least 1", "leave it out for the default");
            }
        }
        for (field, span) in [
            ("requestHeadTimeout", &self.request_head_timeout),
            ("idleTimeout", &self.idle_timeout),
            ("bodyIdleTimeout", &self.body_idle_timeout),
            ("tlsHandshakeTimeout", &self.tls_handshake_timeout),
        ] {
            if span.as_ref().is_some_and(|s| s.get() == Duration::ZERO) {
                let hint = "leave it out for the default; it cannot be switched off";
                c.error_at(field, "must be longer than nothing", hint);
            }
        }
    }

    /// Puts what is written here in place of what `limits` has.
    pub(crate) fn apply(&self, limits: &mut Limits) {
        let bytes = |to: &mut u32, quantity: &Option<Quantity>| {
            if let Some(quantity) = quantity {
                *to = u32::try_from(quantity.get()).unwrap_or(u32::MAX);
            }
        };
        bytes(&mut limits.request_header_bytes, &self.request_header_bytes);
        bytes(&mut limits.request_target_bytes, &self.request_target_bytes);
        bytes(&mut limits.trailers_bytes, &self.trailers_bytes);
        let count = |to: &mut u32, number: Option<u32>| *to = number.unwrap_or(*to);
        count(&mut limits.request_header_count, self.request_header_count);
        count(&mut limits.max_connections, self.max_connections);
        let streams = self.max_concurrent_streams;
        count(&mut limits.max_concurrent_streams, streams);
        count(&mut limits.max_reset_streams, self.max_reset_streams);
        count(&mut limits.max_pings_per_minute, self.max_pings_per_minute);
        let time = |to: &mut Duration, span: &Option<Span>| {
            if let Some(span) = span {
                *to = span.get();
            }
        };
        time(&mut limits.request_head_timeout, &self.request_head_timeout);
        time(&mut limits.idle_timeout, &self.idle_timeout);
        time(&mut limits.body_idle_timeout, &self.body_idle_timeout);
        let handshake = &self.tls_handshake_timeout;
        time(&mut limits.tls_handshake_timeout, handshake);
        if let Some(quantity) = &self.max_request_body_bytes {
            limits.max_request_body_bytes = Some(quantity.get());
        }
    }
}
