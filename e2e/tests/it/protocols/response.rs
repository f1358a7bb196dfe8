//! Answers of a server that is broken or hostile: 502 with the cause, and never a wrong answer to
//! somebody else.

use std::time::Duration;

use testkit::raw::Ended;
use testkit::upstream::{Step, Upstream};

use super::{SOON, ready};
use crate::front::{Front, Kind};

/// Not to be taken for an answer.
const BROKEN: &[(&str, &str)] = &[
    ("nothing", ""),
    ("not HTTP", "220 mail ready\r\n"),
    ("no status", "HTTP/1.1\r\n\r\n"),
    (
        "a status of two digits",
        "HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nno",
    ),
    (
        "a status of four digits",
        "HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nno",
    ),
    (
        "a status below 100",
        "HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nno",
    ),
    (
        "another version",
        "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nno",
    ),
    (
        "lower case",
        "http/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno",
    ),
    ("a head that is cut", "HTTP/1.1 200 OK\r\nContent-Le"),
    (
        "length and coding",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "two lengths",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nno!",
    ),
    (
        "a signed length",
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nno",
    ),
    (
        "a negative length",
        "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nno",
    ),
    (
        "a list of lengths",
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nno!",
    ),
    (
        "a length beyond 64 bits",
        "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551618\r\n\r\nno",
    ),
    (
        "an unknown coding",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\nno",
    ),
    (
        "chunked twice",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "obs-fold",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nno",
    ),
    (
        "a space before the colon",
        "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nno",
    ),
    (
        "a bare CR",
        "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2\r\n\r\nno",
    ),
    (
        "NUL",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nno",
    ),
    (
        "a name with a space",
        "HTTP/1.1 200 OK\r\nX Y: a\r\nContent-Length: 2\r\n\r\nno",
    ),
    (
        "a line without a colon",
        "HTTP/1.1 200 OK\r\nX\r\nContent-Length: 2\r\n\r\nno",
    ),
    (
        "an upgrade that nobody asked for",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
    ),
];

#[test]
fn a_broken_answer_is_502_with_the_cause() {
    if !Kind::chosen().is_ours() {
        return;
    }
    let upstream = Upstream::start(|n| match n {
        0 => ready(),
        n => {
            let (_, answer) = BROKEN[(n - 1) % BROKEN.len()];
            vec![Step::ReadRequest, Step::send(answer)]
        }
    });
    let front = Front::start(upstream.addr());
    let mut wrong = Vec::new();
    for (name, answer) in BROKEN {
        let begun = upstream.connections();
        let mut raw = front.connect();
        // POST, so that it is not tried again: one connection of the server for each.
        raw.send("POST / HTTP/1.1\r\nHost: app.local\r\nContent-Length: 1\r\n\r\nx")
            .unwrap();
        match raw.response(SOON) {
            Ok(response) if response.status == 502 && response.header("proxy-status").is_some() => {
            }
            other => wrong.push(format!("{name}: {answer:?}: {other:?}")),
        }
        assert_eq!(upstream.connections(), begun + 1, "{name}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_answer_that_breaks_off_is_broken_off() {
    let cut = [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\nX: y\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nZZ\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalfway\r\n0\r\n\r\n",
    ];
    let upstream = Upstream::start(move |n| match n {
        0 => ready(),
        n => vec![Step::ReadRequest, Step::send(cut[(n - 1) % cut.len()])],
    });
    let front = Front::start(upstream.addr());
    for answer in cut {
        let mut raw = front.connect();
        raw.send("POST / HTTP/1.1\r\nHost: app.local\r\nContent-Length: 1\r\n\r\nx")
            .unwrap();
        // The client must be able to tell that it is not whole (RFC 9112 8): no end is made up.
        let response = raw.response(SOON);
        match &response {
            Err(Ended::Closed | Ended::Reset) => {}
            Ok(response) if response.status == 502 => {}
            _ => panic!("{answer:?} became {response:?}"),
        }
    }
}

#[test]
fn bytes_after_an_answer_are_not_the_next_one() {
    // Answers in advance: the connection is not used again (RFC 9112 11.1, response splitting).
    let upstream = Upstream::start(|n| match n {
        0 => ready(),
        _ => vec![
            Step::ReadRequest,
            Step::send(
                "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrueHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfalse",
            ),
            Step::ReadRequest,
            Step::send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue"),
            Step::Again,
        ],
    });
    let front = Front::start(upstream.addr());
    let mut kept = front.connect();
    for n in 0..6 {
        let answer = kept.get("app.local", &format!("/{n}"));
        assert!(
            answer.status == 502 || answer.text() == "true",
            "request {n}: {answer:?}"
        );
        let answer = front.get("/other");
        assert!(
            answer.status == 502 || answer.text() == "true",
            "after {n}: {answer:?}"
        );
    }
}

#[test]
fn an_answer_before_the_end_of_the_request_is_passed_on() {
    let upstream = Upstream::start(|n| match n {
        0 => ready(),
        _ => vec![
            Step::ReadUntil(b"\r\n\r\n".to_vec()),
            Step::send(
                "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno",
            ),
            Step::ReadToEnd,
        ],
    });
    let front = Front::start(upstream.addr());
    let mut raw = front.connect();
    raw.send(
        "POST / HTTP/1.1\r\nHost: app.local\r\nContent-Length: 100000000\r\n\r\nonly the beginning",
    )
    .unwrap();
    let response = raw.response(SOON).unwrap();
    assert_eq!((response.status, response.text()), (413, "no".into()));
    // What is left of the body is never read as a request.
    let (_, ended) = raw.read_to_end(Duration::from_secs(5));
    assert!(matches!(ended, Ended::Closed | Ended::Reset), "{ended:?}");
}
