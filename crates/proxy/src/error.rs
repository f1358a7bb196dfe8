//! Why a request or connection failed, whose fault it was and whether it may be tried again.
//!
//! This is the only place where a cause becomes a [`Reason`]; status, `Proxy-Status`, metric label
//! and log line follow from that.

use std::fmt;

use model::Reason;
use net::socket::ConnectError;
use net::tls::TlsError;
use wire::Fields;
use wire::h1::{BodyError, HeadError};

use crate::headers::PEER_FAILURE;

/// Whose side a failure is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The client's.
    Downstream,
    /// The endpoint's, or the network's on the way there.
    Upstream,
    /// The proxy's own, or its configuration's.
    Internal,
}

/// Whether a failed try may be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replay {
    /// The endpoint has not seen the request.
    Safe,
    /// The connection was an old one that broke: the endpoint has almost surely not seen the
    /// request, but only idempotent requests are worth that bet.
    IfIdempotent,
    /// It would be of no use.
    No,
}

/// A failure in the proxy's hands.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) reason: Reason,
    /// Of the last try, where the reason is that there were too many.
    pub(crate) cause: Reason,
    pub(crate) side: Side,
    pub(crate) replay: Replay,
    pub(crate) details: String,
    /// The HTTP status, where it is not the reason's own.
    pub(crate) own_status: Option<u16>,
    pub(crate) manner: Manner,
}

/// How a client is told, where its reason does not say.
#[derive(Debug, Clone, Default)]
pub(crate) enum Manner {
    #[default]
    Usual,
    /// With this gRPC status, if it speaks gRPC.
    Grpc(u8),
    /// With these fields beside the usual ones.
    With(Box<Fields>),
    /// Not at all: its stream or connection ends.
    Reset,
}

impl Failure {
    pub(crate) fn new(reason: Reason, details: impl Into<String>) -> Self {
        Self {
            reason,
            cause: reason,
            side: side_of(reason),
            replay: Replay::No,
            details: details.into(),
            own_status: None,
            manner: Manner::Usual,
        }
    }

    /// A rule that sends requests nowhere: Gateway API wants 500 for those (HTTPRoute,
    /// `backendRefs`), not the 404 of a request that no rule takes.
    pub(crate) fn no_backend(details: impl Into<String>) -> Self {
        Self {
            own_status: Some(500),
            ..Self::new(Reason::NoRoute, details)
        }
    }

    /// A request that came over a connection that is not for its host (RFC 9110 15.5.20).
    pub(crate) fn misdirected(details: impl Into<String>) -> Self {
        Self {
            own_status: Some(421),
            ..Self::new(Reason::NoRoute, details)
        }
    }

    /// The HTTP status of a response made for it.
    pub(crate) fn status(&self) -> u16 {
        self.own_status.unwrap_or_else(|| self.reason.status())
    }

    pub(crate) fn replay(mut self, replay: Replay) -> Self {
        self.replay = replay;
        self
    }

    pub(crate) fn connect(error: &ConnectError, to: impl fmt::Display) -> Self {
        let reason = match error {
            ConnectError::Timeout(..) => Reason::ConnectTimeout,
            _ => Reason::ConnectRefused,
        };
        Self::new(reason, format!("connecting to {to}: {}", chain(error))).replay(Replay::Safe)
    }

    pub(crate) fn tls(error: &TlsError, to: impl fmt::Display) -> Self {
        let reason = match error {
            TlsError::Timeout(_) => Reason::ConnectTimeout,
            TlsError::IdentityMismatch(_) => Reason::IdentityMismatch,
            _ => Reason::TlsFailed,
        };
        Self::new(reason, format!("TLS with {to}: {}", chain(error))).replay(Replay::Safe)
    }

    /// What a peer's proxy tells with its response, to be read by [`Failure::of_peer`].
    pub(crate) fn for_peer(&self) -> String {
        let replay = match self.replay {
            Replay::IfIdempotent => "if-idempotent",
            Replay::No if self.side == Side::Upstream => "no",
            // Whoever asks for too much does not ask again at once, nor elsewhere; and where nobody
            // decides, more questions do not help.
            Replay::No if matches!(self.reason, Reason::RateLimited | Reason::ExtensionFailed) => {
                "no"
            }
            // Refused by the proxy itself: the application has not seen it.
            Replay::Safe | Replay::No => "safe",
        };
        format!("{} {replay}", self.reason)
    }

    /// The failure that a peer's proxy tells of, if its response is one.
    pub(crate) fn of_peer(fields: &Fields) -> Option<Self> {
        let (reason, replay) = fields.get_str(PEER_FAILURE)?.split_once(' ')?;
        let replay = match replay {
            "safe" => Replay::Safe,
            "if-idempotent" => Replay::IfIdempotent,
            _ => Replay::No,
        };
        Some(Self::new(Reason::from_word(reason)?, "told by the peer's proxy").replay(replay))
    }

    /// A request's head that is none.
    pub(crate) fn head(error: &HeadError) -> Self {
        let status = error.status();
        let reason = match status {
            414 | 431 => Reason::HeaderTooLarge,
            _ => Reason::BadRequest,
        };
        Self {
            own_status: Some(status),
            ..Self::new(reason, error.to_string())
        }
    }

    /// A client that takes too long: 408 (RFC 9110 15.5.9), as Envoy answers it too.
    pub(crate) fn too_slow(details: String) -> Self {
        Self {
            side: Side::Downstream,
            own_status: Some(408),
            ..Self::new(Reason::StreamIdleTimeout, details)
        }
    }

    /// A request's body that is not what its head says.
    pub(crate) fn request_body(error: &BodyError) -> Self {
        match error {
            BodyError::Truncated => Self::new(
                Reason::ClientDisconnected,
                "before its request was complete",
            ),
            _ => Self::new(Reason::BadRequest, format!("the request's body: {error}")),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.details)
    }
}

fn side_of(reason: Reason) -> Side {
    match reason {
        Reason::BadRequest
        | Reason::HeaderTooLarge
        | Reason::BodyTooLarge
        | Reason::ClientDisconnected
        | Reason::RateLimited
        | Reason::Denied
        | Reason::Unauthenticated => Side::Downstream,
        Reason::NoEndpoints
        | Reason::NoHealthyEndpoints
        | Reason::ConnectRefused
        | Reason::ConnectTimeout
        | Reason::TlsFailed
        | Reason::IdentityMismatch
        | Reason::UpstreamReset
        | Reason::RequestTimeout
        | Reason::TryTimeout
        | Reason::StreamIdleTimeout
        | Reason::RetriesExhausted => Side::Upstream,
        Reason::NoRoute
        | Reason::CircuitOpen
        | Reason::Overloaded
        | Reason::FaultInjected
        | Reason::Draining
        | Reason::ConfigMissing
        | Reason::ExtensionFailed
        | Reason::Internal => Side::Internal,
    }
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
