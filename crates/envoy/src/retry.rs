//! When Envoy's router tries again.
//!
//! Tulle sends a request again only where that is safe: one whose method is not idempotent when nothing
//! was delivered, whatever the conditions. Envoy does not look at the method, so a rule with further
//! conditions becomes two routes (`route`), of which the one for other methods has [`Safe`] retries.

use std::fmt::Write as _;
use std::time::Duration;

use model::retry::{Condition, Policy};

use crate::proto::route;
use crate::words::{duration, empty};

/// Methods that may be repeated (RFC 9110 9.2.2), as an expression.
pub(crate) const IDEMPOTENT: &str = "GET|HEAD|OPTIONS|TRACE|PUT|DELETE";

/// For which requests a policy is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Methods {
    /// Those that may be repeated.
    Idempotent,
    /// All others.
    Others,
}

/// Whether methods must be told apart: some condition holds for idempotent ones alone.
pub(crate) fn differs(policy: &Policy) -> bool {
    policy.attempts > 0
        && policy.on.iter().any(|condition| {
            matches!(
                condition,
                Condition::Reset
                    | Condition::GatewayError
                    | Condition::ServerError
                    | Condition::Status(_)
            )
        })
}

/// Envoy's policy; `None`: no retries, and no bound on one try.
pub(crate) fn policy(
    policy: &Policy,
    per_try: Option<Duration>,
    methods: Methods,
) -> Option<route::RetryPolicy> {
    let (on, codes) = conditions(policy, methods);
    let attempts = if on.is_empty() { 0 } else { policy.attempts };
    if attempts == 0 && per_try.is_none() {
        return None;
    }
    let base = policy.backoff.base.max(Duration::from_millis(1));
    Some(route::RetryPolicy {
        retry_on: on,
        num_retries: Some(attempts),
        per_try_timeout: per_try.map(duration),
        retriable_status_codes: codes,
        retry_host_predicate: vec![route::retry_policy::RetryHostPredicate {
            name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
            config_type: Some(
                route::retry_policy::retry_host_predicate::ConfigType::TypedConfig(empty(
                    "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
                )),
            ),
        }],
        host_selection_retry_max_attempts: 5,
        retry_back_off: Some(route::retry_policy::RetryBackOff {
            base_interval: Some(duration(base)),
            max_interval: Some(duration(policy.backoff.max.max(base))),
        }),
    })
}

/// `retry_on`, and the statuses that it needs a list for.
fn conditions(policy: &Policy, methods: Methods) -> (String, Vec<u32>) {
    let mut on = String::new();
    let mut add = |word: &str| {
        if !on.split(',').any(|known| known == word) {
            let comma = if on.is_empty() { "" } else { "," };
            let _ = write!(on, "{comma}{word}");
        }
    };
    let mut codes = Vec::new();
    for condition in &policy.on {
        // What was not delivered is sent again on whichever condition there is.
        if !matches!(condition, Condition::Status(_) | Condition::GrpcStatus(_)) {
            add("connect-failure");
            add("refused-stream");
        }
        if let Condition::GrpcStatus(code) = condition {
            // Envoy has words for these alone.
            let word = match code {
                1 => "cancelled",
                4 => "deadline-exceeded",
                8 => "resource-exhausted",
                13 => "internal",
                14 => "unavailable",
                _ => continue,
            };
            add(word);
        }
        if methods == Methods::Others {
            continue;
        }
        match condition {
            Condition::Reset => add("reset"),
            Condition::GatewayError => add("gateway-error"),
            Condition::ServerError => add("5xx"),
            Condition::Status(code) => {
                add("retriable-status-codes");
                codes.push((*code).into());
            }
            Condition::ConnectFailure | Condition::RefusedStream | Condition::GrpcStatus(_) => {}
        }
    }
    (on, codes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_that_is_not_idempotent_is_tried_again_only_where_nothing_was_delivered() {
        let written = Policy {
            on: vec![
                Condition::GatewayError,
                Condition::Reset,
                Condition::Status(418),
                Condition::GrpcStatus(14),
            ],
            ..Policy::default()
        };
        assert!(differs(&written));
        let on = |methods| conditions(&written, methods);
        assert_eq!(
            on(Methods::Idempotent).0,
            "connect-failure,refused-stream,gateway-error,reset,retriable-status-codes,unavailable"
        );
        assert_eq!(on(Methods::Idempotent).1, [418]);
        assert_eq!(
            on(Methods::Others),
            (
                "connect-failure,refused-stream,unavailable".to_owned(),
                vec![]
            )
        );
    }

    #[test]
    fn a_bound_on_one_try_needs_no_retries() {
        let none = Policy::none();
        assert_eq!(policy(&none, None, Methods::Idempotent), None);
        let bound = policy(&none, Some(Duration::from_secs(1)), Methods::Idempotent);
        assert_eq!(bound.and_then(|p| p.num_retries), Some(0));
    }
}
