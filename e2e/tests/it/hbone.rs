//! HBONE towards workloads whose proxies speak nothing else: mutual TLS with ALPN `h2`, CONNECT to
//! the workload's own address and port, both identities checked.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::ca::Authority;
use identity::tls::{ClientAuth, Credentials};
use model::{SpiffeId, TrustDomain};
use rustls::ServerConfig;
use testkit::raw::Response;
use testkit::tunnels::Tunnels;
use testkit::upstream::{Step, Upstream};

use crate::mesh::{Mesh, SOON};

/// A TLS server with an identity that the mesh's own authority has issued, for members alone.
fn member(mesh: &Mesh, account: &str) -> Arc<ServerConfig> {
    let domain = TrustDomain::new("mesh.local").unwrap();
    let now = SystemTime::now();
    let authority = Authority::load_or_create(&mesh.dir.join("ca"), &domain, now).unwrap();
    let id = SpiffeId::of_service_account(&domain, "default", account).unwrap();
    let svid = authority.issue(&id, Duration::from_hours(1), now).unwrap();
    let credentials = Credentials::new(svid, authority.trust_bundle());
    identity::tls::server_config(&credentials, &[b"h2"], ClientAuth::Required)
}

/// A Service `far` on port 80, and the one workload behind it.
fn objects(port: u16, protocol: &str, tunnel: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: far, namespace: default}}\nspec: {{selector: {{app: far}}, ports: [{{name: main, port: 80, targetPort: {port}, appProtocol: {protocol}}}]}}\n---\n\
         apiVersion: tulle.dev/v1alpha1\nkind: Workload\nmetadata: {{name: far-0, namespace: default, labels: {{app: far}}}}\nspec: {{address: 127.0.0.1, serviceAccount: far, ports: [{{name: main, port: {port}, appProtocol: {protocol}}}], tunnel: {{port: {tunnel}, protocol: HBONE}}}}\n"
    )
}

#[test]
fn requests_go_through_one_tunnel_to_a_proxy_of_another_make() {
    let mesh = Mesh::start();
    let app = Upstream::start(|_| Step::answer("far away"));
    let far = Tunnels::behind(member(&mesh, "far"));
    mesh.apply(&objects(app.port(), "http", far.addr().port()));
    let client = mesh.client();
    client.until("an answer", "far", "/", |response| response.status == 200);
    let mut raws: Vec<_> = (0..3).map(|_| client.connect("far")).collect();
    for round in 0..4 {
        for raw in &mut raws {
            let request = client.text("GET", "far", &format!("/{round}"), "", "");
            assert_eq!(raw.request(request).text(), "far away");
        }
    }
    let caller: SpiffeId = "spiffe://mesh.local/ns/default/sa/client".parse().unwrap();
    for asked in far.asked() {
        assert_eq!(asked.method, http::Method::CONNECT);
        assert_eq!(asked.authority, format!("127.0.0.1:{}", app.port()));
        assert_eq!((asked.protocol.as_deref(), &*asked.path), (None, ""));
        assert_eq!(asked.peer.as_ref(), Some(&caller), "{asked:?}");
    }
    // One for each worker at most; requests share streams and streams share connections.
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    assert!(
        far.connections() <= workers,
        "{} tunnels",
        far.connections()
    );
    let line = testkit::wait_for("a line of the access log", SOON, || {
        let lines = client.access_log().into_iter();
        lines.rev().find(|line| line["status"] == 200)
    });
    assert_eq!(line["mtls"], true, "{line}");
}

#[test]
fn bytes_go_through_with_half_close() {
    let mesh = Mesh::start();
    let app = Upstream::start(|_| vec![Step::Echo]);
    let far = Tunnels::behind(member(&mesh, "far"));
    mesh.apply(&objects(app.port(), "tcp", far.addr().port()));
    let client = mesh.client();
    let mut raw = client.tunnel("far:80");
    let large = vec![b'x'; 1 << 20];
    raw.send(&large).unwrap();
    raw.shut_write().unwrap();
    assert_eq!(raw.read_to_end(SOON).0.len(), large.len());
}

#[test]
fn somebody_else_at_the_workloads_address_is_told_nothing() {
    let mesh = Mesh::start();
    let app = Upstream::start(|_| Step::answer("far away"));
    let thief = Tunnels::behind(member(&mesh, "thief"));
    mesh.apply(&objects(app.port(), "http", thief.addr().port()));
    let client = mesh.client();
    let said = |response: &Response| response.header("proxy-status").is_some();
    let response = client.until("a refusal", "far", "/", said);
    assert_eq!(response.status, 503, "{response:?}");
    let said = response.header("proxy-status").unwrap();
    assert!(said.contains("identity_mismatch"), "{said}");
    assert!(thief.asked().is_empty(), "{:?}", thief.asked());
    assert_eq!(app.connections(), 0);
}

#[test]
fn a_tunnel_that_leads_nowhere_is_said_to() {
    let mesh = Mesh::start();
    let far = Tunnels::behind(member(&mesh, "far"));
    let closed = testkit::place::free_port();
    mesh.apply(&objects(closed, "http", far.addr().port()));
    let client = mesh.client();
    let said = |response: &Response| response.header("proxy-status").is_some();
    let response = client.until("a refusal", "far", "/", said);
    assert_eq!(response.status, 503, "{response:?}");
    let said = response.header("proxy-status").unwrap();
    assert!(said.contains("connect_refused"), "{said}");
}

#[test]
fn a_proxy_of_our_own_make_takes_it_too() {
    let mesh = Mesh::start();
    let server = mesh.server("near", "/http", |_| Step::answer("near"));
    let tunnel = server.workload.proxy_port("tunnel");
    let text = objects(server.upstream.port(), "http", tunnel)
        .replace("serviceAccount: far", "serviceAccount: near");
    mesh.apply(&text);
    let client = mesh.client();
    let response = client.until("an answer", "far", "/", |response| response.status == 200);
    assert_eq!(response.text(), "near");
    let caller = "spiffe://mesh.local/ns/default/sa/client";
    let labels = [("direction", "inbound"), ("source_principal", caller)];
    let opened = "tulle_tcp_connections_opened_total";
    assert!(server.workload.metric(opened, &labels) >= 1.0);
}
