//! Retries.

use model::retry::{Backoff, Budget, Condition, Policy};

use super::field::{Invalid, Result, duration, duration_to_message, each, known, required};
use crate::proto::v1;
use v1::retry_condition::{Condition as Wire, Event};

pub(super) fn to_message(policy: &Policy) -> v1::RetryPolicy {
    v1::RetryPolicy {
        attempts: policy.attempts,
        on: policy
            .on
            .iter()
            .map(|condition| v1::RetryCondition {
                condition: Some(condition_to_message(*condition)),
            })
            .collect(),
        backoff_base: Some(duration_to_message(policy.backoff.base)),
        backoff_max: Some(duration_to_message(policy.backoff.max)),
        budget_percent: policy.budget.percent,
        budget_min_per_second: policy.budget.min_per_second,
    }
}

fn condition_to_message(condition: Condition) -> Wire {
    let event = match condition {
        Condition::ConnectFailure => Event::ConnectFailure,
        Condition::Reset => Event::Reset,
        Condition::RefusedStream => Event::RefusedStream,
        Condition::GatewayError => Event::GatewayError,
        Condition::ServerError => Event::ServerError,
        Condition::Status(status) => return Wire::Status(status.into()),
        Condition::GrpcStatus(status) => return Wire::GrpcStatus(status.into()),
    };
    Wire::Event(event.into())
}

pub(super) fn from_message(message: v1::RetryPolicy) -> Result<Policy> {
    Ok(Policy {
        attempts: message.attempts,
        on: each("on", message.on, |message| {
            condition(required("", message.condition)?)
        })?,
        backoff: Backoff {
            base: duration(
                "backoff_base",
                required("backoff_base", message.backoff_base)?,
            )?,
            max: duration("backoff_max", required("backoff_max", message.backoff_max)?)?,
        },
        budget: Budget {
            percent: message.budget_percent,
            min_per_second: message.budget_min_per_second,
        },
    })
}

fn condition(condition: Wire) -> Result<Condition> {
    Ok(match condition {
        Wire::Event(event) => match known("event", event)? {
            Event::Unspecified => return Err(Invalid::new("event", "is not specified")),
            Event::ConnectFailure => Condition::ConnectFailure,
            Event::Reset => Condition::Reset,
            Event::RefusedStream => Condition::RefusedStream,
            Event::GatewayError => Condition::GatewayError,
            Event::ServerError => Condition::ServerError,
        },
        Wire::Status(status) => Condition::Status(
            u16::try_from(status)
                .map_err(|_| Invalid::new("status", format!("{status} is not an HTTP status")))?,
        ),
        Wire::GrpcStatus(status) => {
            Condition::GrpcStatus(u8::try_from(status).map_err(|_| {
                Invalid::new("grpc_status", format!("{status} is not a gRPC status"))
            })?)
        }
    })
}
