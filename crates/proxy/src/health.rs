//! Active health checks: endpoints are asked how they are, whether requests come or not.
//!
//! Envoy's semantics, with these differences: until its first check an endpoint counts as healthy, and
//! `unhealthyThreshold` counts every kind of failure. As in Envoy the first check decides alone, and
//! each proxy checks for itself the endpoints of the services that it talks to. One worker of the proxy
//! does, whatever the others do.

use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, header};
use hyper_util::rt::TokioIo;
use model::health_check::{HealthCheck, HttpProbe, Probe};
use model::service::Protocol;
use model::workload::Tunnel;
use tokio::io::AsyncReadExt as _;

use crate::connect::{self, Io};
use crate::destination::Endpoint;
use crate::error::chain;
use crate::tunnel::Form;
use crate::worker::Worker;

/// Who asks.
const USER_AGENT: &str = "tulle-health-check/1";
/// Of the answer to a gRPC check.
const ANSWER: usize = 1024;
/// Behind a proxy a stream is there before the application has taken it: so long nothing may go wrong.
const SETTLED: Duration = Duration::from_millis(100);

/// A port of an endpoint that is checked.
pub(crate) struct Checked {
    settings: Arc<HealthCheck>,
    endpoint: Arc<Endpoint>,
    port: u16,
    protocol: Protocol,
    /// The service's.
    host: Arc<str>,
    healthy: AtomicBool,
    begun: AtomicBool,
}

impl Checked {
    /// A check that nobody does yet. What was known of the endpoint before is `healthy`.
    pub(crate) fn new(
        settings: &Arc<HealthCheck>,
        (endpoint, port): (Arc<Endpoint>, u16),
        protocol: Protocol,
        host: &Arc<str>,
        healthy: bool,
    ) -> Self {
        Self {
            settings: Arc::clone(settings),
            endpoint,
            port,
            protocol,
            host: Arc::clone(host),
            healthy: AtomicBool::new(healthy),
            begun: AtomicBool::new(false),
        }
    }

    /// Whether it is the same check of the same endpoint.
    pub(crate) fn is_of(
        &self,
        settings: &HealthCheck,
        endpoint: &Arc<Endpoint>,
        protocol: Protocol,
    ) -> bool {
        *self.settings == *settings
            && Arc::ptr_eq(&self.endpoint, endpoint)
            && self.protocol == protocol
    }

    pub(crate) fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    fn set(&self, healthy: bool, why: &str) {
        if self.healthy.swap(healthy, Ordering::Relaxed) == healthy {
            return;
        }
        self.endpoint.live.note_check(healthy);
        let config = &self.endpoint.config;
        let (service, workload, port) = (&config.service, &config.workload, self.port);
        if healthy {
            tracing::info!(%service, %workload, port, "endpoint passes its health check again");
        } else {
            tracing::warn!(%service, %workload, port, why, "endpoint fails its health check: it gets no requests");
        }
    }
}

/// How an endpoint's checks went lately.
#[derive(Debug, Default)]
struct Run {
    /// How the last one ended; none before the first.
    last: Option<bool>,
    /// How many before it ended alike, itself included.
    length: u32,
}

impl Run {
    /// Adds how one ended. What it means for whether the endpoint is well: nothing, as long as too few
    /// have ended alike.
    fn add(&mut self, passed: bool, settings: &HealthCheck) -> Option<bool> {
        let first = self.last.is_none();
        self.length = if self.last == Some(passed) {
            self.length.saturating_add(1)
        } else {
            1
        };
        self.last = Some(passed);
        let threshold = if passed {
            settings.healthy_threshold
        } else {
            settings.unhealthy_threshold
        };
        (first || self.length >= threshold).then_some(passed)
    }
}

