//! Clients and servers that take their time: in every phase there is a limit, and its end is seen.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use testkit::deadline::try_wait_for;
use testkit::frames::{self, Frame, Outcome, kind};
use testkit::origin::Origin;
use testkit::raw::{Ended, Raw};
use testkit::upstream::{Step, Upstream};

use super::watch::{Bounds, Watch, check};
use crate::front::{Front, Setup};

/// Within this a limit of one second must have struck.
const SOON: Duration = Duration::from_secs(8);

fn setup() -> Setup {
    Setup {
        limits: "requestHeadTimeout: 1s\nidleTimeout: 2s\nbodyIdleTimeout: 1s\n\
                 tlsHandshakeTimeout: 1s"
            .to_owned(),
        ..Setup::default()
    }
}

fn front(origin: &Origin) -> Front {
    Front::with(origin.addr(), &setup())
}

/// Sends byte by byte, ten a second, until the peer no longer takes them; gives the status that
/// came, or how it ended, and how long that took.
fn drip(mut raw: Raw, bytes: &[u8]) -> (Result<u16, Ended>, Duration) {
    let begun = Instant::now();
    let mut left = bytes.iter();
    loop {
        match raw.response(Duration::from_millis(100)) {
            Ok(response) => return (Ok(response.status), begun.elapsed()),
            Err(Ended::TimedOut) if begun.elapsed() < SOON => {}
            Err(ended) => return (Err(ended), begun.elapsed()),
        }
        if let Some(byte) = left.next() {
            let _ = raw.send([*byte]);
        }
    }
}

fn timed_out(front: &Front, what: &str, (result, took): &(Result<u16, Ended>, Duration)) {
    let ended = matches!(result, Ok(408) | Err(Ended::Closed | Ended::Reset));
    check(front, what, ended && *took < SOON, &(result, took));
}

#[test]
fn a_head_that_drips_is_given_up() {
    let origin = Origin::start();
    let front = front(&origin);
    let before = origin.count();
    let watch = Watch::begin(&front);
    let head = format!(
        "GET / HTTP/1.1\r\nHost: app.local\r\nX: {}",
        "y".repeat(1000)
    );
    let connect = || Raw::connect(front.addr).expect("the front accepts");
    let dripped = drip(connect(), head.as_bytes());
    check(&front, "a head that drips", dripped.0 == Ok(408), &dripped);
    watch.counted(
        "a head that drips",
        &["request_timeout", "stream_idle_timeout"],
    );
    let mut second = connect();
    second
        .send("GET / HTTP/1.1\r\nHost: app.local\r\n\r\nGET /2 HT")
        .expect("it reads");
    assert_eq!(second.response(SOON).map(|r| r.status), Ok(200));
    let dripped = drip(
        second,
        b"TP/1.1\r\nHost: app.local\r\nX: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy",
    );
    timed_out(&front, "the second head of a connection", &dripped);
    assert!(origin.count() <= before + 2, "{:?}", origin.seen());
    watch.end("dripping heads", Bounds::default());
}

#[test]
fn a_connection_that_says_nothing_is_closed() {
    let origin = Origin::start();
    let front = front(&origin);
    let mut silent = Raw::connect(front.addr).expect("the front accepts");
    let mut kept = Raw::connect(front.addr).expect("the front accepts");
    assert_eq!(kept.get("app.local", "/").status, 200);
    let begun = Instant::now();
    for (what, raw) in [
        ("a silent connection", &mut silent),
        ("an idle one", &mut kept),
    ] {
        let (bytes, ended) = raw.read_to_end(SOON);
        let closed = matches!(ended, Ended::Closed | Ended::Reset) && begun.elapsed() < SOON;
        // An idle connection may be told 408, or simply be closed.
        let told = bytes.is_empty() || bytes.starts_with(b"HTTP/1.1 408");
        check(
            &front,
            what,
            closed && told,
            &(begun.elapsed(), &ended, bytes.len()),
        );
    }
    let raw = Raw::connect(front.addr_h2).expect("the front accepts");
    let mut h2 = frames::Connection::open(raw).expect("it reads");
    let mut seen = Vec::new();
    let ended = loop {
        match h2.next(SOON) {
            Ok(frame) => seen.push(frame),
            Err(ended) => break ended,
        }
    };
    check(
        &front,
        "an idle connection of HTTP/2",
        ended == Ended::Closed,
        &(ended, &seen),
    );
}

