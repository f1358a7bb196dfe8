//! Datagrams between workloads: sessions as streams in mutual TLS.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use testkit::place::free_port;

use crate::mesh::{Mesh, Mode, SOON, Workload, transparent_is_available};

/// Where the server's program has its socket.
const PORT: u16 = 5300;

/// Answers each datagram with itself and where it came from.
fn echo(socket: UdpSocket) -> std::thread::JoinHandle<()> {
    socket.set_read_timeout(Some(SOON)).unwrap();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok((n, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..n], from);
            if &buffer[..n] == b"end" {
                return;
            }
        }
    })
}

/// A server of datagrams, and a client with a port that leads there.
fn pair(mesh: &Mesh, mode: Mode) -> (Workload, UdpSocket, Workload, UdpSocket) {
    let bind = |ip: Ipv4Addr, port| UdpSocket::bind((ip, port)).expect("a free port");
    let early = (mode == Mode::Explicit).then(|| bind(Ipv4Addr::LOCALHOST, 0));
    let port = early
        .as_ref()
        .map_or(PORT, |s| s.local_addr().unwrap().port());
    let server = mesh.idle("echo", "echo", &["--port", &format!("{port}/udp")]);
    let socket = early.unwrap_or_else(|| server.inside(|| bind(Ipv4Addr::UNSPECIFIED, PORT)));
    mesh.wait_ready("echo");
    let local = free_port();
    let client = mesh.client_with(&["--upstream", &format!("echo:{port}={local}")]);
    let asking = client.inside(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .connect(SocketAddr::from((Ipv4Addr::LOCALHOST, local)))
            .unwrap();
        socket
    });
    asking
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    (server, socket, client, asking)
}

/// Sends until there is an answer: the first may be lost.
fn ask(socket: &UdpSocket, question: &[u8]) {
    let mut buffer = vec![0; 1 << 16];
    testkit::wait_for("an answer", SOON, || {
        socket.send(question).ok()?;
        let n = socket.recv(&mut buffer).ok()?;
        (buffer[..n] == *question).then_some(())
    });
}

fn datagrams_are_carried_in_mutual_tls(mode: Mode) {
    let mesh = Mesh::start_in(mode);
    let (server, socket, client, asking) = pair(&mesh, mode);
    let answering = echo(socket);
    for length in [1, 0, 512, 1400, 9000, 60_000] {
        ask(&asking, &vec![b'x'; length]);
    }
    // Another client of the same port has a session, and answers, of its own.
    let other = client.inside(|| UdpSocket::bind("127.0.0.1:0").unwrap());
    other.connect(asking.peer_addr().unwrap()).unwrap();
    other
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    ask(&other, b"another");
    let labels = |direction| {
        [
            ("direction", direction),
            ("destination", "echo.default.svc.cluster.local"),
        ]
    };
    for (workload, direction) in [(&client, "outbound"), (&server, "inbound")] {
        let labels = labels(direction);
        let opened = workload.metric("tulle_udp_sessions_opened_total", &labels);
        assert!((2.0..=3.0).contains(&opened), "{direction}: {opened}");
        let sent = workload.metric("tulle_udp_sent_bytes_total", &labels);
        assert!(sent >= 70_920.0, "{direction}: {sent}");
    }
    let edges = server.page("admin", "/connections");
    assert!(
        edges.contains("tulle-mux") && edges.contains("/sa/client"),
        "{edges}"
    );
    asking.send(b"end").unwrap();
    answering.join().unwrap();
}

#[test]
fn datagrams_are_carried_in_mutual_tls_explicit() {
    datagrams_are_carried_in_mutual_tls(Mode::Explicit);
}

#[test]
fn datagrams_are_carried_in_mutual_tls_transparent() {
    if transparent_is_available("datagrams_are_carried_in_mutual_tls_transparent") {
        datagrams_are_carried_in_mutual_tls(Mode::Transparent);
    }
}

#[test]
fn a_program_that_went_away_ends_the_session_and_the_next_finds_it_again() {
    let mesh = Mesh::start();
    let (server, socket, _client, asking) = pair(&mesh, Mode::Explicit);
    let port = socket.local_addr().unwrap().port();
    let answering = echo(socket);
    ask(&asking, b"hello");
    asking.send(b"end").unwrap();
    answering.join().unwrap();
    // Nothing listens: the kernel of the server says so.
    testkit::wait_for("the end of the session", SOON, || {
        let _ = asking.send(b"anybody");
        let log = server.access_log();
        log.iter()
            .any(|line| line["protocol"] == "udp" && line["reason"] == "connect_refused")
            .then_some(())
    });
    let answering = echo(UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).unwrap());
    ask(&asking, b"again");
    asking.send(b"end").unwrap();
    answering.join().unwrap();
}

#[test]
fn a_udp_route_of_a_service_leads_its_datagrams_elsewhere() {
    let mesh = Mesh::start();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = socket.local_addr().unwrap().port();
    let _server = mesh.idle("echo", "echo", &["--port", &format!("{port}/udp")]);
    let answering = echo(socket);
    mesh.wait_ready("echo");
    // Nothing is behind it.
    mesh.apply(&format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: front}}, spec: {{ports: [{{port: 53, protocol: UDP}}]}}}}
---
{{apiVersion: gateway.networking.k8s.io/v1, kind: UDPRoute, metadata: {{name: front}}, spec: {{parentRefs: [{{group: '', kind: Service, name: front}}], rules: [{{backendRefs: [{{name: echo, port: {port}}}]}}]}}}}
"
    ));
    let local = free_port();
    let _client = mesh.client_with(&["--upstream", &format!("front:53={local}")]);
    let asking = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    asking.connect((Ipv4Addr::LOCALHOST, local)).unwrap();
    let wait = Duration::from_millis(500);
    asking.set_read_timeout(Some(wait)).unwrap();
    ask(&asking, b"question");
    ask(&asking, b"end");
    answering.join().unwrap();
}
