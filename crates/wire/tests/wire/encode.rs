//! What is written: framing, fields in their places, and nothing that ends a line unasked.
use wire::{
    Fields, Length, Limits, Method, RequestHead, ResponseHead, Target, Version, chunk_head,
    encode_request, encode_response, last_chunk, parse_request, parse_response,
};

fn request_head(bytes: &str) -> RequestHead {
    let mut head = RequestHead::new();
    parse_request(bytes.as_bytes(), &mut 0, &Limits::default(), &mut head)
        .unwrap()
        .unwrap();
    head
}

fn response_head(method: &Method, bytes: &str) -> ResponseHead {
    let mut head = ResponseHead::new();
    parse_response(
        bytes.as_bytes(),
        &mut 0,
        &Limits::default(),
        method,
        &mut head,
    )
    .unwrap()
    .unwrap();
    head
}

fn request(head: &RequestHead, length: Length, upgrade: bool, te: bool) -> String {
    let mut out = Vec::new();
    let target = Target {
        authority: "up:80",
        path: &head.path,
    };
    encode_request(head, &target, length, upgrade, te, &mut out);
    String::from_utf8(out).unwrap()
}

fn response(head: &ResponseHead, version: Version, length: Length, keep_alive: bool) -> String {
    let mut out = Vec::new();
    encode_response(head, version, length, keep_alive, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_request_keeps_order_and_case() {
    let head = request_head("GET /a HTTP/1.1\r\nAccept: x\r\nhOST: h\r\nX-b: 1\r\nx-B: 2\r\n\r\n");
    assert_eq!(
        request(&head, Length::None, false, false),
        "GET /a HTTP/1.1\r\nAccept: x\r\nhOST: up:80\r\nX-b: 1\r\nx-B: 2\r\n\r\n"
    );
}

#[test]
fn a_missing_host_is_the_first_line() {
    let head = request_head("GET /a HTTP/1.0\r\nAccept: x\r\n\r\n");
    assert_eq!(
        request(&head, Length::None, false, false),
        "GET /a HTTP/1.1\r\nHost: up:80\r\nAccept: x\r\n\r\n"
    );
}

#[test]
fn a_request_is_framed_as_the_caller_says() {
    let with = request_head("POST /a HTTP/1.1\r\nHost: h\r\nCONTENT-length: 5\r\nX: y\r\n\r\n");
    let zero = request_head("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
    let without =
        request_head("POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n");
    for (head, length, expected) in [
        (&with, Length::Known(5), "CONTENT-length: 5\r\nX: y\r\n"),
        (&with, Length::Known(7), "CONTENT-length: 7\r\nX: y\r\n"),
        (
            &with,
            Length::Chunked,
            "X: y\r\nTransfer-Encoding: chunked\r\n",
        ),
        (&with, Length::None, "X: y\r\n"),
        (&zero, Length::None, "Content-Length: 0\r\n"),
        (&zero, Length::Known(0), "Content-Length: 0\r\n"),
        (
            &without,
            Length::Chunked,
            "X: y\r\nTransfer-Encoding: chunked\r\n",
        ),
        (&without, Length::Known(9), "X: y\r\nContent-Length: 9\r\n"),
        (&without, Length::None, "X: y\r\n"),
        (
            &without,
            Length::UntilClose,
            "X: y\r\nTransfer-Encoding: chunked\r\n",
        ),
    ] {
        let expected = format!("POST /a HTTP/1.1\r\nHost: up:80\r\n{expected}\r\n");
        assert_eq!(request(head, length, false, false), expected, "{length:?}");
    }
}

#[test]
fn fields_of_the_connection_are_written_from_flags_only() {
    let mut head = request_head(
        "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    );
    for (name, value) in [
        ("connection", "close"),
        ("te", "gzip"),
        ("transfer-encoding", "chunked"),
        ("keep-alive", "1"),
    ] {
        head.fields.append(name, value.as_bytes());
    }
    for (upgrade, te, expected) in [
        (false, false, ""),
        (true, false, "Upgrade: websocket\r\nConnection: upgrade\r\n"),
        (false, true, "TE: trailers\r\nConnection: te\r\n"),
        (
            true,
            true,
            "Upgrade: websocket\r\nTE: trailers\r\nConnection: upgrade, te\r\n",
        ),
    ] {
        let expected = format!("GET / HTTP/1.1\r\nHost: up:80\r\n{expected}\r\n");
        assert_eq!(request(&head, Length::None, upgrade, te), expected);
    }
}

#[test]
fn targets_take_the_form_that_the_method_asks_for() {
    let mut out = Vec::new();
    for (method, authority, path, expected) in [
        (Method::GET, "a", "/x?y", "GET /x?y HTTP/1.1\r\nHost: a\r\n"),
        (Method::GET, "a", "", "GET / HTTP/1.1\r\nHost: a\r\n"),
        (Method::GET, "a", "?q", "GET /?q HTTP/1.1\r\nHost: a\r\n"),
        (
            Method::OPTIONS,
            "a",
            "*",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n",
        ),
        (Method::GET, "a", "*", "GET /* HTTP/1.1\r\nHost: a\r\n"),
        (
            Method::CONNECT,
            "a:443",
            "",
            "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n",
        ),
        (
            Method::GET,
            "a\r\nX: y",
            "/b c\r\nX: y",
            "GET /b%20c%0D%0AX:%20y HTTP/1.1\r\nHost: a%0D%0AX:%20y\r\n",
        ),
        (
            Method::GET,
            "a",
            "/\u{e9}\0",
            "GET /%C3%A9%00 HTTP/1.1\r\nHost: a\r\n",
        ),
    ] {
        let mut head = RequestHead::new();
        head.method = method;
        out.clear();
        encode_request(
            &head,
            &Target { authority, path },
            Length::None,
            false,
            false,
            &mut out,
        );
        assert_eq!(String::from_utf8_lossy(&out), format!("{expected}\r\n"));
    }
}

/// RFC 8441 5: the same WebSocket, opened the way that HTTP/1 opens it.
#[test]
fn an_extended_connect_becomes_an_upgrade() {
    let mut head = RequestHead::new();
    head.method = Method::CONNECT;
    head.protocol = Some("websocket".to_owned());
    head.path = "/chat".to_owned();
    head.fields.append("sec-websocket-version", b"13");
    let expected = "GET /chat HTTP/1.1\r\nHost: up:80\r\nsec-websocket-version: 13\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n";
    assert_eq!(request(&head, Length::None, true, false), expected);
    assert_eq!(request(&head, Length::None, false, false), expected);
}

#[test]
fn several_hosts_and_lengths_become_one() {
    let mut head = RequestHead::new();
    for (name, value) in [
        ("host", "a"),
        ("Host", "b"),
        ("content-length", "1"),
        ("Content-Length", "2"),
    ] {
        head.fields.append(name, value.as_bytes());
    }
    head.path.push('/');
    assert_eq!(
        request(&head, Length::Known(3), false, false),
        "GET / HTTP/1.1\r\nhost: up:80\r\ncontent-length: 3\r\n\r\n"
    );
}

#[test]
fn a_response_is_framed_as_the_caller_says() {
    let get = Method::GET;
    let with = response_head(
        &get,
        "HTTP/1.1 200 Fine\r\ncontent-length: 5\r\nX: y\r\n\r\n",
    );
    let without = response_head(&get, "HTTP/1.1 200 \r\nX: y\r\n\r\n");
    let (new, old) = (Version::HTTP_11, Version::HTTP_10);
    for (head, version, length, keep_alive, expected) in [
        (
            &with,
            new,
            Length::Known(5),
            true,
            "200 Fine\r\ncontent-length: 5\r\nX: y\r\n",
        ),
        (
            &with,
            new,
            Length::Known(6),
            false,
            "200 Fine\r\ncontent-length: 6\r\nX: y\r\nConnection: close\r\n",
        ),
        (
            &with,
            new,
            Length::Chunked,
            true,
            "200 Fine\r\nX: y\r\nTransfer-Encoding: chunked\r\n",
        ),
        (
            &with,
            new,
            Length::None,
            true,
            "200 Fine\r\ncontent-length: 5\r\nX: y\r\n",
        ),
        (
            &with,
            new,
            Length::UntilClose,
            true,
            "200 Fine\r\nX: y\r\nConnection: close\r\n",
        ),
        (
            &with,
            old,
            Length::Known(5),
            true,
            "200 Fine\r\ncontent-length: 5\r\nX: y\r\nConnection: keep-alive\r\n",
        ),
        (
            &with,
            old,
            Length::Known(5),
            false,
            "200 Fine\r\ncontent-length: 5\r\nX: y\r\n",
        ),
        (&with, old, Length::Chunked, true, "200 Fine\r\nX: y\r\n"),
        (
            &without,
            new,
            Length::Known(0),
            true,
            "200 OK\r\nX: y\r\nContent-Length: 0\r\n",
        ),
        (
            &without,
            old,
            Length::UntilClose,
            false,
            "200 OK\r\nX: y\r\n",
        ),
    ] {
        let expected = format!("HTTP/1.1 {expected}\r\n");
        assert_eq!(
            response(head, version, length, keep_alive),
            expected,
            "{version:?} {length:?} {keep_alive}"
        );
    }
}

#[test]
fn responses_without_content_by_their_status() {
    let get = Method::GET;
    for (bytes, length, expected) in [
        (
            "HTTP/1.1 204 N\r\nX: y\r\n\r\n",
            Length::None,
            "204 N\r\nX: y\r\n",
        ),
        (
            "HTTP/1.1 204 N\r\nX: y\r\n\r\n",
            Length::Known(0),
            "204 N\r\nX: y\r\n",
        ),
        (
            "HTTP/1.1 304 N\r\nContent-Length: 7\r\n\r\n",
            Length::None,
            "304 N\r\nContent-Length: 7\r\n",
        ),
        (
            "HTTP/1.1 103 E\r\nLink: l\r\n\r\n",
            Length::None,
            "103 E\r\nLink: l\r\n",
        ),
        (
            "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
            Length::None,
            "101 S\r\nUpgrade: websocket\r\nConnection: upgrade\r\n",
        ),
    ] {
        let head = response_head(&get, bytes);
        assert_eq!(
            response(&head, Version::HTTP_11, length, true),
            format!("HTTP/1.1 {expected}\r\n")
        );
    }
    let head = response_head(&get, "HTTP/1.1 103 E\r\n\r\n");
    assert_eq!(
        response(&head, Version::HTTP_11, Length::None, false),
        "HTTP/1.1 103 E\r\n\r\n"
    );
}

#[test]
fn a_phrase_cannot_end_the_line() {
    let mut head = ResponseHead::new();
    head.reason = "O\r\nX: y\0K".to_owned();
    head.status = 7;
    assert_eq!(
        response(&head, Version::HTTP_11, Length::Known(0), true),
        "HTTP/1.1 500 O  X: y K\r\nContent-Length: 0\r\n\r\n"
    );
}

#[test]
fn chunks() {
    for (size, expected) in [
        (1, "1\r\n"),
        (15, "f\r\n"),
        (16, "10\r\n"),
        (0x1f, "1f\r\n"),
        (65_536, "10000\r\n"),
        (0, ""),
    ] {
        let mut out = Vec::new();
        chunk_head(size, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
    let mut out = Vec::new();
    chunk_head(usize::MAX, &mut out);
    assert_eq!(out, format!("{:x}\r\n", usize::MAX).as_bytes());

    let mut out = Vec::new();
    last_chunk(None, &mut out);
    assert_eq!(out, b"0\r\n\r\n");
    let mut trailers = Fields::new();
    trailers.append("X-Sum", b"1\r\n\r\nGET");
    trailers.append("Content-Length", b"5");
    trailers.append("cookie", b"c");
    out.clear();
    last_chunk(Some(&trailers), &mut out);
    assert_eq!(out, b"0\r\nX-Sum: 1    GET\r\n\r\n");
}
