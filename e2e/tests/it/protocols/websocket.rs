//! WebSocket from a client of either version to an endpoint that speaks HTTP/2 alone (RFC 8441).

use testkit::frames::{Connection, Frame, kind};
use testkit::raw::Raw;
use testkit::tunnels::Tunnels;

use super::{SOON, head};
use crate::front::{Front, Kind, Setup};

/// From RFC 6455 1.3, with its answer.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn front(server: &Tunnels) -> Option<Front> {
    // The others are set up for HTTP/1 towards their back ends.
    if !Kind::chosen().is_ours() {
        return None;
    }
    let setup = Setup {
        protocol: "kubernetes.io/h2c",
        ..Setup::default()
    };
    Some(Front::with(server.addr(), &setup))
}

fn handshake(front: &Front, upgrade: &str) -> Raw {
    let mut raw = front.connect();
    raw.send(format!(
        "GET /chat?room=1 HTTP/1.1\r\nHost: app.local\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat\r\n\
         Origin: http://app.local\r\n\r\n"
    ))
    .unwrap();
    raw
}

#[test]
fn a_client_of_http_1_gets_through() {
    let server = Tunnels::plain(true);
    let Some(front) = front(&server) else { return };
    for n in 0..3 {
        let mut raw = handshake(&front, "WebSocket");
        let answer = head(&mut raw).to_lowercase();
        assert!(answer.starts_with("http/1.1 101 "), "{answer}");
        for line in [
            "upgrade: websocket".to_owned(),
            "connection: upgrade".to_owned(),
            format!("sec-websocket-accept: {}", ACCEPT.to_lowercase()),
        ] {
            assert!(
                answer.contains(&format!("\r\n{line}\r\n")),
                "{line}: {answer}"
            );
        }
        let text = format!("\u{1}hello {n}");
        raw.send(&text).unwrap();
        assert_eq!(raw.read_exact(text.len(), SOON).unwrap(), text.as_bytes());
        raw.shut_write().unwrap();
        assert_eq!(raw.read_to_end(SOON).0, b"");
    }
    let asked = server.asked();
    let own: Vec<_> = asked.iter().filter(|a| a.protocol.is_some()).collect();
    assert_eq!(own.len(), 3, "{asked:?}");
    for asked in own {
        assert_eq!(asked.protocol.as_deref(), Some("websocket"));
        assert_eq!(
            (&*asked.authority, &*asked.path),
            ("app.local", "/chat?room=1")
        );
        let has = |name: &str| asked.fields.iter().any(|f| f == name);
        assert!(has("sec-websocket-protocol") && has("origin"), "{asked:?}");
        // RFC 8441 5: these belong to the other version.
        assert!(!has("sec-websocket-key") && !has("upgrade"), "{asked:?}");
    }
}

#[test]
fn a_client_of_http_2_gets_through() {
    let server = Tunnels::plain(true);
    let Some(front) = front(&server) else { return };
    let mut client = Connection::open(Raw::connect(front.addr_h2).unwrap()).unwrap();
    let fields: [(&[u8], &[u8]); 6] = [
        (b":method", b"CONNECT"),
        (b":protocol", b"websocket"),
        (b":scheme", b"http"),
        (b":authority", b"app.local"),
        (b":path", b"/chat"),
        (b"sec-websocket-version", b"13"),
    ];
    let frames = [
        Frame::headers(1, false, &fields),
        Frame::data(1, false, "hello"),
    ];
    client.send(&frames).unwrap();
    let (mut status, mut echoed) = (None, Vec::new());
    while echoed.len() < 5 {
        let frame = client.next(SOON).unwrap();
        match (frame.kind, frame.stream) {
            (kind::HEADERS, 1) => status = testkit::frames::status_of(&frame.payload),
            (kind::DATA, 1) => echoed.extend(frame.payload),
            (kind::RST_STREAM | kind::GOAWAY, _) => panic!("{frame:?}"),
            _ => {}
        }
    }
    assert_eq!((status, &echoed[..]), (Some(200), &b"hello"[..]));
}

#[test]
fn an_endpoint_that_does_not_announce_it_is_not_asked() {
    let server = Tunnels::plain(false);
    let Some(front) = front(&server) else { return };
    let mut raw = handshake(&front, "websocket");
    let answer = raw.response(SOON).unwrap();
    assert_eq!(answer.status, 502, "{answer:?}");
    assert!(answer.text().contains("RFC 8441"), "{answer:?}");
    assert!(
        server
            .asked()
            .iter()
            .all(|asked| asked.path != "/chat?room=1"),
        "{:?}",
        server.asked()
    );
    // Nothing is wrong with the connection itself.
    assert_eq!(front.get("/after").status, 200);
}

#[test]
fn other_upgrades_are_passed_over() {
    let server = Tunnels::plain(true);
    let Some(front) = front(&server) else { return };
    let mut raw = handshake(&front, "carrier-pigeon");
    let answer = raw.response(SOON).unwrap();
    assert_eq!(answer.status, 200, "RFC 9110 7.8: {answer:?}");
}
