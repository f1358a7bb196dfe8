//! What is answered instead of a failure (`TrafficPolicy`, `fallback`): by another service, by what
//! that one falls back to, and in the end what is always the same.
//!
//! Each request tries its own destination first, so that all is as before as soon as that recovers.

use std::rc::Rc;
use std::sync::Arc;

use model::Reason;
use model::traffic::{Fallback, FallbackOn, StaticResponse};
use wire::Fields;

use crate::deadline;
use crate::error::{Failure, Side};
use crate::forward::{Order, forward};
use crate::hash::Told;
use crate::headers::PROXY_STATUS;
use crate::http::Reply;
use crate::http1::client::Response;
use crate::outbound::{self, Served};
use crate::record::Exchange;
use crate::retry::Outcome;
use crate::stale::Key;
use crate::worker::Worker;

/// Services that are asked one after the other at most: they may lead in a circle.
const CHAIN: usize = 4;

/// Whether a fallback is for what became of a request.
pub(crate) fn is_for(fallback: &Fallback, result: &Result<Response, Failure>) -> bool {
    let on = |wanted| fallback.on.contains(&wanted);
    match Outcome::of(result) {
        Outcome::Answered { status, .. } => {
            (500..=599).contains(&status) && on(FallbackOn::ServerError)
        }
        Outcome::Failed(failure) => {
            kind(failure.cause).is_some_and(on)
                || failure.side == Side::Upstream && on(FallbackOn::ServerError)
        }
    }
}

fn kind(cause: Reason) -> Option<FallbackOn> {
    Some(match cause {
        Reason::NoEndpoints | Reason::NoHealthyEndpoints => FallbackOn::NoHealthyEndpoint,
        Reason::CircuitOpen | Reason::Overloaded => FallbackOn::CircuitOpen,
        Reason::RequestTimeout | Reason::TryTimeout => FallbackOn::Timeout,
        Reason::ConnectRefused
        | Reason::ConnectTimeout
        | Reason::TlsFailed
        | Reason::IdentityMismatch
        | Reason::UpstreamReset => FallbackOn::Unreachable,
        _ => return None,
    })
}

/// Answers instead of a failure that `fallback` is for. Where nothing can, the failure stays.
pub(crate) async fn answer(
    worker: &Rc<Worker>,
    exchange: &mut Exchange,
    fallback: &Fallback,
    order: &mut Order,
    question: Option<&Key>,
    failed: Result<Response, Failure>,
) -> Result<Served, Failure> {
    let why = match Outcome::of(&failed) {
        Outcome::Answered { status, .. } => format!("status {status}"),
        Outcome::Failed(failure) => failure.cause.to_string(),
    };
    tracing::debug!(destination = %exchange.destination(), why, "falling back");
    let own = exchange.destination();
    if let Some(mut answer) = elsewhere(worker, exchange, fallback, order).await {
        told(&mut answer.head.fields, &why);
        return Ok(Served::Answer(answer));
    }
    exchange.set_destination(&own);
    let kept = fallback.cache.zip(question).and_then(|(most, question)| {
        let asked = &exchange.head().fields;
        worker.stale.find(question, asked, most)
    });
    if let Some(answer) = kept {
        let age = answer.age().as_secs();
        let mut fields = answer.fields;
        fields.set("age", age.to_string().as_bytes());
        told(&mut fields, &format!("{why}, an answer of {age} s ago"));
        return Ok(Served::Reply(Reply::own(200, fields, answer.body)));
    }
    match &fallback.response {
        Some(response) if !exchange.is_call() => Ok(Served::Reply(always(response, &why))),
        _ => failed.map(Served::Answer),
    }
}

/// The answer of the first service of the chain that has one.
async fn elsewhere(
    worker: &Rc<Worker>,
    exchange: &mut Exchange,
    fallback: &Fallback,
    order: &mut Order,
) -> Option<Response> {
    let mut next = fallback.backend.clone();
    for _ in 0..CHAIN {
        let (name, number) = next?;
        if !order.replayable() {
            return None;
        }
        let backend = outbound::service(worker, &name).await.ok()?;
        exchange.set_destination(&backend.host);
        let view = Arc::clone(&backend.view());
        let port = view.port(number)?;
        let limits = port.policy.limits(None);
        order.kept = None;
        let client = exchange.caller().ip();
        order.hash = Told::by(&port.policy.balancer, exchange.head(), client, rand::random).hash;
        deadline::renew(exchange, &mut order.deadline, limits.request_timeout);
        let result = forward(worker, exchange, &backend, port, limits, order).await;
        let own = port.policy.fallback.as_deref();
        next = match own.filter(|own| is_for(own, &result)) {
            Some(own) => own.backend.clone(),
            None if is_for(fallback, &result) => return None,
            None => return result.ok(),
        };
    }
    None
}

/// The answer that is always the same.
fn always(response: &StaticResponse, why: &str) -> Reply {
    let mut fields = Fields::new();
    for (name, value) in &response.headers {
        fields.append(name, value.as_bytes());
    }
    told(&mut fields, why);
    Reply::own(response.status, fields, response.body.clone())
}

/// Says that the answer is another's, and why (RFC 9209 2).
fn told(fields: &mut Fields, why: &str) {
    let status = format!("tulle; details=\"fallback: {why}\"");
    fields.append(PROXY_STATUS, status.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fallback(on: &[FallbackOn]) -> Fallback {
        Fallback {
            on: on.to_vec(),
            backend: None,
            cache: None,
            response: None,
        }
    }

    #[test]
    fn a_fallback_is_for_the_failures_that_it_names() {
        let all = [
            (Reason::NoHealthyEndpoints, FallbackOn::NoHealthyEndpoint),
            (Reason::CircuitOpen, FallbackOn::CircuitOpen),
            (Reason::TryTimeout, FallbackOn::Timeout),
            (Reason::ConnectRefused, FallbackOn::Unreachable),
        ];
        for (reason, own) in all {
            for (_, on) in all {
                let failed = Err(Failure::new(reason, ""));
                assert_eq!(
                    is_for(&fallback(&[on]), &failed),
                    on == own,
                    "{reason} {on:?}"
                );
            }
        }
        let mine = Err(Failure::new(Reason::BadRequest, ""));
        let every = [FallbackOn::ServerError, FallbackOn::Unreachable];
        assert!(!is_for(&fallback(&every), &mine), "the client's own fault");
        let theirs = Err(Failure::new(Reason::UpstreamReset, ""));
        assert!(is_for(&fallback(&[FallbackOn::ServerError]), &theirs));
    }
}
