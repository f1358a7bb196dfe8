//! Retries: on what, how often, how soon.

use std::time::Duration;

/// When and how a failed try is repeated. Envoy's `retry_policy` is the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Tries after the first; 0 switches retries off.
    pub attempts: u32,
    /// Conditions, any of which suffices.
    pub on: Vec<Condition>,
    /// Waiting before the first and, doubled each time, the later retries; jittered.
    pub backoff: Backoff,
    /// Bound on retries as a share of the requests to a destination.
    pub budget: Budget,
}

/// A reason to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Condition {
    /// No connection could be made: nothing was sent.
    ConnectFailure,
    /// The connection or stream ended before a response began.
    Reset,
    /// The server refused the stream without looking at it (HTTP/2 `REFUSED_STREAM`, or a
    /// connection that was closing).
    RefusedStream,
    /// Status 502, 503 or 504.
    GatewayError,
    /// Any status of 500 to 599.
    ServerError,
    /// This status.
    Status(u16),
    /// This gRPC status code in the response's headers.
    GrpcStatus(u8),
}

/// Waiting between tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Upper bound of the first wait; the actual one is drawn evenly from zero to it.
    pub base: Duration,
    /// Largest bound.
    pub max: Duration,
}

/// Retries allowed beside ordinary requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Percent of the active and recent requests that may be retries.
    pub percent: u32,
    /// Retries a second that are always allowed.
    pub min_per_second: u32,
}

impl Default for Policy {
    /// What holds where nobody said otherwise: two more tries where the first cannot have had an
    /// effect, and, for idempotent methods, where the connection broke or the peer's proxy said
    /// that it could not deliver.
    fn default() -> Self {
        Self {
            attempts: 2,
            on: vec![
                Condition::ConnectFailure,
                Condition::RefusedStream,
                Condition::Reset,
            ],
            backoff: Backoff::default(),
            budget: Budget::default(),
        }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(25),
            max: Duration::from_millis(250),
        }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            percent: 20,
            min_per_second: 10,
        }
    }
}

impl Policy {
    /// No retries at all.
    pub fn none() -> Self {
        Self {
            attempts: 0,
            on: Vec::new(),
            ..Self::default()
        }
    }
}
