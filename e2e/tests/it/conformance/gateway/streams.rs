//! Cases of TLSRoutes, TCPRoutes and UDPRoutes.

use std::io::{Read, Write};
use std::net::TcpStream;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use testkit::certs::anonymous_client_config;
use testkit::raw::Ended;

use super::*;
use crate::gateway::secret;

pub(super) const CASES: &[&str] = &[
    "tls-simple",
    "tls-ended",
    "tcp-weight",
    "tcp-granted",
    "tcp-one",
    "tcp-two",
    "tcp-three",
    "tcp-nowhere",
    "udp-simple",
    "udp-granted",
    "udp-two-routes",
];

/// A server that ends TLS by itself, with a certificate of its own, and sends back one line.
pub(super) struct TlsServer {
    port: u16,
    certificate: Vec<u8>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

pub(super) fn listeners(ports: &Ports) -> String {
    let tls = |mode: &str, hostname: &str| {
        format!(
            ", hostname: \"{hostname}\", tls: {mode}, allowedRoutes: {{kinds: [{{kind: TLSRoute}}]}}"
        )
    };
    let passed = tls("{mode: Passthrough}", "*.example.com");
    let ended = tls(
        "{mode: Terminate, certificateRefs: [{name: tls-ended, namespace: shop}]}",
        "tls.example.com",
    );
    let mut all = listener("tls-simple", ports["tls-simple"], "TLS", &passed);
    all.push_str(&listener("tls-ended", ports["tls-ended"], "TLS", &ended));
    for case in [
        "tcp-weight",
        "tcp-granted",
        "tcp-one",
        "tcp-two",
        "tcp-three",
        "tcp-nowhere",
    ] {
        let kinds = ", allowedRoutes: {kinds: [{kind: TCPRoute}]}";
        all.push_str(&listener(case, ports[case], "TCP", kinds));
    }
    for case in ["udp-simple", "udp-granted", "udp-two-routes"] {
        let kinds = ", allowedRoutes: {kinds: [{kind: UDPRoute}]}";
        all.push_str(&listener(case, ports[case], "UDP", kinds));
    }
    all
}

fn to(backend: &str) -> String {
    format!("  - backendRefs: [{{name: {backend}, port: 8080}}]")
}

pub(super) fn routes() -> String {
    let tcp = |name: &str, rules: &str| route("TCPRoute", name, &[name], "", rules);
    let udp =
        |name: &str, sections: &[&str], rules: &str| route("UDPRoute", name, sections, "", rules);
    let foreign = |backend: &str| {
        format!("  - backendRefs: [{{name: {backend}, namespace: {OTHER}, port: 8080}}]")
    };
    [
        route("TLSRoute", "tls-simple", &["tls-simple"], "abc.example.com", &to("tls-v1")),
        route("TLSRoute", "tls-ended", &["tls-ended"], "tls.example.com", &to("tcp-v1")),
        secret("tls-ended", "tls.example.com"),
        SECRET_GRANT.to_owned(),
        tcp("tcp-weight", "  - backendRefs: [{name: tcp-v1, port: 8080, weight: 70}, {name: tcp-v2, port: 8080, weight: 30}, {name: tcp-v3, port: 8080, weight: 0}]"),
        tcp("tcp-granted", &foreign("tcp-web")),
        grant("tcp-granted", "TCPRoute", "tcp-web"),
        tcp("tcp-one", &to("tcp-v1")),
        tcp("tcp-two", &to("tcp-v2")),
        tcp("tcp-three", &to("tcp-v3")),
        tcp("tcp-nowhere", &to("nowhere")),
        udp("udp-simple", &["udp-simple"], &to("udp-v1")),
        udp("udp-granted", &["udp-granted"], &foreign("udp-web")),
        grant("udp-granted", "UDPRoute", "udp-web"),
        udp("udp-older", &["udp-two-routes"], &to("udp-v1")),
    ]
    .concat()
}

/// The test's certificates stand in a namespace of their own.
const SECRET_GRANT: &str = "apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: certificates, namespace: shop}
spec:
  from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: default}]
  to: [{group: \"\", kind: Secret}]
---
";

/// What a TCP backend says of itself through a case's port.
fn who(port: u16) -> String {
    let mut raw = Raw::connect(("127.0.0.1", port)).unwrap();
    raw.send("?").unwrap();
    let line = raw.read_until(b"\n", SOON).unwrap();
    String::from_utf8_lossy(&line).trim_end().to_owned()
}

/// What a UDP backend says of itself; a datagram may be lost.
fn who_by_datagram(port: u16) -> String {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let mut buffer = [0; 64];
    testkit::wait_for("an answer", SOON, || {
        socket.send(b"?").ok()?;
        let n = socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..n]).into_owned())
    })
}

#[test]
fn tls_route_simple_same_namespace() {
    let world = world();
    world.assert_accepted("tlsroutes", "default/tls-simple");
    let address = ("127.0.0.1", world.port("tls-simple"));
    let config = anonymous_client_config(&[]);
    let mut raw = Raw::connect_tls(address, Arc::clone(&config), "abc.example.com").unwrap();
    // The backend's own certificate: nobody between has opened the connection.
    let shown = raw.tls().unwrap().peer_certificates().unwrap()[0].to_vec();
    assert_eq!(shown, world.backends.tls.certificate);
    raw.send("over and out\n").unwrap();
    assert_eq!(raw.read_until(b"\n", SOON).unwrap(), b"over and out\n");
    // A name of the listener that no route is for.
    let other = Raw::connect_tls(address, config, "other.example.com");
    assert!(other.is_err());
}

