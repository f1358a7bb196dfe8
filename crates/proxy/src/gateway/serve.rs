//! A connection's way through a Gateway's port.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use model::gateway::{Protocol, ProxyProtocol, StreamRoute};
use model::limits::Limits;
use model::route::Target;
use model::{Reason, ServiceName};
use net::proxy_protocol::{self, Mode};
use net::tcp::Stream;
use policy::gateway::Transport;
use policy::host::normal;
use telemetry::Direction;
use tokio::net::TcpStream;
use tokio::time::timeout;
use wire::{RequestHead, Scheme};

use super::Entrance;
use super::forwarded::Forwarded;
use super::listeners::{Listener, Port};
use super::tls;
use crate::destination::Destination;
use crate::error::{Failure, chain};
use crate::http::{self, Bounds, Reply, Request, Service};
use crate::io::Io;
use crate::outbound::{self, Inlet};
use crate::pool::Wire;
use crate::record::{Caller, Exchange, NONE};
use crate::tcp::{self, Connection, Spoken};
use crate::udp;
use crate::worker::Worker;

/// Serves a connection that came in on port `number`.
pub(crate) async fn connection(
    worker: Rc<Worker>,
    mut stream: TcpStream,
    peer: SocketAddr,
    number: u16,
) {
    let Some(port) = worker.snapshot().listeners.port(number).cloned() else {
        return;
    };
    let Some(_place) = port.admit() else {
        worker.shared.connections_refused.inc();
        return;
    };
    let mut seen = BytesMut::new();
    let (address, to) = match client_address(&mut stream, peer, &mut seen, &port).await {
        Ok(addresses) => addresses,
        Err(error) => {
            tracing::debug!(%peer, port = number, error = chain(&error), "connection refused");
            return;
        }
    };
    let caller = Caller {
        // A header in front says whom the client had meant to connect to, as far as it is known.
        local: to.or_else(|| stream.local_addr().ok()),
        ..Caller::at(address)
    };
    match port.transport() {
        Transport::Http => {
            let client = Io::from(stream).with_ahead(seen.freeze());
            let entrance = Entrance::plain(number);
            let first_bytes = timeout(port.limits.idle_timeout, tcp::read_http(client));
            let Ok(Ok(Spoken::Http(client, wire))) = first_bytes.await else {
                return;
            };
            let (client, ahead) = client.into_parts();
            let client = client.with_ahead(ahead);
            let hops = port.trusted_hops;
            serve_http(&worker, client, wire, caller, entrance, hops, &port.limits).await;
        }
        // Boxed, so that an idle connection in the clear is not as large as these.
        Transport::Tls => Box::pin(behind_tls(&worker, stream, seen, caller, &port)).await,
        Transport::Tcp | Transport::Udp => {
            let client = Io::from(stream).with_ahead(seen.freeze());
            let listener = port.listener(None);
            let route = listener.and_then(|l| l.stream(None));
            let caller = Caller {
                shown: listener.and_then(|l| l.shown.clone()),
                ..caller
            };
            Box::pin(carry(&worker, client, &caller, route, None)).await;
        }
    }
}

/// Where the client is: as its connection says, or the PROXY header before it, which says as well
/// where it connected to.
async fn client_address(
    stream: &mut TcpStream,
    peer: SocketAddr,
    seen: &mut BytesMut,
    port: &Port,
) -> Result<(SocketAddr, Option<SocketAddr>), proxy_protocol::ReadError> {
    let mode = match port.proxy_protocol {
        ProxyProtocol::Off => return Ok((peer, None)),
        ProxyProtocol::Accept => Mode::Accept,
        ProxyProtocol::Require => Mode::Require,
    };
    let limit = port.limits.tls_handshake_timeout;
    let header = proxy_protocol::read(stream, seen, mode, limit).await?;
    let addresses = header.and_then(|header| header.addresses);
    Ok(addresses.map_or((peer, None), |a| (a.source, Some(a.destination))))
}

