//! Connections that are not HTTP, and finding out which they are.
//!
//! Where a port's protocol is declared, nothing is guessed. Where it is not, the client's first
//! bytes and the server's race: the upstream is dialled at once, so that a server that speaks first
//! is heard without delay, and a client that begins like HTTP gets the HTTP path.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use model::Reason;
use model::service::Protocol;
use net::copy::{self, Side};
use net::detect::{self, Sniff};
use net::prefixed::Prefixed;
use telemetry::Direction;
use telemetry::access_log::Entry;
use telemetry::metrics::TcpSeries;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::connect::{self, Io};
use crate::destination::{Destination, Endpoint, PortView, Slot, since_start};
use crate::error::{Failure, chain};
use crate::outbound::no_port;
use crate::pool::{Link, Wire};
use crate::record::{Caller, Load, NONE, account};
use crate::tunnel::Form;
use crate::worker::{ByAddress, SeriesKey, Worker};

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

/// A connection to an endpoint, ready for bytes.
pub(crate) struct Opened {
    io: Prefixed<Io>,
    link: Link,
    endpoint: Arc<Endpoint>,
    /// Held until the end: the connection counts.
    held: (Load, Slot),
}

/// Finds out what the client of a port of a service speaks.
pub(crate) async fn detect<S>(
    worker: &Rc<Worker>,
    client: S,
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
    match port_view.protocol {
        Protocol::Http | Protocol::Http2 | Protocol::Grpc => read_http(client).await,
        Protocol::Tcp | Protocol::Tls => Ok(Spoken::Bytes(
            Prefixed::new(client, bytes::Bytes::new()),
            None,
        )),
        Protocol::Detect => race(worker, client, destination, port_view).await,
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
        // hyper answers what is not HTTP after all with 400.
        Ok(Sniff::Http1 | Sniff::Tls | Sniff::Other | Sniff::NeedMore) => Wire::Http1,
        Err(error) => return Err(Failure::new(Reason::ClientDisconnected, error.to_string())),
    };
    Ok(Spoken::Http(Prefixed::new(client, seen.freeze()), wire))
}

/// Nothing is declared: whoever speaks first decides.
async fn race<S>(
    worker: &Rc<Worker>,
    mut client: S,
    destination: &Arc<Destination>,
    port: &PortView,
) -> Result<Spoken<S>, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut seen = BytesMut::with_capacity(LOOK);
    let mut greeting = BytesMut::new();
    let mut dial = std::pin::pin!(open(worker, destination, port));
    let mut opened: Option<Result<Opened, Failure>> = None;
    loop {
        match detect::sniff(&seen) {
            Sniff::NeedMore => {}
            Sniff::Http1 => {
                return Ok(Spoken::Http(
                    Prefixed::new(client, seen.freeze()),
                    Wire::Http1,
                ));
            }
            Sniff::Http2 => {
                return Ok(Spoken::Http(
                    Prefixed::new(client, seen.freeze()),
                    Wire::Http2,
                ));
            }
            Sniff::Tls | Sniff::Other => {
                let opened = match opened {
                    Some(opened) => opened?,
                    None => dial.await?,
                };
                return Ok(Spoken::Bytes(
                    Prefixed::new(client, seen.freeze()),
                    Some(opened),
                ));
            }
        }
        tokio::select! {
            read = client.read_buf(&mut seen) => {
                if read.map_err(|e| Failure::new(Reason::ClientDisconnected, e.to_string()))? == 0 {
                    let opened = match opened {
                        Some(opened) => opened?,
                        None => dial.await?,
                    };
                    return Ok(Spoken::Bytes(Prefixed::new(client, seen.freeze()), Some(opened)));
                }
            }
            result = &mut dial, if opened.is_none() => opened = Some(result),
            heard = listen(&mut opened, &mut greeting), if matches!(opened, Some(Ok(_))) => {
                heard.map_err(|e| Failure::new(Reason::UpstreamReset, e.to_string()))?;
                let Some(Ok(mut opened)) = opened else { continue };
                let (io, _) = opened.io.into_parts();
                opened.io = Prefixed::new(io, greeting.freeze());
                return Ok(Spoken::Bytes(Prefixed::new(client, seen.freeze()), Some(opened)));
            }
        }
    }
}

async fn listen(
    opened: &mut Option<Result<Opened, Failure>>,
    into: &mut BytesMut,
) -> std::io::Result<()> {
    match opened {
        Some(Ok(opened)) => opened.io.read_buf(into).await.map(drop),
        _ => std::future::pending().await,
    }
}

