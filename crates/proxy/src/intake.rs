//! Connections of the application to the proxy: where each is going, and what it speaks.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use model::Reason;
use net::detect::{self, Sniff};
use net::prefixed::Prefixed;
use net::tcp::Stream;
use telemetry::Direction;
use tokio::net::TcpStream;
use wire::{Fields, Method, RequestHead};

use crate::destination::Destination;
use crate::error::Failure;
use crate::http::{Reply, Request, Service};
use crate::io::Io;
use crate::outbound::{self, Found, Inlet};
use crate::pool::{Link, Wire};
use crate::record::{Caller, Exchange};
use crate::state::Lookup;
use crate::tcp::{self, Connection, Spoken};
use crate::worker::Worker;
use crate::{connect, external, http, reply};

/// For the first bytes of a client that is to be told why it is refused.
const LAST_WORDS: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Requests of the application.
pub(crate) struct Outward {
    pub(crate) worker: Rc<Worker>,
    pub(crate) caller: Rc<Caller>,
    pub(crate) inlet: Inlet,
}

impl Drop for Outward {
    fn drop(&mut self) {
        self.worker.pool.forget(self.caller.client());
    }
}

impl Service for Outward {
    fn begin(&self, head: RequestHead) -> Exchange {
        Exchange::begin(&self.worker, Direction::Outbound, &self.caller, head)
    }

    async fn call(&self, exchange: Exchange, request: Request) -> Reply {
        let head = exchange.head();
        let tunnel = head.method == Method::CONNECT && head.protocol.is_none();
        if tunnel && matches!(self.inlet, Inlet::Authority) {
            connect_tunnel(&self.worker, &self.caller, exchange).await
        } else {
            outbound::handle(&self.worker, &self.inlet, exchange, request).await
        }
    }
}

/// Requests that are all refused for one reason.
struct Refusing {
    worker: Rc<Worker>,
    caller: Rc<Caller>,
    failure: Failure,
}

impl Service for Refusing {
    fn begin(&self, head: RequestHead) -> Exchange {
        Exchange::begin(&self.worker, Direction::Outbound, &self.caller, head)
    }

    async fn call(&self, mut exchange: Exchange, _: Request) -> Reply {
        exchange.fail(&self.failure);
        reply::failure(&self.failure, exchange.is_grpc())
    }
}

/// Explicit mode: the application uses the proxy as an HTTP proxy.
pub(crate) async fn explicit(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr) {
    let caller = Rc::new(outbound::local_caller(&worker, peer));
    let Ok(Spoken::Http(stream, wire)) = tcp::read_http(Io::from(stream)).await else {
        return;
    };
    let service = Outward {
        worker: Rc::clone(&worker),
        caller,
        inlet: Inlet::Authority,
    };
    http::serve(&worker, whole(stream), wire, &worker.bounds(), service).await;
}

/// The stream with what was read ahead of it.
fn whole(stream: Prefixed<Io>) -> Io {
    let (io, ahead) = stream.into_parts();
    io.with_ahead(ahead)
}

/// Transparent mode: the namespace redirected a connection that was going elsewhere.
pub(crate) async fn intercepted(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr) {
    let caller = Rc::new(outbound::local_caller(&worker, peer));
    // Without an original destination somebody connected to the proxy itself: that leads nowhere,
    // and in circles if it were tried.
    let Some(to) = net::socket::original_destination(&stream) else {
        return;
    };
    match worker.shared.state.address(to.ip()).await {
        Lookup::Found(destination) => {
            serve(worker, stream.into(), caller, destination, to.port()).await;
        }
        Lookup::Absent => {
            let snapshot = worker.shared.state.snapshot();
            let ours = snapshot.mesh.networks.iter().any(|n| n.contains(&to.ip()));
            let allowed = snapshot.allows_outside();
            drop(snapshot);
            if ours || !allowed {
                let why = if ours {
                    "nothing in the mesh has this address"
                } else {
                    "the address is not of this mesh, and outboundPolicy is RegistryOnly"
                };
                let failure = Failure::new(Reason::NoRoute, format!("{to}: {why}"));
                return refuse(&worker, stream.into(), &caller, failure).await;
            }
            match connect::tcp(&worker, to, CONNECT_TIMEOUT).await {
                Ok(server) => pass(&worker, stream, &caller, server, to).await,
                Err(failure) => refuse(&worker, stream.into(), &caller, failure).await,
            }
        }
        Lookup::Unknown => {
            let failure = Failure::new(
                Reason::ConfigMissing,
                format!("the control plane has not told what {to} is"),
            );
            refuse(&worker, stream.into(), &caller, failure).await;
        }
    }
}

