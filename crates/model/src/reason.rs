//! Why the proxy answered in an application's stead: a closed list.
//!
//! The same word stands in the response's `Proxy-Status` (RFC 9209), the access log, the metric
//! label and the span. docs/reasons.md is made from this file.

use std::fmt;

/// Why a request or connection failed in the proxy's hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[expect(
    missing_docs,
    reason = "each is explained by `Reason::meaning`, which the reference page is made from"
)]
pub enum Reason {
    NoRoute,
    NoEndpoints,
    NoHealthyEndpoints,
    ConnectRefused,
    ConnectTimeout,
    TlsFailed,
    IdentityMismatch,
    UpstreamReset,
    RequestTimeout,
    TryTimeout,
    StreamIdleTimeout,
    RetriesExhausted,
    CircuitOpen,
    Overloaded,
    RateLimited,
    Denied,
    Unauthenticated,
    FaultInjected,
    BadRequest,
    HeaderTooLarge,
    BodyTooLarge,
    ClientDisconnected,
    Draining,
    ConfigMissing,
    ExtensionFailed,
    Internal,
}

struct Entry {
    word: &'static str,
    status: u16,
    error: &'static str,
    meaning: &'static str,
    remedy: &'static str,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 26] = [
        Self::NoRoute,
        Self::NoEndpoints,
        Self::NoHealthyEndpoints,
        Self::ConnectRefused,
        Self::ConnectTimeout,
        Self::TlsFailed,
        Self::IdentityMismatch,
        Self::UpstreamReset,
        Self::RequestTimeout,
        Self::TryTimeout,
        Self::StreamIdleTimeout,
        Self::RetriesExhausted,
        Self::CircuitOpen,
        Self::Overloaded,
        Self::RateLimited,
        Self::Denied,
        Self::Unauthenticated,
        Self::FaultInjected,
        Self::BadRequest,
        Self::HeaderTooLarge,
        Self::BodyTooLarge,
        Self::ClientDisconnected,
        Self::Draining,
        Self::ConfigMissing,
        Self::ExtensionFailed,
        Self::Internal,
    ];

    /// The word for logs, metrics and spans.
    pub fn as_str(self) -> &'static str {
        self.entry().word
    }

    /// The reason with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.as_str() == word)
    }

    /// The HTTP status of a response made for it.
    pub fn status(self) -> u16 {
        self.entry().status
    }

    /// The proxy error type of RFC 9209, section 2.3.
    pub fn proxy_error(self) -> &'static str {
        self.entry().error
    }

    /// What happened.
    pub fn meaning(self) -> &'static str {
        self.entry().meaning
    }

    /// What to do about it.
    pub fn remedy(self) -> &'static str {
        self.entry().remedy
    }

    fn entry(self) -> Entry {
        let (word, status, error, meaning, remedy) = match self {
            Self::NoRoute => (
                "no_route",
                404,
                "destination_not_found",
                "No service or route of the mesh takes this request.",
                "Check host, port and path against `tulle get services` and `tulle get httproutes`; a host outside the mesh must be known to DNS and allowed by the MeshConfig's outboundPolicy.",
            ),
            Self::NoEndpoints => (
                "no_endpoints",
                503,
                "destination_unavailable",
                "The service exists but no workload serves it.",
                "Start a workload whose labels the service's selector names, and whose port its targetPort names.",
            ),
            Self::NoHealthyEndpoints => (
                "no_healthy_endpoints",
                503,
                "destination_unavailable",
                "Every workload of the service is unhealthy, draining or ejected.",
                "See `tulle status`; look at the workloads' own logs for why they fail.",
            ),
            Self::ConnectRefused => (
                "connect_refused",
                503,
                "connection_refused",
                "Nothing listens at the endpoint's address and port.",
                "Check that the application runs and listens on the port it was registered with.",
            ),
            Self::ConnectTimeout => (
                "connect_timeout",
                504,
                "connection_timeout",
                "The endpoint did not answer in time.",
                "Check the network between the hosts, and TrafficPolicy connections.connectTimeout.",
            ),
            Self::TlsFailed => (
                "tls_failed",
                502,
                "tls_protocol_error",
                "The TLS handshake failed.",
                "Check that both sides belong to the same mesh and that their clocks agree; see `tulle cert`.",
            ),
            Self::IdentityMismatch => (
                "identity_mismatch",
                502,
                "tls_certificate_error",
                "The peer proved an identity other than the one expected there.",
                "The address may have been given to another workload; check `tulle get workloads` and the peer's service account.",
            ),
            Self::UpstreamReset => (
                "upstream_reset",
                502,
                "connection_terminated",
                "The endpoint closed the connection before its response was complete.",
                "Look at the application's log for a crash or a keep-alive timeout shorter than the proxy's.",
            ),
            Self::RequestTimeout => (
                "request_timeout",
                504,
                "http_response_timeout",
                "The request's time was used up.",
                "Look at the trace for the slow hop; raise timeouts.request if the time is needed.",
            ),
            Self::TryTimeout => (
                "try_timeout",
                504,
                "http_response_timeout",
                "A single try took longer than allowed.",
                "Look at the slow endpoint; raise timeouts.perTry if the time is needed.",
            ),
            Self::StreamIdleTimeout => (
                "stream_idle_timeout",
                504,
                "http_response_timeout",
                "No byte passed in either direction for too long.",
                "Send keep-alives, or raise timeouts.idle.",
            ),
            Self::RetriesExhausted => (
                "retries_exhausted",
                503,
                "destination_unavailable",
                "Every allowed try failed.",
                "The details name the last failure; cure that one.",
            ),
            Self::CircuitOpen => (
                "circuit_open",
                503,
                "destination_unavailable",
                "A limit on connections or requests to the service was reached.",
                "The service is slower or busier than its TrafficPolicy connections allow; raise the limit or add workloads.",
            ),
            Self::Overloaded => (
                "overloaded",
                503,
                "connection_limit_reached",
                "The proxy itself has no room for more.",
                "Raise the proxy's limits or add instances.",
            ),
            Self::RateLimited => (
                "rate_limited",
                429,
                "http_request_denied",
                "A rate limit was reached.",
                "Slow down, or raise the limit in the RateLimitPolicy named in the details.",
            ),
            Self::Denied => (
                "denied",
                403,
                "http_request_denied",
                "A policy forbids this request.",
                "The details name the policy that decides; change it if the request should pass.",
            ),
            Self::Unauthenticated => (
                "unauthenticated",
                403,
                "http_request_denied",
                "The caller did not prove who it is.",
                "Call through a proxy of the mesh (`tulle run`), or allow plain text with AuthenticationPolicy mtls.mode Permissive.",
            ),
            Self::FaultInjected => (
                "fault_injected",
                503,
                "http_request_denied",
                "A FaultPolicy answered.",
                "Remove the FaultPolicy named in the details.",
            ),
            Self::BadRequest => (
                "bad_request",
                400,
                "http_request_error",
                "The request breaks HTTP's rules.",
                "Correct the client; the details say what is wrong.",
            ),
            Self::HeaderTooLarge => (
                "header_too_large",
                431,
                "http_request_error",
                "The request's headers are too large.",
                "Send fewer or smaller headers.",
            ),
            Self::BodyTooLarge => (
                "body_too_large",
                413,
                "http_request_error",
                "The request's body is too large.",
                "Send less, or raise the limit.",
            ),
            Self::ClientDisconnected => (
                "client_disconnected",
                499,
                "connection_terminated",
                "The client went away before the response was complete.",
                "Look at the client's timeout.",
            ),
            Self::Draining => (
                "draining",
                503,
                "destination_unavailable",
                "The proxy is about to stop and takes no new requests.",
                "Try again: another instance will answer.",
            ),
            Self::ConfigMissing => (
                "config_missing",
                503,
                "proxy_configuration_error",
                "The proxy has not yet been told about this destination.",
                "Check that the control plane runs and that this proxy is connected: `tulle status`.",
            ),
            Self::ExtensionFailed => (
                "extension_failed",
                500,
                "proxy_internal_error",
                "An extension, or a service that decides about requests, failed or did not answer in time.",
                "The details name it: see its log, and whether it runs; for a limit of the whole mesh see failureMode in the RateLimitPolicy.",
            ),
            Self::Internal => (
                "internal",
                500,
                "proxy_internal_error",
                "The proxy failed in a way it should not.",
                "Please report it, with the proxy's log.",
            ),
        };
        Entry {
            word,
            status,
            error,
            meaning,
            remedy,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod page;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_unique_and_read_back() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_word(reason.as_str()), Some(reason));
            assert!((400..600).contains(&reason.status()));
        }
    }
}
