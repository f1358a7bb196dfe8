//! Policies about requests, as they hold at a port, a listener or the own workload: faults that are
//! made on purpose, and limits.
//!
//! Where there is none a request is asked one question. What was counted outlives a change of
//! configuration, as long as the limit is the same.

mod global;
mod limiter;
pub(crate) mod pace;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use model::Reason;
use model::request::{Abort, Effect, Faults, RequestPolicy};
use model::route::{Route, Rule};
use policy::request::fault::{self, Injected};
use policy::request::{Asker, Here, Table, normalize};
use policy::route::RequestView;

use crate::error::{Failure, Manner};
use crate::record::Exchange;
use crate::worker::Worker;

pub(crate) use global::Question;
pub(crate) use limiter::{Limiters, Told};

/// The policies that hold at a port or listener.
#[derive(Default)]
pub(crate) struct Policies {
    faults: Option<Box<Table<Arc<Held>>>>,
    limits: Option<Box<Table<Arc<Limiters>>>>,
}

/// A `FaultPolicy`.
pub(crate) struct Held {
    /// `FaultPolicy namespace/name`, for messages.
    name: String,
    faults: Faults,
}

/// What a request meets; small, since most meet nothing.
#[derive(Default)]
pub(crate) struct Met {
    fault: Option<Box<(Injected, Arc<Held>)>>,
    /// What its client is told of limits.
    pub(crate) told: Option<Box<Told>>,
    /// What is to be asked before it goes on.
    question: Option<Box<Question>>,
}

/// The policies of one parent, ready to be put where they hold.
pub(crate) struct Compiled<'p> {
    faults: Vec<(&'p RequestPolicy, Arc<Held>)>,
    limits: Vec<(&'p RequestPolicy, Arc<Limiters>)>,
}

impl<'p> Compiled<'p> {
    /// Of limits that were known before, what was counted stays.
    pub(crate) fn new(
        policies: impl Iterator<Item = &'p RequestPolicy>,
        before: &[Arc<Limiters>],
    ) -> Self {
        let mut compiled = Self {
            faults: Vec::new(),
            limits: Vec::new(),
        };
        for policy in policies {
            match &policy.effect {
                Effect::Faults(faults) => {
                    let mut faults = faults.clone();
                    for fault in &mut faults.faults {
                        normalize(&mut fault.condition);
                    }
                    let name = format!("FaultPolicy {}", policy.name);
                    let held = Arc::new(Held { name, faults });
                    compiled.faults.push((policy, held));
                }
                Effect::Limits(limits) => {
                    let limiters = Limiters::of_policy(policy, limits, before);
                    compiled.limits.push((policy, limiters));
                }
            }
        }
        compiled
    }

    /// All that counts, to be handed in with the next change.
    pub(crate) fn limiters(&self) -> Vec<Arc<Limiters>> {
        self.limits.iter().map(|(_, l)| Arc::clone(l)).collect()
    }

    pub(crate) fn at(&self, here: Here<'_>) -> Policies {
        fn shared<'a, T>(
            list: &'a [(&RequestPolicy, Arc<T>)],
        ) -> impl Iterator<Item = (&'a RequestPolicy, Arc<T>)> {
            list.iter()
                .map(|(policy, held)| (*policy, Arc::clone(held)))
        }
        Policies {
            faults: Table::compile(shared(&self.faults), here),
            limits: Table::compile(shared(&self.limits), here),
        }
    }
}

impl Policies {
    pub(crate) fn is_empty(&self) -> bool {
        self.faults.is_none() && self.limits.is_none()
    }

    /// Counts a request towards its limits; fails if it is over one.
    pub(crate) fn count(
        &self,
        decided: Option<(&Route, &Rule)>,
        request: &RequestView<'_>,
        asker: Asker<'_>,
        met: &mut Met,
    ) -> Result<(), Failure> {
        let table = self.limits.as_ref();
        if let Some(limiters) = table.and_then(|table| table.find(decided)) {
            let counted = limiters.count(request, asker)?;
            met.told = counted.told;
            met.question = counted.question;
        }
        Ok(())
    }

