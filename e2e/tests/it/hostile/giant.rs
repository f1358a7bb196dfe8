//! Too large: each part of a message has a bound, its own status, and is counted.

use std::time::Duration;

use testkit::frames::{self, Frame, Outcome};
use testkit::origin::Origin;
use testkit::raw::{Ended, Raw};

use super::watch::{Bounds, Watch, check};
use crate::front::{Front, Setup};

const SOON: Duration = Duration::from_secs(10);

fn front(origin: &Origin) -> Front {
    let limits = "requestHeaderBytes: 16Ki\nrequestHeaderCount: 64\nrequestTargetBytes: 4Ki\n\
                  trailersBytes: 4Ki\nmaxRequestBodyBytes: 1Mi\nmaxConcurrentStreams: 10";
    let setup = Setup {
        limits: limits.to_owned(),
        ..Setup::default()
    };
    Front::with(origin.addr(), &setup)
}

/// The status that comes, however much of the request is left unsent.
fn status(front: &Front, request: &[u8]) -> Result<u16, Ended> {
    let mut raw = Raw::connect(front.addr).expect("the front accepts");
    for piece in request.chunks(16 << 10) {
        if raw.send(piece).is_err() {
            break;
        }
    }
    raw.response(SOON).map(|response| response.status)
}

#[test]
fn what_is_too_large_gets_the_status_that_says_so() {
    let origin = Origin::start();
    let front = front(&origin);
    let head = "GET /big HTTP/1.1\r\nHost: app.local\r\n";
    let post = "POST /big HTTP/1.1\r\nHost: app.local\r\n";
    let long = |count: usize| "y".repeat(count);
    let chunk = format!("{:x}\r\n{}\r\n", 64 << 10, long(64 << 10));
    let cases: Vec<(&str, String, &[u16], &[&str])> = vec![
        (
            "a target of 5 KiB",
            format!("GET /{} HTTP/1.1\r\nHost: app.local\r\n\r\n", long(5 << 10)),
            &[414],
            &["header_too_large", "bad_request"],
        ),
        (
            "a target without end",
            format!("GET /{}", long(1 << 20)),
            &[414, 431],
            &["header_too_large", "bad_request"],
        ),
        (
            "a field of 17 KiB",
            format!("{head}X: {}\r\n\r\n", long(17 << 10)),
            &[431],
            &["header_too_large"],
        ),
        (
            "a field without end",
            format!("{head}X: {}", long(1 << 20)),
            &[431],
            &["header_too_large"],
        ),
        (
            "a name without end",
            format!("{head}{}", long(1 << 20)),
            &[431],
            &["header_too_large"],
        ),
        (
            "a cookie of 17 KiB",
            format!("{head}Cookie: a={}\r\n\r\n", long(17 << 10)),
            &[431],
            &["header_too_large"],
        ),
        (
            "65 fields",
            format!("{head}{}\r\n", "X: y\r\n".repeat(65)),
            &[431],
            &["header_too_large"],
        ),
        (
            "fields without end",
            format!("{head}{}", "X: y\r\n".repeat(50_000)),
            &[431],
            &["header_too_large"],
        ),
        (
            "a body of 2 MiB",
            format!("{post}Content-Length: {}\r\n\r\n{}", 2 << 20, long(2 << 20)),
            &[413],
            &["body_too_large"],
        ),
        (
            "a body of 2 MiB in chunks",
            format!(
                "{post}Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
                chunk.repeat(32)
            ),
            &[413],
            &["body_too_large"],
        ),
        (
            "a body in chunks without end",
            format!(
                "{post}Transfer-Encoding: chunked\r\n\r\n{}",
                chunk.repeat(256)
            ),
            &[413],
            &["body_too_large"],
        ),
        (
            "trailers of 5 KiB",
            format!(
                "{post}Transfer-Encoding: chunked\r\n\r\n0\r\nX: {}\r\n\r\n",
                long(5 << 10)
            ),
            &[400, 413, 431],
            &["header_too_large", "bad_request"],
        ),
        (
            "trailers without end",
            format!(
                "{post}Transfer-Encoding: chunked\r\n\r\n0\r\n{}",
                "X: y\r\n".repeat(50_000)
            ),
            &[400, 413, 431],
            &["header_too_large", "bad_request"],
        ),
        (
            "a chunk extension without end",
            format!(
                "{post}Transfer-Encoding: chunked\r\n\r\n1;{}",
                long(1 << 20)
            ),
            &[400, 413, 431],
            &["header_too_large", "bad_request"],
        ),
    ];
    for (what, request, statuses, reasons) in cases {
        let watch = Watch::begin(&front);
        let status = status(&front, request.as_bytes());
        let holds = status
            .as_ref()
            .is_ok_and(|status| statuses.contains(status));
        check(&front, what, holds, &status);
        watch.counted(what, reasons);
        let memory = 8 << 10;
        watch.end(
            what,
            Bounds {
                memory,
                ..Bounds::default()
            },
        );
    }
    // And what is within the bounds is served.
    let request = format!(
        "POST /{} HTTP/1.1\r\nHost: app.local\r\nX: {}\r\n{}Content-Length: {}\r\n\r\n{}",
        long(3 << 10),
        long(11 << 10),
        "X: y\r\n".repeat(50),
        1 << 20,
        long(1 << 20)
    );
    assert_eq!(status(&front, request.as_bytes()), Ok(200));
}

