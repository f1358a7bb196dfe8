//! Connections to endpoints: TCP, then mutual TLS where the endpoint has a proxy.
//!
//! What follows the handshake is announced by ALPN, and the port by SNI (see [`crate::tunnel`]).

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use model::Reason;
use model::workload::Tunnel;
use net::socket::{self, ConnectOptions};
use policy::effective::Effective;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::behalf::{Behalf, Shown};
use crate::destination::Endpoint;
use crate::error::{Failure, Replay};
use crate::http1::client::Conn;
use crate::http2::client::{self as http2, Handle};
pub(crate) use crate::io::Io;
use crate::mux::{self, Taker};
use crate::peers::Direction;
use crate::pool::{Home, Link, Slot};
use crate::tunnel::{self, Form};
use crate::worker::Worker;

/// Connects to `port` of an endpoint, ready for what `form` says. A PROXY header comes before
/// everything that is meant for the endpoint itself, TLS included.
pub(crate) async fn connect(
    worker: &Rc<Worker>,
    endpoint: &Arc<Endpoint>,
    port: u16,
    form: Form,
    behalf: Option<&Behalf>,
    limit: Duration,
) -> Result<(Io, Link), Failure> {
    let header = match behalf {
        Some(behalf) => behalf.header(address(endpoint, port)?),
        None => None,
    };
    let (mut io, link) = match endpoint.config.tunnel {
        Tunnel::None => {
            let shown = behalf.and_then(|b| b.shown.as_ref());
            return direct(worker, endpoint, port, form, header, shown, limit).await;
        }
        Tunnel::Tulle { .. } if header.is_some() && form != Form::Tcp => {
            return Err(no_header(endpoint));
        }
        // Requests of HTTP/2 share a connection as they are.
        Tunnel::Tulle { port: tunnel } if form == Form::Http2 => {
            tls(worker, endpoint, port, tunnel, form, limit).await?
        }
        Tunnel::Tulle { port: tunnel } => {
            let taker = Taker::Tulle(form);
            mux::open(worker, endpoint, port, tunnel, taker, limit).await?
        }
        Tunnel::Hbone { .. } if form == Form::Udp => {
            let workload = &endpoint.config.workload;
            let details =
                format!("workload {workload} is reached by HBONE, which carries no datagrams");
            return Err(Failure::no_backend(details));
        }
        Tunnel::Hbone { port: tunnel } => {
            mux::open(worker, endpoint, port, tunnel, Taker::Hbone, limit).await?
        }
    };
    if let Some(header) = header {
        announce(&mut io, &header, link.address).await?;
    }
    Ok((io, link))
}

/// Connects to an endpoint without a proxy, in TLS of its own where a policy asks for that.
async fn direct(
    worker: &Worker,
    endpoint: &Endpoint,
    port: u16,
    form: Form,
    header: Option<Vec<u8>>,
    shown: Option<&Arc<Shown>>,
    limit: Duration,
) -> Result<(Io, Link), Failure> {
    let address = address(endpoint, port)?;
    let begun = tokio::time::Instant::now();
    let mut stream = tcp(worker, address, limit).await?;
    if let Some(header) = header {
        announce(&mut stream, &header, address).await?;
    }
    let (io, group) = match endpoint.outside(port) {
        None => (stream.into(), ""),
        Some(outside) => {
            let left = limit.saturating_sub(begun.elapsed());
            outside.connect(stream, form, shown, left).await?
        }
    };
    let link = Link {
        address,
        mtls: false,
        group,
    };
    Ok((io, link))
}

/// Sends a PROXY header, which a new connection always has room for.
async fn announce<S>(stream: &mut S, header: &[u8], address: SocketAddr) -> Result<(), Failure>
where
    S: tokio::io::AsyncWrite + Unpin,
{
    let sent = async {
        stream.write_all(header).await?;
        stream.flush().await
    };
    sent.await.map_err(|e| {
        let details = format!("{address} did not take the PROXY header: {e}");
        Failure::new(Reason::UpstreamReset, details).replay(Replay::Safe)
    })
}

