//! `tulle proxy --static`: Gateways from a directory, without a control plane; and `tulle gateway`,
//! with one.

mod backend_certificate;
mod balancing;
mod children;
mod clients;
mod cors;
mod forwarded;
mod http3;
mod listener_set;
mod mirror;
pub(crate) mod process;
mod session;
mod tls_modes;
mod upstream_header;

use std::fmt::Write as _;
use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, KeyPair};
use testkit::certs::{anonymous_client_config, narrow_client_config};
use testkit::place::{DataDir, free_port};
use testkit::process::Process;
use testkit::raw::{Ended, Raw};
use testkit::upstream::{Step, Upstream};

use crate::mesh::binary;

const SOON: Duration = Duration::from_secs(20);

/// A proxy and the directory that it serves.
struct Static {
    dir: DataDir,
    proxy: Process,
}

impl Static {
    /// Starts a proxy with these files, and waits until it listens on `port`.
    fn start(name: &str, files: &[(&str, String)], port: u16) -> Self {
        Self::start_with(name, files, port, &[])
    }

    /// The same with more arguments.
    fn start_with(name: &str, files: &[(&str, String)], port: u16, arguments: &[&str]) -> Self {
        let dir = DataDir::new(name);
        let conf = dir.join("conf");
        std::fs::create_dir(&conf).unwrap();
        for (file, text) in files {
            std::fs::write(conf.join(file), text).unwrap();
        }
        let mut command = Command::new(binary());
        command.args(["-v", "proxy", "--static"]).arg(&conf).args([
            "--admin",
            "off",
            "--access-log",
            "-",
            "--workers",
            "2",
        ]);
        command.args(arguments);
        let proxy = Process::spawn("proxy", &mut command, dir.path());
        let started = Self { dir, proxy };
        testkit::wait_for("the proxy to listen", SOON, || {
            Raw::connect(("127.0.0.1", port)).ok()
        });
        started
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.dir.join("conf").join(file), text).unwrap();
    }
}

/// A Gateway `web` in `shop`, with listeners in YAML's flow style.
fn gateway(listeners: &[String]) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: web, namespace: shop}}\nspec:\n  gatewayClassName: tulle\n  listeners: [{}]\n---\n",
        listeners.join(", ")
    )
}

fn http_listener(port: u16) -> String {
    gateway(&[format!("{{name: http, port: {port}, protocol: HTTP}}")])
}

/// A Service and the one endpoint behind it.
fn service(name: &str, app_protocol: &str, endpoint: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{ports: [{{name: main, port: 80, appProtocol: {app_protocol}}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}-1, namespace: shop, labels: {{kubernetes.io/service-name: {name}}}}}\naddressType: IPv4\nports: [{{name: main, port: {endpoint}}}]\nendpoints: [{{addresses: [127.0.0.1]}}]\n---\n"
    )
}

/// A route of all requests for `hosts` to a Service.
fn http_route(name: &str, hosts: &str, service: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{parentRefs: [{{name: web}}], hostnames: [{hosts}], rules: [{{backendRefs: [{{name: {service}, port: 80}}]}}]}}\n---\n"
    )
}

fn stream_route(kind: &str, name: &str, section: &str, hosts: &str, service: &str) -> String {
    let hosts = match hosts {
        "" => String::new(),
        hosts => format!("hostnames: [{hosts}], "),
    };
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{parentRefs: [{{name: web, sectionName: {section}}}], {hosts}rules: [{{backendRefs: [{{name: {service}, port: 80}}]}}]}}\n---\n"
    )
}

/// A text as a block below a key of a map in a map.
fn indented(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let _ = writeln!(out, "    {line}");
    }
    out
}

/// A certificate in PEM.
fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

/// A Secret with a new certificate for `host`.
pub(crate) fn secret(name: &str, host: &str) -> String {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![host.to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: shop}}\ntype: kubernetes.io/tls\nstringData:\n  tls.crt: |\n{}  tls.key: |\n{}---\n",
        indented(&certificate.pem()),
        indented(&key.serialize_pem()),
    )
}

fn get(port: u16, host: &str) -> (u16, String) {
    let mut raw = Raw::connect(("127.0.0.1", port)).unwrap();
    let response = raw.get(host, "/");
    (response.status, response.text())
}

