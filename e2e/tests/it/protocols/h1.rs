//! HTTP/1.0 and 1.1 (RFC 9112) between a raw client and a scripted server.

use std::time::Duration;

use testkit::origin::Origin;
use testkit::raw::Ended;
use testkit::upstream::{Step, Upstream};

use super::{SOON, head, ready, sent};
use crate::front::Front;

/// A front before a server that plays this for each connection.
fn before(script: impl Fn() -> Vec<Step> + Send + 'static) -> (Upstream, Front) {
    let upstream = Upstream::start(move |n| if n == 0 { ready() } else { script() });
    let front = Front::start(upstream.addr());
    (upstream, front)
}

/// What the server received on the connection that the text came over.
#[track_caller]
fn received(upstream: &Upstream, text: &str) -> String {
    testkit::wait_for(&format!("{text:?} at the server"), SOON, || {
        (0..upstream.connections())
            .map(|n| upstream.received_text(n))
            .find(|received| received.contains(text))
    })
}

#[test]
fn a_client_of_http_1_0_gets_an_answer_that_it_understands() {
    let (upstream, front) = before(|| {
        vec![
            Step::ReadRequest,
            Step::send(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            ),
            Step::Again,
        ]
    });
    // RFC 9112 6.1: a client of HTTP/1.0 is never sent a transfer coding; the end is the close's.
    let mut raw = sent(&front, "GET /old HTTP/1.0\r\nHost: app.local\r\n\r\n");
    let (bytes, ended) = raw.read_to_end(SOON);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert!(
        text.starts_with("HTTP/1.") && text.contains(" 200 "),
        "{text}"
    );
    assert!(!text.to_lowercase().contains("transfer-encoding"), "{text}");
    assert!(text.ends_with("\r\n\r\nabc"), "{text}");
    assert_eq!(ended, Ended::Closed);
    let seen = received(&upstream, "/old");
    assert!(seen.contains("GET /old HTTP/1.1\r\n"), "{seen}");
    // Without Host, which HTTP/1.0 allows, a route for every host is found.
    let mut raw = sent(&front, "GET /none HTTP/1.0\r\n\r\n");
    let (bytes, _) = raw.read_to_end(SOON);
    assert!(
        bytes.starts_with(b"HTTP/1.") && bytes[8..].starts_with(b" 200"),
        "{}",
        String::from_utf8_lossy(&bytes)
    );
}