#[test]
fn a_client_of_http_2_that_asked_a_moment_ago_is_not_idle() {
    let origin = Origin::start();
    let front = front(&origin);
    let raw = Raw::connect(front.addr_h2).expect("the front accepts");
    let mut h2 = frames::Connection::open(raw).expect("it reads");
    // What comes in so much time, which is the test's subject.
    let told = |h2: &mut frames::Connection, span: Duration| {
        let end = Instant::now() + span;
        let mut seen = Vec::new();
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            match h2.next(left.max(Duration::from_millis(1))) {
                Ok(frame) => seen.push(frame),
                Err(_) => break,
            }
        }
        seen
    };
    told(&mut h2, Duration::from_millis(1400));
    let fields: &[(&[u8], &[u8])] = &[
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":authority", b"app.local"),
        (b":path", b"/"),
    ];
    h2.send(&[Frame::headers(1, true, fields)])
        .expect("it reads");
    // The idle timeout of two seconds is over since the connection began, and not since the request.
    let seen = told(&mut h2, Duration::from_millis(1400));
    let answered = seen.iter().any(|frame| frame.kind == kind::HEADERS);
    let away = seen.iter().any(|frame| frame.kind == kind::GOAWAY);
    check(&front, "a busy client", answered && !away, &seen);
}

#[test]
fn a_body_that_stops_is_given_up() {
    let origin = Origin::start();
    let front = front(&origin);
    let post = "POST / HTTP/1.1\r\nHost: app.local\r\n";
    for (what, request) in [
        (
            "a body that stops",
            format!("{post}Content-Length: 1000\r\n\r\n0123456789"),
        ),
        (
            "a chunk that stops",
            format!("{post}Transfer-Encoding: chunked\r\n\r\n10\r\n01234"),
        ),
        (
            "a chunk size that stops",
            format!("{post}Transfer-Encoding: chunked\r\n\r\n10"),
        ),
        (
            "trailers that stop",
            format!("{post}Transfer-Encoding: chunked\r\n\r\n0\r\nX: y"),
        ),
        (
            "a body that never begins",
            format!("{post}Content-Length: 10\r\n\r\n"),
        ),
        (
            "a body that was promised",
            format!("{post}Expect: 100-continue\r\nContent-Length: 10\r\n\r\n"),
        ),
    ] {
        let watch = Watch::begin(&front);
        let mut raw = Raw::connect(front.addr).expect("the front accepts");
        raw.send(&request).expect("it reads");
        let ended = drip(raw, b"");
        timed_out(&front, what, &ended);
        let reasons = [
            "request_timeout",
            "stream_idle_timeout",
            "client_disconnected",
            "bad_request",
        ];
        watch.counted(what, &reasons);
    }
    let raw = Raw::connect(front.addr_h2).expect("the front accepts");
    let mut h2 = frames::Connection::open(raw).expect("it reads");
    let fields: &[(&[u8], &[u8])] = &[
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":authority", b"app.local"),
        (b":path", b"/"),
    ];
    h2.send(&[
        Frame::headers(1, false, fields),
        Frame::data(1, false, "some"),
    ])
    .expect("it reads");
    let outcome = h2.outcome(1, SOON);
    let ended = matches!(
        outcome,
        Outcome::Answered(Some(408 | 504), _)
            | Outcome::Reset(..)
            | Outcome::GoAway(_)
            | Outcome::Closed
    );
    check(&front, "a body of HTTP/2 that stops", ended, &outcome);
    assert_eq!(front.get("/after").status, 200);
}