/// One request over TLS, and the certificate that was shown.
fn get_tls(port: u16, name: &str, host: &str) -> (u16, String, Vec<u8>) {
    let config = anonymous_client_config(&[b"http/1.1"]);
    let mut raw = Raw::connect_tls(("127.0.0.1", port), config, name).unwrap();
    let response = raw.get(host, "/");
    let shown = raw.tls().unwrap().peer_certificates().unwrap()[0].to_vec();
    (response.status, response.text(), shown)
}

#[test]
fn hosts_decide_and_the_most_specific_wins() {
    let [exact, wild, any] =
        ["exact", "wild", "any"].map(|b| Upstream::start(move |_| Step::answer(b)));
    let port = free_port();
    let text = [
        http_listener(port),
        service("exact", "http", exact.port()),
        service("wild", "http", wild.port()),
        service("any", "http", any.port()),
        http_route("exact", "www.example.com", "exact"),
        http_route("wild", "\"*.example.com\"", "wild"),
        http_route("any", "", "any"),
    ]
    .concat();
    let _proxy = Static::start("hosts", &[("all.yaml", text)], port);
    for (host, body) in [
        ("www.example.com", "exact"),
        ("WWW.Example.COM:8080", "exact"),
        ("a.b.example.com", "wild"),
        ("example.com", "any"),
        ("10.0.0.1", "any"),
    ] {
        assert_eq!(get(port, host), (200, body.to_owned()), "{host}");
    }
}

#[test]
fn a_changed_file_is_taken_over_and_a_broken_one_is_not() {
    let [one, two] = ["one", "two"].map(|body| Upstream::start(move |_| Step::answer(body)));
    let port = free_port();
    let files = [
        ("gateway.yaml", http_listener(port)),
        (
            "services.yaml",
            service("one", "http", one.port()) + &service("two", "http", two.port()),
        ),
        ("route.yaml", http_route("all", "", "one")),
    ];
    let mut proxy = Static::start("reload", &files, port);
    let mut kept = Raw::connect(("127.0.0.1", port)).unwrap();
    assert_eq!(kept.get("a", "/").text(), "one");

    proxy.write("route.yaml", &http_route("all", "", "two"));
    testkit::wait_for("the new route", SOON, || {
        (get(port, "a").1 == "two").then_some(())
    });
    // The connection that was there before goes on, by the new route.
    assert_eq!(kept.get("a", "/").text(), "two");

    proxy.write("route.yaml", "kind: HTTPRoute\nspec: {parentRef: []}\n");
    proxy.proxy.wait_stderr("last good state", SOON);
    assert_eq!(get(port, "a"), (200, "two".to_owned()));
    assert_eq!(kept.get("a", "/").text(), "two");
}

#[test]
fn a_directory_that_is_broken_at_the_start_is_refused() {
    let dir = DataDir::new("broken");
    dir.write("a.yaml", "kind: Gateway\n");
    let mut command = Command::new(binary());
    command
        .args(["proxy", "--admin", "off", "--static"])
        .arg(dir.path());
    let finished = Process::run("proxy", &mut command, dir.path(), SOON);
    assert_eq!(finished.code(), 2);
    assert!(finished.stderr.contains("a.yaml:1"), "{}", finished.stderr);
}

#[test]
fn listeners_come_and_go_without_touching_others() {
    let server = Upstream::start(|_| Step::answer("hello"));
    let (first, second) = (free_port(), free_port());
    let listener = |name: &str, port| format!("{{name: {name}, port: {port}, protocol: HTTP}}");
    let files = [
        ("gateway.yaml", gateway(&[listener("a", first)])),
        (
            "rest.yaml",
            service("s", "http", server.port()) + &http_route("r", "", "s"),
        ),
    ];
    let proxy = Static::start("listeners", &files, first);
    let mut kept = Raw::connect(("127.0.0.1", first)).unwrap();
    assert_eq!(kept.get("a", "/").text(), "hello");
    proxy.write(
        "gateway.yaml",
        &gateway(&[listener("a", first), listener("b", second)]),
    );
    testkit::wait_for("the second port", SOON, || {
        Raw::connect(("127.0.0.1", second)).ok()
    });
    assert_eq!(get(second, "a").1, "hello");
    proxy.write("gateway.yaml", &gateway(&[listener("a", first)]));
    testkit::wait_for("the second port to close", SOON, || {
        Raw::connect(("127.0.0.1", second)).is_err().then_some(())
    });
    assert_eq!(kept.get("a", "/").text(), "hello");
}

