//! HTTP/1.1 through two proxies: what goes in comes out.

use std::time::Duration;

use testkit::raw::Raw;
use testkit::upstream::Step;

use crate::mesh::{Mesh, Mode, SOON, Workload, in_both_modes};

const LARGE: usize = 20 << 20;

in_both_modes!(
    requests_on_a_kept_connection_are_answered_in_order,
    large_bodies_pass_whole_and_are_not_kept_in_memory,
    a_websocket_carries_frames_both_ways,
);

fn requests_on_a_kept_connection_are_answered_in_order(mode: Mode) {
    let mesh = Mesh::start_in(mode);
    let server = mesh.server("echo", "/http", |_| Step::answer("hello"));
    let client = mesh.client();
    let mut raw = client.connect("echo");
    for n in 0..20 {
        let response = raw.request(client.text("GET", "echo", &format!("/{n}"), "", ""));
        assert_eq!((response.status, response.text()), (200, "hello".into()));
    }
    let requests = server.upstream.requests();
    assert_eq!(requests, 20);
    assert_eq!(server.upstream.connections(), 1, "one was kept in the pool");
    let head = server.upstream.received_text(0);
    assert!(head.starts_with("GET /0 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("\r\nHost: echo\r\n"), "{head}");

    let two = [1, 2].map(|n| client.text("GET", "echo", &format!("/pipelined-{n}"), "", ""));
    raw.send(two.concat()).unwrap();
    for _ in 0..2 {
        assert_eq!(raw.response(SOON).unwrap().status, 200);
    }
}

/// Bytes that differ from place to place, so that what is lost or twice is seen.
fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8)
        .collect()
}

