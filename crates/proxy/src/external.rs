//! Requests to hosts outside the mesh, where the mesh allows them: passed on as they are.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::endpoint::{self, Health};
use model::workload::{Locality, Tunnel};
use model::{Reason, ServiceName, SpiffeId};
use policy::effective::Effective;
use tokio::net::TcpStream;
use wire::Scheme;

use crate::connect;
use crate::destination::{Endpoint, EndpointLive};
use crate::error::Failure;
use crate::forward::{self, Order};
use crate::http::Request;
use crate::http1::client::Response;
use crate::record::Exchange;
use crate::worker::Worker;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends one request to a host outside, on a connection of its own.
pub(crate) async fn send(
    worker: &Rc<Worker>,
    exchange: &mut Exchange,
    request: Request,
    host: &str,
    port: u16,
) -> Result<Response, Failure> {
    if exchange.head().scheme == Some(Scheme::Https) {
        let details = "https to a host outside the mesh goes through CONNECT, so that only the two ends can read it";
        return Err(Failure::new(Reason::BadRequest, details));
    }
    let address = resolve(host, port).await?;
    let endpoint = endpoint(host, address);
    exchange.attempt(&endpoint, Instant::now());
    let upgrade = request.upgrade;
    let wire = forward::wire_for(&endpoint, model::service::Protocol::Http, exchange, upgrade);
    let mut order = Order::new(request, exchange, false);
    forward::send(
        worker,
        exchange,
        &endpoint,
        port,
        wire,
        &mut order,
        &Effective::default(),
    )
    .await
}

/// A connection to a host outside.
pub(crate) async fn connect(worker: &Worker, host: &str, port: u16) -> Result<TcpStream, Failure> {
    let address = resolve(host, port).await?;
    connect::tcp(worker, address, CONNECT_TIMEOUT).await
}

async fn resolve(host: &str, port: u16) -> Result<SocketAddr, Failure> {
    let mut addresses = tokio::net::lookup_host((host, port)).await.map_err(|e| {
        Failure::new(
            Reason::NoRoute,
            format!("host {host} is not of this mesh and DNS does not know it: {e}"),
        )
    })?;
    addresses
        .next()
        .ok_or_else(|| Failure::new(Reason::NoRoute, format!("DNS has no address for {host}")))
}

/// The host as an endpoint without a proxy; what it says of identity is never looked at.
fn endpoint(host: &str, address: SocketAddr) -> Arc<Endpoint> {
    let name = OUTSIDE.0.clone();
    let config = endpoint::Endpoint {
        service: name.clone(),
        workload: name,
        addresses: vec![address.ip()],
        ports: [(address.port(), address.port())].into(),
        tunnel: Tunnel::None,
        identity: OUTSIDE.1.clone(),
        health: Health::Healthy,
        weight: 1,
        locality: Locality::default(),
        version: String::new(),
    };
    let mut endpoint = Endpoint::new(&config, EndpointLive::alone());
    endpoint.workload = host.into();
    endpoint.principal = Arc::clone(&crate::record::NONE);
    Arc::new(endpoint)
}

static OUTSIDE: std::sync::LazyLock<(ServiceName, SpiffeId)> = std::sync::LazyLock::new(|| {
    let name = ServiceName::new("outside", "outside").expect("a valid constant");
    let id = "spiffe://outside/ns/outside/sa/outside"
        .parse()
        .expect("a valid constant");
    (name, id)
});
