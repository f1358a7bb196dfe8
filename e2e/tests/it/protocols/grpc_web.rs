//! gRPC-Web through a Gateway to a server of gRPC (grpc/doc/PROTOCOL-WEB.md): messages pass as they
//! are or as base64, trailers become the last frame of the body.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use testkit::frames::{Connection, Frame, Outcome};
use testkit::raw::{Raw, Response};

use super::SOON;
use super::grpc::front;
use crate::front::{Front, Kind};

// As the server has it: one of plain `application/grpc`.
const BINARY: &str = "application/grpc-web";
const TEXT: &str = "application/grpc-web-text";
/// The flag of a frame with trailers.
const TRAILERS: u8 = 0x80;

/// A frame: flag, length, content.
fn frame(flag: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&[flag], &length[..], content].concat()
}

/// A message with a text (`google.protobuf.StringValue`).
fn message(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap();
    frame(0, &[&[0x0a, length], text.as_bytes()].concat())
}

/// Messages as texts, and the lines of the frame with trailers.
fn read(mut body: &[u8]) -> (Vec<String>, Vec<String>) {
    let (mut messages, mut trailers) = (Vec::new(), Vec::new());
    while let [flag, a, b, c, d, rest @ ..] = body {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let (content, after) = rest.split_at(length);
        assert!(trailers.is_empty(), "a frame after the trailers: {rest:?}");
        if *flag == TRAILERS {
            let text = String::from_utf8(content.to_vec()).unwrap();
            trailers.extend(text.split_terminator("\r\n").map(str::to_owned));
        } else {
            assert_eq!(*flag, 0, "not compressed");
            let text = content.get(2..).unwrap_or_default();
            messages.push(String::from_utf8(text.to_vec()).unwrap());
        }
        body = after;
    }
    assert!(body.is_empty(), "half a frame: {body:?}");
    trailers.sort();
    (messages, trailers)
}

/// Base64 whose pieces may be padded each on its own.
fn decoded(text: &[u8]) -> Vec<u8> {
    let groups = text.chunks(4);
    groups
        .flat_map(|four| STANDARD.decode(four).unwrap())
        .collect()
}