/// Connects to an endpoint of a port for bytes; to another when the first cannot be reached.
async fn open(
    worker: &Rc<Worker>,
    destination: &Arc<Destination>,
    port: &PortView,
) -> Result<Opened, Failure> {
    let mut tried = Vec::new();
    loop {
        let picked = worker.with_balancer(destination.id, port.number, |b| {
            port.pick(b, &tried).map(|(e, p)| (Arc::clone(e), p))
        });
        let (endpoint, target) = picked.ok_or_else(|| {
            Failure::new(
                Reason::NoHealthyEndpoints,
                format!("service {} port {}", destination.name, port.number),
            )
        })?;
        let held = (
            Load::on(&endpoint),
            connect::reserve(&endpoint, &port.policy)?,
        );
        match connect::connect(
            worker,
            &endpoint,
            target,
            Form::Tcp,
            port.policy.connect_timeout,
        )
        .await
        {
            Ok((io, link)) => {
                return Ok(Opened {
                    io: Prefixed::new(io, bytes::Bytes::new()),
                    link,
                    endpoint,
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
    S: AsyncRead + AsyncWrite + Unpin,
{
    let view = Arc::clone(&destination.view());
    let port_view = view
        .port(port)
        .ok_or_else(|| no_port(destination, &view, port))?;
    let mut connection = Connection::begin(worker, Direction::Outbound, caller, &destination.host);
    let opened = match opened {
        Some(opened) => Ok(opened),
        None => open(worker, destination, port_view).await,
    };
    match opened {
        Ok(Opened {
            io,
            link,
            endpoint,
            held,
        }) => {
            connection.reached(&endpoint, &link);
            connection.copy(client, io).await;
            drop(held);
            Ok(())
        }
        Err(failure) => {
            connection.failed(&failure);
            Err(failure)
        }
    }
}

/// One TCP connection, recorded when it ends.
pub(crate) struct Connection<'a> {
    worker: &'a Rc<Worker>,
    direction: Direction,
    caller: &'a Caller,
    destination: &'a Arc<str>,
    endpoint: Option<Arc<Endpoint>>,
    upstream: Option<SocketAddr>,
    mtls: bool,
    group: &'static str,
    begun: std::time::Instant,
    begun_at: std::time::SystemTime,
}

impl<'a> Connection<'a> {
    pub(crate) fn begin(
        worker: &'a Rc<Worker>,
        direction: Direction,
        caller: &'a Caller,
        destination: &'a Arc<str>,
    ) -> Self {
        Self {
            worker,
            direction,
            caller,
            destination,
            endpoint: None,
            upstream: None,
            mtls: caller.mtls,
            group: caller.group,
            begun: std::time::Instant::now(),
            begun_at: std::time::SystemTime::now(),
        }
    }

    pub(crate) fn reached(&mut self, endpoint: &Arc<Endpoint>, link: &Link) {
        self.endpoint = Some(Arc::clone(endpoint));
        self.sent_to(link);
    }

    pub(crate) fn sent_to(&mut self, link: &Link) {
        self.upstream = Some(link.address);
        if self.direction == Direction::Outbound {
            self.mtls = link.mtls;
            self.group = link.group;
        }
    }

    /// Copies both ways until the end, or until the proxy has drained long enough.
    pub(crate) async fn copy<A, B>(self, client: A, server: B)
    where
        A: AsyncRead + AsyncWrite + Unpin,
        B: AsyncRead + AsyncWrite + Unpin,
    {
        let series = self.series();
        series.opened();
        let outcome = tokio::select! {
            outcome = copy::bidirectional(client, server, copy::Options::default()) => outcome,
            () = self.worker.shared.drain.cut() => {
                series.closed(Some(Reason::Draining));
                self.log(Some(&Failure::new(Reason::Draining, "cut when the proxy stopped")), 0, 0);
                return;
            }
        };
        series.sent(outcome.a_to_b);
        series.received(outcome.b_to_a);
        let failure = outcome.result.err().map(|error| {
            let reason = match error.side() {
                Some(Side::A) => Reason::ClientDisconnected,
                Some(Side::B) => Reason::UpstreamReset,
                None => Reason::StreamIdleTimeout,
            };
            Failure::new(reason, chain(&error))
        });
        series.closed(failure.as_ref().map(|f| f.reason));
        self.log(failure.as_ref(), outcome.a_to_b, outcome.b_to_a);
    }

    pub(crate) fn failed(self, failure: &Failure) {
        let series = self.series();
        series.opened();
        series.closed(Some(failure.reason));
        self.log(Some(failure), 0, 0);
    }

    fn series(&self) -> Rc<TcpSeries> {
        let (workload, version) = match &self.endpoint {
            Some(endpoint) => (
                Arc::clone(&endpoint.workload),
                Arc::clone(&endpoint.version),
            ),
            None => (Arc::clone(&NONE), Arc::clone(&NONE)),
        };
        self.worker.connections(SeriesKey {
            direction: self.direction,
            principal: ByAddress(Arc::clone(&self.caller.principal)),
            destination: ByAddress(Arc::clone(self.destination)),
            workload: ByAddress(workload),
            version: ByAddress(version),
            route: ByAddress(Arc::clone(&NONE)),
            grpc: false,
            mtls: self.mtls,
        })
    }

    fn log(&self, failure: Option<&Failure>, sent: u64, received: u64) {
        let shared = &self.worker.shared;
        if !shared.state.snapshot().mesh.access_log {
            return;
        }
        let source = if self.direction == Direction::Outbound {
            &*shared.source
        } else {
            account(&self.caller.principal)
        };
        let endpoint = self.endpoint.as_deref();
        shared.log.write(&Entry {
            protocol: "tcp",
            reason: failure.map(|f| f.reason),
            details: failure.map_or("", |f| &f.details),
            duration: self.begun.elapsed(),
            request_bytes: sent,
            response_bytes: received,
            source,
            source_principal: &self.caller.principal,
            source_address: Some(self.caller.address),
            destination: self.destination,
            destination_workload: endpoint.map_or("", |e| &e.workload),
            destination_version: endpoint.map_or("", |e| &e.version),
            destination_principal: endpoint.map_or("", |e| &e.principal),
            upstream_address: self.upstream,
            attempts: 1,
            mtls: self.mtls,
            tls_group: self.group,
            ..Entry::at(self.begun_at, self.direction)
        });
    }
}

/// Ends a connection that cannot be served, without a word where none is possible.
pub(crate) async fn close<S: AsyncWrite + Unpin>(mut client: S) {
    // The client may be gone already; there is nobody to tell.
    drop(client.shutdown().await);
}