/// Another proxy of the mesh reads HTTP itself and would take the header for a malformed request.
fn no_header(endpoint: &Endpoint) -> Failure {
    let details = format!(
        "the TrafficPolicy of service {} asks for a PROXY header, but workload {} has a proxy of the mesh, which takes one on TCP ports only; take out connections.proxyProtocol",
        endpoint.config.service, endpoint.config.workload
    );
    Failure::no_backend(details)
}

/// Mutual TLS with an endpoint's proxy on `tunnel`, ready for what `form` says to `port`.
pub(crate) async fn tls(
    worker: &Worker,
    endpoint: &Endpoint,
    port: u16,
    tunnel: u16,
    form: Form,
    limit: Duration,
) -> Result<(Io, Link), Failure> {
    let address = address(endpoint, tunnel)?;
    let begun = tokio::time::Instant::now();
    let stream = tcp(worker, address, limit).await?;
    let sni = tunnel::server_name(port, &endpoint.config.workload)?;
    let config = worker.client_config(endpoint.identity(), form);
    let left = limit.saturating_sub(begun.elapsed());
    let (stream, peer) = net::tls::connect(stream, config, sni, left)
        .await
        .map_err(|e| {
            let to = format_args!("{} at {address}", endpoint.config.workload);
            Failure::tls(&e, to)
        })?;
    let alpn = peer.alpn.as_deref().unwrap_or_default();
    let peers = &worker.shared.peers;
    peers.record(Direction::Outbound, peer.id.as_ref(), alpn, peer.kx_group);
    if alpn != form.alpn() {
        let details = format!(
            "{} at {address} does not speak {}",
            endpoint.config.workload,
            form.as_str()
        );
        return Err(Failure::new(Reason::TlsFailed, details).replay(Replay::Safe));
    }
    let link = Link {
        address,
        mtls: true,
        group: peer.kx_group,
    };
    Ok((Io::tls(stream), link))
}

/// A new HTTP/1 connection to an endpoint.
pub(crate) async fn http1(
    worker: &Rc<Worker>,
    endpoint: &Arc<Endpoint>,
    port: u16,
    policy: &Effective,
    home: &Home,
    slot: Slot,
) -> Result<Box<Conn>, Failure> {
    let limit = policy.connect_timeout;
    let behalf = home.behalf();
    let (io, link) = connect(worker, endpoint, port, Form::Http1, behalf, limit).await?;
    let most = policy.max_per_connection;
    let (link, home) = (Rc::new(link), home.clone());
    Ok(Conn::new(io, link, slot, home, &worker.limits, most))
}

/// A new HTTP/2 connection to an endpoint, made once for all who need one at this moment.
pub(crate) async fn http2(
    worker: &Rc<Worker>,
    endpoint: &Arc<Endpoint>,
    port: u16,
    policy: &Effective,
    home: &Home,
) -> Result<Handle, Failure> {
    let most = policy.max_per_connection;
    let sharing = http2::MOST.min(usize::try_from(most).unwrap_or(http2::MOST));
    if let Some(opening) = home.opening(sharing) {
        return opening.await;
    }
    let slot = reserve(worker, endpoint, policy)?;
    let limit = policy.connect_timeout;
    let (worker, endpoint, whose) = (Rc::clone(worker), Arc::clone(endpoint), home.clone());
    let opening = home.open(async move {
        let behalf = whose.behalf();
        let (io, link) = connect(&worker, &endpoint, port, Form::Http2, behalf, limit).await?;
        let handle = http2::handshake(io, link, Some(slot), http2::MOST).await?;
        Ok(handle.for_requests(most))
    });
    opening.await
}

/// A place among the connections that the destination's policy allows.
pub(crate) fn reserve(
    worker: &Worker,
    endpoint: &Endpoint,
    policy: &Effective,
) -> Result<Slot, Failure> {
    let limit = policy.max_connections;
    worker.pool.reserve(endpoint, limit).ok_or_else(|| {
        let service = &endpoint.config.service;
        Failure::new(
            Reason::CircuitOpen,
            format!("{limit} connections to service {service} are in use"),
        )
    })
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

pub(crate) fn address(endpoint: &Endpoint, port: u16) -> Result<SocketAddr, Failure> {
    endpoint.address(port).ok_or_else(|| {
        Failure::new(
            Reason::NoEndpoints,
            format!("workload {} has no address", endpoint.config.workload),
        )
        .replay(Replay::Safe)
    })
}
