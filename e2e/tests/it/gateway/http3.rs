//! HTTP/3 at a Gateway: the same requests, routes and certificates as over TCP.

mod hostile;

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;

use http::Request;
use nix::sys::signal::Signal;
use testkit::certs::anonymous_client_config;
use testkit::h3::{self, Client, Outcome, frame, head};
use testkit::origin::Origin;

use super::*;
use crate::grpc::{Echo, serve};
use hostile::{HOST, PATH, POST, SCHEME};

/// RFC 9114 8.1.
const NO_ERROR: u64 = 0x100;

/// An HTTPS listener for `host` whose certificate is the Secret of the same name.
fn listener(name: &str, port: u16, host: &str) -> String {
    format!(
        "{{name: {name}, port: {port}, protocol: HTTPS, hostname: {host}, tls: {{certificateRefs: [{{name: {name}}}]}}}}"
    )
}

/// A ListenerPolicy for the whole Gateway.
fn policy(settings: &str) -> String {
    format!(
        "apiVersion: tulle.dev/v1alpha1\nkind: ListenerPolicy\nmetadata: {{name: edge, namespace: shop}}\nspec: {{targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: web}}], {settings}}}\n---\n"
    )
}

/// A Gateway for `a.com` with HTTP/3 before a server.
struct Edge {
    port: u16,
    gateway: Static,
}

impl Edge {
    fn before(name: &str, server: u16, limits: &str) -> Self {
        Self::with(name, limits, &service("s", "http", server))
    }

    fn with(name: &str, limits: &str, service: &str) -> Self {
        let port = free_port();
        let rest = [
            gateway(&[listener("a", port, "a.com")]),
            service.to_owned(),
            http_route("r", "", "s"),
        ]
        .concat();
        let files = [
            ("rest.yaml", rest),
            ("policy.yaml", policy(&format!("http3: {{}}, {limits}"))),
            ("a.yaml", secret("a", "a.com")),
        ];
        let gateway = Static::start(name, &files, port);
        let edge = Self { port, gateway };
        edge.wait_open(2);
        edge
    }

    /// Waits until workers have opened so many sockets: until all have, datagrams of one client may
    /// go first to one and then to another.
    fn wait_open(&self, sockets: usize) {
        testkit::wait_for("the workers to listen for HTTP/3", SOON, || {
            let text = self.gateway.proxy.stderr();
            (text.matches("Quic").count() >= sockets).then_some(())
        });
    }

    fn client(&self) -> Client {
        connect(self.port, "a.com").unwrap()
    }
}

fn connect(port: u16, name: &str) -> Result<Client, String> {
    let config = anonymous_client_config(&[b"h3"]);
    Client::connect(port, name, config).map_err(|e| e.to_string())
}

fn post(path: &str) -> Request<()> {
    let url = format!("https://a.com{path}");
    Request::post(url).body(()).unwrap()
}

#[test]
fn requests_go_the_same_way_as_over_tcp() {
    let origin = Origin::start();
    let mut edge = Edge::before("h3-requests", origin.addr().port(), "limits: {}");
    let client = edge.client();
    let response = client.get("https://a.com/x?y=z");
    assert_eq!(
        (response.status, response.text()),
        (200, "GET /x?y=z\n".to_owned())
    );
    let answer = client.send(post("/p"), b"hello").unwrap();
    assert_eq!(
        (answer.status, answer.text()),
        (200, "POST /p\nhello".to_owned())
    );
    let head = Request::head("https://a.com/h").body(()).unwrap();
    let answer = client.send(head, b"").unwrap();
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    // A request without a body is one without a body towards HTTP/1 too.
    let seen = &origin.seen()[0];
    assert_eq!(seen.header("transfer-encoding"), None, "{seen:?}");
    assert_eq!(seen.header("host").as_deref(), Some("a.com"));

    let line = edge.gateway.proxy.wait_stdout("/x", SOON);
    assert!(line.contains("http/3"), "{line}");
    let missing = client.send(Request::get("https://b.com/").body(()).unwrap(), b"");
    assert_eq!(missing.unwrap().status, 404);
}

