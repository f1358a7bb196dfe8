//! Inbound: requests and connections of others to the application.
//!
//! Two doors. The tunnel port takes mutual TLS; who calls is proven, the port is named by SNI, what
//! follows by ALPN. Plain text, redirected here by the namespace or sent to the tunnel port, is
//! passed on only where the port's mode allows it, and refused with a reason otherwise.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use model::Reason;
use model::service::Protocol;
use model::workload::MtlsMode;
use net::detect::{self, Sniff};
use net::prefixed::Prefixed;
use policy::effective::Effective;
use telemetry::Direction;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;

use crate::body::ResponseBody;
use crate::error::{Failure, Replay};
use crate::forward::{self, Answer, Order};
use crate::options::Mode;
use crate::peers;
use crate::pool::{Link, Wire};
use crate::record::{Caller, Exchange, Load, NONE};
use crate::retry::is_idempotent;
use crate::state::Own;
use crate::tcp::{self, Connection};
use crate::tunnel::{self, Form};
use crate::worker::Worker;
use crate::{connect, headers, http as serve_http, reply, upgrade};

/// For a handshake, or for the first bytes of a caller that must speak first.
const PATIENCE: Duration = Duration::from_secs(10);
/// For the next request of a peer's pooled connection; longer than peers keep idle connections.
const PEER_IDLE: Duration = Duration::from_mins(10);
/// For the next request of a caller in plain text.
const PLAIN_IDLE: Duration = Duration::from_secs(75);
/// Ports of the proxy itself, never forwarded to.
const OWN_PORTS: std::ops::RangeInclusive<u16> = 15_000..=15_099;

/// A connection to the tunnel port.
pub(crate) async fn tunnel(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr) {
    let mut first = [0];
    match tokio::time::timeout(PATIENCE, stream.peek(&mut first)).await {
        // 22 is TLS's handshake record (RFC 8446 5.1).
        Ok(Ok(1)) if first == [22] => tls(worker, stream, peer).await,
        Ok(Ok(1)) => {
            let port = only_port(&worker);
            plain(worker, stream, peer, port).await;
        }
        _ => {}
    }
}

/// A connection that the namespace redirected here.
pub(crate) async fn captured(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr) {
    let port = net::socket::original_destination(&stream).map(|to| to.port());
    plain(
        worker,
        stream,
        peer,
        port.filter(|p| !OWN_PORTS.contains(p)),
    )
    .await;
}

async fn tls(worker: Rc<Worker>, stream: TcpStream, address: SocketAddr) {
    let (stream, peer) = match net::tls::accept(stream, worker.server_config(), PATIENCE).await {
        Ok(accepted) => accepted,
        Err(error) => {
            tracing::warn!(%address, error = crate::error::chain(&error), "handshake of a caller failed");
            worker.shared.handshake_failures.inc();
            return;
        }
    };
    let alpn = peer.alpn.as_deref().unwrap_or_default();
    worker.shared.peers.record(
        peers::Direction::Inbound,
        peer.id.as_ref(),
        alpn,
        peer.kx_group,
    );
    let Some(form) = Form::of_alpn(alpn) else {
        return;
    };
    let principal = peer
        .id
        .as_ref()
        .map_or_else(|| Arc::clone(&NONE), |id| worker.principal(id));
    let caller = Rc::new(Caller {
        address,
        principal,
        mtls: true,
        group: peer.kx_group,
    });
    if form == Form::Hbone {
        return hbone(worker, stream, caller).await;
    }
    let asked = peer.sni.as_deref().and_then(tunnel::parse_server_name);
    let port = match asked {
        Some((port, workload)) if workload == worker.shared.workload => Ok(port),
        Some((_, workload)) => Err(Failure::new(
            Reason::IdentityMismatch,
            format!(
                "this is {}, not {workload}: its address was given to another workload",
                worker.shared.workload
            ),
        )
        .replay(Replay::Safe)),
        None => Err(Failure::new(
            Reason::BadRequest,
            "the TLS server name is not <port>.<workload>.<namespace>.tulle",
        )),
    };
    let target = port.and_then(|port| target(&worker, port));
    match (form, target) {
        (Form::Tcp, Ok(target)) => bytes(&worker, stream, &caller, &target).await,
        (Form::Tcp, Err(failure)) => refuse_bytes(&worker, &caller, &failure),
        (_, target) => {
            let wire = if form == Form::Http2 {
                Wire::Http2
            } else {
                Wire::Http1
            };
            serve(worker, stream, wire, PEER_IDLE, caller, target).await;
        }
    }
}