/// The most memory that the proxy of a workload has had, in KiB.
fn peak(workload: &Workload) -> usize {
    let path = format!("/proc/{}/status", workload.proxy_pid());
    let text = std::fs::read_to_string(path).unwrap();
    let line = text.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn large_bodies_pass_whole_and_are_not_kept_in_memory(mode: Mode) {
    let mesh = Mesh::start_in(mode);
    let body = pattern(LARGE);
    let answer = [
        format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n").into_bytes(),
        body.clone(),
    ]
    .concat();
    let server = mesh.server("store", "/http", move |_| {
        vec![Step::ReadRequest, Step::Send(answer.clone()), Step::Again]
    });
    let client = mesh.client();
    let before = [peak(&client), peak(&server.workload)];
    let mut raw = client.connect("store");
    let head = client.head("PUT", "store", "/");
    raw.send(format!("{head}Content-Length: {LARGE}\r\n\r\n"))
        .unwrap();
    raw.send(&body).unwrap();
    let response = raw.response(SOON).unwrap();
    assert_eq!(response.body.len(), LARGE);
    assert!(
        response.body == body,
        "the response's body is not what was sent"
    );
    let received = server.upstream.received(0);
    assert!(
        received.ends_with(&body),
        "the request's body is not what was sent"
    );
    for (workload, before) in [&client, &server.workload].into_iter().zip(before) {
        let grown = peak(workload).saturating_sub(before);
        assert!(
            grown < 10 << 10,
            "the proxy of {} grew by {grown} KiB",
            workload.name
        );
    }
}

fn a_websocket_carries_frames_both_ways(mode: Mode) {
    let mesh = Mesh::start_in(mode);
    let server = mesh.server("chat", "/http", |_| {
        vec![
            Step::ReadRequest,
            Step::send(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\x01from the server",
            ),
            Step::Echo,
        ]
    });
    let client = mesh.client();
    let mut raw = client.connect("chat");
    let headers = "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
    let response = raw.request(client.text("GET", "chat", "/ws", headers, ""));
    assert_eq!(response.status, 101);
    assert_eq!(response.header("upgrade"), Some("websocket"));
    assert!(response.header("sec-websocket-accept").is_some());
    assert_eq!(raw.read_exact(16, SOON).unwrap(), b"\x01from the server");
    for frame in [
        b"\x81\x05first".as_slice(),
        b"\x82\x02\x00\xff",
        &pattern(100_000),
    ] {
        raw.send(frame).unwrap();
        assert_eq!(raw.read_exact(frame.len(), SOON).unwrap(), frame);
    }
    let request = server.upstream.received_text(0).to_lowercase();
    assert!(request.contains("\r\nupgrade: websocket\r\n"), "{request}");
    assert!(request.contains("\r\nconnection: upgrade\r\n"), "{request}");
    raw.shut_write().unwrap();
    assert_eq!(raw.read_to_end(SOON).0, b"");
}

#[test]
fn chunked_bodies_and_trailers_pass_in_both_directions() {
    let mesh = Mesh::start();
    let server = mesh.server("echo", "/http", |_| {
        vec![
            Step::ReadRequest,
            Step::send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"),
            Step::send("6\r\nfirst \r\n6\r\nsecond\r\n0\r\nX-Sum: 12\r\n\r\n"),
            Step::Again,
        ]
    });
    let client = mesh.client();
    let mut raw = client.connect("echo");
    let headers = "Transfer-Encoding: chunked\r\nTrailer: X-Count\r\nTE: trailers\r\n\r\n";
    let body = "4\r\none \r\n3;ext=1\r\ntwo\r\n0\r\nX-Count: 2\r\n\r\n";
    for _ in 0..2 {
        raw.send(client.head("POST", "echo", "/") + headers + body)
            .unwrap();
        let head = raw.read_until(b"\r\n\r\n", SOON).unwrap();
        let head = String::from_utf8_lossy(&head).to_lowercase();
        assert!(head.contains("transfer-encoding: chunked"), "{head}");
        let rest = raw.read_until(b"0\r\n", SOON).unwrap();
        assert!(
            String::from_utf8_lossy(&rest).contains("first "),
            "{rest:?}"
        );
        let trailers = raw.read_until(b"\r\n\r\n", SOON).unwrap();
        let trailers = String::from_utf8_lossy(&trailers).to_lowercase();
        assert_eq!(trailers, "x-sum: 12\r\n\r\n");
    }
    let request = server.upstream.received_text(0).to_lowercase();
    assert!(
        request.contains("one ") && request.contains("two"),
        "{request}"
    );
    assert!(request.contains("0\r\nx-count: 2\r\n\r\n"), "{request}");
}

#[test]
fn responses_without_a_body_do_not_stall_the_connection() {
    let mesh = Mesh::start();
    let _server = mesh.server("empty", "/http", |_| {
        vec![
            Step::ReadRequest,
            Step::send("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n"),
            Step::ReadRequest,
            Step::send("HTTP/1.1 204 No Content\r\n\r\n"),
            Step::ReadRequest,
            Step::send("HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 77\r\n\r\n"),
            Step::ReadRequest,
            Step::send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
            Step::Again,
        ]
    });
    let client = mesh.client();
    let mut raw = client.connect("empty");
    for _ in 0..2 {
        raw.send(client.text("HEAD", "empty", "/", "", "")).unwrap();
        let head = raw.read_until(b"\r\n\r\n", SOON).unwrap();
        let head = String::from_utf8_lossy(&head).to_lowercase();
        assert!(head.contains("content-length: 1234\r\n"), "{head}");
        let response = raw.request(client.text("DELETE", "empty", "/", "", ""));
        assert_eq!(
            (response.status, response.header("content-length")),
            (204, None)
        );
        let response =
            raw.request(client.text("GET", "empty", "/", "If-None-Match: \"a\"\r\n", ""));
        assert_eq!(
            (response.status, response.header("etag")),
            (304, Some("\"a\""))
        );
        let response = raw.request(client.text("GET", "empty", "/", "", ""));
        assert_eq!((response.status, response.body.len()), (200, 0));
    }
}

#[test]
fn a_client_that_expects_100_continue_gets_it_before_its_body() {
    let mesh = Mesh::start();
    let server = mesh.server("upload", "/http", |_| Step::answer("stored"));
    let client = mesh.client();
    let mut raw = client.connect("upload");
    let head = client.head("PUT", "upload", "/");
    raw.send(format!(
        "{head}Expect: 100-continue\r\nContent-Length: 4\r\n\r\n"
    ))
    .unwrap();
    let interim = raw.read_until(b"\r\n\r\n", SOON).unwrap();
    assert!(interim.starts_with(b"HTTP/1.1 100"), "{interim:?}");
    let response = raw.request("body");
    assert_eq!((response.status, response.text()), (200, "stored".into()));
    assert!(server.upstream.received_text(0).ends_with("body"));
}

#[test]
fn header_names_keep_their_case_and_order_of_values() {
    let mesh = Mesh::start();
    let server = mesh.server("echo", "/http", |_| {
        Step::answer_with(
            200,
            &[
                ("X-MixedCase", "1"),
                ("Set-Cookie", "a=1"),
                ("Set-Cookie", "b=2"),
            ],
            "",
        )
    });
    let client = mesh.client();
    let mut raw = client.connect("echo");
    raw.send(client.text(
        "GET",
        "echo",
        "/",
        "X-CamelCase: 1\r\nX-Many: a\r\nX-Many: b\r\n",
        "",
    ))
    .unwrap();
    let head = raw.read_until(b"\r\n\r\n", SOON).unwrap();
    let head = String::from_utf8_lossy(&head).into_owned();
    assert!(head.contains("\r\nX-MixedCase: 1\r\n"), "{head}");
    assert!(
        head.contains("Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n"),
        "{head}"
    );
    let request = server.upstream.received_text(0);
    assert!(request.contains("\r\nX-CamelCase: 1\r\n"), "{request}");
    assert!(request.contains("X-Many: a\r\nX-Many: b\r\n"), "{request}");
}

#[test]
fn a_body_that_ends_with_the_connection_is_delivered_whole() {
    let mesh = Mesh::start();
    let _server = mesh.server("old", "/http", |_| {
        vec![
            Step::ReadRequest,
            Step::send("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nup to "),
            Step::Pause(Duration::from_millis(20)),
            Step::send("the end"),
        ]
    });
    let client = mesh.client();
    for _ in 0..3 {
        let response = client.get("old", "/");
        assert_eq!(
            (response.status, response.text()),
            (200, "up to the end".into())
        );
    }
}

#[test]
fn an_answer_before_the_end_of_the_request_is_passed_on() {
    let mesh = Mesh::start();
    let _server = mesh.server("strict", "/http", |_| {
        vec![
            Step::ReadUntil(b"\r\n\r\n".to_vec()),
            Step::send(
                "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno",
            ),
            Step::ReadToEnd,
        ]
    });
    let client = mesh.client();
    let mut raw: Raw = client.connect("strict");
    let head = client.head("POST", "strict", "/");
    let response = raw.request(format!(
        "{head}Content-Length: 100000000\r\n\r\nonly the beginning"
    ));
    assert_eq!((response.status, response.text()), (413, "no".into()));
}
