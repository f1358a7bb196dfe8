//! Connections to endpoints: TCP, then mutual TLS where the endpoint has a proxy.
//!
//! What follows the handshake is announced by ALPN, and the port by SNI (see [`crate::tunnel`]).

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use model::Reason;
use model::workload::Tunnel;
use net::socket::{self, ConnectOptions};
use policy::effective::Effective;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::body::RequestBody;
use crate::destination::{Endpoint, Slot};
use crate::error::{Failure, Replay, chain};
use crate::peers::Direction;
use crate::pool::{Link, Sender, Wire};
use crate::tunnel::{self, Form};
use crate::worker::{LocalExecutor, Worker};

/// A connection to an endpoint.
pub(crate) enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Connects to `port` of an endpoint, ready for what `form` says.
pub(crate) async fn connect(
    worker: &Worker,
    endpoint: &Endpoint,
    port: u16,
    form: Form,
    limit: Duration,
) -> Result<(Io, Link), Failure> {
    match endpoint.config.tunnel {
        Tunnel::None => {
            let address = address(endpoint, port)?;
            let stream = tcp(worker, address, limit).await?;
            Ok((
                Io::Plain(stream),
                Link {
                    address,
                    mtls: false,
                    group: "",
                },
            ))
        }
        Tunnel::Tulle { port: tunnel } => {
            let address = address(endpoint, tunnel)?;
            let begun = tokio::time::Instant::now();
            let stream = tcp(worker, address, limit).await?;
            let sni = tunnel::server_name(port, &endpoint.config.workload)?;
            let config = worker.client_config(endpoint.identity(), form);
            let left = limit.saturating_sub(begun.elapsed());
            let (stream, peer) =
                net::tls::connect(stream, config, sni, left)
                    .await
                    .map_err(|e| {
                        Failure::tls(
                            &e,
                            format_args!("{} at {address}", endpoint.config.workload),
                        )
                    })?;
            let alpn = peer.alpn.as_deref().unwrap_or_default();
            worker
                .shared
                .peers
                .record(Direction::Outbound, peer.id.as_ref(), alpn, peer.kx_group);
            if alpn != form.alpn() {
                return Err(Failure::new(
                    Reason::TlsFailed,
                    format!(
                        "{} at {address} does not speak {}",
                        endpoint.config.workload,
                        form.as_str()
                    ),
                )
                .replay(Replay::Safe));
            }
            Ok((
                Io::Tls(Box::new(stream)),
                Link {
                    address,
                    mtls: true,
                    group: peer.kx_group,
                },
            ))
        }
        Tunnel::Hbone { port: tunnel } => Err(Failure::new(
            Reason::ConnectRefused,
            format!(
                "{} is reached by HBONE on port {tunnel}, which this version takes but does not make",
                endpoint.config.workload
            ),
        )),
    }
}

/// A new HTTP connection to an endpoint, its driver running on this worker.
pub(crate) async fn http(
    worker: &Rc<Worker>,
    endpoint: &Endpoint,
    port: u16,
    wire: Wire,
    policy: &Effective,
) -> Result<(Sender, Link), Failure> {
    let slot = reserve(endpoint, policy)?;
    let form = match wire {
        Wire::Http1 => Form::Http1,
        Wire::Http2 => Form::Http2,
    };
    let (io, link) = connect(worker, endpoint, port, form, policy.connect_timeout).await?;
    let sender = handshake(io, wire, slot).await.map_err(|e| {
        Failure::new(
            Reason::UpstreamReset,
            format!("{}: {}", link.address, chain(&e)),
        )
        .replay(Replay::Safe)
    })?;
    Ok((sender, link))
}

/// A place among the connections that the destination's policy allows.
pub(crate) fn reserve(endpoint: &Endpoint, policy: &Effective) -> Result<Slot, Failure> {
    let limit = policy.max_connections;
    endpoint.live.reserve(limit).ok_or_else(|| {
        let service = &endpoint.config.service;
        Failure::new(
            Reason::CircuitOpen,
            format!("{limit} connections to service {service} are open"),
        )
    })
}

/// Makes an HTTP connection of a stream; its driver runs on the current thread until it closes.
async fn handshake<S>(io: S, wire: Wire, slot: Slot) -> Result<Sender, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(io);
    match wire {
        Wire::Http1 => {
            let (sender, connection) = http1::Builder::new()
                .preserve_header_case(true)
                .handshake::<_, RequestBody>(io)
                .await?;
            tokio::task::spawn_local(async move {
                let _slot = slot;
                if let Err(error) = connection.with_upgrades().await {
                    tracing::debug!(error = chain(&error), "connection to an endpoint ended");
                }
            });
            Ok(Sender::Http1(sender))
        }
        Wire::Http2 => {
            let (sender, connection) = http2::Builder::new(LocalExecutor)
                .timer(TokioTimer::new())
                .adaptive_window(true)
                .keep_alive_interval(Duration::from_secs(30))
                .keep_alive_timeout(Duration::from_secs(10))
                .handshake::<_, RequestBody>(io)
                .await?;
            tokio::task::spawn_local(async move {
                let _slot = slot;
                if let Err(error) = connection.await {
                    tracing::debug!(error = chain(&error), "connection to an endpoint ended");
                }
            });
            Ok(Sender::Http2(sender))
        }
    }
}

/// A TCP connection that interception leaves alone.
pub(crate) async fn tcp(
    worker: &Worker,
    address: SocketAddr,
    limit: Duration,
) -> Result<TcpStream, Failure> {
    let options = ConnectOptions {
        mark: worker.shared.mark,
        timeout: limit,
        ..ConnectOptions::default()
    };
    socket::connect(address, &options)
        .await
        .map_err(|e| Failure::connect(&e, address))
}

fn address(endpoint: &Endpoint, port: u16) -> Result<SocketAddr, Failure> {
    endpoint.address(port).ok_or_else(|| {
        Failure::new(
            Reason::NoEndpoints,
            format!("workload {} has no address", endpoint.config.workload),
        )
        .replay(Replay::Safe)
    })
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_read(cx, buf),
            Self::Tls(s) => Pin::new(s.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_write(cx, buf),
            Self::Tls(s) => Pin::new(s.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_write_vectored(cx, bufs),
            Self::Tls(s) => Pin::new(s.as_mut()).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(s) => s.is_write_vectored(),
            Self::Tls(s) => s.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_flush(cx),
            Self::Tls(s) => Pin::new(s.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_shutdown(cx),
            Self::Tls(s) => Pin::new(s.as_mut()).poll_shutdown(cx),
        }
    }
}