#[test]
fn a_body_that_makes_progress_is_not() {
    let origin = Origin::start();
    let front = front(&origin);
    let mut raw = Raw::connect(front.addr).expect("the front accepts");
    raw.send("POST /slow HTTP/1.1\r\nHost: app.local\r\nContent-Length: 8\r\n\r\n")
        .expect("it reads");
    raw.send_slowly("progress", Duration::from_millis(300))
        .expect("it reads");
    let response = raw.response(SOON).expect("an answer");
    assert_eq!(
        (response.status, response.text()),
        (200, "POST /slow\nprogress".into())
    );
}

/// A server whose answer has no end, and how many connections it is still writing to.
fn endless() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let addr = listener.local_addr().expect("bound");
    let open = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&open);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let open = Arc::clone(&counted);
            thread::spawn(move || {
                open.fetch_add(1, Ordering::AcqRel);
                let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n";
                let piece = vec![b'z'; 64 << 10];
                if stream.read(&mut [0; 4096]).is_ok() && stream.write_all(head).is_ok() {
                    while stream.write_all(&piece).is_ok() {}
                }
                open.fetch_sub(1, Ordering::AcqRel);
            });
        }
    });
    (addr, open)
}

/// A front before that server.
fn before_endless() -> (Front, Arc<AtomicUsize>) {
    let (addr, open) = endless();
    let front = Front::with_ready(addr, &setup(), |raw| {
        raw.read_until(b"HTTP/1.1 200", SOON).is_ok()
    });
    testkit::wait_for("the first request to end", 2 * SOON, || {
        (open.load(Ordering::Acquire) == 0).then_some(())
    });
    (front, open)
}

#[test]
fn a_client_that_stops_reading_is_given_up_and_costs_no_memory() {
    let (front, open) = before_endless();
    let before = front.memory();
    let held: Vec<_> = (0..20)
        .map(|_| {
            let mut stream = TcpStream::connect(front.addr).expect("the front accepts");
            stream
                .write_all(b"GET / HTTP/1.1\r\nHost: app.local\r\n\r\n")
                .expect("it reads");
            stream.read_exact(&mut [0; 12]).expect("an answer begins");
            stream
        })
        .collect();
    let given_up = try_wait_for(2 * SOON, || {
        (open.load(Ordering::Acquire) == 0).then_some(())
    });
    let grown = front.memory().saturating_sub(before);
    eprintln!("20 clients that do not read: {grown} KiB more");
    check(
        &front,
        "clients that stop reading are given up",
        given_up.is_some(),
        &open,
    );
    check(&front, "their memory in KiB", grown < 20 << 10, &grown);
    drop(held);
}

#[test]
fn a_client_that_leaves_takes_its_request_with_it() {
    let (front, open) = before_endless();
    let mut raw = Raw::connect(front.addr).expect("the front accepts");
    raw.send("GET / HTTP/1.1\r\nHost: app.local\r\n\r\n")
        .expect("it reads");
    raw.read_until(b"zzzz", SOON).expect("a body");
    raw.reset();
    let ended = try_wait_for(SOON, || (open.load(Ordering::Acquire) == 0).then_some(()));
    check(
        &front,
        "the upstream's request ended",
        ended.is_some(),
        &open,
    );
}

#[test]
fn a_client_that_is_done_sending_still_gets_its_answer() {
    let upstream = Upstream::start(|_| {
        vec![
            Step::ReadRequest,
            Step::Pause(Duration::from_millis(200)),
            Step::send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate"),
            Step::Again,
        ]
    });
    let front = Front::with(upstream.addr(), &setup());
    let mut raw = Raw::connect(front.addr).expect("the front accepts");
    raw.send("GET / HTTP/1.1\r\nHost: app.local\r\n\r\n")
        .expect("it reads");
    raw.shut_write().expect("a socket");
    let response = raw.response(SOON);
    let holds = response.as_ref().is_ok_and(|r| r.text() == "late");
    check(
        &front,
        "the answer to a half-closed request",
        holds,
        &response,
    );
    let (rest, ended) = raw.read_to_end(SOON);
    check(
        &front,
        "then it is closed",
        rest.is_empty() && ended == Ended::Closed,
        &ended,
    );
}

