//! Connections that are not HTTP, and finding out which they are.
//!
//! Where a port's protocol is declared, nothing is guessed. Where it is not, the client's first
//! bytes and the server's race ([`race`]). A port of TLS may be passed through: the ClientHello's
//! server name says where to, and nothing is decrypted. Everything is counted while it runs and
//! logged when it ends ([`Connection`]).

mod connection;
mod race;

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use model::route::{Route, Target};
use model::service::Protocol;
use model::{Reason, ServiceName};
use net::detect::{self, ClientHello, Sniff};
use net::prefixed::Prefixed;
use net::tcp::Stream;
use policy::split;
use telemetry::Direction;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

pub(crate) use connection::Connection;
pub(crate) use race::{Opened, race};

use crate::behalf::Behalf;
use crate::connect;
use crate::destination::{Destination, PortView, since_start};
use crate::error::Failure;
use crate::hash;
use crate::outbound::{no_port, service};
use crate::pool::Wire;
use crate::record::{Caller, Load, NONE};
use crate::request;
use crate::request::pace::Slow;
use crate::tunnel::Form;
use crate::worker::Worker;

/// Bytes looked at before a protocol is named.
const LOOK: usize = 1024;
/// Endpoints tried for one connection.
const TRIES: usize = 3;

/// What a client speaks.
pub(crate) enum Spoken<S> {
    Http(Prefixed<S>, Wire),
    /// Anything else; perhaps with the connection to the endpoint that the race has opened.
    Bytes(Prefixed<S>, Option<Opened>),
}

/// Finds out what the client of a port of a service speaks.
pub(crate) async fn detect<S>(
    worker: &Rc<Worker>,
    client: S,
    caller: &Caller,
    destination: &Arc<Destination>,
    port: u16,
) -> Result<Spoken<S>, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let view = Arc::clone(&destination.view());
    let port_view = view
        .port(port)
        .ok_or_else(|| no_port(destination, &view, port))?;
    // Whatever it is: a route says where to.
    if port_view.stream.is_some() {
        let client = Prefixed::new(client, bytes::Bytes::new());
        return Ok(Spoken::Bytes(client, None));
    }
    match port_view.protocol {
        Protocol::Http | Protocol::Http2 | Protocol::Grpc => read_http(client).await,
        Protocol::Tcp | Protocol::Tls => Ok(Spoken::Bytes(
            Prefixed::new(client, bytes::Bytes::new()),
            None,
        )),
        Protocol::Detect => race(client, open(worker, caller, destination, port_view)).await,
    }
}

/// Where a connection to a port of a service goes: where the port's route says, or there.
pub(crate) async fn routed(
    worker: &Worker,
    destination: &Arc<Destination>,
    port: u16,
) -> Result<(Arc<Destination>, u16), Failure> {
    let view = Arc::clone(&destination.view());
    match view.port(port).and_then(|port| port.stream.as_deref()) {
        Some(route) => {
            let (name, port) = choose(route)?;
            Ok((service(worker, name).await?, port))
        }
        None => Ok((Arc::clone(destination), port)),
    }
}

/// One of the backends of a route for connections or datagrams, by weight.
pub(crate) fn choose(route: &Route) -> Result<(&ServiceName, u16), Failure> {
    let backends = route
        .rules
        .first()
        .map_or(&[][..], |rule| rule.backends.as_slice());
    let chosen = split::choose(backends, rand::random()).and_then(|at| backends.get(at));
    let failed = |what: &str| Failure::no_backend(format!("{} {}{what}", route.kind, route.name));
    match chosen.map(|backend| &backend.target) {
        Some(Target::Service { name, port }) => Ok((name, *port)),
        Some(Target::Invalid { reason }) => Err(failed(&format!(": {reason}"))),
        None => Err(failed(" has no backend with a weight above 0")),
    }
}

/// A port declared as HTTP: the client speaks first, only the version is open.
pub(crate) async fn read_http<S>(mut client: S) -> Result<Spoken<S>, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut seen = BytesMut::with_capacity(LOOK);
    let wire = match detect::read(&mut client, &mut seen).await {
        Ok(Sniff::Http2) => Wire::Http2,
        // What is not HTTP after all is answered with 400.
        Ok(Sniff::Http1 | Sniff::Tls | Sniff::Other | Sniff::NeedMore) => Wire::Http1,
        Err(error) => return Err(Failure::new(Reason::ClientDisconnected, error.to_string())),
    };
    Ok(Spoken::Http(Prefixed::new(client, seen.freeze()), wire))
}

