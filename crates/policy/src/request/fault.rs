//! Which faults a request meets, and what they add up to.

use std::time::Duration;

use model::request::{Abort, Fault, Faults};

use super::{Asker, holds, holds_for_connection};
use crate::route::RequestView;

/// What faults make of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Injected {
    /// It waits for so long.
    pub delay: Duration,
    /// It is then answered in the application's stead.
    pub abort: Option<Abort>,
    /// The response comes no faster than this many bytes a second.
    pub bandwidth: Option<u64>,
}

impl Injected {
    /// Whether nothing is done.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    fn add(&mut self, fault: &Fault) {
        self.delay += fault.delay.unwrap_or_default();
        self.abort = fault.abort;
        let known = self.bandwidth;
        self.bandwidth = fault.bandwidth.min(known).or(fault.bandwidth).or(known);
    }
}

/// Whether they are over. `now` is in seconds since 1970.
pub fn are_over(faults: &Faults, now: u64) -> bool {
    faults.until.is_some_and(|until| now >= until)
}

/// What those that match make of a request, in their order, up to the first that answers it. For each
/// that matches a number is drawn.
pub fn meet(
    faults: &Faults,
    request: &RequestView<'_>,
    asker: Asker<'_>,
    now: u64,
    drawn: impl FnMut() -> u32,
) -> Injected {
    add_up(faults, now, drawn, |fault| {
        holds(&fault.condition, request, asker)
    })
}

/// The same for a connection that is not read as HTTP: of conditions it can fulfil those about
/// callers, and of answers it can have none but the end.
pub fn meet_connection(
    faults: &Faults,
    asker: Asker<'_>,
    now: u64,
    drawn: impl FnMut() -> u32,
) -> Injected {
    add_up(faults, now, drawn, |fault| {
        let answered = matches!(fault.abort, Some(Abort::Http(_) | Abort::Grpc(_)));
        !answered && holds_for_connection(&fault.condition, asker)
    })
}

fn add_up(
    faults: &Faults,
    now: u64,
    mut drawn: impl FnMut() -> u32,
    fits: impl Fn(&Fault) -> bool,
) -> Injected {
    let mut injected = Injected::default();
    if are_over(faults, now) {
        return injected;
    }
    for fault in &faults.faults {
        if fits(fault) && fault.share.takes(drawn()) {
            injected.add(fault);
            if injected.abort.is_some() {
                break;
            }
        }
    }
    injected
}
