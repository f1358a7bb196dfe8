//! Connections of the application to the proxy: where each is going, and what it speaks.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::uri::Authority;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use model::Reason;
use net::detect::{self, Sniff};
use net::prefixed::Prefixed;
use telemetry::Direction;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::body::ResponseBody;
use crate::destination::Destination;
use crate::error::Failure;
use crate::outbound::{self, Found, Inlet};
use crate::pool::{Link, Wire};
use crate::record::{Caller, Exchange};
use crate::state::Lookup;
use crate::tcp::{self, Connection, Spoken};
use crate::worker::Worker;
use crate::{connect, external, http as serve_http, reply};

/// For the next request on a kept connection, and so for one that never gets beyond its first bytes.
const IDLE: Duration = Duration::from_mins(5);
/// For the first bytes of a client that is to be told why it is refused.
const LAST_WORDS: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Explicit mode: the application uses the proxy as an HTTP proxy.
pub(crate) async fn explicit(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr) {
    let caller = Rc::new(outbound::local_caller(&worker, peer));
    let Ok(Spoken::Http(stream, wire)) = tcp::read_http(stream).await else {
        return;
    };
    let handler = {
        let worker = Rc::clone(&worker);
        move |request: Request<Incoming>| {
            let (worker, caller) = (Rc::clone(&worker), Rc::clone(&caller));
            async move {
                if *request.method() == Method::CONNECT {
                    connect_tunnel(worker, caller, request).await
                } else {
                    outbound::handle(worker, Inlet::Authority, caller, request).await
                }
            }
        }
    };
    serve_http::serve(&worker, stream, wire, IDLE, handler).await;
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
        Lookup::Found(destination) => serve(worker, stream, caller, destination, to.port()).await,
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
                return refuse(
                    &worker,
                    stream,
                    &caller,
                    Failure::new(Reason::NoRoute, format!("{to}: {why}")),
                )
                .await;
            }
            match connect::tcp(&worker, to, CONNECT_TIMEOUT).await {
                Ok(server) => pass(&worker, stream, &caller, server, to).await,
                Err(failure) => refuse(&worker, stream, &caller, failure).await,
            }
        }
        Lookup::Unknown => {
            let failure = Failure::new(
                Reason::ConfigMissing,
                format!("the control plane has not told what {to} is"),
            );
            refuse(&worker, stream, &caller, failure).await;
        }
    }
}

/// A loopback port that leads to a service.
pub(crate) async fn upstream(
    worker: Rc<Worker>,
    stream: TcpStream,
    peer: SocketAddr,
    authority: Authority,
) {
    let caller = Rc::new(outbound::local_caller(&worker, peer));
    match outbound::find(&worker, &authority, 0).await {
        Ok(Found::Service(destination, port)) => {
            serve(worker, stream, caller, destination, port).await;
        }
        Ok(Found::Outside(host, port)) => match external::connect(&worker, &host, port).await {
            Ok(server) => match server.peer_addr() {
                Ok(to) => pass(&worker, stream, &caller, server, to).await,
                Err(_) => tcp::close(stream).await,
            },
            Err(failure) => refuse(&worker, stream, &caller, failure).await,
        },
        Err(failure) => refuse(&worker, stream, &caller, failure).await,
    }
}

