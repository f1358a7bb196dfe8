//! The admin endpoint: health, metrics, what the proxy knows, its log level, its drain.
//!
//! Served on loopback only. The metrics port, which others may reach, serves only health and
//! metrics. Requests whose `Host` is not loopback, or that come from another site's page, are
//! refused, so that no web page can make a browser on the same host change anything here.
//! Connections are bounded in number and in the time until a request is there.

use std::net::TcpListener;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use runtime::{Drain, Readiness};
use serde_json::{Value, json};
use telemetry::metrics::{Format, Registry};
use tokio::sync::Semaphore;

use crate::destination::{Destination, since_start};
use crate::worker::Shared;

/// Connections of one listener at once.
const CONNECTIONS: usize = 256;
/// For a request's head, and for the next on a kept connection.
const HEAD: Duration = Duration::from_mins(1);
/// After an accept that failed for want of file descriptors.
const BREATHER: Duration = Duration::from_millis(100);
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What the endpoint shows.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) readiness: Readiness,
    pub(crate) drain: Drain,
    pub(crate) registry: Registry,
    /// Empty until the proxy has its certificate.
    pub(crate) shared: Arc<OnceLock<Arc<Shared>>>,
}

/// Serves everything on a loopback socket.
pub(crate) async fn serve(admin: Admin, listener: TcpListener) -> std::io::Result<()> {
    let router = health(admin.clone()).merge(
        Router::new()
            .route("/config_dump", get(config_dump))
            .route("/connections", get(connections))
            .route("/certs", get(certs))
            .route("/logging", get(logging).post(set_logging))
            .route("/drain", post(drain))
            .with_state(admin)
            .layer(middleware::from_fn(loopback_only)),
    );
    run(listener, router).await
}

/// Serves health and metrics.
pub(crate) async fn serve_metrics(admin: Admin, listener: TcpListener) -> std::io::Result<()> {
    run(listener, health(admin)).await
}

async fn run(listener: TcpListener, router: Router) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(64 * 1024);
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return Ok(());
        };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(BREATHER).await;
            continue;
        };
        let service = TowerToHyperService::new(router.clone());
        let connection = http.serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            // What a peer does wrong on its connection is its own affair.
            let _ = connection.await;
            drop(slot);
        });
    }
}

fn health(admin: Admin) -> Router {
    Router::new()
        .route("/healthz/live", get(async || "live\n"))
        .route("/healthz/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(admin)
}

async fn ready(State(admin): State<Admin>) -> (StatusCode, String) {
    let missing = admin.readiness.missing();
    match (admin.drain.has_begun(), missing.as_slice()) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned()),
        (false, []) => (StatusCode::OK, "ready\n".to_owned()),
        (false, missing) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("waiting for {}\n", missing.join(", ")),
        ),
    }
}

async fn metrics(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
    let format = Format::negotiate(accept);
    (
        [(header::CONTENT_TYPE, format.content_type())],
        admin.registry.render(format),
    )
        .into_response()
}

async fn config_dump(State(admin): State<Admin>) -> Response {
    let Some(shared) = admin.shared.get() else {
        return not_yet();
    };
    let snapshot = shared.state.snapshot();
    let mesh = &snapshot.mesh;
    let own = snapshot.own.as_ref().map(|own| {
        let w = &own.workload;
        json!({
            "name": w.name.to_string(),
            "identity": w.identity.as_str(),
            "addresses": w.addresses,
            "ports": w.ports.iter().map(|p| json!({"number": p.number, "protocol": p.protocol.as_str()})).collect::<Vec<_>>(),
            "mtls": format!("{:?}", w.mtls),
            "labels": w.labels,
        })
    });
    let destinations: Vec<Value> = snapshot.destinations().map(|d| destination(d)).collect();
    json(&json!({
        "connected": shared.state.connected(),
        "mesh": {
            "trustDomain": mesh.trust_domain.as_str(),
            "outboundPolicy": format!("{:?}", mesh.outbound),
            "traceSamplingPercent": f64::from(mesh.trace_sampling) / 100.0,
            "traceReservoir": mesh.trace_reservoir,
            "accessLog": format!("{:?}", mesh.access_log),
            "networks": mesh.networks.iter().map(ToString::to_string).collect::<Vec<_>>(),
        },
        "workload": own,
        "destinations": destinations,
    }))
}