#[test]
fn a_client_of_http_1_0_may_keep_its_connection() {
    let origin = Origin::start();
    let front = Front::start(origin.addr());
    let request = "GET /1 HTTP/1.0\r\nHost: app.local\r\nConnection: keep-alive\r\n\r\n";
    let mut raw = sent(&front, request);
    let first = raw.response(SOON).unwrap();
    assert_eq!(first.text(), "GET /1\n");
    // RFC 9112 9.3: only if the answer says so, too.
    if first
        .header("connection")
        .is_some_and(|c| c.eq_ignore_ascii_case("keep-alive"))
    {
        raw.send(request.replace("GET /1", "GET /2")).unwrap();
        assert_eq!(raw.response(SOON).unwrap().text(), "GET /2\n");
    } else {
        assert_eq!(raw.read_to_end(SOON), (vec![], Ended::Closed));
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::start();
    let front = Front::start(origin.addr());
    let request = |n: usize| match n % 3 {
        0 => format!("GET /{n} HTTP/1.1\r\nHost: app.local\r\n\r\n"),
        1 => format!("POST /{n} HTTP/1.1\r\nHost: app.local\r\nContent-Length: 3\r\n\r\nabc"),
        _ => format!(
            "PUT /{n} HTTP/1.1\r\nHost: app.local\r\nTransfer-Encoding: chunked\r\n\r\n\
             2\r\nab\r\n1;x=y\r\nc\r\n0\r\n\r\n"
        ),
    };
    let all: String = (0..20).map(request).collect();
    let mut raw = sent(&front, &all);
    for n in 0..20 {
        let (method, body) = [("GET", ""), ("POST", "abc"), ("PUT", "abc")][n % 3];
        let answer = raw.response(SOON).unwrap();
        assert_eq!(
            (answer.status, answer.text()),
            (200, format!("{method} /{n}\n{body}"))
        );
    }
    // And in pieces of any size.
    let mut raw = front.connect();
    for piece in all.as_bytes().chunks(7) {
        raw.send(piece).unwrap();
    }
    for n in 0..20 {
        assert_eq!(raw.response(SOON).unwrap().status, 200, "request {n}");
    }
}

#[test]
fn chunks_and_trailers_pass_both_ways() {
    let (upstream, front) = before(|| {
        vec![
            Step::ReadRequest,
            Step::send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"),
            Step::send("6\r\nfirst \r\n6\r\nsecond\r\n0\r\nX-Sum: 12\r\nX-More: m\r\n\r\n"),
            Step::Again,
        ]
    });
    let mut raw = sent(
        &front,
        "POST /chunks HTTP/1.1\r\nHost: app.local\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\
         Trailer: X-Count\r\n\r\n4\r\none \r\n3;ext=1\r\ntwo\r\n0\r\nX-Count: 2\r\n\r\n",
    );
    let answer = head(&mut raw);
    assert!(
        answer.to_lowercase().contains("transfer-encoding: chunked"),
        "{answer}"
    );
    let body = raw.read_until(b"0\r\n", SOON).unwrap();
    assert!(
        String::from_utf8_lossy(&body).contains("first "),
        "{body:?}"
    );
    let trailers = head(&mut raw);
    assert_eq!(trailers.to_lowercase(), "x-sum: 12\r\nx-more: m\r\n\r\n");
    let seen = received(&upstream, "/chunks");
    assert!(seen.contains("one ") && seen.contains("two"), "{seen}");
    assert!(
        !seen.contains("ext=1"),
        "extensions are not passed on: {seen}"
    );
    assert!(seen.ends_with("0\r\nX-Count: 2\r\n\r\n"), "{seen}");
}

#[test]
fn a_body_is_sent_when_the_server_wants_it() {
    let (upstream, front) = before(|| {
        vec![
            Step::ReadUntil(b"\r\n\r\n".to_vec()),
            Step::send("HTTP/1.1 100 Continue\r\n\r\n"),
            Step::ReadUntil(b"body".to_vec()),
            Step::send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstored"),
        ]
    });
    let expecting = "PUT /wanted HTTP/1.1\r\nHost: app.local\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    let mut raw = sent(&front, expecting);
    assert!(
        head(&mut raw).starts_with("HTTP/1.1 100"),
        "first the permission"
    );
    raw.send("body").unwrap();
    assert_eq!(raw.response(SOON).unwrap().text(), "stored");
    assert!(received(&upstream, "/wanted").ends_with("body"));
}

#[test]
fn a_body_is_not_sent_when_the_server_does_not_want_it() {
    let (upstream, front) = before(|| {
        vec![
            Step::ReadUntil(b"\r\n\r\n".to_vec()),
            Step::send("HTTP/1.1 413 No\r\nContent-Length: 3\r\n\r\nno!"),
            Step::ReadToEnd,
        ]
    });
    let mut raw = sent(
        &front,
        "PUT /unwanted HTTP/1.1\r\nHost: app.local\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
    );
    // RFC 9110 10.1.1: the final answer instead of the permission.
    let mut answer = head(&mut raw);
    if answer.starts_with("HTTP/1.1 100") {
        answer = head(&mut raw);
    }
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert_eq!(raw.read_exact(3, SOON).unwrap(), b"no!");
    assert!(!received(&upstream, "/unwanted").ends_with("body"));
}

#[test]
fn interim_answers_come_first_and_all() {
    let (_upstream, front) = before(|| {
        vec![
            Step::ReadRequest,
            Step::send("HTTP/1.1 102 Processing\r\n\r\n"),
            Step::send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"),
            Step::send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone"),
            Step::Again,
        ]
    });
    let mut raw = front.connect();
    for n in 0..2 {
        raw.send(format!("GET /{n} HTTP/1.1\r\nHost: app.local\r\n\r\n"))
            .unwrap();
        assert!(head(&mut raw).starts_with("HTTP/1.1 102"));
        let hints = head(&mut raw);
        assert!(hints.starts_with("HTTP/1.1 103"), "{hints}");
        assert!(hints.contains("Link: </a.css>; rel=preload\r\n"), "{hints}");
        assert!(head(&mut raw).starts_with("HTTP/1.1 200"));
        assert_eq!(raw.read_exact(4, SOON).unwrap(), b"done");
    }
    // RFC 9110 15.2: a client of HTTP/1.0 is sent none.
    let mut raw = sent(&front, "GET /old HTTP/1.0\r\n\r\n");
    assert!(head(&mut raw)[8..].starts_with(" 200"));
}

#[test]
fn answers_without_a_body_do_not_stall_the_connection() {
    let (_upstream, front) = before(|| {
        vec![
            Step::ReadRequest,
            Step::send("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nETag: \"a\"\r\n\r\n"),
            Step::ReadRequest,
            Step::send("HTTP/1.1 204 No Content\r\n\r\n"),
            Step::ReadRequest,
            Step::send("HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n"),
            Step::ReadRequest,
            Step::send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Step::Again,
        ]
    });
    let mut raw = front.connect();
    let request = |method: &str| format!("{method} / HTTP/1.1\r\nHost: app.local\r\n\r\n");
    for (method, status, line) in [
        ("HEAD", "200", Some("Content-Length: 1234")),
        ("DELETE", "204", None),
        ("GET", "304", None),
        ("HEAD", "200", None),
    ] {
        raw.send(request(method)).unwrap();
        let answer = head(&mut raw);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{method}: {answer}"
        );
        if let Some(line) = line {
            assert!(answer.contains(line), "{answer}");
        }
        if status == "204" {
            let lower = answer.to_lowercase();
            assert!(
                !lower.contains("content-length") && !lower.contains("transfer-encoding"),
                "{answer}"
            );
        }
    }
}