/// Checks all endpoints that are to be checked, those that come to be included, for as long as the proxy
/// runs.
pub(crate) async fn run(worker: Rc<Worker>) {
    let mut changes = worker.shared.state.changes();
    loop {
        {
            let snapshot = worker.shared.state.snapshot();
            for destination in snapshot.destinations() {
                for checked in destination.view().checked() {
                    if !checked.begun.swap(true, Ordering::Relaxed) {
                        let checking = check(Rc::clone(&worker), Arc::downgrade(checked));
                        tokio::task::spawn_local(checking);
                    }
                }
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Checks an endpoint again and again, until no configuration asks for it any more.
async fn check(worker: Rc<Worker>, checked: Weak<Checked>) {
    let mut run = Run::default();
    while let Some(checked) = checked.upgrade() {
        let settings = &checked.settings;
        let result = tokio::time::timeout(settings.timeout, probe(&worker, &checked)).await;
        let result = result.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        let shared = &worker.shared;
        shared.health_checks.inc();
        if result.is_err() {
            shared.health_check_failures.inc();
        }
        if let Some(healthy) = run.add(result.is_ok(), settings) {
            let why = result.err().unwrap_or_default();
            checked.set(healthy, &why);
        }
        // Proxies should not check together.
        let pause = settings.interval.mul_f64(rand::random_range(0.9..1.1));
        drop(checked);
        tokio::time::sleep(pause).await;
    }
}

/// Asks once. The error says what was wrong.
async fn probe(worker: &Rc<Worker>, checked: &Checked) -> Result<(), String> {
    let framed = matches!(checked.protocol, Protocol::Grpc | Protocol::Http2);
    match &checked.settings.probe {
        Probe::Tcp => {
            let mut io = open(worker, checked, Form::Tcp).await?;
            if checked.endpoint.config.tunnel == Tunnel::None {
                return Ok(());
            }
            match tokio::time::timeout(SETTLED, io.read_u8()).await {
                Ok(Err(error)) => Err(format!("the connection was closed: {error}")),
                Ok(Ok(_)) | Err(_) => Ok(()),
            }
        }
        Probe::Http(http) if framed => {
            http2(open(worker, checked, Form::Http2).await?, checked, http).await
        }
        Probe::Http(http) => http1(open(worker, checked, Form::Http1).await?, checked, http).await,
        Probe::Grpc(service) => {
            grpc(open(worker, checked, Form::Http2).await?, checked, service).await
        }
    }
}

async fn open(worker: &Rc<Worker>, checked: &Checked, form: Form) -> Result<Io, String> {
    let limit = checked.settings.timeout;
    let opening = connect::connect(worker, &checked.endpoint, checked.port, form, None, limit);
    let opened = opening.await.map_err(|failure| failure.to_string());
    opened.map(|(io, _)| io)
}

async fn http1(io: Io, checked: &Checked, http: &HttpProbe) -> Result<(), String> {
    let handshake = hyper::client::conn::http1::handshake::<_, String>(TokioIo::new(io));
    let (mut send, connection) = handshake.await.map_err(|e| chain(&e))?;
    let host = http.host.as_deref().unwrap_or(&checked.host);
    let request = Request::get(http.path.as_str())
        .header(header::HOST, host)
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::CONNECTION, "close")
        .body(String::new())
        .map_err(|e| chain(&e))?;
    let mut connection = pin!(connection);
    let mut answer = pin!(send.send_request(request));
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        _ = &mut connection => answer.await,
    };
    passes(http, answer.map_err(|e| chain(&e))?.status())
}

async fn http2(io: Io, checked: &Checked, http: &HttpProbe) -> Result<(), String> {
    let host = http.host.as_deref().unwrap_or(&checked.host);
    let request = Request::get(format!("http://{host}{}", http.path))
        .header(header::USER_AGENT, USER_AGENT)
        .body(())
        .map_err(|e| chain(&e))?;
    let (answer, _) = ask(io, request, None).await?;
    passes(http, answer)
}

fn passes(http: &HttpProbe, status: http::StatusCode) -> Result<(), String> {
    if http.takes(status.as_u16()) {
        return Ok(());
    }
    Err(format!("GET {} was answered with {status}", http.path))
}

async fn grpc(io: Io, checked: &Checked, service: &str) -> Result<(), String> {
    let host = &checked.host;
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("http://{host}{}", xds::health::PATH))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, USER_AGENT)
        .body(())
        .map_err(|e| chain(&e))?;
    let body = xds::health::question(service);
    let (status, answer) = ask(io, request, Some(body)).await?;
    if status != http::StatusCode::OK {
        return Err(format!("the check was answered with {status}"));
    }
    xds::health::answer(answer)
}

