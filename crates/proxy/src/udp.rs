//! Datagrams, as sessions of a client with one endpoint.
//!
//! The relay is [`net::udp`]; here are the choice of an endpoint, metrics and the access log's line
//! at a session's end. Datagrams go to the endpoint as they are, also between workloads: mutual
//! TLS is for connections. There are `tulle_udp_` counters per destination, not per workload, since
//! a session may be no more than one lost datagram.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use model::Reason;
use net::udp::{self, End, Handler, Listener, Options, Session};
use telemetry::Direction;
use telemetry::metrics::{Counter, Registry};

use crate::connect;
use crate::destination::{Destination, Endpoint, Slot};
use crate::error::Failure;
use crate::outbound::no_port;
use crate::pool::Link;
use crate::record::{Caller, Load, NONE};
use crate::tcp::Connection;
use crate::worker::Worker;

/// Destinations whose counters a listener remembers.
const KNOWN: usize = 256;

/// Where the datagrams of a new session go.
pub(crate) struct Target {
    /// Host in full, for metrics and logs.
    pub(crate) host: Arc<str>,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) address: SocketAddr,
    /// Held as long as the session: it counts towards the destination's limits.
    #[expect(
        dead_code,
        reason = "only held: the session counts until it is dropped"
    )]
    pub(crate) held: Option<(Load, Slot)>,
}

/// An endpoint for a session with a port of a service.
pub(crate) fn pick(
    worker: &Worker,
    destination: &Arc<Destination>,
    port: u16,
) -> Result<Target, Failure> {
    let view = Arc::clone(&destination.view());
    let port = view
        .port(port)
        .ok_or_else(|| no_port(destination, &view, port))?;
    let picked = worker.with_balancer(destination.id, port.number, |b| {
        port.pick(b, &[], Instant::now())
            .map(|(e, p)| (Arc::clone(e), p))
    });
    let (endpoint, target) = picked.ok_or_else(|| {
        Failure::new(
            Reason::NoHealthyEndpoints,
            format!("service {} port {}", destination.name, port.number),
        )
    })?;
    let address = endpoint.address(target).ok_or_else(|| {
        Failure::new(
            Reason::NoEndpoints,
            format!("workload {} has no address", endpoint.config.workload),
        )
    })?;
    let held = Some((
        Load::on(&endpoint),
        connect::reserve(worker, &endpoint, &port.policy)?,
    ));
    Ok(Target {
        host: Arc::clone(&destination.host),
        endpoint,
        address,
        held,
    })
}

/// Serves a bound, non-blocking socket until the future is dropped or the proxy stops.
///
/// `pick` decides where the datagrams of a client go that has no session yet.
pub(crate) async fn serve<P>(
    worker: Rc<Worker>,
    socket: std::net::UdpSocket,
    pick: P,
) -> std::io::Result<()>
where
    P: Fn(SocketAddr) -> Result<Target, Failure>,
{
    let options = Options {
        mark: worker.shared.mark,
        ..Options::default()
    };
    let drain = worker.shared.drain.clone();
    let picks = Picks {
        lost: Counters::new(&worker.shared.registry, &NONE),
        worker,
        pick,
        known: RefCell::default(),
    };
    tokio::select! {
        () = udp::relay(Listener::new(socket)?, options, picks) => {}
        () = drain.cut() => {}
    }
    Ok(())
}

struct Picks<P> {
    worker: Rc<Worker>,
    pick: P,
    /// By host.
    known: RefCell<HashMap<Arc<str>, Rc<Counters>>>,
    /// For datagrams that came to no session.
    lost: Counters,
}

impl<P> Picks<P> {
    fn counters(&self, host: &Arc<str>) -> Rc<Counters> {
        let mut known = self.known.borrow_mut();
        if known.len() >= KNOWN {
            known.clear();
        }
        let counters = known
            .entry(Arc::clone(host))
            .or_insert_with(|| Rc::new(Counters::new(&self.worker.shared.registry, host)));
        Rc::clone(counters)
    }
}