#[test]
fn clients_over_tcp_are_told_and_others_are_not() {
    let server = Upstream::start(|_| Step::answer_with(200, &[("alt-svc", "h3=\":1\"")], "hello"));
    let edge = Edge::with(
        "h3-alt-svc",
        "limits: {}",
        &service("s", "http", server.port()),
    );
    let told = format!("h3=\":{}\"; ma=86400", edge.port);
    let alt_svc = || {
        let config = anonymous_client_config(&[b"http/1.1"]);
        let mut raw = Raw::connect_tls(("127.0.0.1", edge.port), config, "a.com").unwrap();
        let response = raw.get("a.com", "/");
        assert_eq!(response.status, 200);
        response.header("alt-svc").map(str::to_owned)
    };
    assert_eq!(alt_svc().as_deref(), Some(told.as_str()));

    let elsewhere = policy("http3: {advertise: {port: 443, maxAge: 1h}}");
    edge.gateway.write("policy.yaml", &elsewhere);
    let told = "h3=\":443\"; ma=3600";
    testkit::wait_for("the new offer", SOON, || {
        (alt_svc().as_deref() == Some(told)).then_some(())
    });
    // Without HTTP/3 what the server says is left alone.
    edge.gateway.write("policy.yaml", &policy("limits: {}"));
    testkit::wait_for("no offer", SOON, || {
        (alt_svc().as_deref() == Some("h3=\":1\"")).then_some(())
    });
}

#[test]
fn large_bodies_flow_both_ways() {
    let origin = Origin::start();
    let edge = Edge::before("h3-large", origin.addr().port(), "limits: {}");
    let client = edge.client();
    let body: Vec<u8> = (0..8_u32 << 20).map(|i| (i % 251) as u8).collect();
    let answer = client.send(post("/"), &body).unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.body == [b"POST /\n".as_slice(), &body].concat());
}

#[test]
fn many_streams_share_a_connection() {
    let origin = Origin::start();
    let edge = Edge::before("h3-streams", origin.addr().port(), "limits: {}");
    let client = edge.client();
    let tasks = client.run(async {
        let tasks: Vec<_> = (0..400)
            .map(|n| {
                let path = format!("/{n}");
                tokio::spawn(h3::exchange(
                    client.requests(),
                    post(&path),
                    path.into_bytes(),
                ))
            })
            .collect();
        let mut texts = Vec::new();
        for task in tasks {
            texts.push(task.await.unwrap().unwrap().text());
        }
        texts
    });
    for (n, text) in tasks.iter().enumerate() {
        assert_eq!(*text, format!("POST /{n}\n/{n}"));
    }
    assert_eq!(origin.count(), 400);
}

#[test]
fn trailers_and_interim_responses_pass() {
    let origin = Origin::start();
    let edge = Edge::before("h3-request-trailers", origin.addr().port(), "limits: {}");
    let request = [
        head(&[POST, SCHEME, HOST, PATH]),
        frame(0, b"body"),
        head(&[(b"x-sum", b"7"), (b"content-length", b"3")]),
    ]
    .concat();
    assert!(matches!(
        edge.client().stream(&request, true),
        Outcome::Ended(_)
    ));
    let seen = &origin.seen()[0];
    assert_eq!(seen.body.as_deref(), Some(b"body".as_slice()));
    // What frames is no trailer (RFC 9110 6.5.1).
    assert_eq!(seen.trailers, [("x-sum".to_owned(), b"7".to_vec())]);

    let server = Upstream::start(|_| {
        vec![
            Step::ReadRequest,
            Step::send("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"),
            Step::send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n"),
            Step::send("5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n"),
            Step::Again,
        ]
    });
    let edge = Edge::before("h3-trailers", server.port(), "limits: {}");
    let client = edge.client();
    let request = Request::get("https://a.com/").header("te", "trailers");
    let answer = client.send(request.body(()).unwrap(), b"").unwrap();
    assert_eq!((answer.status, answer.text()), (200, "hello".to_owned()));
    assert_eq!(answer.trailers.unwrap()["x-sum"], "7");
    let hints = client.run(async {
        let mut stream = client.requests().send_request(post("/")).await.unwrap();
        stream.finish().await.unwrap();
        stream.recv_response().await.unwrap()
    });
    assert_eq!(
        (hints.status().as_u16(), &hints.headers()["link"]),
        (103, &"</a>".parse().unwrap())
    );
}