/// One request on an HTTP/2 connection of its own: the status, and what fits of the answer.
async fn ask(
    io: Io,
    request: Request<()>,
    body: Option<Bytes>,
) -> Result<(http::StatusCode, Bytes), String> {
    let handshake = h2::client::Builder::new().enable_push(false).handshake(io);
    let (send, connection) = handshake.await.map_err(|e| chain(&e))?;
    let asking = async {
        let mut send = send.ready().await?;
        let (answer, mut stream) = send.send_request(request, body.is_none())?;
        if let Some(body) = body {
            stream.send_data(body, true)?;
        }
        let (parts, mut body) = answer.await?.into_parts();
        let mut content = BytesMut::new();
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            content.extend_from_slice(&data[..data.len().min(ANSWER - content.len())]);
            if content.len() == ANSWER {
                break;
            }
        }
        Ok::<_, h2::Error>((parts.status, content.freeze()))
    };
    let mut asking = pin!(asking);
    let answered = tokio::select! {
        biased;
        answered = &mut asking => answered,
        _ = connection => asking.await,
    };
    answered.map_err(|e| chain(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A check over a connection to a server of HTTP/2 that answers with these fields and this content.
    async fn asked(
        settings: Probe,
        status: u16,
        content: &'static [u8],
    ) -> (Result<(), String>, Request<()>, Bytes) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("bound");
        let server = async {
            let (stream, _) = listener.accept().await.expect("a connection");
            let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
            let (request, mut respond) = connection.accept().await.expect("one").expect("valid");
            let (parts, mut body) = request.into_parts();
            let serving = async move {
                let sent = body
                    .data()
                    .await
                    .map_or(Bytes::new(), |data| data.expect("valid"));
                let answer = http::Response::builder()
                    .status(status)
                    .body(())
                    .expect("valid");
                let mut stream = respond
                    .send_response(answer, content.is_empty())
                    .expect("open");
                if !content.is_empty() {
                    stream
                        .send_data(Bytes::from_static(content), false)
                        .expect("open");
                    stream.send_trailers(http::HeaderMap::new()).expect("open");
                }
                sent
            };
            let mut serving = pin!(serving);
            let sent = tokio::select! {
                sent = &mut serving => sent,
                _ = std::future::poll_fn(|cx| connection.poll_closed(cx)) => serving.await,
            };
            let closed = std::future::poll_fn(|cx| connection.poll_closed(cx));
            drop(closed.await);
            (Request::from_parts(parts, ()), sent)
        };
        let checked = checked(settings);
        let client = async {
            let io: Io = tokio::net::TcpStream::connect(address)
                .await
                .expect("connects")
                .into();
            match &checked.settings.probe {
                Probe::Grpc(service) => grpc(io, &checked, service).await,
                Probe::Http(http) => http2(io, &checked, http).await,
                Probe::Tcp => Ok(()),
            }
        };
        let (result, (request, sent)) = tokio::join!(client, server);
        (result, request, sent)
    }

    fn settings(probe: Probe) -> HealthCheck {
        HealthCheck {
            probe,
            interval: HealthCheck::INTERVAL,
            timeout: HealthCheck::TIMEOUT,
            healthy_threshold: 2,
            unhealthy_threshold: 3,
        }
    }

    fn checked(probe: Probe) -> Checked {
        let config = model::endpoint::Endpoint {
            service: "shop/s".parse().expect("valid"),
            workload: "shop/w".parse().expect("valid"),
            addresses: Vec::new(),
            ports: std::collections::BTreeMap::new(),
            tunnel: Tunnel::None,
            identity: "spiffe://mesh.local/ns/shop/sa/x".parse().expect("valid"),
            health: model::endpoint::Health::Healthy,
            weight: 1,
            locality: model::workload::Locality::default(),
            version: String::new(),
        };
        let endpoint = Endpoint::new(&config, crate::destination::EndpointLive::alone());
        let settings = Arc::new(settings(probe));
        let target = (Arc::new(endpoint), 80);
        Checked::new(&settings, target, Protocol::Grpc, &"s.shop".into(), true)
    }

    #[tokio::test]
    async fn a_call_of_the_health_service_says_whether_it_serves() {
        let probe = || Probe::Grpc("shop.Basket".to_owned());
        let (result, request, sent) = asked(probe(), 200, b"\0\0\0\0\x02\x08\x01").await;
        assert_eq!(result, Ok(()));
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        assert_eq!(request.headers()["content-type"], "application/grpc");
        assert_eq!(request.headers()["te"], "trailers");
        assert_eq!(&sent[..], b"\0\0\0\0\x0d\n\x0bshop.Basket");
        for (status, content, why) in [
            (200, &b"\0\0\0\0\x02\x08\x02"[..], "not serving"),
            (200, b"\0\0\0\0\0", "not serving"),
            // An unknown service, or no health service: trailers and nothing else.
            (200, b"", "without a message"),
            (503, b"", "503"),
        ] {
            let (result, ..) = asked(probe(), status, content).await;
            let found = result.expect_err("it fails");
            assert!(found.contains(why), "{found}");
        }
    }

    #[tokio::test]
    async fn a_get_over_http2_passes_with_an_expected_status() {
        let probe = |statuses| {
            Probe::Http(HttpProbe {
                path: "/healthz?deep".to_owned(),
                host: None,
                statuses,
            })
        };
        let (result, request, _) = asked(probe(vec![200..=200]), 200, b"well").await;
        assert_eq!(result, Ok(()));
        assert_eq!(request.uri(), "http://s.shop/healthz?deep");
        assert_eq!(request.headers()["user-agent"], USER_AGENT);
        let (result, ..) = asked(probe(vec![200..=200]), 204, b"").await;
        assert!(result.is_err_and(|why| why.contains("204")));
        let (result, ..) = asked(probe(vec![200..=200, 202..=299]), 204, b"").await;
        assert_eq!(result, Ok(()));
    }

    #[test]
    fn the_first_check_decides_and_then_only_several_in_a_row() {
        let settings = settings(Probe::Tcp);
        let mut run = Run::default();
        for (passed, means) in [
            (false, Some(false)),
            (true, None),
            (false, None),
            (true, None),
            (true, Some(true)),
            (false, None),
            (false, None),
            (true, None),
            (false, None),
            (false, None),
            (false, Some(false)),
            (false, Some(false)),
        ] {
            assert_eq!(run.add(passed, &settings), means, "{run:?}");
        }
        assert_eq!(Run::default().add(true, &settings), Some(true));
    }
}