#[test]
fn names_keep_their_case_and_fields_their_order() {
    let fields = "X-Zulu: 1\r\nx-alpha: 2\r\nX-ZULU: 3\r\nAccept: */*\r\nCOOKIE: a=b\r\nX-Empty:\r\nx-Ünicode: ä\r\n"
        .replace("x-Ünicode", "x-Unicode");
    let answered = fields.clone();
    let (upstream, front) = before(move || {
        vec![
            Step::ReadRequest,
            Step::send(format!(
                "HTTP/1.1 200 Fine By Me\r\n{answered}Content-Length: 0\r\n\r\n"
            )),
            Step::Again,
        ]
    });
    let mut raw = sent(
        &front,
        &format!("GET /case HTTP/1.1\r\nHOST: App.Local\r\n{fields}\r\n"),
    );
    let in_order = |text: &str| {
        let mut rest = text;
        for line in fields.lines() {
            let name = line.split(':').next().unwrap_or_default();
            let Some(at) = rest.find(&format!("\r\n{line}")) else {
                panic!("no {name} in its place in {text:?}");
            };
            rest = &rest[at + 2..];
        }
    };
    let answer = head(&mut raw);
    assert!(
        answer.starts_with("HTTP/1.1 200 Fine By Me\r\n"),
        "{answer}"
    );
    in_order(&answer);
    let seen = received(&upstream, "/case");
    assert!(seen.contains("\r\nHOST: App.Local\r\n"), "{seen}");
    in_order(&seen[seen.find("GET /case").unwrap()..]);
}