#[test]
fn tls_route_terminate_simple_same_namespace() {
    let world = world();
    world.assert_accepted("tlsroutes", "default/tls-ended");
    let address = ("127.0.0.1", world.port("tls-ended"));
    let config = anonymous_client_config(&[]);
    let mut raw = Raw::connect_tls(address, config, "tls.example.com").unwrap();
    // The backend gets, and gives, plain text.
    raw.send("?").unwrap();
    assert_eq!(raw.read_until(b"\n", SOON).unwrap(), b"v1\n");
}

#[test]
fn tcp_route_weighted_routing() {
    let world = world();
    assert_seventy_thirty(|_| who(world.port("tcp-weight")));
}

#[test]
fn tcp_route_parent_ref_port_and_section_name() {
    let world = world();
    let port = |case: &str| world.port(case);
    // By port alone, by section alone, and by both.
    for (case, parent) in [
        ("tcp-one", format!("port: {}", port("tcp-one"))),
        ("tcp-two", "sectionName: tcp-two".to_owned()),
        (
            "tcp-three",
            format!("sectionName: tcp-three, port: {}", port("tcp-three")),
        ),
    ] {
        let backend = match case {
            "tcp-one" => "tcp-v1",
            "tcp-two" => "tcp-v2",
            _ => "tcp-v3",
        };
        let text = route("TCPRoute", case, &[case], "", &to(backend));
        let text = text.replace(&format!("sectionName: {case}"), &parent);
        world.mesh.apply(&text);
        world.assert_accepted("tcproutes", &format!("default/{case}"));
    }
    for (case, by) in [("tcp-one", "v1"), ("tcp-two", "v2"), ("tcp-three", "v3")] {
        assert_eq!(who(port(case)), by, "{case}");
    }
}

#[test]
fn tcp_route_reference_grant() {
    let world = world();
    world
        .mesh
        .apply(&grant("tcp-granted", "TCPRoute", "tcp-web"));
    assert_eq!(who(world.port("tcp-granted")), "web");
    world.revoke("tcp-granted", "tcproutes", "default/tcp-granted");
}

#[test]
fn tcp_route_invalid_backend_ref_nonexistent() {
    let world = world();
    let route = |which| world.condition("tcproutes", "default/tcp-nowhere", which);
    assert_eq!(route("Accepted").0, "True");
    let missing = ("False".to_owned(), "BackendNotFound".to_owned());
    assert_eq!(route("ResolvedRefs"), missing);
    let mut raw = Raw::connect(("127.0.0.1", world.port("tcp-nowhere"))).unwrap();
    let _ = raw.send("?");
    let (bytes, ended) = raw.read_to_end(SOON);
    assert!(bytes.is_empty() && ended != Ended::TimedOut, "{ended:?}");
}

#[test]
fn udp_route() {
    let world = world();
    world.assert_accepted("udproutes", "default/udp-simple");
    assert_eq!(who_by_datagram(world.port("udp-simple")), "v1");
}

#[test]
fn udp_route_reference_grant() {
    let world = world();
    world
        .mesh
        .apply(&grant("udp-granted", "UDPRoute", "udp-web"));
    assert_eq!(who_by_datagram(world.port("udp-granted")), "web");
    world.revoke("udp-granted", "udproutes", "default/udp-granted");
}

#[test]
fn udp_route_multiple_routes_attachment() {
    let world = world();
    // Ages are told in seconds; of two that are equally old the name would decide, and this one's
    // comes first.
    testkit::wait_for("the next second", SOON, || {
        (seconds(SystemTime::now()) > seconds(world.applied)).then_some(())
    });
    let sections = ["udp-two-routes"];
    world.mesh.apply(&route(
        "UDPRoute",
        "udp-newer",
        &sections,
        "",
        &to("udp-v2"),
    ));
    for route in ["default/udp-older", "default/udp-newer"] {
        world.assert_accepted("udproutes", route);
    }
    let gateway = world.object("gateways", "default/web");
    let listeners = gateway["status"]["listeners"].as_array();
    let mut listeners = listeners.into_iter().flatten();
    let own = listeners.find(|l| l["name"] == "udp-two-routes");
    assert!(own.is_some_and(|l| l["attachedRoutes"] == 2), "{gateway}");
    // Each from a port of its own: a session of its own.
    for _ in 0..20 {
        assert_eq!(who_by_datagram(world.port("udp-two-routes")), "v1");
    }
}

impl TlsServer {
    pub(super) fn start() -> Self {
        let key = KeyPair::generate().expect("randomness");
        let params = CertificateParams::new(vec!["abc.example.com".to_owned()]);
        let params = params.expect("a name");
        let certificate = params.self_signed(&key).expect("valid parameters");
        let certificate = certificate.der().clone();
        let config = ServerConfig::builder_with_provider(identity::tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider speaks TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.clone()],
                PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            )
            .expect("a key for its certificate");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let stop = Arc::new(AtomicBool::new(false));
        let (config, stopping) = (Arc::new(config), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopping.load(Ordering::Acquire) {
                    return;
                }
                let session = ServerConnection::new(Arc::clone(&config)).expect("valid");
                thread::spawn(move || send_back(StreamOwned::new(session, stream)));
            }
        });
        Self {
            port,
            certificate: certificate.to_vec(),
            stop,
            thread: Some(thread),
        }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

/// One line, or what came of it until the peer left.
fn send_back(mut stream: StreamOwned<ServerConnection, TcpStream>) {
    let _ = stream.sock.set_read_timeout(Some(SOON));
    let mut line = Vec::new();
    let mut byte = [0];
    while stream.read_exact(&mut byte).is_ok() {
        line.extend(byte);
        if byte == *b"\n" {
            let _ = stream.write_all(&line);
            return;
        }
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes it.
        let woken = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok();
        if let Some(thread) = self.thread.take()
            && woken
        {
            let _ = thread.join();
        }
    }
}
