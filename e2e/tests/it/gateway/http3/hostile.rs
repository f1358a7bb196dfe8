//! What an attacker makes of HTTP/3: bounds, malformed requests, frames that should not be there.

use http::Request;
use testkit::h3::{Outcome, frame, head, number};
use testkit::origin::Origin;

use super::{Edge, post};

/// RFC 9114 8.1.
const INTERNAL_ERROR: u64 = 0x102;
const STREAM_CREATION_ERROR: u64 = 0x103;
const FRAME_UNEXPECTED: u64 = 0x105;
const MESSAGE_ERROR: u64 = 0x10e;
/// RFC 9204 6.
const DECOMPRESSION_FAILED: u64 = 0x200;

/// A field.
type Field<'a> = (&'a [u8], &'a [u8]);

/// The fields of an ordinary request's head, for streams of exact bytes.
const METHOD: Field<'_> = (b":method", b"GET");
pub(super) const POST: Field<'_> = (b":method", b"POST");
pub(super) const SCHEME: Field<'_> = (b":scheme", b"https");
pub(super) const HOST: Field<'_> = (b":authority", b"a.com");
pub(super) const PATH: Field<'_> = (b":path", b"/");

#[test]
fn limits_hold() {
    let origin = Origin::start();
    let limits = "limits: {requestHeaderBytes: 2Ki, requestHeaderCount: 20, requestTargetBytes: 256, maxRequestBodyBytes: 1000, bodyIdleTimeout: 1s, requestHeadTimeout: 1s, maxConcurrentStreams: 10}";
    let edge = Edge::before("h3-limits", origin.addr().port(), limits);
    let client = edge.client();
    let with = |name: &str, value: &str| {
        let request = Request::get("https://a.com/").header(name, value);
        client
            .send(request.body(()).unwrap(), b"")
            .map(|r| r.status)
    };
    assert_eq!(with("x", &"y".repeat(1000)), Ok(200));
    // The client knows the bound and does not even try; one that does is told.
    assert!(with("x", &"y".repeat(3000)).is_err());
    let long = "y".repeat(3000);
    let large = head(&[METHOD, SCHEME, HOST, PATH, (b"x", long.as_bytes())]);
    let Outcome::Ended(answer) = edge.client().stream(&large, true) else {
        panic!("no answer to a head that is too large");
    };
    // HEADERS with `:status: 431` from the static table, or as a literal.
    assert_eq!(answer.first(), Some(&1), "{answer:?}");
    let many: Vec<_> = (0..30).map(|n| (format!("x-{n}"), "")).collect();
    let mut request = Request::get("https://a.com/");
    for (name, value) in &many {
        request = request.header(name, *value);
    }
    let answer = client.send(request.body(()).unwrap(), b"").unwrap();
    assert_eq!(answer.status, 431);
    let target = format!("/{}", "x".repeat(300));
    assert_eq!(client.get(&format!("https://a.com{target}")).status, 414);

    assert_eq!(client.send(post("/"), &[0; 1000]).unwrap().status, 200);
    assert_eq!(client.send(post("/"), &[0; 1001]).unwrap().status, 413);
    let announced = Request::post("https://a.com/").header("content-length", "5000");
    let answer = client.send(announced.body(()).unwrap(), b"").unwrap();
    assert_eq!(answer.status, 413);

    // Neither a head nor a body may be waited for without end.
    let begun = [head(&[POST, SCHEME, HOST, PATH]), frame(0, b"be")].concat();
    let stalled = edge.client().stream(&begun, false);
    let Outcome::Ended(answer) = stalled else {
        panic!("{stalled:?}");
    };
    assert!(String::from_utf8_lossy(&answer).contains("nothing of the request"));
    assert!(matches!(
        edge.client().stream(&[1, 40, 0], false),
        Outcome::Reset(_)
    ));
    let bare = head(&[METHOD, SCHEME, HOST, PATH]);
    let Outcome::Ended(answer) = edge.client().stream(&bare, false) else {
        panic!("no answer to a request that does not end");
    };
    assert!(String::from_utf8_lossy(&answer).contains("neither continued nor ended"));
}

