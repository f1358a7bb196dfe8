//! HTTP/2, and the ways between it and HTTP/1: a client and a server need not speak the same.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use testkit::frames::{Connection, END_HEADERS, Frame, Outcome, kind};
use testkit::origin::Origin;
use testkit::raw::Raw;
use testkit::upstream::{Step, Upstream};

use super::{SOON, head, ready, sent};
use crate::front::{Front, Setup};

fn open(front: &Front) -> Connection {
    Connection::open(Raw::connect(front.addr_h2).expect("the front accepts")).expect("it reads")
}

type Field<'a> = (&'a [u8], &'a [u8]);

fn request<'a>(method: &'a str, path: &'a str, more: &[Field<'a>]) -> Vec<Field<'a>> {
    let fields: [Field<'a>; 4] = [
        (b":method", method.as_bytes()),
        (b":scheme", b"http"),
        (b":authority", b"app.local"),
        (b":path", path.as_bytes()),
    ];
    [&fields, more].concat()
}

fn h2c(origin: &Origin) -> Front {
    let setup = Setup {
        protocol: "kubernetes.io/h2c",
        ..Setup::default()
    };
    Front::with(origin.addr(), &setup)
}

#[test]
fn http_2_reaches_a_server_of_http_1() {
    let origin = Origin::start();
    let front = Front::start(origin.addr());
    let mut client = open(&front);
    let cookies: &[Field<'_>] = &[
        (b"cookie", b"a=1"),
        (b"cookie", b"b=2"),
        (b"te", b"trailers"),
    ];
    client
        .send(&[
            Frame::headers(1, true, &request("GET", "/get", cookies)),
            Frame::headers(3, false, &request("POST", "/post", &[])),
            Frame::data(3, false, "one "),
            Frame::data(3, true, "two"),
        ])
        .unwrap();
    let first = Outcome::Answered(Some(200), b"GET /get\n".to_vec());
    assert_eq!(client.outcome(1, SOON), first, "{:?}", client.log);
    let seen = origin.seen();
    let get = seen.iter().find(|seen| seen.target == "/get").unwrap();
    // RFC 9113 8.2.3: crumbs become one cookie again.
    assert_eq!(get.header("cookie").as_deref(), Some("a=1; b=2"));
    assert_eq!(get.header("host").as_deref(), Some("app.local"));
    testkit::wait_for("the second answer", SOON, || {
        let seen = origin.seen();
        let post = seen.iter().find(|seen| seen.target == "/post")?;
        post.body.clone().filter(|body| body == b"one two")
    });
}

#[test]
fn trailers_cross_from_http_2_to_http_1() {
    let origin = Origin::start();
    let front = Front::start(origin.addr());
    let mut client = open(&front);
    client
        .send(&[
            Frame::headers(1, false, &request("POST", "/t", &[(b"trailer", b"x-sum")])),
            Frame::data(1, false, "abc"),
            Frame::headers(1, true, &[(b"x-sum", b"3")]),
        ])
        .unwrap();
    let answer = Outcome::Answered(Some(200), b"POST /t\nabc".to_vec());
    assert_eq!(client.outcome(1, SOON), answer, "{:?}", client.log);
    let seen = origin.seen();
    let own = seen.iter().find(|seen| seen.target == "/t").unwrap();
    assert_eq!(own.trailers, [("x-sum".to_owned(), b"3".to_vec())]);
}

#[test]
fn http_1_reaches_a_server_of_http_2() {
    let origin = Origin::start();
    let front = h2c(&origin);
    let mut raw = sent(
        &front,
        "POST /p HTTP/1.1\r\nHost: app.local\r\nX-Mixed: Case\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\r\n\
         3\r\nabc\r\n0\r\nX-Sum: 3\r\n\r\n",
    );
    let response = raw.response(SOON).unwrap();
    assert_eq!(
        (response.status, response.text()),
        (200, "POST /p\nabc".into())
    );
    let seen = origin.seen();
    let own = seen.iter().find(|seen| seen.target == "/p").unwrap();
    assert_eq!(own.header("x-mixed").as_deref(), Some("Case"));
    assert_eq!(own.trailers, [("x-sum".to_owned(), b"3".to_vec())]);
    assert_eq!(own.header("transfer-encoding"), None);
    for n in 0..20 {
        let response = raw.get("app.local", &format!("/{n}"));
        assert_eq!(response.text(), format!("GET /{n}\n"));
    }
    assert!(origin.connections() <= 3, "one connection carries them all");
}

