//! HTTP/1.1 through two proxies: what goes in comes out.

use std::thread;
use std::time::Duration;

use testkit::upstream::{Step, Upstream};

use crate::mesh::{Mesh, Mode, SOON, in_both_modes};

in_both_modes!(
    requests_on_a_kept_connection_are_answered_in_order,
    large_bodies_pass_whole_in_both_directions,
    a_websocket_carries_frames_both_ways,
);

fn requests_on_a_kept_connection_are_answered_in_order(mode: Mode) {
    let mesh = Mesh::start_in(mode);
    let server = mesh.server("echo", "/http", |_| Step::answer("hello"));
    let client = mesh.client();
    let mut raw = client.connect("echo");
    for n in 0..20 {
        let response = raw.request(client.text("GET", "echo", &format!("/{n}"), "", ""));
        assert_eq!((response.status, response.text()), (200, "hello".to_owned()));
    }
    assert_eq!(server.upstream.requests(), 20);
    assert_eq!(
        server.upstream.connections(),
        1,
        "the pools should keep one connection"
    );
    let head = server.upstream.received_text(0);
    assert!(head.starts_with("GET /0 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("Host: echo\r\n"), "{head}");
}