/// A connection that begins with TLS.
async fn behind_tls(
    worker: &Rc<Worker>,
    mut stream: TcpStream,
    mut seen: BytesMut,
    mut caller: Caller,
    port: &Port,
) {
    let limit = port.limits.tls_handshake_timeout;
    let begun = tokio::time::Instant::now();
    let name = match timeout(limit, tls::server_name(&mut stream, &mut seen)).await {
        Ok(Ok(name)) => name,
        Ok(Err(error)) => return no_handshake(worker, &caller, &error),
        Err(_) => return no_handshake(worker, &caller, &io::ErrorKind::TimedOut.into()),
    };
    let Some(listener) = port.listener(name.as_deref()) else {
        let shown = name.as_deref().unwrap_or("none");
        let details = format!("no listener is for the server name \"{shown}\"");
        return refuse(worker, &caller, &Failure::new(Reason::NoRoute, details));
    };
    let Some(config) = &listener.tls else {
        let client = Io::from(stream).with_ahead(seen.freeze());
        return Box::pin(pass_through(worker, client, &caller, listener, limit)).await;
    };
    let left = limit.saturating_sub(begun.elapsed());
    let handshake = tls::accept(stream, &seen, Arc::clone(config), left);
    let client = match Box::pin(handshake).await {
        Ok(client) => client,
        Err(error) => return no_handshake(worker, &caller, &error),
    };
    // What was read ahead is of no use any more, and the connection may live long.
    drop(seen);
    let session = client.get_ref().1;
    caller.group = net::tls::group(session);
    let wire = match session.alpn_protocol() {
        Some(b"h2") => Wire::Http2,
        _ => Wire::Http1,
    };
    let client = Io::tls(client);
    if listener.config.protocol == Protocol::Https {
        let entrance = Entrance::behind(listener);
        let limits = &listener.config.limits;
        let hops = listener.config.trusted_hops;
        serve_http(worker, client, wire, caller, entrance, hops, limits).await;
    } else {
        let route = listener.stream(name.as_deref());
        caller.shown.clone_from(&listener.shown);
        Box::pin(carry(worker, client, &caller, route, name.as_deref())).await;
    }
}

/// TLS that is not opened here.
async fn pass_through(
    worker: &Rc<Worker>,
    client: Io,
    caller: &Caller,
    listener: &Listener,
    limit: Duration,
) {
    let pick = async |name: Option<&str>| {
        let name = name.map(normal);
        match listener.stream(name.as_deref()) {
            Some(route) => backend(worker, route).await,
            None => Err(no_stream(name.as_deref())),
        }
    };
    // What failed is in the access log.
    drop(tcp::passthrough(worker, client, caller, limit, pick).await);
}

fn no_stream(name: Option<&str>) -> Failure {
    let whom = name.map(|name| format!(" for the server name \"{name}\""));
    let details = format!("no route is attached{}", whom.unwrap_or_default());
    Failure::new(Reason::NoRoute, details)
}

fn no_handshake(worker: &Worker, caller: &Caller, error: &io::Error) {
    worker.shared.handshake_failures.inc();
    tracing::debug!(client = %caller.address, error = chain(error), "TLS handshake failed");
}

/// HTTP requests of a client.
pub(super) struct Visitor {
    worker: Rc<Worker>,
    caller: Caller,
    entrance: Rc<Entrance>,
    inlet: Inlet,
    forwarded: Forwarded,
}

impl Visitor {
    pub(super) fn new(
        worker: &Rc<Worker>,
        caller: Caller,
        entrance: Entrance,
        trusted_hops: u32,
    ) -> Self {
        let entrance = Rc::new(entrance);
        Self {
            worker: Rc::clone(worker),
            forwarded: Forwarded::new(caller.address.ip(), entrance.is_behind_tls(), trusted_hops),
            caller,
            inlet: Inlet::Listener(Rc::clone(&entrance)),
            entrance,
        }
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        self.worker.pool.forget(self.caller.client());
    }
}

impl Service for Visitor {
    fn begin(&self, mut head: RequestHead) -> Exchange {
        if self.entrance.is_behind_tls() {
            head.scheme = Some(Scheme::Https);
        }
        let told = self.forwarded.write(&mut head);
        let mut exchange = Exchange::begin(&self.worker, Direction::Outbound, &self.caller, head);
        if let Some(client) = told {
            exchange.set_caller(SocketAddr::new(client, 0));
        }
        exchange
    }