/// A loopback port that leads to a service.
pub(crate) async fn upstream(
    worker: Rc<Worker>,
    stream: TcpStream,
    peer: SocketAddr,
    host: String,
    port: u16,
) {
    let caller = Rc::new(outbound::local_caller(&worker, peer));
    match outbound::find(&worker, &host, port).await {
        Ok(Found::Service(destination, port)) => {
            serve(worker, stream.into(), caller, destination, port).await;
        }
        Ok(Found::Outside(host, port)) => match external::connect(&worker, &host, port).await {
            Ok(server) => match server.peer_addr() {
                Ok(to) => pass(&worker, stream, &caller, server, to).await,
                Err(_) => tcp::close(stream).await,
            },
            Err(failure) => refuse(&worker, stream.into(), &caller, failure).await,
        },
        Err(failure) => refuse(&worker, stream.into(), &caller, failure).await,
    }
}

/// `CONNECT`: the answer first, then whatever the client speaks.
async fn connect_tunnel(worker: &Rc<Worker>, caller: &Rc<Caller>, mut exchange: Exchange) -> Reply {
    let head = exchange.head();
    let found = tunnel_to(worker, head.host(), head.port().unwrap_or(443)).await;
    let onward = match found {
        Ok(onward) => onward,
        Err(failure) => {
            exchange.fail(&failure);
            return reply::failure(&failure, false);
        }
    };
    // From here on it is a connection, and recorded as one.
    exchange.forget();
    let (worker, caller) = (Rc::clone(worker), Rc::clone(caller));
    Reply::own(200, Fields::new(), "").then(Box::new(move |client| {
        Box::pin(async move {
            match onward {
                Onward::Service(destination, port) => {
                    serve(worker, client, caller, destination, port).await;
                }
                Onward::Outside(server, to) => pass(&worker, client, &caller, server, to).await,
            }
        })
    }))
}

/// Where a tunnel leads.
enum Onward {
    Service(Arc<Destination>, u16),
    Outside(TcpStream, SocketAddr),
}

async fn tunnel_to(worker: &Worker, host: &str, port: u16) -> Result<Onward, Failure> {
    match outbound::find(worker, host, port).await? {
        Found::Service(destination, port) => {
            let view = Arc::clone(&destination.view());
            if view.port(port).is_none() {
                return Err(outbound::no_port(&destination, &view, port));
            }
            Ok(Onward::Service(destination, port))
        }
        Found::Outside(host, port) => {
            let server = external::connect(worker, &host, port).await?;
            let to = server
                .peer_addr()
                .map_err(|e| Failure::new(Reason::ConnectRefused, e.to_string()))?;
            Ok(Onward::Outside(server, to))
        }
    }
}

/// A connection whose service and port are known.
async fn serve(
    worker: Rc<Worker>,
    client: Io,
    caller: Rc<Caller>,
    destination: Arc<Destination>,
    port: u16,
) {
    if destination.view().port(port).is_none() {
        let failure = outbound::no_port(&destination, &destination.view(), port);
        return refuse(&worker, client, &caller, failure).await;
    }
    match tcp::detect(&worker, client, &caller, &destination, port).await {
        Ok(Spoken::Http(client, wire)) => {
            let service = Outward {
                worker: Rc::clone(&worker),
                caller,
                inlet: Inlet::Service(destination, port),
            };
            http::serve(&worker, whole(client), wire, &worker.bounds(), service).await;
        }
        Ok(Spoken::Bytes(client, opened)) => {
            let carried = match tcp::routed(&worker, &destination, port).await {
                Ok((to, port)) => tcp::carry(&worker, client, &caller, &to, port, opened).await,
                Err(failure) => {
                    let host = &destination.host;
                    Connection::begin(&worker, Direction::Outbound, &caller, host).failed(&failure);
                    tcp::close(client).await;
                    Err(failure)
                }
            };
            if let Err(failure) = carried {
                tracing::warn!(service = %destination.name, port, "connection failed: {failure}");
            }
        }
        Err(failure) => {
            tracing::warn!(service = %destination.name, port, "connection failed: {failure}");
        }
    }
}

/// Bytes to and from a host outside the mesh.
async fn pass(
    worker: &Rc<Worker>,
    client: impl Stream,
    caller: &Caller,
    server: TcpStream,
    to: SocketAddr,
) {
    thread_local! {
        static OUTSIDE: Arc<str> = "outside".into();
    }
    let destination = OUTSIDE.with(Arc::clone);
    let mut connection = Connection::begin(worker, Direction::Outbound, caller, &destination);
    connection.sent_to(&Link::plain(to));
    connection.copy(client, server).await;
}

/// Refuses a connection: in words if the client speaks HTTP, which it has a moment to show.
async fn refuse(worker: &Rc<Worker>, mut client: Io, caller: &Rc<Caller>, failure: Failure) {
    tracing::warn!("connection refused: {failure}");
    let mut seen = BytesMut::with_capacity(1024);
    let sniff = tokio::time::timeout(LAST_WORDS, detect::read(&mut client, &mut seen));
    let wire = match sniff.await {
        Ok(Ok(Sniff::Http1)) => Wire::Http1,
        Ok(Ok(Sniff::Http2)) => Wire::Http2,
        _ => return tcp::close(client).await,
    };
    let service = Refusing {
        worker: Rc::clone(worker),
        caller: Rc::clone(caller),
        failure,
    };
    let client = client.with_ahead(seen.freeze());
    http::serve(worker, client, wire, &worker.bounds(), service).await;
}