#[test]
fn grpc_calls_pass_with_their_status() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let server = service(
        "s",
        "kubernetes.io/h2c",
        listener.local_addr().unwrap().port(),
    );
    serve(listener, Echo("it"));
    let edge = Edge::with("h3-grpc", "limits: {}", &server);
    let client = edge.client();
    let call = |method: &str, text: &str| {
        let request = Request::post(format!("https://a.com/test.Echo/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        // A message of one field: `google.protobuf.StringValue`.
        let length = u8::try_from(text.len()).unwrap();
        let message = [&[0, 0, 0, 0, length + 2, 10, length], text.as_bytes()].concat();
        client.send(request.body(()).unwrap(), &message).unwrap()
    };
    for n in 0..20 {
        let answer = call("Unary", &n.to_string());
        assert_eq!(answer.header("content-type"), Some("application/grpc"));
        assert!(answer.text().ends_with(&format!("hello {n}")), "{answer:?}");
        assert_eq!(answer.trailers.unwrap()["grpc-status"], "0");
    }
    // At once, in the head, and after a message.
    let failed = call("Fail", "");
    assert_eq!(
        (failed.status, failed.header("grpc-status")),
        (200, Some("9"))
    );
    let late = call("FailLate", "");
    assert_eq!(
        (late.status, &late.trailers.unwrap()["grpc-status"]),
        (200, &"8".parse().unwrap())
    );
}

#[test]
fn the_server_name_decides_and_certificates_are_renewed_in_place() {
    let server = Upstream::start(|_| Step::answer("hello"));
    let port = free_port();
    let rest = [
        gateway(&[listener("a", port, "a.com"), listener("b", port, "b.com")]),
        service("s", "http", server.port()),
        http_route("r", "", "s"),
        policy("http3: {}"),
        secret("b", "b.com"),
    ]
    .concat();
    let files = [("rest.yaml", rest), ("a.yaml", secret("a", "a.com"))];
    let gateway = Static::start("h3-sni", &files, port);
    let mut edge = Edge { port, gateway };
    edge.wait_open(2);
    let kept = edge.client();
    let [a, b] = [
        kept.certificate(),
        connect(port, "b.com").unwrap().certificate(),
    ];
    assert_ne!(a, b);
    // RFC 9110 7.4: a connection for one host is not one for another.
    assert_eq!(kept.get("https://b.com/").status, 421);
    let refused = connect(port, "c.com").err().expect("refused");
    assert!(
        refused.contains("no listener is for the server name"),
        "{refused}"
    );
    edge.gateway.proxy.wait_stdout("no_route", SOON);

    edge.gateway.write("a.yaml", &secret("a", "a.com"));
    testkit::wait_for("the new certificate", SOON, || {
        (edge.client().certificate() != a).then_some(())
    });
    assert_eq!(kept.get("https://a.com/").text(), "hello");
}

#[test]
fn the_key_exchange_is_post_quantum() {
    let server = Upstream::start(|_| Step::answer("hello"));
    let edge = Edge::before("h3-post-quantum", server.port(), "limits: {}");
    let mut config = (*anonymous_client_config(&[b"h3"])).clone();
    config.resumption = rustls::client::Resumption::disabled();
    let provider = rustls::crypto::CryptoProvider {
        kx_groups: vec![rustls::crypto::aws_lc_rs::kx_group::X25519MLKEM768],
        ..(**config.crypto_provider()).clone()
    };
    let only = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap();
    let mut only = only
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    only.alpn_protocols = vec![b"h3".to_vec()];
    // It gets as far as the certificate, which it has no reason to trust.
    let refused = Client::connect(edge.port, "a.com", Arc::new(only)).err();
    let text = refused.expect("untrusted").to_string();
    assert!(text.contains("UnknownIssuer"), "{text}");
}

#[test]
fn a_listener_that_goes_lets_requests_finish() {
    let server = Upstream::start(|n| match n {
        0 => Step::answer("hello"),
        _ => vec![
            Step::ReadRequest,
            Step::send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab"),
            Step::Pause(Duration::from_millis(1500)),
            Step::send("cd"),
        ],
    });
    let edge = Edge::before("h3-removed", server.port(), "limits: {}");
    let client = edge.client();
    assert_eq!(client.get("https://a.com/").text(), "hello");
    // Two at once, so that the second connection is used.
    let slow = client.run(async {
        let requests = client.requests();
        let tasks: Vec<_> = (0..4)
            .map(|_| tokio::spawn(h3::exchange(requests.clone(), post("/slow"), b"x".to_vec())))
            .collect();
        testkit_wait(&server, 2).await;
        edge.gateway.write("policy.yaml", &policy("limits: {}"));
        let mut texts = Vec::new();
        for task in tasks {
            texts.push(task.await.unwrap().map(|r| r.text()));
        }
        texts
    });
    assert!(slow.iter().any(|r| r.as_deref() == Ok("abcd")), "{slow:?}");
    assert!(slow.iter().all(Result::is_ok), "{slow:?}");
    assert_eq!(client.closed(), Outcome::Closed(NO_ERROR));
    assert!(connect(edge.port, "a.com").is_err());
    // The same port over TCP is not touched, and HTTP/3 can come back.
    assert_eq!(get_tls(edge.port, "a.com", "a.com").0, 200);
    edge.gateway.write("policy.yaml", &policy("http3: {}"));
    edge.wait_open(4);
    assert_eq!(edge.client().get("https://a.com/").status, 200);
}

/// Waits until a server has this many connections.
async fn testkit_wait(server: &Upstream, connections: usize) {
    let deadline = tokio::time::Instant::now() + SOON;
    while server.connections() < connections {
        assert!(tokio::time::Instant::now() < deadline, "no connection came");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn a_drain_lets_requests_finish() {
    let server = Upstream::start(|_| {
        vec![
            Step::ReadRequest,
            Step::Pause(Duration::from_secs(1)),
            Step::send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone"),
            Step::Again,
        ]
    });
    let mut edge = Edge::before("h3-drain", server.port(), "limits: {}");
    let client = edge.client();
    let answer = client.run(async {
        let sent = tokio::spawn(h3::exchange(client.requests(), post("/"), b"x".to_vec()));
        testkit_wait(&server, 1).await;
        edge.gateway.proxy.signal(Signal::SIGTERM);
        sent.await.unwrap()
    });
    assert_eq!(answer.unwrap().text(), "done");
    assert_eq!(client.closed(), Outcome::Closed(NO_ERROR));
    assert!(edge.gateway.proxy.wait(SOON).success());
}

#[test]
fn a_client_that_stops_reading_holds_nobody_up() {
    let server = Upstream::start(|_| {
        let piece = vec![b'x'; 64 * 1024];
        let mut script = vec![
            Step::ReadRequest,
            Step::send(format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
                64 << 20
            )),
        ];
        script.extend((0..1024).map(|_| Step::send(&piece)));
        script
    });
    let fast = Upstream::start(|_| Step::answer("hello"));
    let services = [
        service("s", "http", server.port()),
        service("fast", "http", fast.port()),
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: fast, namespace: shop}\nspec: {parentRefs: [{name: web}], rules: [{matches: [{path: {value: /fast}}], backendRefs: [{name: fast, port: 80}]}]}\n---\n".to_owned(),
    ];
    let limits = "limits: {bodyIdleTimeout: 3s}";
    let mut edge = Edge::with("h3-unread", limits, &services.concat());
    let client = edge.client();
    let mut unread = client.run(async {
        let mut stream = client.requests().send_request(post("/")).await.unwrap();
        stream.finish().await.unwrap();
        assert_eq!(stream.recv_response().await.unwrap().status(), 200);
        stream
    });
    assert_eq!(client.get("https://a.com/fast").text(), "hello");
    // It is let go after a while, and what came of it is written down.
    edge.gateway.proxy.wait_stdout("client_disconnected", SOON);
    let ended = client.run(async {
        loop {
            match unread.recv_data().await {
                Ok(Some(_)) => {}
                ended => break ended.map(drop),
            }
        }
    });
    assert!(ended.is_err(), "a response that broke off looks whole");
    assert_eq!(client.get("https://a.com/fast").text(), "hello");
}

#[test]
fn a_request_that_is_taken_back_is_let_go() {
    let server = Upstream::start(|_| vec![Step::ReadRequest, Step::Stall]);
    let mut edge = Edge::before("h3-cancelled", server.port(), "limits: {}");
    let client = edge.client();
    client.run(async {
        let mut stream = client.requests().send_request(post("/")).await.unwrap();
        stream.finish().await.unwrap();
        testkit_wait(&server, 1).await;
        stream.stop_sending(::h3::error::Code::H3_REQUEST_CANCELLED);
    });
    edge.gateway.proxy.wait_stdout("client_disconnected", SOON);
}
