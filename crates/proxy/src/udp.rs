//! Datagrams, as sessions of a client with one endpoint.
//!
//! The relay is [`net::udp`]; here are the choice of an endpoint, metrics and the access log's line
//! at a session's end. Between workloads of the mesh a session is a stream in mutual TLS; to others
//! datagrams go as they are. There are `tulle_udp_` counters per destination, not per workload, since
//! a session may be no more than one lost datagram.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use model::Reason;
use model::workload::Tunnel;
use net::udp::{
    self, CarryError, End, Handler, Listener, Moved, Options, Session, Socket, Upstream,
};
use telemetry::Direction;
use telemetry::metrics::{Counter, Registry};
use tokio::net::UnixDatagram;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use crate::connect;
use crate::destination::{Destination, Endpoint};
use crate::error::{Failure, chain};
use crate::hash;
use crate::inbound::Target as Inward;
use crate::io::Io;
use crate::outbound::{no_port, unknown};
use crate::pool::{Link, Slot};
use crate::record::{Caller, Load, NONE};
use crate::tcp::{Connection, choose};
use crate::tunnel::Form;
use crate::worker::Worker;

/// Destinations whose counters a listener remembers.
const KNOWN: usize = 256;

/// Where the datagrams of a new session go.
pub(crate) struct Target {
    /// Host in full, for metrics and logs.
    pub(crate) host: Arc<str>,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) address: SocketAddr,
    /// For a stream to it, where it has a proxy.
    connect_timeout: Duration,
    /// Held as long as the session: it counts towards the destination's limits.
    #[expect(
        dead_code,
        reason = "only held: the session counts until it is dropped"
    )]
    pub(crate) held: Option<(Load, Slot)>,
}

/// An endpoint for a session with a port of a service by name, which the proxy must know already.
pub(crate) fn pick_of(
    worker: &Worker,
    host: &str,
    port: u16,
    client: IpAddr,
) -> Result<Target, Failure> {
    let name = model::name::service_of_host(host, worker.shared.workload.namespace());
    let name = name.ok_or_else(|| {
        let details = format!("host {host} is not of this mesh: datagrams go to its services only");
        Failure::new(Reason::NoRoute, details)
    })?;
    let snapshot = worker.snapshot();
    let destination = snapshot.service(&name).ok_or_else(|| unknown(&name))?;
    let view = Arc::clone(&destination.view());
    match view.port(port).and_then(|port| port.datagrams.as_deref()) {
        // What a route leads to is subscribed to with it.
        Some(route) => {
            let (name, port) = choose(route)?;
            let backend = snapshot.service(name).ok_or_else(|| unknown(name))?;
            pick(worker, backend, port, client)
        }
        None => pick(worker, destination, port, client),
    }
}

