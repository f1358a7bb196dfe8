//! Protocols that are not HTTP, and ports of which nothing is declared.

use std::net::Ipv4Addr;
use std::time::Duration;

use testkit::place::free_port;
use testkit::raw::{Ended, Raw};
use testkit::upstream::{Step, Upstream};

use crate::mesh::{Mesh, Mode, SOON, in_both_modes, timed};

in_both_modes!(
    a_server_that_speaks_first_is_heard_at_once,
    the_end_of_one_direction_leaves_the_other_open,
    http_on_an_undeclared_port_is_treated_as_http,
    a_tcp_route_of_a_service_leads_its_connections_elsewhere,
);

/// Connections made, at most, to find out how fast a greeting can be.
const TRIES: usize = 400;
/// By which two proxies may delay a server's greeting, the handshake between them included.
const MOST_ADDED: Duration = Duration::from_millis(1);

fn smtp(_: usize) -> Vec<Step> {
    vec![
        Step::send("220 mail ready\r\n"),
        Step::ReadUntil(b"\r\n".to_vec()),
        Step::send("250 hello\r\n"),
        Step::ReadToEnd,
    ]
}

fn a_server_that_speaks_first_is_heard_at_once(mode: Mode) {
    let mesh = Mesh::start_in(mode);
    for (service, protocol) in [("mail", ""), ("declared", "/tcp")] {
        let server = mesh.server(service, protocol, smtp);
        let client = mesh.idle("client", &format!("client-of-{service}"), &[]);
        let target = format!("{service}:80");
        // The best of some: what is shown is what the proxies add, not what else the machine does.
        let hear = |raw: &mut Raw| {
            let (greeting, taken) = timed(|| raw.read_until(b"\r\n", SOON));
            assert_eq!(greeting.unwrap(), b"220 mail ready\r\n");
            raw.send("EHLO me\r\n").unwrap();
            assert_eq!(raw.read_until(b"\r\n", SOON).unwrap(), b"250 hello\r\n");
            taken
        };
        let port = server.upstream.port();
        let (mut direct, mut best) = (Duration::MAX, Duration::MAX);
        for _ in 0..TRIES {
            let connect = || Raw::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
            direct = direct.min(hear(&mut server.workload.inside(connect)));
            best = best.min(hear(&mut client.tunnel(&target)));
            if best.saturating_sub(direct) < MOST_ADDED {
                break;
            }
        }
        assert!(
            best.saturating_sub(direct) < MOST_ADDED,
            "{service}: the greeting took {best:?}, and {direct:?} without proxies"
        );
    }
}

fn the_end_of_one_direction_leaves_the_other_open(mode: Mode) {
    let mesh = Mesh::start_in(mode);
    let server = mesh.server("sink", "/tcp", |_| {
        vec![Step::ReadToEnd, Step::send("all received"), Step::ShutWrite]
    });
    let client = mesh.client();
    let mut raw = client.tunnel("sink:80");
    let bytes = vec![7; 3 << 20];
    raw.send(&bytes).unwrap();
    raw.shut_write().unwrap();
    assert_eq!(
        raw.read_to_end(SOON),
        (b"all received".to_vec(), Ended::Closed)
    );
    assert!(server.upstream.received(0) == bytes);
}

fn http_on_an_undeclared_port_is_treated_as_http(mode: Mode) {
    let mesh = Mesh::start_in(mode);
    let server = mesh.server("web", "", |_| Step::answer("hello"));
    let client = mesh.client();
    let mut raw = client.tunnel("web:80");
    for _ in 0..3 {
        assert_eq!(raw.get("web", "/").text(), "hello");
    }
    let labels = [("destination", "web.default.svc.cluster.local")];
    let counted = || client.metric("tulle_requests_total", &labels);
    testkit::wait_for("three requests in the metrics", SOON, || {
        (counted() >= 3.0).then_some(())
    });
    let request = (0..server.upstream.connections())
        .map(|n| server.upstream.received_text(n))
        .collect::<String>();
    assert_eq!(request.matches("x-request-id:").count(), 3, "{request}");
}