    async fn call(&self, exchange: Exchange, request: Request) -> Reply {
        let alternative = self.entrance.alternative(&self.worker, exchange.head());
        let mut reply = outbound::handle(&self.worker, &self.inlet, exchange, request).await;
        if let Some(alternative) = alternative {
            // What a server behind the gateway offers is not to be had from here.
            let fields = &mut reply.head.fields;
            fields.set("alt-svc", alternative.as_bytes());
        }
        reply
    }
}

async fn serve_http(
    worker: &Rc<Worker>,
    client: Io,
    wire: Wire,
    caller: Caller,
    entrance: Entrance,
    trusted_hops: u32,
    limits: &Limits,
) {
    let bounds = bounds(worker, limits);
    let visitor = Visitor::new(worker, caller, entrance, trusted_hops);
    http::serve(worker, client, wire, &bounds, visitor).await;
}

/// The bounds of a connection; those of the worker where they are the same.
pub(super) fn bounds(worker: &Worker, limits: &Limits) -> Rc<Bounds> {
    let new = Bounds::from(limits);
    let usual = worker.bounds();
    if new == *usual {
        return usual;
    }
    Rc::new(new)
}

/// Carries a connection where its route leads.
async fn carry(
    worker: &Rc<Worker>,
    client: impl Stream,
    caller: &Caller,
    route: Option<&Arc<StreamRoute>>,
    name: Option<&str>,
) {
    let found = match route {
        Some(route) => backend(worker, route).await,
        None => Err(no_stream(name)),
    };
    match found {
        Ok((destination, port)) => {
            let carried = tcp::carry(worker, client, caller, &destination, port, None).await;
            if let Err(failure) = carried {
                tracing::debug!(service = %destination.name, port, "connection failed: {failure}");
            }
        }
        Err(failure) => {
            refuse(worker, caller, &failure);
            tcp::close(client).await;
        }
    }
}

pub(super) fn refuse(worker: &Rc<Worker>, caller: &Caller, failure: &Failure) {
    Connection::begin(worker, Direction::Outbound, caller, &NONE).failed(failure);
}

async fn backend(worker: &Worker, route: &StreamRoute) -> Result<(Arc<Destination>, u16), Failure> {
    let (name, port) = choose(route)?;
    Ok((outbound::service(worker, name).await?, port))
}

/// One of a route's backends, by weight.
fn choose(route: &StreamRoute) -> Result<(&ServiceName, u16), Failure> {
    let weights = route.backends.iter().map(|b| b.weight);
    let chosen = policy::split::by_weight(weights, rand::random());
    let Some(backend) = chosen.and_then(|i| route.backends.get(i)) else {
        let details = format!(
            "{} {} has no backend with a weight above 0",
            route.kind, route.name
        );
        return Err(Failure::no_backend(details));
    };
    match &backend.target {
        Target::Service { name, port } => Ok((name, *port)),
        Target::Invalid { reason } => {
            let details = format!("{} {}: {reason}", route.kind, route.name);
            Err(Failure::no_backend(details))
        }
    }
}

/// Where the datagrams of a new client on port `number` go. What a route leads to is known before
/// the first of them comes.
pub(crate) fn datagrams(
    worker: &Worker,
    number: u16,
    client: IpAddr,
) -> Result<udp::Target, Failure> {
    let snapshot = worker.snapshot();
    let port = snapshot.listeners.datagrams(number);
    let listener = port.and_then(|port| port.listener(None));
    let route = listener.and_then(|listener| listener.stream(None));
    let route = route.ok_or_else(|| {
        let details = format!("no UDPRoute is attached to port {number}");
        Failure::new(Reason::NoRoute, details)
    })?;
    let (name, port) = choose(route)?;
    let destination = snapshot
        .service(name)
        .ok_or_else(|| outbound::unknown(name))?;
    udp::pick(worker, destination, port, client)
}