    /// The faults that a request meets.
    pub(crate) fn meet(
        &self,
        decided: Option<(&Route, &Rule)>,
        request: &RequestView<'_>,
        asker: Asker<'_>,
        met: &mut Met,
    ) {
        let Some(held) = self.faults.as_ref().and_then(|table| table.find(decided)) else {
            return;
        };
        let injected = fault::meet(&held.faults, request, asker, now(), rand::random);
        if !injected.is_nothing() {
            met.fault = Some(Box::new((injected, Arc::clone(held))));
        }
    }

    /// Those that a connection meets which is not read as HTTP.
    pub(crate) fn meet_connection(&self, asker: Asker<'_>) -> Met {
        let held = self.faults.as_ref().and_then(|table| table.find(None));
        let fault = held.and_then(|held| {
            let injected = fault::meet_connection(&held.faults, asker, now(), rand::random);
            (!injected.is_nothing()).then(|| Box::new((injected, Arc::clone(held))))
        });
        Met {
            fault,
            ..Met::default()
        }
    }
}

impl Met {
    /// Asks those who count for the whole mesh; fails if a limit of theirs is reached.
    pub(crate) async fn settle(
        &mut self,
        worker: &Rc<Worker>,
        exchange: &Exchange,
    ) -> Result<(), Failure> {
        match self.question.take() {
            // In a box: seldom done, and large.
            Some(question) => Box::pin(question.put(worker, exchange, &mut self.told)).await,
            None => Ok(()),
        }
    }

    /// Waits, and fails, as the faults say. Says for how long it waited.
    pub(crate) async fn suffer(&self) -> Result<Duration, Failure> {
        let Some((injected, held)) = self.fault.as_deref() else {
            return Ok(Duration::ZERO);
        };
        if !injected.delay.is_zero() {
            tokio::time::sleep(injected.delay).await;
        }
        match injected.abort {
            Some(abort) => Err(aborted(abort, &held.name)),
            None => Ok(injected.delay),
        }
    }

    /// Whether no fault is among it.
    pub(crate) fn is_harmless(&self) -> bool {
        self.fault.is_none()
    }

    /// Bytes a second.
    pub(crate) fn bandwidth(&self) -> Option<u64> {
        self.fault.as_ref()?.0.bandwidth
    }
}

/// Who sent a request.
pub(crate) fn asker(exchange: &Exchange) -> Asker<'_> {
    Asker {
        identity: exchange.principal(),
        address: exchange.caller().ip(),
    }
}

/// Who made a connection.
pub(crate) fn connected(principal: &str, address: SocketAddr) -> Asker<'_> {
    Asker {
        identity: principal,
        address: address.ip(),
    }
}

/// Only faults that end are asked about it.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Each kind of client gets the status in its own words, as Envoy translates them.
fn aborted(abort: Abort, name: &str) -> Failure {
    let failure = Failure::new(Reason::FaultInjected, format!("{name} asks for it"));
    match abort {
        Abort::Http(status) => {
            let grpc = match status.as_u16() {
                400 => 13,
                401 => 16,
                403 => 7,
                404 => 12,
                429 | 502..=504 => 14,
                _ => 2,
            };
            Failure {
                own_status: Some(status.as_u16()),
                manner: Manner::Grpc(grpc),
                ..failure
            }
        }
        Abort::Grpc(grpc) => {
            let status = match grpc {
                1 => 499,
                3 | 9 | 11 => 400,
                4 => 504,
                5 => 404,
                6 | 10 => 409,
                7 => 403,
                8 => 429,
                12 => 501,
                14 => 503,
                16 => 401,
                _ => 500,
            };
            Failure {
                own_status: Some(status),
                manner: Manner::Grpc(grpc),
                ..failure
            }
        }
        Abort::Reset => Failure {
            manner: Manner::Reset,
            ..failure
        },
    }
}