/// Where a request to a port of this workload goes.
#[derive(Clone)]
struct Target {
    own: Arc<Own>,
    port: u16,
    protocol: Protocol,
}

fn target(worker: &Worker, port: u16) -> Result<Target, Failure> {
    let own = worker.shared.state.snapshot().own.clone();
    let own = own.ok_or_else(|| {
        Failure::new(
            Reason::ConfigMissing,
            "this proxy has not been told about its own workload",
        )
    })?;
    let declared = own
        .workload
        .ports
        .iter()
        .find(|p| p.number == port)
        .map(|p| p.protocol);
    // In explicit mode the loopback interface is shared with everything else on the host.
    let protocol = match (declared, worker.shared.mode) {
        (Some(protocol), _) => protocol,
        (None, Mode::Transparent) if !OWN_PORTS.contains(&port) => Protocol::Detect,
        _ => {
            let details = format!(
                "workload {} does not serve port {port}",
                worker.shared.workload
            );
            return Err(Failure::new(Reason::NoRoute, details).replay(Replay::Safe));
        }
    };
    Ok(Target {
        own,
        port,
        protocol,
    })
}

/// The port meant by plain text to the tunnel port, where only one can be.
fn only_port(worker: &Worker) -> Option<u16> {
    let snapshot = worker.shared.state.snapshot();
    match snapshot.own.as_ref()?.workload.ports.as_slice() {
        [only] => Some(only.number),
        _ => None,
    }
}

async fn plain(worker: Rc<Worker>, stream: TcpStream, address: SocketAddr, port: Option<u16>) {
    let caller = Rc::new(Caller {
        address,
        principal: Arc::clone(&NONE),
        mtls: false,
        group: "",
    });
    let target = match port {
        Some(port) => target(&worker, port).and_then(|target| {
            let mode = target.own.workload.mtls.for_port(port);
            if mode == MtlsMode::Strict {
                Err(strict(&worker, port))
            } else {
                Ok(target)
            }
        }),
        None => Err(strict(&worker, 0)),
    };
    let protocol = target.as_ref().map_or(Protocol::Detect, |t| t.protocol);
    match (target, protocol) {
        (Ok(target), Protocol::Tcp | Protocol::Tls) => {
            bytes(&worker, stream, &caller, &target).await;
        }
        (Ok(target), Protocol::Detect) => undeclared(worker, stream, caller, target).await,
        (target, _) => {
            // To refuse in words, one must know whether the caller reads HTTP.
            let spoken = tokio::time::timeout(PATIENCE, read_start(stream)).await;
            match spoken {
                Ok(Ok((stream, Sniff::Http1))) => {
                    serve(worker, stream, Wire::Http1, PLAIN_IDLE, caller, target).await;
                }
                Ok(Ok((stream, Sniff::Http2))) => {
                    serve(worker, stream, Wire::Http2, PLAIN_IDLE, caller, target).await;
                }
                _ => {
                    if let Err(failure) = target {
                        refuse_bytes(&worker, &caller, &failure);
                    }
                }
            }
        }
    }
}

fn strict(worker: &Worker, port: u16) -> Failure {
    let port = if port == 0 {
        String::new()
    } else {
        format!(" port {port}")
    };
    let details = format!(
        "workload {}{port} takes only mutual TLS, and this connection is plain text",
        worker.shared.workload
    );
    Failure::new(Reason::Unauthenticated, details)
}

