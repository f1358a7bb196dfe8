//! Inbound: requests and connections of others to the application.
//!
//! Two doors. The tunnel port takes mutual TLS; who calls is proven, the port is named by SNI, what
//! follows by ALPN. Plain text, redirected here by the namespace or sent to the tunnel port, is
//! passed on only where the port's mode allows it, and refused with a reason otherwise.

use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::Reason;
use model::service::Protocol;
use model::workload::MtlsMode;
use net::detect::{self, Sniff};
use net::tcp::Stream;
use policy::effective::Effective;
use telemetry::Direction;
use tokio::net::TcpStream;
use wire::{Fields, Method, RequestHead};

use crate::deadline;
use crate::error::{Failure, Replay};
use crate::forward::{self, Order};
use crate::headers::FORM;
use crate::http::{Bounds, Reply, Request, Service};
use crate::http1::client::Response;
use crate::io::Io;
use crate::options::Mode;
use crate::peers;
use crate::pool::{Link, Wire};
use crate::record::{Caller, Exchange, Load, NONE};
use crate::request::{self, Question, Told};
use crate::retry::is_idempotent;
use crate::state::Own;
use crate::tcp::{self, Connection, Opened, Spoken};
use crate::tunnel::{self, Form};
use crate::worker::Worker;
use crate::{connect, http, http2, outbound, reply, udp};

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
        principal,
        mtls: true,
        group: peer.kx_group,
        ..Caller::at(address)
    });
    let stream = Io::tls(stream);
    match form {
        Form::Hbone => {
            let bounds = shared(&worker);
            let service = Hbone {
                worker: Rc::clone(&worker),
                caller,
            };
            http::serve(&worker, stream, Wire::Http2, &bounds, service).await;
        }
        Form::Mux => {
            let bounds = shared(&worker);
            let service = Mux {
                worker: Rc::clone(&worker),
                caller,
            };
            http::serve(&worker, stream, Wire::Http2, &bounds, service).await;
        }
        _ => {
            let name = peer.sni.as_deref().unwrap_or_default();
            carried(worker, stream, form, name, caller).await;
        }
    }
}

/// A connection of one of the direct forms, to the port that `name` says.
async fn carried(worker: Rc<Worker>, stream: Io, form: Form, name: &str, caller: Rc<Caller>) {
    let port = match tunnel::parse_server_name(name) {
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
            "what it is for is not said as <port>.<workload>.<namespace>.tulle",
        )),
    };
    let target = port.and_then(|port| target(&worker, port));
    match (form, target) {
        (Form::Tcp, Ok(target)) if is_limited(&worker, &target) => {
            Box::pin(counted(worker, stream, caller, target)).await;
        }
        (Form::Tcp, Ok(target)) => bytes(&worker, stream, &caller, &target).await,
        (Form::Udp, Ok(target)) => udp::inbound(&worker, stream, &caller, &target).await,
        (Form::Tcp | Form::Udp, Err(failure)) => refuse_bytes(&worker, &caller, &failure),
        (_, target) => {
            let wire = if form == Form::Http2 {
                Wire::Http2
            } else {
                Wire::Http1
            };
            let bounds = shared(&worker);
            serve(worker, stream, wire, bounds, caller, target).await;
        }
    }
}

/// Whether requests to a port that is declared to take them are limited.
fn is_limited(worker: &Worker, target: &Target) -> bool {
    let http = matches!(
        target.protocol,
        Protocol::Http | Protocol::Http2 | Protocol::Grpc
    );
    let snapshot = worker.snapshot();
    let own = snapshot.own.as_ref().filter(|_| http);
    own.is_some_and(|own| own.limits(target.port).next().is_some())
}

/// Requests that come as mere bytes are read all the same where they are counted: else whoever sends
/// them so would get around the limit.
async fn counted(worker: Rc<Worker>, stream: Io, caller: Rc<Caller>, target: Target) {
    let read = tokio::time::timeout(PATIENCE, tcp::read_http(stream));
    let Ok(Ok(Spoken::Http(stream, wire))) = read.await else {
        return;
    };
    let (stream, ahead) = stream.into_parts();
    let stream = stream.with_ahead(ahead);
    let bounds = shared(&worker);
    serve(worker, stream, wire, bounds, caller, Ok(target)).await;
}