fn destination(destination: &Destination) -> Value {
    let view = destination.view();
    let ports: Vec<Value> = view
        .port_numbers()
        .filter_map(|number| view.port(number))
        .map(|port| {
            let routes: Vec<Value> = port.routes.routes().iter().map(|r| json!({"name": format!("{} {}", r.kind, r.name), "rules": r.rules.iter().map(|rule| format!("{rule:?}")).collect::<Vec<_>>()})).collect();
            let endpoints: Vec<Value> = port
                .endpoints
                .iter()
                .map(|candidate| {
                    let endpoint = &candidate.endpoint;
                    json!({
                        "workload": endpoint.config.workload.to_string(),
                        "addresses": endpoint.config.addresses,
                        "port": candidate.port,
                        "tunnel": format!("{:?}", endpoint.config.tunnel),
                        "identity": endpoint.config.identity.as_str(),
                        "health": format!("{:?}", candidate.health()),
                        "ejected": endpoint.live.outlier.ejected(since_start()),
                        "inFlight": endpoint.live.in_flight.load(std::sync::atomic::Ordering::Relaxed),
                        "weight": endpoint.config.weight,
                        "version": endpoint.config.version,
                    })
                })
                .collect();
            json!({
                "number": port.number,
                "protocol": port.protocol.as_str(),
                "policy": format!("{:?}", port.policy),
                "routes": routes,
                "endpoints": endpoints,
            })
        })
        .collect();
    let adaptive = destination.live.adaptive().map(|limit| {
        let ideal = limit.min_rtt().map(|time| time.as_secs_f64());
        json!({"limit": limit.limit(), "minRTTSeconds": ideal})
    });
    json!({"service": destination.name.to_string(), "adaptiveConcurrency": adaptive, "host": &*destination.host, "addresses": view.service.addresses, "ports": ports})
}

async fn connections(State(admin): State<Admin>) -> Response {
    match admin.shared.get() {
        Some(shared) => json(&shared.peers.to_json()),
        None => not_yet(),
    }
}

async fn certs(State(admin): State<Admin>) -> Response {
    let Some(shared) = admin.shared.get() else {
        return not_yet();
    };
    let svid = shared.credentials.svid();
    let bundle = shared.credentials.bundle();
    let seconds = |time: SystemTime| {
        time.duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |d| d.as_secs())
    };
    json(&json!({
        "identity": svid.id().as_str(),
        "notBefore": seconds(svid.not_before()),
        "notAfter": seconds(svid.not_after()),
        "trustDomains": bundle.roots.iter().map(|(domain, roots)| json!({"name": domain.as_str(), "roots": roots.len()})).collect::<Vec<_>>(),
    }))
}

async fn logging() -> String {
    format!("{}\n", runtime::logging::filter().unwrap_or_default())
}

async fn set_logging(
    Query(query): Query<std::collections::BTreeMap<String, String>>,
) -> (StatusCode, String) {
    let Some(filter) = query.get("filter") else {
        return (
            StatusCode::BAD_REQUEST,
            "say which: POST /logging?filter=debug\n".to_owned(),
        );
    };
    match runtime::logging::set_filter(filter) {
        Ok(()) => (StatusCode::OK, format!("{filter}\n")),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

async fn drain(State(admin): State<Admin>) -> String {
    admin.drain.begin();
    format!("draining; {} connections are open\n", admin.drain.active())
}

async fn loopback_only(request: Request, next: Next) -> Response {
    match from_here(&request) {
        Ok(()) => next.run(request).await,
        Err(why) => (StatusCode::FORBIDDEN, why).into_response(),
    }
}

/// Whether a request was meant for this host by something on this host, and not by another site's
/// page in a browser: by a name that leads here (DNS rebinding), or directly (CSRF).
fn from_here(request: &Request) -> Result<(), String> {
    let header = |name| {
        let value = request.headers().get(name);
        value.map(|v: &HeaderValue| v.to_str().unwrap_or("?"))
    };
    let host = match request.uri().authority() {
        Some(authority) => authority.as_str(),
        None => header(header::HOST).unwrap_or(""),
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    if !matches!(name, "localhost" | "127.0.0.1" | "[::1]" | "") {
        return Err(format!(
            "the admin endpoint answers to localhost, not to {name}\n"
        ));
    }
    let origin = header(header::ORIGIN);
    let foreign = origin.is_some_and(|o| o.split_once("://").is_none_or(|(_, rest)| rest != host));
    if foreign || header(SEC_FETCH_SITE) == Some("cross-site") {
        return Err(format!(
            "the admin endpoint takes nothing from web pages (origin {})\n",
            origin.unwrap_or("unknown")
        ));
    }
    Ok(())
}

fn not_yet() -> Response {
    (
        StatusCode::SERVICE_UNAVAILABLE,
        "the proxy has no certificate yet\n",
    )
        .into_response()
}

fn json(value: &Value) -> Response {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    ([(header::CONTENT_TYPE, "application/json")], text + "\n").into_response()
}