/// Reads until it is clear what is spoken.
async fn read_start(mut stream: TcpStream) -> std::io::Result<(Prefixed<TcpStream>, Sniff)> {
    let mut seen = bytes::BytesMut::with_capacity(1024);
    let sniff = detect::read(&mut stream, &mut seen).await?;
    Ok((Prefixed::new(stream, seen.freeze()), sniff))
}

/// Plain text to a port of which nothing is declared: whoever speaks first decides.
async fn undeclared(worker: Rc<Worker>, mut stream: TcpStream, caller: Rc<Caller>, target: Target) {
    let mut seen = bytes::BytesMut::with_capacity(1024);
    let Ok((mut app, link)) = application(&worker, &target).await else {
        return;
    };
    let mut greeting = bytes::BytesMut::new();
    loop {
        match detect::sniff(&seen) {
            Sniff::NeedMore => {}
            Sniff::Http1 => {
                return serve(
                    worker,
                    Prefixed::new(stream, seen.freeze()),
                    Wire::Http1,
                    PLAIN_IDLE,
                    caller,
                    Ok(target),
                )
                .await;
            }
            Sniff::Http2 => {
                return serve(
                    worker,
                    Prefixed::new(stream, seen.freeze()),
                    Wire::Http2,
                    PLAIN_IDLE,
                    caller,
                    Ok(target),
                )
                .await;
            }
            Sniff::Tls | Sniff::Other => break,
        }
        tokio::select! {
            read = stream.read_buf(&mut seen) => if !matches!(read, Ok(1..)) { break },
            heard = app.read_buf(&mut greeting) => {
                drop(heard);
                break;
            }
        }
    }
    let mut connection = Connection::begin(&worker, Direction::Inbound, &caller, &target.own.host);
    connection.reached(&target.own.application, &link);
    connection
        .copy(
            Prefixed::new(stream, seen.freeze()),
            Prefixed::new(app, greeting.freeze()),
        )
        .await;
}

async fn application(worker: &Worker, target: &Target) -> Result<(connect::Io, Link), Failure> {
    let limit = Effective::default().connect_timeout;
    connect::connect(
        worker,
        &target.own.application,
        target.port,
        Form::Tcp,
        limit,
    )
    .await
}

async fn bytes<S>(worker: &Rc<Worker>, stream: S, caller: &Caller, target: &Target)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = Connection::begin(worker, Direction::Inbound, caller, &target.own.host);
    match application(worker, target).await {
        Ok((app, link)) => {
            connection.reached(&target.own.application, &link);
            connection.copy(stream, app).await;
        }
        Err(failure) => {
            connection.failed(&failure);
            tcp::close(stream).await;
        }
    }
}

fn refuse_bytes(worker: &Rc<Worker>, caller: &Caller, failure: &Failure) {
    tracing::warn!(address = %caller.address, "connection refused: {failure}");
    Connection::begin(worker, Direction::Inbound, caller, &NONE).failed(failure);
}

async fn serve<S>(
    worker: Rc<Worker>,
    stream: S,
    wire: Wire,
    idle: Duration,
    caller: Rc<Caller>,
    target: Result<Target, Failure>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let target = Rc::new(target);
    let handler = {
        let worker = Rc::clone(&worker);
        move |request| {
            handle(
                Rc::clone(&worker),
                Rc::clone(&caller),
                Rc::clone(&target),
                request,
            )
        }
    };
    serve_http::serve(&worker, stream, wire, idle, handler).await;
}