#[test]
fn references_that_lead_nowhere_are_500_and_no_route_is_404() {
    let port = free_port();
    let text = http_listener(port) + &http_route("r", "a.com", "nowhere");
    let proxy = Static::start("dangling", &[("all.yaml", text)], port);
    let (status, body) = get(port, "a.com");
    assert_eq!(status, 500, "{body}");
    assert!(body.contains("nowhere"), "{body}");
    assert_eq!(get(port, "b.com").0, 404);
    drop(proxy);
}

#[test]
fn the_certificate_is_that_of_the_server_name_and_is_renewed_in_place() {
    let server = Upstream::start(|_| Step::answer("hello"));
    let port = free_port();
    let listener = |name: &str, host: &str| {
        format!(
            "{{name: {name}, port: {port}, protocol: HTTPS, hostname: {host}, tls: {{certificateRefs: [{{name: {name}}}]}}}}"
        )
    };
    let rest = [
        gateway(&[listener("a", "a.com"), listener("b", "b.com")]),
        service("s", "http", server.port()),
        http_route("r", "", "s"),
        secret("b", "b.com"),
    ]
    .concat();
    let proxy = Static::start(
        "sni",
        &[("rest.yaml", rest), ("a.yaml", secret("a", "a.com"))],
        port,
    );
    let (status, body, a) = get_tls(port, "a.com", "a.com");
    assert_eq!((status, body.as_str()), (200, "hello"));
    let (_, _, b) = get_tls(port, "b.com", "b.com");
    assert_ne!(a, b);
    // RFC 9110 7.4: a connection for one host is not one for another.
    assert_eq!(get_tls(port, "a.com", "b.com").0, 421);

    let config = anonymous_client_config(&[b"http/1.1"]);
    let mut kept = Raw::connect_tls(("127.0.0.1", port), config, "a.com").unwrap();
    assert_eq!(kept.get("a.com", "/").text(), "hello");
    proxy.write("a.yaml", &secret("a", "a.com"));
    testkit::wait_for("the new certificate", SOON, || {
        (get_tls(port, "a.com", "a.com").2 != a).then_some(())
    });
    assert_eq!(kept.get("a.com", "/").text(), "hello");
}

#[test]
fn a_server_name_that_nobody_serves_gets_no_handshake() {
    let port = free_port();
    let listener = format!(
        "{{name: a, port: {port}, protocol: HTTPS, hostname: a.com, tls: {{certificateRefs: [{{name: a}}]}}}}"
    );
    let text = gateway(&[listener]) + &secret("a", "a.com");
    let _proxy = Static::start("unknown-sni", &[("all.yaml", text)], port);
    let config = anonymous_client_config(&[]);
    let refused = Raw::connect_tls(("127.0.0.1", port), config, "b.com");
    assert!(refused.is_err());
}

#[test]
fn bytes_go_where_tcp_and_tls_routes_say() {
    let echo = Upstream::start(|_| vec![Step::Echo]);
    let (tcp, tls) = (free_port(), free_port());
    let text = [
        gateway(&[
            format!("{{name: tcp, port: {tcp}, protocol: TCP}}"),
            format!("{{name: tls, port: {tls}, protocol: TLS, tls: {{mode: Passthrough}}}}"),
        ]),
        service("echo", "tcp", echo.port()),
        stream_route("TCPRoute", "tcp", "tcp", "", "echo"),
        stream_route("TLSRoute", "tls", "tls", "\"*.example.com\"", "echo"),
    ]
    .concat();
    let _proxy = Static::start("bytes", &[("all.yaml", text)], tcp);
    let mut raw = Raw::connect(("127.0.0.1", tcp)).unwrap();
    raw.send("over and out").unwrap();
    raw.shut_write().unwrap();
    assert_eq!(
        raw.read_to_end(SOON),
        (b"over and out".to_vec(), Ended::Closed)
    );

    // The ClientHello comes back as it went: nobody has opened it.
    for (name, passed) in [("a.example.com", true), ("example.org", false)] {
        let mut session = rustls::ClientConnection::new(
            anonymous_client_config(&[]),
            name.to_owned().try_into().unwrap(),
        )
        .unwrap();
        let mut hello = Vec::new();
        session.write_tls(&mut hello).unwrap();
        let mut raw = Raw::connect(("127.0.0.1", tls)).unwrap();
        raw.send(&hello).unwrap();
        if passed {
            assert_eq!(raw.read_exact(hello.len(), SOON).unwrap(), hello);
        } else {
            assert_eq!(raw.read_to_end(SOON).0, b"");
        }
    }
}