#[test]
fn a_tls_handshake_that_stops_is_given_up() {
    let origin = Origin::start();
    let port = testkit::place::free_port();
    let objects = tls_gateway(port);
    let setup = Setup { objects, ..setup() };
    let front = Front::with(origin.addr(), &setup);
    if front.kind != crate::front::Kind::Tulle {
        return;
    }
    let address = ("127.0.0.1", port);
    testkit::wait_for("the TLS listener", SOON, || Raw::connect(address).ok());
    // The beginning of a ClientHello of 512 bytes.
    let hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    let before = front.descriptors();
    let clients: Vec<_> = [&hello[..0], &hello[..1], &hello[..5], &hello[..]]
        .iter()
        .map(|bytes| {
            let mut raw = Raw::connect(address).expect("the front accepts");
            raw.send(bytes).expect("it reads");
            raw
        })
        .collect();
    for mut raw in clients {
        let begun = Instant::now();
        let (_, ended) = raw.read_to_end(SOON);
        let closed = matches!(ended, Ended::Closed | Ended::Reset);
        check(
            &front,
            "a handshake that stops",
            closed && begun.elapsed() < SOON,
            &ended,
        );
    }
    let left = try_wait_for(SOON, || (front.descriptors() <= before).then_some(()));
    check(
        &front,
        "its descriptors",
        left.is_some(),
        &front.descriptors(),
    );
}

/// A Gateway with TLS before the Service `app`.
fn tls_gateway(port: u16) -> String {
    let key = rcgen::KeyPair::generate().expect("randomness");
    let names = vec!["app.local".to_owned()];
    let params = rcgen::CertificateParams::new(names).expect("a name");
    let certificate = params.self_signed(&key).expect("valid parameters");
    let indented = |text: String| {
        let lines: Vec<_> = text.lines().map(|line| format!("    {line}")).collect();
        lines.join("\n")
    };
    let (certificate, key) = (indented(certificate.pem()), indented(key.serialize_pem()));
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: tls, namespace: default}}
spec:
  gatewayClassName: tulle
  listeners: [{{name: https, port: {port}, protocol: HTTPS, tls: {{certificateRefs: [{{name: own}}]}}}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: tls, namespace: default}}
spec: {{parentRefs: [{{name: tls}}], rules: [{{backendRefs: [{{name: app, port: 80}}]}}]}}
---
apiVersion: v1
kind: Secret
metadata: {{name: own, namespace: default}}
type: kubernetes.io/tls
stringData:
  tls.crt: |
{certificate}
  tls.key: |
{key}
"
    )
}

#[test]
fn connections_beyond_the_bound_are_refused_and_the_others_served() {
    let origin = Origin::start();
    let setup = Setup {
        limits: "maxConnections: 20".to_owned(),
        ..Setup::default()
    };
    let front = Front::with(origin.addr(), &setup);
    if front.kind != crate::front::Kind::Tulle {
        return;
    }
    let mut first = front.connect();
    assert_eq!(first.get("app.local", "/first").status, 200);
    let held: Vec<_> = (0..60).map(|_| Raw::connect(front.addr)).collect();
    assert_eq!(first.get("app.local", "/still").status, 200);
    let open = front.descriptors();
    assert!(open < 120, "{open} descriptors");
    drop(held);
    let again = try_wait_for(SOON, || {
        let mut raw = Raw::connect(front.addr).ok()?;
        raw.send("GET /again HTTP/1.1\r\nHost: app.local\r\n\r\n")
            .ok()?;
        let answer = raw.response(Duration::from_secs(1)).ok()?;
        (answer.status == 200).then_some(())
    });
    check(
        &front,
        "others are served again",
        again.is_some(),
        &front.descriptors(),
    );
}