async fn handle(
    worker: Rc<Worker>,
    caller: Rc<Caller>,
    target: Rc<Result<Target, Failure>>,
    mut request: Request<Incoming>,
) -> Response<ResponseBody> {
    let upgrade = upgrade::requested(&mut request);
    let (mut head, body) = request.into_parts();
    let mut exchange = Exchange::begin(&worker, Direction::Inbound, &caller, &mut head);
    let result = match &*target {
        Ok(target) => {
            deliver(
                &worker,
                &mut exchange,
                target,
                head,
                body,
                upgrade.is_some(),
            )
            .await
        }
        Err(failure) => Err(failure.clone()),
    };
    match result {
        Ok(mut answer) => {
            answer.response.headers_mut().remove(headers::PEER_FAILURE);
            upgrade::deliver(exchange, answer, upgrade)
        }
        Err(failure) => {
            exchange.fail(&failure);
            let mut response = reply::failure(&failure, exchange.is_grpc());
            if caller.mtls {
                reply::tell_peer(&mut response, &failure);
            }
            response
        }
    }
}

/// Hands a request to the application. A kept connection that broke before the application can
/// have seen the request is replaced by a new one, once.
async fn deliver(
    worker: &Rc<Worker>,
    exchange: &mut Exchange,
    target: &Target,
    mut head: http::request::Parts,
    body: Incoming,
    upgrade: bool,
) -> Result<Answer, Failure> {
    let authority = headers::authority(&head.uri, &head.headers).ok_or_else(|| {
        Failure::new(
            Reason::BadRequest,
            "the request names no host, or more than one",
        )
    })?;
    exchange.set_authority(&authority);
    exchange.set_destination(&target.own.host);
    headers::strip_hop_by_hop(&mut head.headers);
    let version = head.version;
    let method = head.method.clone();
    let path = head
        .uri
        .path_and_query()
        .cloned()
        .unwrap_or_else(|| PathAndQuery::from_static("/"));
    let mut order = Order::new(head, body, authority, path, exchange, false).upgrading(upgrade);
    let application = &target.own.application;
    let wire = forward::wire_for(application, target.protocol, version);
    let policy = Effective::default();
    for retried in [false, true] {
        exchange.attempt(application);
        let replayable = order.is_empty();
        let load = Load::on(application);
        let result = forward::send(
            worker,
            exchange,
            application,
            target.port,
            wire,
            order.request(wire),
            &policy,
        )
        .await;
        drop(load);
        match result {
            Err(failure)
                if !retried
                    && replayable
                    && failure.replay == Replay::IfIdempotent
                    && is_idempotent(&method) =>
            {
                tracing::debug!("the application closed a kept connection: trying a new one");
            }
            result => return result,
        }
    }
    Err(Failure::new(
        Reason::UpstreamReset,
        "the application closed the connection twice",
    ))
}

/// HBONE: each stream is a connection (HTTP/2 CONNECT to an address and port of this workload).
async fn hbone<S>(worker: Rc<Worker>, stream: S, caller: Rc<Caller>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handler = {
        let worker = Rc::clone(&worker);
        move |request| hbone_stream(Rc::clone(&worker), Rc::clone(&caller), request)
    };
    serve_http::serve(&worker, stream, Wire::Http2, PEER_IDLE, handler).await;
}

async fn hbone_stream(
    worker: Rc<Worker>,
    caller: Rc<Caller>,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let opened = async {
        if request.method() != Method::CONNECT {
            return Err(Failure::new(Reason::BadRequest, "HBONE takes CONNECT only"));
        }
        let port = request.uri().port_u16();
        let port = port.ok_or_else(|| Failure::new(Reason::BadRequest, "CONNECT names no port"))?;
        let target = target(&worker, port)?;
        let application = application(&worker, &target).await?;
        Ok((target, application))
    };
    match opened.await {
        Ok((target, (app, link))) => {
            let client = hyper::upgrade::on(request);
            tokio::task::spawn_local(async move {
                if let Ok(client) = client.await {
                    let mut connection =
                        Connection::begin(&worker, Direction::Inbound, &caller, &target.own.host);
                    connection.reached(&target.own.application, &link);
                    connection.copy(TokioIo::new(client), app).await;
                }
            });
            Response::new(ResponseBody::empty())
        }
        Err(failure) => {
            refuse_bytes(&worker, &caller, &failure);
            let mut response = reply::failure(&failure, false);
            if failure.reason == Reason::ConnectRefused {
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            }
            response
        }
    }
}