#[test]
fn many_streams_share_a_connection() {
    let origin = Origin::start();
    let front = h2c(&origin);
    let mut client = open(&front);
    let frames: Vec<_> = (0..90u32)
        .map(|n| Frame::headers(2 * n + 1, true, &request("GET", "/s", &[])))
        .collect();
    client.send(&frames).unwrap();
    let mut ended = 0;
    while ended < 90 {
        let frame = client
            .next(SOON)
            .unwrap_or_else(|e| panic!("{e:?} after {ended}"));
        assert_ne!(frame.kind, kind::GOAWAY, "{frame:?}");
        assert_ne!(frame.kind, kind::RST_STREAM, "{frame:?}");
        let data = matches!(frame.kind, kind::DATA | kind::HEADERS);
        ended += u32::from(data && frame.flags & 1 != 0);
    }
}

#[test]
fn flow_control_follows_the_slower_side() {
    // 8 MiB towards a client that takes 64 KiB.
    let size = 8 << 20;
    let upstream = Upstream::start(move |n| match n {
        0 => ready(),
        _ => vec![
            Step::ReadRequest,
            Step::send(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n")),
            Step::Send(vec![b'z'; size]),
            Step::Again,
        ],
    });
    let front = Front::start(upstream.addr());
    let mut client = open(&front);
    client
        .send(&[Frame::headers(1, true, &request("GET", "/large", &[]))])
        .unwrap();
    let before = front.memory();
    let mut got = 0;
    while got < 65_535 {
        let frame = client
            .next(SOON)
            .unwrap_or_else(|e| panic!("{e:?} after {got} bytes"));
        assert!(
            !matches!(frame.kind, kind::GOAWAY | kind::RST_STREAM),
            "{frame:?}"
        );
        if frame.kind == kind::DATA {
            got += frame.payload.len();
        }
    }
    // The window is used up: nothing may come until more is given.
    let more = client.next(Duration::from_millis(300));
    assert!(
        got == 65_535 && !matches!(&more, Ok(frame) if frame.kind == kind::DATA),
        "{got} bytes and then {more:?}"
    );
    let grown = front.memory().saturating_sub(before);
    assert!(
        grown < 6 << 10,
        "{grown} KiB are held for a client that does not take them"
    );
}

/// A server of WebSockets (RFC 6455 4.2.2) that sends back what comes, and tells of each head.
fn websockets() -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (heads, seen) = mpsc::sync_channel(16);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let heads = heads.clone();
            thread::spawn(move || serve_websocket(stream.unwrap(), &heads));
        }
    });
    (address, seen)
}

fn serve_websocket(mut stream: TcpStream, heads: &mpsc::SyncSender<String>) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if !matches!(stream.read(&mut byte), Ok(1)) {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("sec-websocket-key")
            .then(|| value.to_owned())
    });
    let answer = match key {
        Some(key) => {
            let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
            let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
            format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {}\r\n\r\n",
                STANDARD.encode(hash)
            )
        }
        None => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned(),
    };
    let switched = answer.starts_with("HTTP/1.1 101");
    let _ = stream.write_all(answer.as_bytes());
    if switched {
        let _ = heads.send(head.to_lowercase());
        let _ = std::io::copy(&mut stream.try_clone().unwrap(), &mut stream);
    }
}