#[test]
fn what_could_be_read_differently_is_refused() {
    let origin = Origin::start();
    let edge = Edge::before("h3-smuggling", origin.addr().port(), "limits: {}");
    let text = |outcome: &Outcome| match outcome {
        Outcome::Ended(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => format!("{other:?}"),
    };
    let ask = |fields: &[Field<'_>], body: &[u8]| {
        let all = [&[POST, SCHEME, HOST, PATH], fields].concat();
        let body = if body.is_empty() {
            vec![]
        } else {
            frame(0, body)
        };
        edge.client().stream(&[head(&all), body].concat(), true)
    };
    // Answered by the proxy, with the rule.
    for (name, value, rule) in [
        ("transfer-encoding", "chunked", "transfer-encoding"),
        ("connection", "close", "connection"),
        ("upgrade", "websocket", "upgrade"),
        ("te", "gzip", "te"),
        ("content-length", "+4", "Content-Length"),
        ("content-length", "4, 4", "Content-Length"),
    ] {
        let outcome = ask(&[(name.as_bytes(), value.as_bytes())], b"body");
        let answer = text(&outcome);
        assert!(answer.contains("bad_request"), "{name}: {value}: {answer}");
        assert!(
            answer.to_lowercase().contains(&rule.to_lowercase()),
            "{answer}"
        );
    }
    let twice: [Field<'_>; 2] = [(b"content-length", b"4"), (b"content-length", b"4")];
    assert!(text(&ask(&twice, b"body")).contains("bad_request"));
    // Malformed for the engine (RFC 9114 4.1.2).
    for (name, value) in [
        ("X-Upper", "a"),
        ("x", "a\r\nb: c"),
        ("x", "a\0"),
        ("", "a"),
        ("x y", "a"),
        (":path", "/ HTTP/1.1\r\n"),
        (":unknown", "a"),
        ("host", "b.com"),
    ] {
        let outcome = ask(&[(name.as_bytes(), value.as_bytes())], b"");
        assert_eq!(outcome, Outcome::Reset(MESSAGE_ERROR), "{name}: {value}");
    }
    let without = head(&[METHOD, SCHEME, PATH]);
    let outcome = edge.client().stream(&without, true);
    assert_eq!(outcome, Outcome::Reset(MESSAGE_ERROR));
    let before = origin.count();
    assert_eq!(before, 0, "{:?}", origin.seen());

    // A body that is not as long as announced never becomes a whole request.
    for body in [b"abc".as_slice(), b"GET /smuggled HTTP/1.1\r\n\r\n"] {
        let answer = text(&ask(&[(b"content-length", b"4")], body));
        assert!(!answer.contains("POST /\n"), "{answer}");
    }
    assert_eq!(edge.client().get("https://a.com/whole").status, 200);
    for seen in origin.seen() {
        assert!(seen.target != "/smuggled", "{seen:?}");
        assert!(seen.target == "/whole" || seen.body.is_none(), "{seen:?}");
    }
}

#[test]
fn frames_that_mean_nothing_are_passed_over_and_wrong_ones_end_the_connection() {
    let origin = Origin::start();
    let edge = Edge::before(
        "h3-frames",
        origin.addr().port(),
        "limits: {requestHeaderBytes: 4Ki}",
    );
    let request = head(&[POST, SCHEME, HOST, PATH]);
    let odd = [
        frame(0x21, &vec![1; 100_000]),
        request.clone(),
        frame(0, b""),
        frame(0, b"one"),
        frame(0x40, b""),
        frame(0, b""),
        frame(0, b"two"),
    ]
    .concat();
    let Outcome::Ended(answer) = edge.client().stream(&odd, true) else {
        panic!("legal frames are refused");
    };
    assert!(String::from_utf8_lossy(&answer).contains("POST /\nonetwo"));

    let cut = [request.clone(), number(0), number(100), vec![1; 50]].concat();
    let outcome = edge.client().stream(&cut, true);
    assert!(
        !matches!(&outcome, Outcome::Ended(a) if a.ends_with(&[1; 50])),
        "{outcome:?}"
    );
    // One that says that it is a terabyte long is not waited for.
    let endless = [number(1), number(1 << 40), vec![0; 5000]].concat();
    let outcome = edge.client().stream(&endless, false);
    assert!(
        matches!(outcome, Outcome::Reset(_) | Outcome::Ended(_)),
        "{outcome:?}"
    );
    for (what, bytes, code) in [
        ("DATA first", frame(0, b"body"), FRAME_UNEXPECTED),
        (
            "SETTINGS",
            [request.clone(), frame(4, b"")].concat(),
            FRAME_UNEXPECTED,
        ),
        ("HTTP/2's PING", frame(6, &[0; 8]), FRAME_UNEXPECTED),
        ("no QPACK", frame(1, &[0xff; 20]), DECOMPRESSION_FAILED),
    ] {
        let client = edge.client();
        client.stream(&bytes, true);
        assert_eq!(client.closed(), Outcome::Closed(code), "{what}");
    }
    // Streams in one direction: a second control stream, a control stream that ends, far too many.
    for (what, streams, end, code) in [
        (
            "a second control stream",
            vec![vec![0, 4, 0]],
            false,
            STREAM_CREATION_ERROR,
        ),
        (
            "streams without end",
            vec![vec![0x21]; 100],
            true,
            INTERNAL_ERROR,
        ),
    ] {
        let client = edge.client();
        client.run(async {
            for bytes in &streams {
                let Ok(mut stream) = client.quic().open_uni().await else {
                    return;
                };
                let _ = stream.write_all(bytes).await;
                if end {
                    let _ = stream.finish();
                } else {
                    std::mem::forget(stream);
                }
            }
        });
        assert_eq!(client.closed(), Outcome::Closed(code), "{what}");
    }
    assert_eq!(edge.client().get("https://a.com/").status, 200);
    let log = edge.gateway.proxy.stderr();
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn nothing_that_a_client_writes_makes_it_panic() {
    let origin = Origin::start();
    let edge = Edge::before(
        "h3-random",
        origin.addr().port(),
        "limits: {requestHeadTimeout: 1s}",
    );
    let whole = [
        head(&[POST, SCHEME, HOST, PATH, (b"x-name", b"value")]),
        frame(0, b"some data"),
        head(&[(b"x-trailer", b"1")]),
    ]
    .concat();
    // Always the same numbers (xorshift).
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let mut client = edge.client();
    for round in 0..600 {
        let mut bytes = whole.clone();
        if round % 3 == 0 {
            bytes = (0..=random(60)).map(|_| random(256) as u8).collect();
        } else {
            for _ in 0..=random(4) {
                let at = random(bytes.len());
                bytes[at] = random(256) as u8;
            }
            bytes.truncate(random(bytes.len()) + 1);
        }
        match round % 4 {
            0 => client.run(async {
                if let Ok(mut stream) = client.quic().open_uni().await {
                    let _ = stream.write_all(&bytes).await;
                }
            }),
            _ => drop(client.stream(&bytes, true)),
        }
        if client.quic().close_reason().is_some() {
            client = edge.client();
        }
    }
    assert_eq!(edge.client().get("https://a.com/").status, 200);
    let log = edge.gateway.proxy.stderr();
    assert!(!log.contains("panicked"), "{log}");
}
