//! Until when a request is worth serving, and how those who serve it are told
//! ([`policy::deadline`]).

use std::time::{Duration, SystemTime};

use model::Reason;
use policy::deadline::{GRPC_TIMEOUT, REQUEST_DEADLINE, remaining, to_grpc_timeout, to_moment};
use tokio::time::Instant;

use crate::error::Failure;
use crate::record::Exchange;

/// Until when a request may take.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Deadline {
    /// As its client says.
    asked: Option<Instant>,
    /// And as policies do.
    pub(crate) until: Option<Instant>,
}

/// When the client gives up, or the limit of a policy ends, whichever is earlier. What the limit
/// decides is told in the request.
pub(crate) fn of(exchange: &mut Exchange, limit: Option<Duration>) -> Deadline {
    let begun = exchange.begun();
    let fields = &exchange.head().fields;
    let timeout = fields.get(GRPC_TIMEOUT).filter(|_| exchange.is_call());
    // As the clock stood when it came.
    let then = || SystemTime::now() - begun.elapsed();
    let asked = remaining(timeout, fields.get(REQUEST_DEADLINE), then);
    let decided = limit.filter(|limit| asked.is_none_or(|asked| *limit < asked));
    if let Some(limit) = decided.filter(|_| !exchange.is_call())
        && let Some(moment) = then().checked_add(limit)
    {
        let fields = &mut exchange.head_mut().fields;
        fields.set(REQUEST_DEADLINE, to_moment(moment).as_bytes());
    }
    let at = |time: Option<Duration>| Instant::from_std(begun).checked_add(time?);
    Deadline {
        asked: at(asked),
        until: at(decided.or(asked)),
    }
}

/// Begins a new limit, for another destination; the client waits no longer for it.
pub(crate) fn renew(exchange: &mut Exchange, deadline: &mut Deadline, limit: Option<Duration>) {
    let now = Instant::now();
    let own = limit.and_then(|limit| now.checked_add(limit));
    deadline.until = [own, deadline.asked].into_iter().flatten().min();
    if exchange.is_call() {
        return;
    }
    let left = |until: Instant| until.saturating_duration_since(now);
    let moment = |until| SystemTime::now().checked_add(left(until));
    let fields = &mut exchange.head_mut().fields;
    match deadline.until.and_then(moment) {
        Some(moment) => fields.set(REQUEST_DEADLINE, to_moment(moment).as_bytes()),
        None => {
            fields.remove(REQUEST_DEADLINE);
        }
    }
}

/// Tells whoever serves a gRPC call how long a try may take.
pub(crate) fn tell(exchange: &mut Exchange, until: Option<Instant>, now: Instant) {
    let Some(until) = until.filter(|_| exchange.is_call()) else {
        return;
    };
    let left = to_grpc_timeout(until.saturating_duration_since(now));
    exchange
        .head_mut()
        .fields
        .set(GRPC_TIMEOUT, left.as_bytes());
}

/// The failure of a request that nobody waits for any more.
pub(crate) fn passed(deadline: Option<Instant>, now: Instant) -> Result<(), Failure> {
    if deadline.is_none_or(|deadline| now < deadline) {
        return Ok(());
    }
    let details = "the time that its client gave it was over before it was sent";
    Err(Failure::new(Reason::RequestTimeout, details))
}