/// `CONNECT`: the answer first, then whatever the client speaks.
async fn connect_tunnel(
    worker: Rc<Worker>,
    caller: Rc<Caller>,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let refused = |failure: Failure, request: Request<Incoming>| {
        let (mut head, _) = request.into_parts();
        let mut exchange = Exchange::begin(&worker, Direction::Outbound, &caller, &mut head);
        exchange.fail(&failure);
        reply::failure(&failure, false)
    };
    let Some(authority) = request.uri().authority().cloned() else {
        return refused(
            Failure::new(Reason::BadRequest, "CONNECT names no host and port"),
            request,
        );
    };
    let found = match outbound::find(&worker, &authority, 443).await {
        Ok(found) => found,
        Err(failure) => return refused(failure, request),
    };
    let server = match &found {
        Found::Service(destination, port) => {
            let view = Arc::clone(&destination.view());
            if view.port(*port).is_none() {
                return refused(outbound::no_port(destination, &view, *port), request);
            }
            None
        }
        Found::Outside(host, port) => match external::connect(&worker, host, *port).await {
            Ok(server) => Some(server),
            Err(failure) => return refused(failure, request),
        },
    };
    let client = hyper::upgrade::on(request);
    tokio::task::spawn_local(async move {
        let Ok(client) = client.await else { return };
        let client = TokioIo::new(client);
        match (found, server) {
            (Found::Service(destination, port), _) => {
                serve(worker, client, caller, destination, port).await;
            }
            (Found::Outside(..), Some(server)) => {
                if let Ok(to) = server.peer_addr() {
                    pass(&worker, client, &caller, server, to).await;
                }
            }
            (Found::Outside(..), None) => {}
        }
    });
    Response::new(ResponseBody::empty())
}

/// A connection whose service and port are known.
async fn serve<S>(
    worker: Rc<Worker>,
    client: S,
    caller: Rc<Caller>,
    destination: Arc<Destination>,
    port: u16,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if destination.view().port(port).is_none() {
        let failure = outbound::no_port(&destination, &destination.view(), port);
        return refuse(&worker, client, &caller, failure).await;
    }
    match tcp::detect(&worker, client, &destination, port).await {
        Ok(Spoken::Http(client, wire)) => {
            let inlet = Inlet::Service(destination, port);
            let handler = {
                let worker = Rc::clone(&worker);
                move |request| {
                    outbound::handle(
                        Rc::clone(&worker),
                        inlet.clone(),
                        Rc::clone(&caller),
                        request,
                    )
                }
            };
            serve_http::serve(&worker, client, wire, IDLE, handler).await;
        }
        Ok(Spoken::Bytes(client, opened)) => {
            if let Err(failure) =
                tcp::carry(&worker, client, &caller, &destination, port, opened).await
            {
                tracing::warn!(service = %destination.name, port, "connection failed: {failure}");
            }
        }
        Err(failure) => {
            tracing::warn!(service = %destination.name, port, "connection failed: {failure}");
        }
    }
}

/// Bytes to and from a host outside the mesh.
async fn pass<S>(worker: &Rc<Worker>, client: S, caller: &Caller, server: TcpStream, to: SocketAddr)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    thread_local! {
        static OUTSIDE: Arc<str> = "outside".into();
    }
    let destination = OUTSIDE.with(Arc::clone);
    let mut connection = Connection::begin(worker, Direction::Outbound, caller, &destination);
    connection.sent_to(&Link {
        address: to,
        mtls: false,
        group: "",
    });
    connection.copy(client, server).await;
}

/// Refuses a connection: in words if the client speaks HTTP, which it has a moment to show.
async fn refuse<S>(worker: &Rc<Worker>, mut client: S, caller: &Rc<Caller>, failure: Failure)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    tracing::warn!("connection refused: {failure}");
    let mut seen = BytesMut::with_capacity(1024);
    let sniff = tokio::time::timeout(LAST_WORDS, detect::read(&mut client, &mut seen));
    let wire = match sniff.await {
        Ok(Ok(Sniff::Http1)) => Wire::Http1,
        Ok(Ok(Sniff::Http2)) => Wire::Http2,
        _ => return tcp::close(client).await,
    };
    let handler = {
        let (worker, caller) = (Rc::clone(worker), Rc::clone(caller));
        move |request: Request<Incoming>| {
            let (mut head, _) = request.into_parts();
            let mut exchange = Exchange::begin(&worker, Direction::Outbound, &caller, &mut head);
            exchange.fail(&failure);
            std::future::ready(reply::failure(&failure, exchange.is_grpc()))
        }
    };
    serve_http::serve(
        worker,
        Prefixed::new(client, seen.freeze()),
        wire,
        IDLE,
        handler,
    )
    .await;
}