#[test]
fn odd_but_legal_hosts_and_targets_pass_as_they_are() {
    let (upstream, front) = before(|| Step::answer("ok"));
    for (n, host) in [
        "under_score.local",
        "trailing.dot.",
        "UPPER.local",
        "app.local:8080",
        "app.local:",
        "127.0.0.1",
        "[::1]",
        "[::1]:8080",
        "a",
        "xn--bcher-kva.example",
        "a-.b--c.local",
    ]
    .iter()
    .enumerate()
    {
        let mut raw = sent(
            &front,
            &format!("GET /host/{n} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        );
        assert_eq!(raw.response(SOON).unwrap().status, 200, "{host}");
        let seen = received(&upstream, &format!("/host/{n} "));
        assert!(
            seen.contains(&format!("GET /host/{n} HTTP/1.1\r\nHost: {host}\r\n")),
            "{seen}"
        );
    }
    for target in [
        "/?",
        "/?a=b&c=d/../e",
        "/a;v=1,b:c@d!$&'()*+=~",
        "/?q=%zz",
        "/a?b?c",
    ] {
        let mut raw = sent(
            &front,
            &format!("GET {target} HTTP/1.1\r\nHost: app.local\r\n\r\n"),
        );
        assert_eq!(raw.response(SOON).unwrap().status, 200, "{target}");
        received(&upstream, &format!("GET {target} HTTP/1.1\r\n"));
    }
    // RFC 9112 3.2.2: the target's authority counts, whatever Host says.
    let mut raw = sent(
        &front,
        "GET http://Target.local:81/abs?x HTTP/1.1\r\nHost: other.local\r\n\r\n",
    );
    assert_eq!(raw.response(SOON).unwrap().status, 200);
    let seen = received(&upstream, "/abs?x");
    assert!(
        seen.contains("GET /abs?x HTTP/1.1\r\nHost: Target.local:81\r\n"),
        "{seen}"
    );
    let mut raw = sent(&front, "OPTIONS * HTTP/1.1\r\nHost: app.local\r\n\r\n");
    assert_eq!(raw.response(SOON).unwrap().status, 200);
    received(&upstream, "OPTIONS * HTTP/1.1\r\n");
}

#[test]
fn events_come_each_at_once() {
    let (upstream, front) = before(|| {
        let mut script = vec![
            Step::ReadUntil(b"\r\n\r\n".to_vec()),
            Step::send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"),
        ];
        for n in 0..5 {
            script.push(Step::send(format!("data: {n}\n\n")));
            // The next only when the client has had this one.
            script.push(Step::ReadUntil(format!("more {n}").into_bytes()));
        }
        script
    });
    let mut raw = sent(
        &front,
        "POST /events HTTP/1.1\r\nHost: app.local\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    assert!(head(&mut raw).starts_with("HTTP/1.1 200"));
    for n in 0..5 {
        raw.read_until(format!("data: {n}\n\n").as_bytes(), SOON)
            .unwrap_or_else(|ended| panic!("event {n}: {ended:?}"));
        raw.send(format!("6\r\nmore {n}\r\n")).unwrap();
    }
    raw.send("0\r\n\r\n").unwrap();
    drop(upstream);
}

#[test]
fn a_body_is_passed_on_as_it_comes() {
    let (upstream, front) = before(|| {
        vec![
            Step::ReadUntil(b"\r\n\r\n".to_vec()),
            Step::send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Step::Echo,
        ]
    });
    let mut raw = sent(
        &front,
        "POST /duplex HTTP/1.1\r\nHost: app.local\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    assert!(head(&mut raw).starts_with("HTTP/1.1 200"));
    for word in ["one", "two", "six"] {
        raw.send(format!("3\r\n{word}\r\n")).unwrap();
        raw.read_until(word.as_bytes(), SOON)
            .unwrap_or_else(|ended| panic!("{word}: {ended:?}"));
    }
    drop(upstream);
}

#[test]
fn a_websocket_carries_bytes_both_ways_until_either_side_ends() {
    let upgrade = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    let upstream = Upstream::start(move |n| match n {
        0 => ready(),
        1 => vec![
            Step::ReadRequest,
            Step::send([upgrade.as_bytes(), b"\x81\x05early"].concat()),
            Step::Echo,
        ],
        2 => vec![
            Step::ReadRequest,
            Step::send(upgrade),
            Step::ReadExact(4),
            Step::send("last"),
        ],
        _ => vec![
            Step::ReadRequest,
            Step::send("HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno"),
            Step::Again,
        ],
    });
    let front = Front::start(upstream.addr());
    let request = "GET /ws HTTP/1.1\r\nHost: app.local\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    // Bytes may follow the request at once.
    let mut raw = sent(&front, &format!("{request}\u{1}soon"));
    let answer = head(&mut raw).to_lowercase();
    assert!(answer.starts_with("http/1.1 101"), "{answer}");
    assert!(answer.contains("\r\nupgrade: websocket\r\n"), "{answer}");
    assert!(answer.contains("\r\nconnection: upgrade\r\n"), "{answer}");
    assert_eq!(raw.read_exact(7, SOON).unwrap(), b"\x81\x05early");
    assert_eq!(raw.read_exact(5, SOON).unwrap(), b"\x01soon");
    let large = vec![0xa5; 300_000];
    raw.send(&large).unwrap();
    assert_eq!(raw.read_exact(large.len(), SOON).unwrap(), large);
    raw.shut_write().unwrap();
    assert_eq!(raw.read_to_end(SOON), (vec![], Ended::Closed));
    // The server ends.
    let mut raw = sent(&front, request);
    assert!(head(&mut raw).starts_with("HTTP/1.1 101"));
    raw.send("half").unwrap();
    assert_eq!(raw.read_to_end(SOON), (b"last".to_vec(), Ended::Closed));
    // The server refuses: the connection stays one of HTTP.
    let mut raw = sent(&front, request);
    assert_eq!(raw.response(SOON).unwrap().status, 403);
    raw.send("GET /next HTTP/1.1\r\nHost: app.local\r\n\r\n")
        .unwrap();
    assert_eq!(raw.response(SOON).unwrap().status, 403);
}

#[test]
fn a_connection_is_kept_until_one_side_says_otherwise() {
    let origin = Origin::start();
    let front = Front::start(origin.addr());
    let mut raw = front.connect();
    for n in 0..50 {
        let answer = raw.get("app.local", &format!("/{n}"));
        assert_eq!(answer.text(), format!("GET /{n}\n"));
    }
    assert!(
        origin.connections() <= 3,
        "{} connections",
        origin.connections()
    );
    let mut raw = sent(
        &front,
        "GET / HTTP/1.1\r\nHost: app.local\r\nConnection: close\r\n\r\n",
    );
    let answer = raw.response(SOON).unwrap();
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(
        raw.read_to_end(Duration::from_secs(3)),
        (vec![], Ended::Closed)
    );
    // The server's own `close` is about its connection, not about the client's.
    let (_upstream, front) = before(|| {
        vec![
            Step::ReadRequest,
            Step::send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"),
        ]
    });
    let mut raw = front.connect();
    for n in 0..10 {
        assert_eq!(raw.get("app.local", &format!("/{n}")).text(), "ok");
    }
}

#[test]
fn an_answer_that_comes_before_the_body_was_wanted_is_passed_on_whole() {
    let (_upstream, front) = before(|| {
        vec![
            Step::ReadUntil(b"\r\n\r\n".to_vec()),
            Step::send("HTTP/1.1 403 No\r\nConnection: close\r\nContent-Length: 3\r\n\r\nno!"),
        ]
    });
    for expect in ["Expect: 100-continue\r\n", ""] {
        for _ in 0..5 {
            let request = format!(
                "PUT /early HTTP/1.1\r\nHost: app.local\r\n{expect}Content-Length: 4\r\n\r\nbody"
            );
            let mut raw = sent(&front, &request);
            // The body is there already, so nothing interim is due; the answer comes in one piece.
            let answer = head(&mut raw);
            assert!(answer.starts_with("HTTP/1.1 403"), "{expect:?}: {answer}");
            assert_eq!(raw.read_exact(3, SOON).unwrap(), b"no!", "{expect:?}");
        }
    }
}