/// The producer's route leads to one version, that of the clients' own namespace to another.
fn a_tcp_route_of_a_service_leads_its_connections_elsewhere(mode: Mode) {
    let mesh = Mesh::start_in(mode);
    let greet = |name: &'static str| move |_: usize| vec![Step::send(format!("{name}\n"))];
    let _servers = ["one", "two"].map(|name| mesh.server(name, "/tcp", greet(name)));
    let route = |namespace: &str, backend: &str| {
        format!(
            "{{apiVersion: gateway.networking.k8s.io/v1, kind: TCPRoute, metadata: {{name: db, namespace: {namespace}}}, spec: \
             {{parentRefs: [{{group: '', kind: Service, name: db, namespace: default}}], \
             rules: [{{backendRefs: [{{name: {backend}, namespace: default, port: 80}}]}}]}}}}\n---\n"
        )
    };
    // One port says what it speaks, the other does not; nothing is behind either.
    let service = "{apiVersion: v1, kind: Service, metadata: {name: db}, spec: {ports: [{name: tcp, port: 5432}, {name: any, port: 80}]}}\n---\n";
    mesh.apply(&[service, &route("default", "one"), &route("consumer", "two")].concat());
    let client = mesh.client();
    let consumer = mesh.idle("client", "consumer", &["--namespace", "consumer"]);
    for (who, wanted) in [(&client, "one\n"), (&consumer, "two\n")] {
        for port in [5432, 80] {
            let mut raw = who.tunnel(&format!("db.default:{port}"));
            let heard = raw.read_until(b"\n", SOON).unwrap();
            assert_eq!(String::from_utf8_lossy(&heard), wanted, "{port}");
        }
    }
}

#[test]
fn a_client_that_speaks_first_in_no_known_protocol_is_carried() {
    let mesh = Mesh::start();
    let _server = mesh.server("redis", "", |_| vec![Step::Echo]);
    let client = mesh.client();
    let mut raw = client.tunnel("redis:80");
    for bytes in [
        b"*1\r\n$4\r\nPING\r\n".as_slice(),
        b"\x00\x01\x02\xff",
        b"G",
    ] {
        raw.send(bytes).unwrap();
        assert_eq!(raw.read_exact(bytes.len(), SOON).unwrap(), bytes);
    }
    raw.shut_write().unwrap();
    assert_eq!(raw.read_to_end(SOON), (vec![], Ended::Closed));
}

#[test]
fn a_loopback_port_leads_to_its_service() {
    let mesh = Mesh::start();
    let _server = mesh.server("stock", "/tcp", |_| vec![Step::Echo]);
    let port = free_port();
    let upstream = format!("stock.default:80={port}");
    let _client = mesh.client_with(&["--upstream", &upstream]);
    let mut raw = Raw::connect(("127.0.0.1", port)).unwrap();
    raw.send("RESERVE 7").unwrap();
    assert_eq!(raw.read_exact(9, SOON).unwrap(), b"RESERVE 7");
}

#[test]
fn a_server_that_breaks_off_does_not_leave_its_client_waiting() {
    let mesh = Mesh::start();
    let _server = mesh.server("brittle", "/tcp", |_| vec![Step::ReadExact(3), Step::Reset]);
    let client = mesh.client();
    let mut raw = client.tunnel("brittle:80");
    raw.send("abc").unwrap();
    let (bytes, ended) = raw.read_to_end(SOON);
    assert_eq!(bytes, b"");
    assert!(matches!(ended, Ended::Closed | Ended::Reset), "{ended:?}");
}

#[test]
fn hosts_outside_are_reached_until_the_mesh_says_registry_only() {
    let mesh = Mesh::start();
    let outside = Upstream::start(|_| Step::answer("outside"));
    let client = mesh.client();
    let host = format!("127.0.0.1:{}", outside.port());
    let response = client.get(&host, "/");
    assert_eq!((response.status, response.text()), (200, "outside".into()));
    assert_eq!(client.tunnel(&host).get(&host, "/").text(), "outside");

    mesh.apply(
        "{apiVersion: tulle.dev/v1alpha1, kind: MeshConfig, metadata: {name: default}, \
         spec: {outboundPolicy: RegistryOnly}}",
    );
    let refused = client.until("the refusal", &host, "/", |r| r.status != 200);
    let status = refused.header("proxy-status").unwrap();
    assert!(status.contains("no_route"), "{status}");
}