fn call(front: &Front, method: &str, kind: &str, body: &[u8]) -> Response {
    let head = format!(
        "POST /test.Echo/{method} HTTP/1.1\r\nHost: app.local\r\nContent-Type: {kind}+proto\r\n\
         X-Grpc-Web: 1\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let response = front.connect().request([head.as_bytes(), body].concat());
    assert_eq!(response.status, 200, "{method}: {response:?}");
    assert_eq!(response.header("content-type"), Some(kind), "{response:?}");
    response
}

#[test]
fn binary_calls_pass_with_their_status() {
    let Some(front) = front() else { return };
    let unary = call(&front, "Unary", BINARY, &message("you"));
    let (messages, trailers) = read(&unary.body);
    assert_eq!(messages, ["hello you"]);
    assert!(
        trailers.contains(&"grpc-status: 0".to_owned()),
        "{trailers:?}"
    );
    // Trailers are in the body and nowhere else.
    assert_eq!(unary.header("grpc-status"), None, "{unary:?}");

    let count = call(&front, "Count", BINARY, &message("300"));
    let (messages, trailers) = read(&count.body);
    let numbers: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    assert_eq!(messages, numbers);
    assert!(
        trailers.contains(&"grpc-status: 0".to_owned()),
        "{trailers:?}"
    );
}

#[test]
fn calls_as_text_pass_however_the_base64_is_padded() {
    let Some(front) = front() else { return };
    let whole = STANDARD.encode(message("you"));
    let pieces = {
        let message = message("you");
        let (first, second) = message.split_at(4);
        STANDARD.encode(first) + &STANDARD.encode(second)
    };
    for body in [whole, pieces] {
        let unary = call(&front, "Unary", TEXT, body.as_bytes());
        let (messages, trailers) = read(&decoded(&unary.body));
        assert_eq!(messages, ["hello you"], "{body}");
        assert!(
            trailers.contains(&"grpc-status: 0".to_owned()),
            "{trailers:?}"
        );
    }
    let count = STANDARD.encode(message("100"));
    let count = call(&front, "Count", TEXT, count.as_bytes());
    assert_eq!(read(&decoded(&count.body)).0.len(), 100);
}

#[test]
fn failures_keep_status_message_and_details() {
    let Some(front) = front() else { return };
    // A server that fails before its first message answers with a head alone.
    let early = call(&front, "Fail", BINARY, &message(""));
    assert_eq!(early.header("grpc-status"), Some("9"), "{early:?}");
    assert_eq!(early.header("grpc-message"), Some("not%20now:%20%C3%A4"));
    assert!(early.body.is_empty(), "{early:?}");

    for kind in [BINARY, TEXT] {
        let text = kind == TEXT;
        let body = message("");
        let body = if text {
            STANDARD.encode(body).into()
        } else {
            body
        };
        let late = call(&front, "FailLate", kind, &body);
        let (messages, trailers) = if text {
            read(&decoded(&late.body))
        } else {
            read(&late.body)
        };
        assert_eq!(messages, ["one"]);
        assert_eq!(
            trailers,
            ["grpc-message: no%20more", "grpc-status: 8", "x-detail: 7"]
        );
    }
}

#[test]
fn a_call_is_counted_with_its_grpc_status() {
    let Some(front) = front() else { return };
    if front.kind != Kind::Tulle {
        return;
    }
    call(&front, "FailLate", BINARY, &message(""));
    let line = testkit::wait_for("a line of the access log", SOON, || {
        let lines = front.access_log();
        lines
            .into_iter()
            .find(|line| line["path"] == "/test.Echo/FailLate")
    });
    assert_eq!(
        (&line["grpc_status"], &line["protocol"]),
        (&8.into(), &"grpc".into()),
        "{line}"
    );
}

#[test]
fn text_that_is_no_base64_fails_the_call_and_nothing_else() {
    let Some(front) = front() else { return };
    let body = "@@@@";
    let head = format!(
        "POST /test.Echo/Join HTTP/1.1\r\nHost: app.local\r\nContent-Type: {TEXT}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let response = front.connect().request(head);
    assert_eq!(response.status, 400, "{response:?}");
    assert!(response.text().contains("base64"), "{response:?}");
    let unary = call(&front, "Unary", BINARY, &message("you"));
    assert_eq!(read(&unary.body).0, ["hello you"]);
}

#[test]
fn whoever_accepts_text_gets_text() {
    let Some(front) = front() else { return };
    let body = message("you");
    let head = format!(
        "POST /test.Echo/Unary HTTP/1.1\r\nHost: app.local\r\nContent-Type: {BINARY}\r\n\
         Accept: application/grpc-web-text\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let response = front.connect().request([head.as_bytes(), &body].concat());
    assert_eq!(response.header("content-type"), Some(TEXT), "{response:?}");
    assert_eq!(read(&decoded(&response.body)).0, ["hello you"]);
}

#[test]
fn a_browser_may_speak_http_2() {
    let Some(front) = front() else { return };
    let raw = Raw::connect(front.addr_h2).unwrap();
    let mut client = Connection::open(raw).unwrap();
    let head: [(&[u8], &[u8]); 5] = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":authority", b"app.local"),
        (b":path", b"/test.Echo/Unary"),
        (b"content-type", b"application/grpc-web"),
    ];
    let frames = [
        Frame::headers(1, false, &head),
        Frame::data(1, true, message("you")),
    ];
    client.send(&frames).unwrap();
    let Outcome::Answered(Some(200), body) = client.outcome(1, SOON) else {
        panic!("{:?}", client.log);
    };
    let (messages, trailers) = read(&body);
    assert_eq!(messages, ["hello you"]);
    assert!(
        trailers.contains(&"grpc-status: 0".to_owned()),
        "{trailers:?}"
    );
}