/// Where a request to a port of this workload goes.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) own: Arc<Own>,
    pub(crate) port: u16,
    protocol: Protocol,
}

fn target(worker: &Worker, port: u16) -> Result<Target, Failure> {
    let own = worker.snapshot().own.clone();
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
    let snapshot = worker.snapshot();
    match snapshot.own.as_ref()?.workload.ports.as_slice() {
        [only] => Some(only.number),
        _ => None,
    }
}

async fn plain(worker: Rc<Worker>, stream: TcpStream, address: SocketAddr, port: Option<u16>) {
    let caller = Rc::new(Caller::at(address));
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
            let bounds = plain_bounds(&worker);
            match spoken {
                Ok(Ok((stream, Sniff::Http1))) => {
                    serve(worker, stream, Wire::Http1, bounds, caller, target).await;
                }
                Ok(Ok((stream, Sniff::Http2))) => {
                    serve(worker, stream, Wire::Http2, bounds, caller, target).await;
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
async fn read_start(mut stream: TcpStream) -> std::io::Result<(Io, Sniff)> {
    let mut seen = bytes::BytesMut::with_capacity(1024);
    let sniff = detect::read(&mut stream, &mut seen).await?;
    Ok((Io::from(stream).with_ahead(seen.freeze()), sniff))
}

/// Plain text to a port of which nothing is declared: whoever speaks first decides.
async fn undeclared(worker: Rc<Worker>, stream: TcpStream, caller: Rc<Caller>, target: Target) {
    let dial = async {
        let (app, link) = application(&worker, &target).await?;
        Ok(Opened::new(app, link, &target.own.application))
    };
    match tcp::race(stream, dial).await {
        Ok(Spoken::Http(stream, wire)) => {
            let (stream, ahead) = stream.into_parts();
            let stream = Io::from(stream).with_ahead(ahead);
            let bounds = plain_bounds(&worker);
            serve(worker, stream, wire, bounds, caller, Ok(target)).await;
        }
        Ok(Spoken::Bytes(stream, Some(opened))) => {
            Connection::begin(&worker, Direction::Inbound, &caller, &target.own.host)
                .join(stream, opened)
                .await;
        }
        Ok(Spoken::Bytes(stream, None)) => bytes(&worker, stream, &caller, &target).await,
        Err(failure) => refuse_bytes(&worker, &caller, &failure),
    }
}

async fn application(worker: &Rc<Worker>, target: &Target) -> Result<(connect::Io, Link), Failure> {
    let limit = Effective::default().connect_timeout;
    connect::connect(
        worker,
        &target.own.application,
        target.port,
        Form::Tcp,
        None,
        limit,
    )
    .await
}

async fn bytes(worker: &Rc<Worker>, stream: impl Stream, caller: &Caller, target: &Target) {
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

async fn serve(
    worker: Rc<Worker>,
    stream: Io,
    wire: Wire,
    bounds: Rc<Bounds>,
    caller: Rc<Caller>,
    target: Result<Target, Failure>,
) {
    let service = Inward {
        worker: Rc::clone(&worker),
        caller,
        target,
    };
    http::serve(&worker, stream, wire, &bounds, service).await;
}

/// The bounds of a caller in plain text.
fn plain_bounds(worker: &Worker) -> Rc<Bounds> {
    Rc::new(Bounds {
        idle_timeout: PLAIN_IDLE,
        ..Bounds::clone(&worker.bounds())
    })
}

/// The bounds of what is shared with a peer: a stream that nobody reads from stops no other.
fn shared(worker: &Worker) -> Rc<Bounds> {
    Rc::new(Bounds {
        idle_timeout: PEER_IDLE,
        window: http2::client::WINDOW,
        ..Bounds::clone(&worker.bounds())
    })
}

/// Requests of one connection to one port of this workload.
struct Inward {
    worker: Rc<Worker>,
    caller: Rc<Caller>,
    target: Result<Target, Failure>,
}

impl Service for Inward {
    fn begin(&self, head: RequestHead) -> Exchange {
        Exchange::begin(&self.worker, Direction::Inbound, &self.caller, head)
    }

    async fn call(&self, mut exchange: Exchange, request: Request) -> Reply {
        let result = match &self.target {
            Ok(target) => deliver(&self.worker, &mut exchange, target, request).await,
            Err(failure) => Err(failure.clone()),
        };
        match result {
            Ok(answer) => forward::deliver(exchange, answer),
            Err(failure) => {
                exchange.fail(&failure);
                let mut reply = reply::failure(&failure, exchange.is_grpc());
                if self.caller.mtls {
                    reply::tell_peer(&mut reply, &failure);
                }
                reply
            }
        }
    }
}

/// Hands a request to the application. A kept connection that broke before the application can
/// have seen the request is replaced by a new one, once.
async fn deliver(
    worker: &Rc<Worker>,
    exchange: &mut Exchange,
    target: &Target,
    request: Request,
) -> Result<Response, Failure> {
    if exchange.head().authority.is_empty() {
        return Err(Failure::new(
            Reason::BadRequest,
            "the request names no host",
        ));
    }
    exchange.set_destination(&target.own.host);
    let upgrade = request.upgrade;
    let path = outbound::normal_path(exchange.head())?;
    let (mut told, questions) = count(worker, exchange, target.port, path.as_deref())?;
    if !questions.is_empty() {
        // In a box: seldom done, and large.
        Box::pin(settle(worker, exchange, questions, &mut told)).await?;
    }
    let mut order = Order::new(request, exchange, false);
    order.path = path;
    let application = &target.own.application;
    let wire = forward::wire_for(application, target.protocol, exchange, upgrade);
    let policy = &worker.inward;
    let until = deadline::of(exchange, None).until;
    exchange.set_limits(until, None);
    for retried in [false, true] {
        let now = if retried {
            Instant::now()
        } else {
            exchange.begun()
        };
        deadline::passed(until, now.into())?;
        exchange.attempt(application, now);
        let replayable = order.is_empty();
        let load = Load::on(&**application);
        let result = {
            let attempt = pin!(forward::send(
                worker,
                exchange,
                application,
                target.port,
                wire,
                &mut order,
                policy,
            ));
            forward::within(until, None, attempt).await
        };
        drop(load);
        match result {
            Err(failure)
                if !retried
                    && replayable
                    && failure.replay == Replay::IfIdempotent
                    && is_idempotent(&exchange.head().method) =>
            {
                tracing::debug!("the application closed a kept connection: trying a new one");
            }
            Ok(mut answer) => {
                for told in &told {
                    told.write(&mut answer.head.fields);
                }
                return Ok(answer);
            }
            Err(failure) => return Err(failure),
        }
    }
    Err(Failure::new(
        Reason::UpstreamReset,
        "the application closed the connection twice",
    ))
}

/// Counts a request towards the limits of its port, as they are now: the connection may be older.
fn count(
    worker: &Worker,
    exchange: &Exchange,
    port: u16,
    path: Option<&str>,
) -> Result<(Vec<Told>, Vec<Question>), Failure> {
    let (mut told, mut questions) = (Vec::new(), Vec::<Question>::new());
    let snapshot = worker.snapshot();
    let Some(own) = &snapshot.own else {
        return Ok((told, questions));
    };
    for limiters in own.limits(port) {
        let view = outbound::view(exchange.head(), path);
        let counted = limiters.count(&view, request::asker(exchange))?;
        told.extend(counted.told.map(|told| *told));
        // All that one service counts is asked at once.
        let mut left = counted.question;
        for known in &mut questions {
            left = left.and_then(|question| known.join(question));
        }
        questions.extend(left.map(|question| *question));
    }
    Ok((told, questions))
}

/// Asks those who count for the whole mesh.
async fn settle(
    worker: &Rc<Worker>,
    exchange: &Exchange,
    questions: Vec<Question>,
    told: &mut Vec<Told>,
) -> Result<(), Failure> {
    for question in questions {
        let mut more = None;
        question.put(worker, exchange, &mut more).await?;
        told.extend(more.map(|told| *told));
    }
    Ok(())
}

/// `tulle-mux`: each stream is a connection of a direct form.
pub(crate) struct Mux {
    pub(crate) worker: Rc<Worker>,
    pub(crate) caller: Rc<Caller>,
}

impl Service for Mux {
    fn begin(&self, head: RequestHead) -> Exchange {
        Exchange::begin(&self.worker, Direction::Inbound, &self.caller, head)
    }

    async fn call(&self, mut exchange: Exchange, _: Request) -> Reply {
        let head = exchange.head();
        let form = head.fields.get(FORM).and_then(Form::of_alpn);
        let form = form.filter(|form| matches!(form, Form::Http1 | Form::Tcp | Form::Udp));
        let Some(form) = form.filter(|_| head.method == Method::CONNECT) else {
            let details =
                "a stream of tulle-mux is a CONNECT that says in x-tulle-form what follows";
            let failure = Failure::new(Reason::BadRequest, details);
            exchange.fail(&failure);
            return reply::failure(&failure, false);
        };
        // From here on it is a connection, and what comes on it is recorded.
        exchange.forget();
        let name = std::mem::take(&mut exchange.head_mut().authority);
        let (worker, caller) = (Rc::clone(&self.worker), Rc::clone(&self.caller));
        Reply::own(200, Fields::new(), "").then(Box::new(move |stream| {
            Box::pin(async move { carried(worker, stream, form, &name, caller).await })
        }))
    }
}

/// HBONE: each stream is a connection (HTTP/2 CONNECT to an address and port of this workload).
pub(crate) struct Hbone {
    pub(crate) worker: Rc<Worker>,
    pub(crate) caller: Rc<Caller>,
}

impl Service for Hbone {
    fn begin(&self, head: RequestHead) -> Exchange {
        Exchange::begin(&self.worker, Direction::Inbound, &self.caller, head)
    }

    async fn call(&self, mut exchange: Exchange, _: Request) -> Reply {
        let opened = async {
            let head = exchange.head();
            if head.method != Method::CONNECT {
                return Err(Failure::new(Reason::BadRequest, "HBONE takes CONNECT only"));
            }
            let port = head
                .port()
                .ok_or_else(|| Failure::new(Reason::BadRequest, "CONNECT names no port"))?;
            let target = target(&self.worker, port)?;
            if is_limited(&self.worker, &target) {
                return Ok((target, None));
            }
            let application = application(&self.worker, &target).await?;
            Ok((target, Some(application)))
        };
        match opened.await {
            Ok((target, None)) => {
                exchange.forget();
                let (worker, caller) = (Rc::clone(&self.worker), Rc::clone(&self.caller));
                Reply::own(200, Fields::new(), "").then(Box::new(move |client| {
                    Box::pin(counted(worker, client, caller, target))
                }))
            }
            Ok((target, Some((app, link)))) => {
                // From here on it is a connection, and recorded as one.
                exchange.forget();
                let (worker, caller) = (Rc::clone(&self.worker), Rc::clone(&self.caller));
                Reply::own(200, Fields::new(), "").then(Box::new(move |client| {
                    Box::pin(async move {
                        let mut connection = Connection::begin(
                            &worker,
                            Direction::Inbound,
                            &caller,
                            &target.own.host,
                        );
                        connection.reached(&target.own.application, &link);
                        connection.copy(client, app).await;
                    })
                }))
            }
            Err(failure) => {
                tracing::warn!(address = %self.caller.address, "connection refused: {failure}");
                exchange.fail(&failure);
                let mut reply = reply::failure(&failure, false);
                if failure.reason == Reason::ConnectRefused {
                    reply.head.status = 503;
                }
                reply
            }
        }
    }
}