/// A request of HTTP/2 with these fields more, and how it was answered.
fn over_h2(front: &Front, path: &str, more: &[(&[u8], &[u8])], body: Option<usize>) -> Outcome {
    let raw = Raw::connect(front.addr_h2).expect("the front accepts");
    let mut client = frames::Connection::open(raw).expect("the front reads");
    let fields: &[(&[u8], &[u8])] = &[
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":authority", b"app.local"),
        (b":path", path.as_bytes()),
    ];
    let whole = frames::block(&[fields, more].concat());
    let mut pieces = whole.chunks(16_000).peekable();
    let mut frames = Vec::new();
    while let Some(piece) = pieces.next() {
        let first = frames.is_empty();
        let kind = if first {
            frames::kind::HEADERS
        } else {
            frames::kind::CONTINUATION
        };
        let mut flags = if pieces.peek().is_none() {
            frames::END_HEADERS
        } else {
            0
        };
        if first && body.is_none() {
            flags |= frames::END_STREAM;
        }
        frames.push(Frame::new(kind, flags, 1, piece));
    }
    // Within the window that every server gives at first.
    for _ in 0..body.unwrap_or(0) {
        frames.push(Frame::data(1, false, [b'y'; 1000]));
    }
    let _ = client.send(&frames);
    client.outcome(1, SOON)
}

#[test]
fn what_is_too_large_is_refused_over_http_2_too() {
    let origin = Origin::start();
    let front = front(&origin);
    let before = origin.count();
    let long = vec![b'y'; 20 << 10];
    let refused = |outcome: &Outcome, statuses: &[u16]| match outcome {
        Outcome::Answered(Some(status), _) => statuses.contains(status),
        Outcome::Reset(..) | Outcome::GoAway(_) => true,
        _ => false,
    };
    let many: Vec<(&[u8], &[u8])> = vec![(b"x", b"y"); 200];
    let path = format!("/{}", "y".repeat(5 << 10));
    for (what, outcome, statuses) in [
        (
            "a field of 20 KiB",
            over_h2(&front, "/", &[(b"x", &long)], None),
            [431, 431],
        ),
        ("200 fields", over_h2(&front, "/", &many, None), [431, 431]),
        (
            "a path of 5 KiB",
            over_h2(&front, &path, &[], None),
            [414, 431],
        ),
        (
            "a length of 2 MiB",
            over_h2(&front, "/", &[(b"content-length", b"2097152")], Some(1)),
            [413, 413],
        ),
    ] {
        check(&front, what, refused(&outcome, &statuses), &outcome);
    }
    let seen = origin.count() - before;
    check(&front, "requests that went through", seen == 0, &seen);
    assert_eq!(front.get("/after").status, 200);
}

#[test]
fn more_streams_than_said_are_refused_and_not_queued() {
    let origin = Origin::start();
    let front = front(&origin);
    let before = origin.count();
    let raw = Raw::connect(front.addr_h2).expect("the front accepts");
    let mut client = frames::Connection::open(raw).expect("the front reads");
    let fields: &[(&[u8], &[u8])] = &[
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":authority", b"app.local"),
        (b":path", b"/open"),
    ];
    // Fifty at once that do not end, where ten are allowed.
    let opened: Vec<_> = (0..50)
        .map(|n| Frame::headers(2 * n + 1, false, fields))
        .collect();
    client.send(&opened).expect("the front reads");
    let outcome = client.outcome(99, SOON);
    let refused = matches!(
        outcome,
        Outcome::Reset(..) | Outcome::GoAway(_) | Outcome::Closed
    );
    check(&front, "the fiftieth stream of ten", refused, &outcome);
    let seen = origin.count() - before;
    check(&front, "streams that went through", seen <= 10, &seen);
}