#[test]
fn datagrams_go_where_a_udp_route_says() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = free_port();
    let marker = free_port();
    let text = [
        gateway(&[
            format!("{{name: udp, port: {port}, protocol: UDP}}"),
            format!("{{name: http, port: {marker}, protocol: HTTP}}"),
        ]),
        service("dns", "tcp", server.local_addr().unwrap().port()),
        stream_route("UDPRoute", "udp", "udp", "", "dns"),
    ]
    .concat();
    let _proxy = Static::start("datagrams", &[("all.yaml", text)], marker);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(("127.0.0.1", port)).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    server
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let mut buffer = [0; 64];
    let from = testkit::wait_for("a datagram", SOON, || {
        client.send(b"who is it").ok()?;
        let (n, from) = server.recv_from(&mut buffer).ok()?;
        (&buffer[..n] == b"who is it").then_some(from)
    });
    server.send_to(b"nobody", from).unwrap();
    let n = client.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..n], b"nobody");
}

#[test]
fn a_required_proxy_header_says_who_the_client_is() {
    let server = Upstream::start(|_| Step::answer("hello"));
    let port = free_port();
    let policy = "apiVersion: tulle.dev/v1alpha1\nkind: ListenerPolicy\nmetadata: {name: p, namespace: shop}\nspec: {targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: web}], proxyProtocol: {mode: Require}, limits: {requestHeaderBytes: 2Ki}}\n---\n";
    let text = [
        http_listener(port),
        service("s", "http", server.port()),
        http_route("r", "", "s"),
        policy.to_owned(),
    ]
    .concat();
    let mut proxy = Static::start("proxy-header", &[("all.yaml", text)], port);
    let mut raw = Raw::connect(("127.0.0.1", port)).unwrap();
    raw.send("PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\n")
        .unwrap();
    assert_eq!(raw.get("a", "/").text(), "hello");
    proxy.proxy.wait_stdout("192.0.2.7:4711", SOON);
    let large = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
        "x".repeat(3000)
    );
    assert_eq!(raw.request(&large).status, 431);

    let mut bare = Raw::connect(("127.0.0.1", port)).unwrap();
    bare.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(bare.read_to_end(SOON).0, b"");
}

#[test]
fn tls_to_a_backend_is_verified() {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["backend.example".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let backend = tls_backend(&certificate, &key);
    let ca = indented(&certificate.pem());
    let config_map = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: ca, namespace: shop}}\ndata:\n  ca.crt: |\n{ca}---\n"
    );
    let policy = |service: &str, hostname: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\nmetadata: {{name: {service}, namespace: shop}}\nspec: {{targetRefs: [{{group: '', kind: Service, name: {service}}}], validation: {{caCertificateRefs: [{{group: '', kind: ConfigMap, name: ca}}], hostname: {hostname}}}}}\n---\n"
        )
    };
    let port = free_port();
    let text = [
        http_listener(port),
        config_map,
        service("right", "http", backend),
        service("wrong", "http", backend),
        policy("right", "backend.example"),
        policy("wrong", "other.example"),
        http_route("right", "right.com", "right"),
        http_route("wrong", "wrong.com", "wrong"),
    ]
    .concat();
    let _proxy = Static::start("backend-tls", &[("all.yaml", text)], port);
    assert_eq!(get(port, "right.com"), (200, "behind TLS".to_owned()));
    let (status, body) = get(port, "wrong.com");
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("tls_failed"), "{body}");
}

/// A server that answers each connection's first request over TLS; its port.
fn tls_backend(certificate: &rcgen::Certificate, key: &KeyPair) -> u16 {
    let config = rustls::ServerConfig::builder_with_provider(identity::tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            key.serialize_der().try_into().unwrap(),
        )
        .unwrap();
    let config = std::sync::Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(stream), Ok(session)) = (
                stream,
                rustls::ServerConnection::new(std::sync::Arc::clone(&config)),
            ) else {
                return;
            };
            let mut stream = rustls::StreamOwned::new(session, stream);
            let mut buffer = [0; 4096];
            // A client that does not believe the certificate leaves.
            if std::io::Read::read(&mut stream, &mut buffer).is_ok_and(|n| n > 0) {
                let _ = std::io::Write::write_all(
                    &mut stream,
                    b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\nconnection: close\r\n\r\nbehind TLS",
                );
            }
        }
    });
    port
}