#[test]
fn a_websocket_over_http_2_reaches_a_server_of_http_1() {
    let (address, heads) = websockets();
    let front = Front::start(address);
    let mut client = open(&front);
    let settings = client.next(SOON).unwrap();
    // RFC 8441 3: SETTINGS_ENABLE_CONNECT_PROTOCOL is 8.
    let allowed = settings.payload.chunks(6).any(|s| s == [0, 8, 0, 0, 0, 1]);
    assert!(allowed, "{settings:?}");
    let more: &[Field<'_>] = &[
        (b":protocol", b"websocket"),
        (b"sec-websocket-version", b"13"),
    ];
    client
        .send(&[
            Frame::headers(1, false, &request("CONNECT", "/ws", more)),
            Frame::data(1, false, "\u{1}hello"),
        ])
        .unwrap();
    let mut echoed = Vec::new();
    let mut status = None;
    while echoed.len() < 6 {
        let frame = client
            .next(SOON)
            .unwrap_or_else(|e| panic!("{e:?}: {:?}", client.log));
        match (frame.kind, frame.stream) {
            (kind::HEADERS, 1) => status = testkit::frames::status_of(&frame.payload),
            (kind::DATA, 1) => echoed.extend(frame.payload),
            (kind::RST_STREAM | kind::GOAWAY, _) => panic!("{frame:?}"),
            _ => {}
        }
    }
    assert_eq!((status, &echoed[..]), (Some(200), b"\x01hello".as_slice()));
    let seen = heads.recv_timeout(SOON).unwrap();
    assert!(seen.starts_with("get /ws http/1.1\r\n"), "{seen}");
    assert!(seen.contains("\r\nupgrade: websocket\r\n"), "{seen}");
    assert!(seen.contains("\r\nsec-websocket-key: "), "{seen}");
    client.send(&[Frame::data(1, true, [])]).unwrap();
    loop {
        let frame = client
            .next(SOON)
            .unwrap_or_else(|e| panic!("{e:?}: {:?}", client.log));
        if frame.stream == 1 && frame.kind == kind::DATA && frame.flags & 1 != 0 {
            break;
        }
    }
}

const UPGRADE: &str = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n";

/// A connection on which a request asked for h2c, with a `name` and its settings.
fn upgraded(front: &Front, name: &str, settings: &str, more: &str) -> Connection {
    let mut raw = sent(
        front,
        &format!(
            "GET /{name} HTTP/1.1\r\nHost: app.local\r\n{UPGRADE}HTTP2-Settings: {settings}\r\n{more}\r\n"
        ),
    );
    // RFC 7540 3.2: the answer comes on stream 1.
    let answer = head(&mut raw);
    let expected =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    assert_eq!(answer, expected);
    Connection::open(raw).unwrap()
}

#[test]
fn a_request_may_ask_for_h2c() {
    let origin = Origin::start();
    let front = Front::start(origin.addr());
    // More than a frame holds, and lengths of one byte and of several.
    let lengths = [126, 127, 20_000];
    let mut more = String::new();
    for (n, length) in lengths.into_iter().enumerate() {
        let _ = write!(more, "X-Long-{n}: {}\r\n", "y".repeat(length));
    }
    let mut client = upgraded(&front, "up", "AAMAAABkAAQAAP__", &more);
    let answer = Outcome::Answered(Some(200), b"GET /up\n".to_vec());
    assert_eq!(client.outcome(1, SOON), answer, "{:?}", client.log);
    let acknowledged = |frame: &&Frame| frame.kind == kind::SETTINGS && frame.flags == 1;
    let acknowledgements = client.log.iter().filter(acknowledged).count();
    assert_eq!(acknowledgements, 1, "{:?}", client.log);
    client
        .send(&[Frame::headers(3, true, &request("GET", "/next", &[]))])
        .unwrap();
    let answer = Outcome::Answered(Some(200), b"GET /next\n".to_vec());
    assert_eq!(client.outcome(3, SOON), answer, "{:?}", client.log);

    let seen = origin.seen();
    let own = seen.iter().find(|seen| seen.target == "/up").unwrap();
    for (n, length) in lengths.into_iter().enumerate() {
        let value = own.header(&format!("x-long-{n}")).unwrap();
        assert_eq!(value.len(), length);
    }
    assert_eq!(own.header("host").as_deref(), Some("app.local"));
    assert_eq!(own.header("upgrade"), None);
    assert_eq!(own.header("http2-settings"), None);
}