impl<P> Handler for Picks<P>
where
    P: Fn(SocketAddr) -> Result<Target, Failure>,
{
    type Session = Datagrams;

    fn open(&self, client: SocketAddr) -> Option<Datagrams> {
        match (self.pick)(client) {
            Ok(target) => {
                let counters = self.counters(&target.host);
                counters.opened.inc();
                Some(Datagrams {
                    worker: Rc::clone(&self.worker),
                    counters,
                    client: net::socket::canonical(client),
                    target,
                    sent: Cell::new(0),
                    received: Cell::new(0),
                    ended: Cell::new(false),
                    begun: Instant::now(),
                    begun_at: SystemTime::now(),
                })
            }
            Err(failure) => {
                tracing::debug!(%client, "datagram dropped: {failure}");
                self.lost.dropped.inc();
                None
            }
        }
    }

    fn full(&self, _: SocketAddr) {
        self.lost.refused.inc();
    }
}

/// One session.
struct Datagrams {
    worker: Rc<Worker>,
    counters: Rc<Counters>,
    client: SocketAddr,
    target: Target,
    sent: Cell<u64>,
    received: Cell<u64>,
    ended: Cell<bool>,
    begun: Instant,
    begun_at: SystemTime,
}

impl Datagrams {
    fn end(&self, failure: Option<&Failure>) {
        if self.ended.replace(true) {
            return;
        }
        self.counters.closed.inc();
        let caller = Caller::at(self.client);
        let direction = Direction::Outbound;
        let mut session = Connection::begin(&self.worker, direction, &caller, &self.target.host)
            .datagrams(self.begun, self.begun_at);
        session.reached(
            &self.target.endpoint,
            &Link {
                address: self.target.address,
                mtls: false,
                group: "",
            },
        );
        session.log(failure, self.sent.get(), self.received.get());
    }
}

impl Session for Datagrams {
    fn upstream(&self) -> SocketAddr {
        self.target.address
    }

    fn sent(&self, bytes: usize) {
        self.sent.set(self.sent.get() + bytes as u64);
        self.counters.sent.add(bytes as u64);
    }

    fn received(&self, bytes: usize) {
        self.received.set(self.received.get() + bytes as u64);
        self.counters.received.add(bytes as u64);
    }

    fn dropped(&self) {
        self.counters.dropped.inc();
    }

    fn ended(&self, end: &End) {
        match end {
            End::Idle => self.end(None),
            End::Failed(error) => {
                let details = format!("{}: {error}", self.target.address);
                self.end(Some(&Failure::new(Reason::ConnectRefused, details)));
            }
        }
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        if !self.ended.get() {
            let failure = Failure::new(Reason::Draining, "the listener is gone");
            self.end(Some(&failure));
        }
    }
}

/// Counters of one destination.
struct Counters {
    opened: Counter,
    closed: Counter,
    refused: Counter,
    sent: Counter,
    received: Counter,
    dropped: Counter,
}

impl Counters {
    fn new(registry: &Registry, host: &str) -> Self {
        let counter = |name, help| {
            registry.counter_with(
                name,
                help,
                &[("direction", "outbound"), ("destination", host)],
            )
        };
        Self {
            opened: counter(
                "tulle_udp_sessions_opened_total",
                "Sessions of datagrams begun.",
            ),
            closed: counter(
                "tulle_udp_sessions_closed_total",
                "Sessions of datagrams ended.",
            ),
            refused: counter(
                "tulle_udp_sessions_refused_total",
                "Datagrams dropped because the listener has as many sessions as it may.",
            ),
            sent: counter(
                "tulle_udp_sent_bytes_total",
                "Bytes sent to the destination.",
            ),
            received: counter(
                "tulle_udp_received_bytes_total",
                "Bytes received from the destination and passed on.",
            ),
            dropped: counter(
                "tulle_udp_dropped_datagrams_total",
                "Datagrams lost in the proxy: no endpoint, a full socket, or too large.",
            ),
        }
    }
}

#[cfg(test)]
mod tests;
