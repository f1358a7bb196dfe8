//! Whether a failed try is made again, and when.

use std::time::{Duration, SystemTime};

use http::Method;
use model::Reason;
use model::retry::{Backoff, Condition, Policy};
use policy::deadline::retry_after;
use rand::Rng;
use tokio::time::Instant;
use wire::Fields;

use crate::error::{Failure, Replay};
use crate::http1::client::Response;

/// A client that a server lets wait longer is told so, and waits by itself.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How a try came out, as far as retries care.
pub(crate) enum Outcome<'a> {
    /// Here, or as the peer's proxy tells.
    Failed(Failure),
    Answered {
        status: u16,
        fields: &'a Fields,
    },
}

impl<'a> Outcome<'a> {
    /// How a try came out.
    pub(crate) fn of(result: &'a Result<Response, Failure>) -> Self {
        match result {
            Ok(answer) => match Failure::of_peer(&answer.head.fields) {
                Some(failure) => Self::Failed(failure),
                None => Self::Answered {
                    status: answer.head.status,
                    fields: &answer.head.fields,
                },
            },
            Err(failure) => Self::Failed(failure.clone()),
        }
    }
}

/// Whether the policy wants another try. A request whose method is not idempotent is sent again
/// only when the application cannot have seen it, or when the user named the gRPC status.
pub(crate) fn wanted(policy: &Policy, method: &Method, outcome: &Outcome<'_>) -> bool {
    if policy.attempts == 0 {
        return false;
    }
    let on = |wanted: &[Condition]| policy.on.iter().any(|c| wanted.contains(c));
    let idempotent = is_idempotent(method);
    match outcome {
        Outcome::Failed(failure) => match (failure.replay, failure.reason) {
            (Replay::Safe, _) => on(&[
                Condition::ConnectFailure,
                Condition::RefusedStream,
                Condition::Reset,
                Condition::GatewayError,
                Condition::ServerError,
            ]),
            // An old connection that broke says nothing about the endpoint: whatever the policy.
            (Replay::IfIdempotent, _) => idempotent,
            (Replay::No, Reason::UpstreamReset) => {
                idempotent
                    && on(&[
                        Condition::Reset,
                        Condition::GatewayError,
                        Condition::ServerError,
                    ])
            }
            (Replay::No, Reason::TryTimeout) => {
                idempotent && on(&[Condition::GatewayError, Condition::ServerError])
            }
            (Replay::No, _) => false,
        },
        Outcome::Answered { status, fields } => policy.on.iter().any(|condition| match condition {
            Condition::GatewayError => idempotent && matches!(status, 502..=504),
            Condition::ServerError => idempotent && matches!(status, 500..=599),
            Condition::Status(code) => idempotent && code == status,
            Condition::GrpcStatus(code) => {
                fields.get_str("grpc-status").and_then(|v| v.parse().ok()) == Some(*code)
            }
            Condition::ConnectFailure | Condition::Reset | Condition::RefusedStream => false,
        }),
    }
}

/// How long a server that answered asks to be left alone.
pub(crate) fn asked_for(outcome: &Outcome<'_>) -> Option<Duration> {
    let Outcome::Answered {
        status: 300..,
        fields,
    } = outcome
    else {
        return None;
    };
    retry_after(fields.get("retry-after")?, SystemTime::now)
}

/// Whether a client is made to wait so long, instead of being told to.
pub(crate) fn may_wait(pause: Duration, deadline: Option<Instant>) -> bool {
    let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
    pause <= LONGEST_WAIT && left.is_none_or(|left| pause < left)
}

/// How long to wait before retry number `retry` (from 1): evenly from nothing to the bound, which
/// doubles each time (Envoy's jittered exponential back-off). The first retry of a request that
/// was not delivered need not wait: it goes elsewhere.
pub(crate) fn wait(backoff: Backoff, retry: u32, delivered: bool, rng: &mut impl Rng) -> Duration {
    if retry == 1 && !delivered {
        return Duration::ZERO;
    }
    let bound = backoff
        .base
        .saturating_mul(1 << (retry - 1).min(16))
        .min(backoff.max);
    bound.mul_f64(rng.random::<f64>())
}

/// RFC 9110 9.2.2.
pub(crate) fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reset(replay: Replay) -> Failure {
        Failure::new(Reason::UpstreamReset, "").replay(replay)
    }

    #[test]
    fn a_post_is_sent_again_only_when_it_was_not_delivered() {
        let policy = Policy {
            on: vec![
                Condition::ConnectFailure,
                Condition::Reset,
                Condition::ServerError,
            ],
            ..Policy::default()
        };
        let none = Fields::new();
        assert!(wanted(
            &policy,
            &Method::POST,
            &Outcome::Failed(reset(Replay::Safe))
        ));
        for replay in [Replay::IfIdempotent, Replay::No] {
            assert!(!wanted(
                &policy,
                &Method::POST,
                &Outcome::Failed(reset(replay))
            ));
            assert!(wanted(
                &policy,
                &Method::GET,
                &Outcome::Failed(reset(replay))
            ));
        }
        assert!(!wanted(
            &policy,
            &Method::POST,
            &Outcome::Answered {
                status: 503,
                fields: &none
            }
        ));
        assert!(wanted(
            &policy,
            &Method::GET,
            &Outcome::Answered {
                status: 503,
                fields: &none
            }
        ));
    }

    #[test]
    fn no_attempts_means_no_retries() {
        assert!(!wanted(
            &Policy::none(),
            &Method::GET,
            &Outcome::Failed(reset(Replay::Safe))
        ));
    }

    #[test]
    fn waits_stay_below_their_bound() {
        let backoff = Backoff {
            base: Duration::from_millis(10),
            max: Duration::from_millis(35),
        };
        for retry in 1..40 {
            assert!(wait(backoff, retry, true, &mut rand::rng()) <= Duration::from_millis(35));
        }
        assert_eq!(wait(backoff, 1, false, &mut rand::rng()), Duration::ZERO);
    }
}
