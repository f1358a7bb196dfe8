//! Between two proxies: connections are streams of one (`tulle-mux`).

use serde_json::Value;
use testkit::upstream::Step;

use crate::mesh::{Mesh, SOON, Workload};

/// TLS handshakes that a proxy has completed for connections of this form.
fn handshakes(workload: &Workload, alpn: &str) -> u64 {
    let edges: Vec<Value> = serde_json::from_str(&workload.page("admin", "/connections")).unwrap();
    let of_form = edges.iter().filter(|edge| edge["alpn"] == alpn);
    of_form
        .map(|edge| edge["handshakes"].as_u64().unwrap())
        .sum()
}

#[test]
fn the_requests_of_many_clients_share_a_connection() {
    let mesh = Mesh::start();
    let server = mesh.server("web", "/http", |_| Step::answer("ok"));
    let client = mesh.client();
    client.until("an answer", "web", "/", |response| response.status == 200);
    let request = client.text("GET", "web", "/", "", "");
    let mut raws: Vec<_> = (0..24).map(|_| client.connect("web")).collect();
    for _ in 0..3 {
        for raw in &mut raws {
            raw.send(&request).unwrap();
        }
        for raw in &mut raws {
            assert_eq!(raw.response(SOON).unwrap().text(), "ok");
        }
    }
    // Each worker of the client has one.
    let workers = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let opened = handshakes(&server.workload, "tulle-mux");
    assert!((1..=workers).contains(&opened), "{opened} connections");
    assert_eq!(handshakes(&server.workload, "tulle-h1"), 0);
}

#[test]
fn a_stream_that_nobody_reads_stops_no_other() {
    const LARGE: usize = 8 << 20;
    let mesh = Mesh::start();
    let _server = mesh.server("web", "/tcp", |connection| match connection {
        0..6 => vec![
            Step::Send(vec![b'x'; LARGE]),
            Step::ShutWrite,
            Step::ReadToEnd,
        ],
        _ => vec![Step::Echo],
    });
    let client = mesh.client();
    let mut stuck: Vec<_> = (0..6).map(|_| client.tunnel("web:80")).collect();
    for raw in &mut stuck {
        raw.read_exact(1, SOON).unwrap();
    }
    let mut lively = client.tunnel("web:80");
    for _ in 0..50 {
        lively.send("hello").unwrap();
        assert_eq!(lively.read_exact(5, SOON).unwrap(), b"hello");
    }
    for mut raw in stuck {
        assert_eq!(raw.read_to_end(SOON).0.len(), LARGE - 1);
    }
}