#[test]
fn settings_that_come_with_a_request_for_h2c_count() {
    let origin = Origin::start();
    let front = Front::start(origin.addr());
    // An initial window of four bytes; the settings after the preface are empty.
    let mut client = upgraded(&front, "narrow", "AAQAAAAE", "");
    let mut body = Vec::new();
    while body.len() < b"GET /narrow\n".len() {
        let frame = client.next(SOON).expect("more of the answer");
        if frame.kind == kind::DATA && frame.stream == 1 {
            let taken = frame.payload.len() as u32;
            assert!(taken <= 4, "{:?}", client.log);
            body.extend(frame.payload);
            let update = Frame::new(kind::WINDOW_UPDATE, 0, 1, taken.to_be_bytes());
            client.send(&[update]).unwrap();
        }
    }
    assert_eq!(body, b"GET /narrow\n");
}

#[test]
fn an_offer_of_h2c_that_is_not_taken_is_not_passed_on() {
    let origin = Origin::start();
    let front = Front::start(origin.addr());
    for (name, fields) in [
        ("bare", "Connection: Upgrade\r\nUpgrade: h2c\r\n"),
        (
            "unnamed",
            "Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
        ),
        (
            "content",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\
             Content-Length: 1\r\n",
        ),
    ] {
        let mut raw = sent(
            &front,
            &format!("GET /{name} HTTP/1.1\r\nHost: app.local\r\n{fields}\r\nx"),
        );
        let answer = head(&mut raw);
        assert!(answer.starts_with("HTTP/1.1 200"), "{name}: {answer}");
        let seen = origin.seen();
        let target = format!("/{name}");
        let own = seen.iter().find(|seen| seen.target == target).unwrap();
        assert_eq!(own.header("upgrade"), None, "{name}");
        assert_eq!(own.header("http2-settings"), None, "{name}");
    }
}

#[test]
fn who_offers_h2c_and_does_not_go_on_in_it_is_cut_off() {
    let origin = Origin::start();
    let front = Front::start(origin.addr());
    let mut raw = sent(
        &front,
        &format!(
            "GET /first HTTP/1.1\r\nHost: app.local\r\n{UPGRADE}HTTP2-Settings: AAMAAABk\r\n\r\n\
             GET /second HTTP/1.1\r\nHost: app.local\r\n\r\n"
        ),
    );
    assert!(head(&mut raw).starts_with("HTTP/1.1 101 "));
    let (rest, _) = raw.read_to_end(SOON);
    assert_eq!(String::from_utf8_lossy(&rest), "");
    // Another request comes after them.
    assert_eq!(front.connect().get("app.local", "/third").status, 200);
    let seen = origin.seen();
    let targets: Vec<&str> = seen.iter().map(|seen| seen.target.as_str()).collect();
    assert!(!targets.contains(&"/first") && !targets.contains(&"/second"));
}

#[test]
fn curl_gets_the_http_2_that_it_asks_for() {
    let origin = Origin::start();
    let front = Front::start(origin.addr());
    let (first, second) = (
        format!("http://{}/a", front.addr),
        format!("http://{}/b", front.addr),
    );
    let said = ["--write-out", "%{http_version} %{num_connects}\n"];
    let command = [
        "--silent",
        "--max-time",
        "10",
        "--http2",
        "--header",
        "Host: app.local",
    ];
    let output = std::process::Command::new("curl")
        .args(command)
        .args(said)
        .args([&first, &second])
        .output()
        .expect("curl is installed");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text, "GET /a\n2 1\nGET /b\n2 0\n");
}

#[test]
fn a_field_block_in_pieces_is_one() {
    let origin = Origin::start();
    let front = Front::start(origin.addr());
    let mut client = open(&front);
    let long = "y".repeat(3000);
    let block = testkit::frames::block(&request("GET", "/pieces", &[(b"x", long.as_bytes())]));
    let (first, rest) = block.split_at(10);
    let (second, third) = rest.split_at(1000);
    client
        .send(&[
            Frame::new(kind::HEADERS, 1, 1, first),
            Frame::new(kind::CONTINUATION, 0, 1, second),
            Frame::new(kind::CONTINUATION, END_HEADERS, 1, third),
        ])
        .unwrap();
    let answer = Outcome::Answered(Some(200), b"GET /pieces\n".to_vec());
    assert_eq!(client.outcome(1, SOON), answer, "{:?}", client.log);
}