/// An endpoint for a session with a port of a service.
pub(crate) fn pick(
    worker: &Worker,
    destination: &Arc<Destination>,
    port: u16,
    client: IpAddr,
) -> Result<Target, Failure> {
    let view = Arc::clone(&destination.view());
    let port = view
        .port(port)
        .ok_or_else(|| no_port(destination, &view, port))?;
    let hash = hash::of_client(&port.policy.balancer, client);
    let picked = worker.with_balancer(destination.id, port.number, |b| {
        port.pick(b, hash, &[], Instant::now())
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
        Load::on(Arc::clone(endpoint)),
        connect::reserve(worker, endpoint, &port.policy)?,
    ));
    Ok(Target {
        host: Arc::clone(&destination.host),
        endpoint: Arc::clone(endpoint),
        address,
        connect_timeout: port.policy.connect_timeout,
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
        lost: Counters::new(&worker.shared.registry, Direction::Outbound, &NONE),
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
        let registry = &self.worker.shared.registry;
        let counters = known
            .entry(Arc::clone(host))
            .or_insert_with(|| Rc::new(Counters::new(registry, Direction::Outbound, host)));
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
                let tally = Tally::open(self.counters(&target.host));
                Some(Datagrams {
                    worker: Rc::clone(&self.worker),
                    tally,
                    client: net::socket::canonical(client),
                    carried: Rc::default(),
                    carrier: RefCell::default(),
                    target,
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
    tally: Tally,
    client: SocketAddr,
    target: Target,
    carried: Rc<Carried>,
    carrier: RefCell<Option<AbortOnDropHandle<()>>>,
    ended: Cell<bool>,
    begun: Instant,
    begun_at: SystemTime,
}

/// What became of the stream that a session is carried on.
#[derive(Default)]
struct Carried {
    link: RefCell<Option<Link>>,
    failure: RefCell<Option<Failure>>,
    ended: Notify,
}

/// Opens a stream to the endpoint and carries on it what comes to `socket`.
async fn carry(
    worker: &Rc<Worker>,
    endpoint: &Arc<Endpoint>,
    port: u16,
    limit: Duration,
    socket: &Socket,
    carried: &Carried,
) -> Result<(), Failure> {
    let opening = connect::connect(worker, endpoint, port, Form::Udp, None, limit);
    let (stream, link) = Box::pin(opening).await?;
    let address = link.address;
    carried.link.replace(Some(link));
    let ended = udp::carry(stream, socket, |_| {}).await;
    let why = ended.map_or_else(
        |error| chain(&error),
        |()| "it ended the session".to_owned(),
    );
    Err(Failure::new(
        Reason::UpstreamReset,
        format!("the proxy at {address}: {why}"),
    ))
}

impl Datagrams {
    fn end(&self, failure: Option<&Failure>) {
        if self.ended.replace(true) {
            return;
        }
        self.tally.counters.closed.inc();
        let caller = Caller::at(self.client);
        let direction = Direction::Outbound;
        let mut session = Connection::begin(&self.worker, direction, &caller, &self.target.host)
            .datagrams(self.begun, self.begun_at);
        let link = self
            .carried
            .link
            .take()
            .unwrap_or(Link::plain(self.target.address));
        session.reached(&self.target.endpoint, &link);
        session.log(failure, self.tally.sent.get(), self.tally.received.get());
    }
}

impl Session for Datagrams {
    fn upstream(&self) -> io::Result<Upstream> {
        let Target {
            address, endpoint, ..
        } = &self.target;
        if endpoint.config.tunnel == Tunnel::None {
            return Ok(Upstream::Address(*address));
        }
        let (ours, theirs) = UnixDatagram::pair()?;
        let (worker, endpoint) = (Rc::clone(&self.worker), Arc::clone(endpoint));
        let (port, limit) = (address.port(), self.target.connect_timeout);
        let carried = Rc::clone(&self.carried);
        let carrier = tokio::task::spawn_local(async move {
            let socket = Socket::Pair(theirs);
            let ended = carry(&worker, &endpoint, port, limit, &socket, &carried).await;
            carried.failure.replace(ended.err());
            carried.ended.notify_one();
        });
        self.carrier.replace(Some(AbortOnDropHandle::new(carrier)));
        Ok(Upstream::Pair(ours))
    }

    async fn broken(&self) -> io::Error {
        self.carried.ended.notified().await;
        io::ErrorKind::ConnectionReset.into()
    }

    fn sent(&self, bytes: usize) {
        self.tally.sent(bytes);
    }

    fn received(&self, bytes: usize) {
        self.tally.received(bytes);
    }

    fn dropped(&self) {
        self.tally.counters.dropped.inc();
    }

    fn ended(&self, end: &End) {
        match end {
            End::Idle => self.end(None),
            End::Failed(error) => {
                let failure = self.carried.failure.take().unwrap_or_else(|| {
                    let details = format!("{}: {error}", self.target.address);
                    Failure::new(Reason::ConnectRefused, details)
                });
                self.end(Some(&failure));
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

/// A session that a peer carries here, to a port of the own application.
pub(crate) async fn inbound(worker: &Rc<Worker>, stream: Io, caller: &Caller, target: &Inward) {
    let (own, direction) = (&target.own, Direction::Inbound);
    let (begun, begun_at) = (Instant::now(), SystemTime::now());
    let mut session =
        Connection::begin(worker, direction, caller, &own.host).datagrams(begun, begun_at);
    let mut totals = (0, 0);
    let served = async {
        let address = connect::address(&own.application, target.port)?;
        let socket = Socket::to(Upstream::Address(address), worker.shared.mark);
        let socket = socket
            .map_err(|error| Failure::new(Reason::ConnectRefused, format!("{address}: {error}")))?;
        let link = Link::plain(address);
        session.reached(&own.application, &link);
        let counters = Counters::new(&worker.shared.registry, direction, &own.host);
        let tally = Tally::open(Rc::new(counters));
        let moved = |moved| match moved {
            Moved::Down(n) => tally.sent(n),
            Moved::Up(n) => tally.received(n),
            Moved::Lost => tally.counters.dropped.inc(),
        };
        let ended = tokio::select! {
            ended = udp::carry(stream, &socket, moved) => ended.map_err(|error| {
                let reason = match &error {
                    CarryError::Stream(_) => Reason::ClientDisconnected,
                    CarryError::Socket(_) => Reason::ConnectRefused,
                };
                Failure::new(reason, chain(&error))
            }),
            () = worker.shared.drain.cut() => {
                Err(Failure::new(Reason::Draining, "cut when the proxy stopped"))
            }
        };
        tally.counters.closed.inc();
        totals = (tally.sent.get(), tally.received.get());
        ended
    };
    let failure = served.await.err();
    session.log(failure.as_ref(), totals.0, totals.1);
}

/// What one session moved, beside the counters of its destination.
struct Tally {
    counters: Rc<Counters>,
    sent: Cell<u64>,
    received: Cell<u64>,
}

impl Tally {
    /// Of a session that begins.
    fn open(counters: Rc<Counters>) -> Self {
        counters.opened.inc();
        Self {
            counters,
            sent: Cell::new(0),
            received: Cell::new(0),
        }
    }

    fn sent(&self, bytes: usize) {
        self.sent.set(self.sent.get() + bytes as u64);
        self.counters.sent.add(bytes as u64);
    }

    fn received(&self, bytes: usize) {
        self.received.set(self.received.get() + bytes as u64);
        self.counters.received.add(bytes as u64);
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
    fn new(registry: &Registry, direction: Direction, host: &str) -> Self {
        let labels = [("direction", direction.as_str()), ("destination", host)];
        let counter = |name, help| registry.counter_with(name, help, &labels);
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
