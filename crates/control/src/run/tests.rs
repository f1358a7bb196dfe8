//! A whole control plane on free ports, with real clients.

use std::path::{Path, PathBuf};

use identity::svid::{PendingKey, Svid};
use identity::tls::{self, Expected};
use model::resource::{Kind, Resource};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use xds::client::{Batch, BoxedIo, CertificateAuthorityClient, Dial, RegistryClient};
use xds::proto::v1::{
    HeartbeatRequest, Mode, Port, RegisterRequest, RegisterResponse, SignRequest,
};

use super::*;
use crate::options::Listen;

const LIMIT: Duration = Duration::from_secs(30);

/// A running control plane.
struct Plane {
    addresses: Addresses,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ControlError>>,
}

fn options(dir: &Path) -> Options {
    Options {
        listen: Listen::free_ports(),
        ..Options::new(dir)
    }
}

async fn start(options: Options) -> Plane {
    let dir = options.data_dir.clone();
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(run(options, stopped));
    let ready = async {
        loop {
            if let Ok(addresses) = Addresses::read(&dir) {
                return addresses;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let addresses = tokio::time::timeout(LIMIT, ready).await.expect("starts");
    Plane {
        addresses,
        stop,
        task,
    }
}

impl Plane {
    async fn stop(self) {
        self.stop.send(()).expect("runs");
        // Less than `finish` would wait for a handle that somebody forgot to drop.
        let ended = tokio::time::timeout(Duration::from_secs(4), self.task).await;
        ended
            .expect("in time")
            .expect("no panic")
            .expect("stops well");
    }

    fn unix(&self) -> Dial {
        let path = self.addresses.socket.clone();
        Arc::new(move || {
            let path = path.clone();
            Box::pin(async move { Ok(Box::new(UnixStream::connect(path).await?) as BoxedIo) })
        })
    }

    fn tls(&self, config: Arc<rustls::ClientConfig>) -> Dial {
        let address = self.addresses.xds;
        Arc::new(move || {
            let config = Arc::clone(&config);
            Box::pin(async move {
                let stream = TcpStream::connect(address).await?;
                let name = "control.tulle".try_into().expect("a name");
                let stream = TlsConnector::from(config).connect(name, stream).await?;
                Ok(Box::new(stream) as BoxedIo)
            })
        })
    }

    async fn register(&self) -> RegisterResponse {
        let mut client = RegistryClient::new(xds::client::channel(self.unix()));
        let request = RegisterRequest {
            service: "reviews".to_owned(),
            namespace: "bookshop".to_owned(),
            ports: vec![Port {
                name: "http".to_owned(),
                number: 9080,
                protocol: 1,
            }],
            mode: Mode::Explicit.into(),
            tunnel_port: 40_001,
            instance: Some("reviews-0".to_owned()),
            ..RegisterRequest::default()
        };
        let answer = client
            .register(request)
            .await
            .expect("registered")
            .into_inner();
        let beat = HeartbeatRequest {
            workload: answer.workload_name.clone(),
            ready: true,
            ..HeartbeatRequest::default()
        };
        client.heartbeat(beat).await.expect("renewed");
        answer
    }

    /// The first certificate, for which the root is known by its pin only.
    async fn first_certificate(
        &self,
        answer: &RegisterResponse,
    ) -> (Svid, model::mesh::TrustBundle) {
        let config = tls::pinned_client_config(&answer.root_pin, None, &[b"h2"]).expect("a pin");
        let channel = xds::client::channel(self.tls(config));
        let key = PendingKey::generate().expect("a key");
        let request = SignRequest {
            csr_der: key.csr_der().expect("a request"),
            join_token: Some(answer.join_token.clone()),
            ..SignRequest::default()
        };
        let response = CertificateAuthorityClient::new(channel).sign(request).await;
        let response = response.expect("signed").into_inner();
        let bundle = response.trust_bundle.expect("a bundle");
        let bundle = xds::codec::trust_bundle_from_message(bundle).expect("valid");
        (key.into_svid(response.chain_der).expect("fits"), bundle)
    }

    /// One request of the HTTP API, over the unix socket.
    async fn call(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let stream = UnixStream::connect(&self.addresses.socket)
            .await
            .expect("connects");
        exchange(stream, method, path, body).await
    }
}

async fn exchange<S>(mut stream: S, method: &str, path: &str, body: &str) -> (u16, Value)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("answered");
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .expect("a status");
    (
        status,
        serde_json::from_str(body).unwrap_or(Value::String(body.to_owned())),
    )
}

async fn batch(batches: &mut tokio::sync::mpsc::Receiver<Batch>) -> Batch {
    let next = tokio::time::timeout(LIMIT, batches.recv()).await;
    next.expect("in time").expect("the client runs")
}

/// Takes everything until a route comes, and hands that over unanswered.
async fn next_route(batches: &mut tokio::sync::mpsc::Receiver<Batch>) -> Batch {
    loop {
        let batch = batch(batches).await;
        if batch.upserts.iter().any(|(key, _)| key.kind == Kind::Route) {
            return batch;
        }
        batch.accept();
    }
}

async fn programmed(plane: &Plane, want: &str) -> Value {
    let look = async {
        loop {
            let path = "/api/v1/resources/httproutes/bookshop/reviews";
            let (_, route) = plane.call("GET", path, "").await;
            let conditions = route["status"]["conditions"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let found = conditions.into_iter().find(|c| c["type"] == "Programmed");
            if let Some(found) = found
                && found["status"] == want
            {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, look).await.expect("in time")
}

fn route(weight: u32) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: reviews, namespace: bookshop}}\nspec:\n  parentRefs: [{{group: '', kind: Service, name: reviews}}]\n  rules: [{{backendRefs: [{{name: reviews, port: 80, weight: {weight}}}]}}]\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_joins_and_its_proxy_says_what_it_has() {
    let dir = tempfile::tempdir().expect("tempdir");
    let plane = start(options(dir.path())).await;
    let answer = plane.register().await;
    assert_eq!(answer.control_address, plane.addresses.xds.to_string());
    let (svid, bundle) = plane.first_certificate(&answer).await;
    assert_eq!(svid.id().as_str(), answer.identity);

    let credentials = Credentials::new(svid, bundle);
    let expected = Expected::Id(control_id(&model::TrustDomain::default()));
    let config = tls::client_config(&credentials, expected, &[b"h2"]);
    let (handle, mut batches) = xds::client::start(xds::client::Options {
        dial: plane.tls(config),
        node_id: format!("workload/{}", answer.workload_name),
        cache: None,
    });
    handle.subscribe(Kind::TrustBundle, "default");
    handle.subscribe(Kind::Service, "bookshop/reviews");
    handle.subscribe(Kind::Endpoint, "bookshop/reviews/*");
    handle.subscribe(Kind::Route, "bookshop/reviews/*");
    loop {
        let batch = batch(&mut batches).await;
        let endpoint = batch.upserts.iter().find_map(|(_, r)| match &**r {
            Resource::Endpoint(e) => Some(e.clone()),
            _ => None,
        });
        batch.accept();
        if let Some(endpoint) = endpoint {
            assert_eq!(endpoint.ports[&80], 9080);
            assert_eq!(endpoint.identity.as_str(), answer.identity);
            assert_eq!(endpoint.health, model::endpoint::Health::Healthy);
            break;
        }
    }

    let (status, body) = plane.call("POST", "/api/v1/apply", &route(1)).await;
    assert_eq!(status, 200, "{body}");
    next_route(&mut batches).await.accept();
    programmed(&plane, "True").await;

    let (status, body) = plane.call("POST", "/api/v1/apply", &route(2)).await;
    assert_eq!(status, 200, "{body}");
    let pending = next_route(&mut batches).await;
    assert_eq!(programmed(&plane, "False").await["reason"], "Pending");
    pending.reject("no such filter here");
    let refused = async { while programmed(&plane, "False").await["reason"] != "Rejected" {} };
    tokio::time::timeout(LIMIT, refused).await.expect("in time");
    let said = programmed(&plane, "False").await;
    assert!(
        said["message"].to_string().contains("no such filter here"),
        "{said}"
    );

    let (_, status) = plane.call("GET", "/api/v1/status", "").await;
    assert_eq!(status["proxies"][0]["node"], "workload/bookshop/reviews-0");
    assert_eq!(status["proxies"][0]["identity"], json!(answer.identity));
    assert_eq!(status["workloads"][0]["proxyConnected"], true);
    assert_eq!(status["services"][0]["ready"], 1);
    let metrics = TcpStream::connect(plane.addresses.metrics)
        .await
        .expect("connects");
    let (_, text) = exchange(metrics, "GET", "/metrics", "").await;
    let text = text.as_str().expect("text");
    for line in [
        "tulle_xds_connected_proxies 1",
        "tulle_xds_rejections_total 1",
        "tulle_certificate_issued_total 1",
        "tulle_config_objects{kind=\"HTTPRoute\"} 1",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_is_there_after_a_restart() {
    let dir = tempfile::tempdir().expect("tempdir");
    let plane = start(options(dir.path())).await;
    let answer = plane.register().await;
    let (status, _) = plane.call("POST", "/api/v1/apply", &route(1)).await;
    assert_eq!(status, 200);
    plane.stop().await;
    assert!(Addresses::read(dir.path()).is_err(), "it says goodbye");

    let plane = start(options(dir.path())).await;
    let (status, object) = plane
        .call("GET", "/api/v1/resources/httproutes/bookshop/reviews", "")
        .await;
    assert_eq!(status, 200, "{object}");
    let (_, status) = plane.call("GET", "/api/v1/status", "").await;
    assert_eq!(status["workloads"][0]["lease"]["ready"], true, "{status}");
    assert_eq!(
        plane.addresses.root_pin, answer.root_pin,
        "the same authority"
    );
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_disturbs_nobody() {
    let dir = tempfile::tempdir().expect("tempdir");
    let plane = start(options(dir.path())).await;
    let at = [
        plane.addresses.xds,
        plane.addresses.api,
        plane.addresses.metrics,
        plane.addresses.otlp,
    ];
    let mut stalled = Vec::new();
    for address in at {
        for garbage in [
            b"\x00\xff\x13\x37garbage\r\n\r\n".as_slice(),
            b"GET / HTTP/1.1\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        ] {
            let mut stream = TcpStream::connect(address).await.expect("connects");
            stream.write_all(garbage).await.expect("sent");
            stalled.push(stream);
        }
    }
    // Among all these, everything goes on.
    let answer = plane.register().await;
    plane.first_certificate(&answer).await;
    let (status, _) = plane.call("GET", "/api/v1/status", "").await;
    assert_eq!(status, 200);
    // On TLS, plain text is told apart and counted.
    let metrics = async {
        loop {
            let stream = TcpStream::connect(plane.addresses.metrics)
                .await
                .expect("connects");
            let (_, text) = exchange(stream, "GET", "/metrics", "").await;
            if text.to_string().contains("not_tls") {
                return;
            }
        }
    };
    tokio::time::timeout(LIMIT, metrics).await.expect("counted");
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_get_no_stream_and_no_registration() {
    let dir = tempfile::tempdir().expect("tempdir");
    let plane = start(options(dir.path())).await;
    let config =
        tls::pinned_client_config(&plane.addresses.root_pin, None, &[b"h2"]).expect("a pin");
    let mut registry = RegistryClient::new(xds::client::channel(plane.tls(Arc::clone(&config))));
    let status = registry
        .register(RegisterRequest::default())
        .await
        .expect_err("a stranger");
    assert_eq!(status.code(), tonic::Code::Unauthenticated, "{status}");

    let channel = xds::client::channel(plane.tls(config));
    let mut discovery =
        xds::proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient::new(channel);
    let first = xds::proto::discovery::DeltaDiscoveryRequest {
        node: Some(xds::proto::envoy::config::core::v3::Node {
            id: "workload/bookshop/reviews-0".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let stream = discovery
        .delta_aggregated_resources(tokio_stream::iter([first]))
        .await;
    let status = match stream {
        Ok(stream) => stream.into_inner().message().await.expect_err("a stranger"),
        Err(status) => status,
    };
    assert_eq!(status.code(), tonic::Code::PermissionDenied, "{status}");
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_keeps_it_from_starting_is_said_with_the_remedy() {
    let dir = tempfile::tempdir().expect("tempdir");
    let plane = start(options(dir.path())).await;

    let again = run(options(dir.path()), std::future::pending::<()>()).await;
    let text = again.expect_err("taken").to_string();
    assert!(text.contains("in use by another control plane"), "{text}");

    let other = tempfile::tempdir().expect("tempdir");
    let mut taken = options(other.path());
    taken.listen.xds = plane.addresses.xds;
    let text = run(taken, std::future::pending::<()>())
        .await
        .expect_err("taken")
        .to_string();
    assert!(
        text.contains(&plane.addresses.xds.to_string()) && text.contains("--xds"),
        "{text}"
    );

    let mut nowhere = options(other.path());
    nowhere.sources = vec![PathBuf::from("/no/such/file.yaml")];
    let text = run(nowhere, std::future::pending::<()>())
        .await
        .expect_err("no file")
        .to_string();
    assert!(text.contains("/no/such/file.yaml"), "{text}");

    std::fs::write(
        other.path().join("control.db"),
        "this is no database, not at all",
    )
    .expect("written");
    let text = run(options(other.path()), std::future::pending::<()>())
        .await
        .expect_err("damaged")
        .to_string();
    assert!(
        text.contains("control.db") && text.contains("damaged"),
        "{text}"
    );
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_left_by_a_killed_process_is_replaced() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = Addresses::socket(dir.path());
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
    std::fs::write(Addresses::file(dir.path()), "{}").expect("written");
    let plane = start(options(dir.path())).await;
    let (status, _) = plane.call("GET", "/api/v1/status", "").await;
    assert_eq!(status, 200);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(&path).expect("there").permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    plane.stop().await;
}