/// Connects to an endpoint of a port for bytes; to another when the first cannot be reached.
async fn open(
    worker: &Rc<Worker>,
    caller: &Caller,
    destination: &Arc<Destination>,
    port: &PortView,
) -> Result<Opened, Failure> {
    let mut tried = Vec::new();
    let hash = hash::of_client(&port.policy.balancer, caller.address.ip());
    loop {
        let picked = worker.with_balancer(destination.id, port.number, |b| {
            port.pick(b, hash, &tried, Instant::now())
        });
        let (endpoint, target) = picked.ok_or_else(|| {
            Failure::new(
                Reason::NoHealthyEndpoints,
                format!("service {} port {}", destination.name, port.number),
            )
        })?;
        let held = Some((
            Load::on(Arc::clone(endpoint)),
            connect::reserve(worker, endpoint, &port.policy)?,
        ));
        let limit = port.policy.connect_timeout;
        // On the heap until it is done: the connection outlives it by far.
        let shown = caller.shown.as_ref();
        let shown = shown.filter(|_| endpoint.outside(target).is_some());
        let behalf = Behalf::of(port.policy.proxy_protocol, caller.client(), shown);
        let behalf = behalf.as_ref();
        let connecting = connect::connect(worker, endpoint, target, Form::Tcp, behalf, limit);
        match Box::pin(connecting).await {
            Ok((io, link)) => {
                return Ok(Opened {
                    io: Prefixed::new(io, bytes::Bytes::new()),
                    link,
                    endpoint: Arc::clone(endpoint),
                    held,
                });
            }
            Err(failure) => {
                if let Some(settings) = &port.policy.outlier {
                    let verdict = lb::outlier::Verdict::GatewayError;
                    endpoint
                        .live
                        .outlier
                        .record(verdict, since_start(), settings);
                }
                tried.push(endpoint.id);
                if tried.len() >= TRIES.min(port.endpoints.len()) {
                    return Err(failure);
                }
            }
        }
    }
}

/// Carries bytes between a client and an endpoint of a service until both are done.
pub(crate) async fn carry<S>(
    worker: &Rc<Worker>,
    client: S,
    caller: &Caller,
    destination: &Arc<Destination>,
    port: u16,
    opened: Option<Opened>,
) -> Result<(), Failure>
where
    S: Stream,
{
    let view = Arc::clone(&destination.view());
    let port_view = view
        .port(port)
        .ok_or_else(|| no_port(destination, &view, port))?;
    let connection = Connection::begin(worker, Direction::Outbound, caller, &destination.host);
    let mut bandwidth = None;
    if !port_view.requests.is_empty() {
        let asker = request::connected(&caller.principal, caller.address);
        let met = port_view.requests.meet_connection(asker);
        // In a box: seldom done.
        if let Err(failure) = Box::pin(met.suffer()).await {
            connection.failed(&failure);
            return Err(failure);
        }
        bandwidth = met.bandwidth();
    }
    let opened = match opened {
        Some(opened) => Ok(opened),
        None => open(worker, caller, destination, port_view).await,
    };
    match opened {
        Ok(opened) => {
            match bandwidth {
                None => connection.join(client, opened).await,
                Some(bytes) => connection.join(Slow::new(client, bytes), opened).await,
            }
            Ok(())
        }
        Err(failure) => {
            connection.failed(&failure);
            Err(failure)
        }
    }
}

/// Carries a TLS connection, unopened, to where its server name leads.
///
/// `pick` is given the name, lower-case, `None` where the client sends none; the name is what the
/// client says and proves nothing. The ClientHello must come within `limit` and within
/// [`detect::LIMIT`] bytes, in however many packets.
pub(crate) async fn passthrough<S, P>(
    worker: &Rc<Worker>,
    mut client: S,
    caller: &Caller,
    limit: Duration,
    pick: P,
) -> Result<(), Failure>
where
    S: Stream,
    P: AsyncFnOnce(Option<&str>) -> Result<(Arc<Destination>, u16), Failure>,
{
    let mut seen = BytesMut::with_capacity(2 * LOOK);
    let picked = match server_name(&mut client, &mut seen, limit).await {
        Ok(name) => pick(name.as_deref()).await,
        Err(failure) => Err(failure),
    };
    match picked {
        Ok((destination, port)) => {
            let client = Prefixed::new(client, seen.freeze());
            carry(worker, client, caller, &destination, port, None).await
        }
        Err(failure) => {
            Connection::begin(worker, Direction::Outbound, caller, &NONE).failed(&failure);
            close(client).await;
            Err(failure)
        }
    }
}

async fn server_name<S: AsyncRead + Unpin>(
    client: &mut S,
    seen: &mut BytesMut,
    limit: Duration,
) -> Result<Option<String>, Failure> {
    let read = detect::read_client_hello(client, seen);
    match tokio::time::timeout(limit, read).await {
        Ok(Ok(ClientHello::Found { sni, .. })) => Ok(sni),
        Ok(Ok(ClientHello::NeedMore | ClientHello::Invalid)) => Err(Failure::new(
            Reason::BadRequest,
            "the connection does not begin with a TLS ClientHello",
        )),
        Ok(Err(error)) => Err(Failure::new(Reason::ClientDisconnected, error.to_string())),
        Err(_) => Err(Failure::new(
            Reason::RequestTimeout,
            format!("no TLS ClientHello within {limit:?}"),
        )),
    }
}

/// Ends a connection that cannot be served, without a word where none is possible.
pub(crate) async fn close<S: AsyncWrite + Unpin>(mut client: S) {
    // The client may be gone already; there is nobody to tell.
    drop(client.shutdown().await);
}

#[cfg(test)]
mod tests;
