//! How many requests an endpoint gets at once, and which of them go first.

use std::thread;
use std::time::Duration;

use testkit::raw::{Raw, Response};
use testkit::upstream::{Step, Upstream};

use crate::front::{Front, Setup};
use crate::mesh::SOON;
use crate::routing::reason;

/// A proxy with one worker before a server without a proxy, and a policy.
fn front(upstream: &Upstream, settings: &str) -> Front {
    let objects = format!(
        "{{apiVersion: tulle.dev/v1alpha1, kind: TrafficPolicy, metadata: {{name: app}}, spec: \
         {{targetRefs: [{{group: \"\", kind: Service, name: app}}], {settings}}}}}"
    );
    let setup = Setup {
        objects,
        ..Setup::default()
    };
    Front::with(upstream.addr(), &setup)
}

/// A server that answers once, to a proxy that is asked whether it is ready, and then never.
fn silent() -> Upstream {
    Upstream::start(|n| match n {
        0 => {
            let mut steps = Step::answer_with(200, &[("connection", "close")], "x");
            steps.pop();
            steps
        }
        _ => vec![Step::ReadRequest, Step::Stall],
    })
}

/// Asks, and leaves it open whether there is an answer.
fn ask(front: &Front, criticality: &str) -> Raw {
    let mut raw = front.connect();
    raw.send(format!(
        "GET / HTTP/1.1\r\nHost: app.local\r\nX-Request-Criticality: {criticality}\r\n\r\n"
    ))
    .expect("the proxy takes it");
    raw
}

/// Asks for what is answered at once.
#[track_caller]
fn refused(front: &Front, criticality: &str) -> Response {
    let answer = ask(front, criticality).response(SOON).expect("an answer");
    assert_eq!(answer.status, 503, "{answer:?}");
    answer
}

/// Asks for what is passed on, as the request so many on the server.
fn held(front: &Front, upstream: &Upstream, criticality: &str) -> Raw {
    let before = upstream.requests();
    let raw = ask(front, criticality);
    testkit::wait_for("the request to be passed on", SOON, || {
        (upstream.requests() == before + 1).then_some(())
    });
    raw
}

#[test]
fn requests_wait_for_a_connection_and_not_too_many_of_them() {
    let upstream = Upstream::start(|_| {
        vec![
            Step::ReadRequest,
            Step::Pause(Duration::from_secs(1)),
            Step::send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
            Step::Again,
        ]
    });
    let front = front(
        &upstream,
        "connections: {maxConnections: 1, maxPendingRequests: 2}",
    );
    let mut clients: Vec<Raw> = (0..6).map(|_| front.connect()).collect();
    for client in &mut clients {
        client
            .send("GET / HTTP/1.1\r\nHost: app.local\r\n\r\n")
            .expect("the proxy takes it");
    }
    let answers: Vec<Response> = clients
        .iter_mut()
        .map(|client| client.response(SOON).expect("an answer"))
        .collect();
    let (good, bad): (Vec<_>, Vec<_>) = answers.iter().partition(|a| a.status == 200);
    assert!(good.len() >= 3 && !bad.is_empty(), "{answers:?}");
    for answer in bad {
        assert_eq!(
            (answer.status, reason(answer)),
            (503, "circuit_open".into())
        );
        let text = answer.text();
        assert!(text.contains("2 requests wait"), "{text}");
    }
    assert_eq!(upstream.connections(), 1, "all went over one connection");
}

#[test]
fn a_connection_is_given_up_after_so_many_requests() {
    let upstream = Upstream::start(|_| Step::answer("x"));
    let front = front(&upstream, "connections: {maxRequestsPerConnection: 3}");
    let mut client = front.connect();
    for _ in 0..8 {
        assert_eq!(client.get("app.local", "/").status, 200);
    }
    // With the one that asked whether it is ready, 9.
    assert_eq!(upstream.connections(), 3);
    for n in 0..3 {
        let seen = upstream.received_text(n);
        assert_eq!(seen.matches(" HTTP/1.1\r\n").count(), 3, "{seen}");
    }
}

#[test]
fn no_more_retries_are_made_at_once_than_allowed() {
    // What is sent again is not answered, and so takes the only place there is for that.
    let upstream = Upstream::start(|n| match n {
        0 => {
            let mut steps = Step::answer_with(200, &[("connection", "close")], "x");
            steps.pop();
            steps
        }
        2 => vec![Step::ReadRequest, Step::Stall],
        _ => {
            let mut steps = Step::answer_with(503, &[("connection", "close")], "x");
            steps.pop();
            steps
        }
    });
    let front = front(
        &upstream,
        "retries: {attempts: 3, on: [\"503\"]}, connections: {maxRetries: 1}, outlierDetection: {maxEjectionPercent: 0}",
    );
    let first = ask(&front, "");
    testkit::wait_for("the retry", SOON, || {
        (upstream.requests() == 3).then_some(())
    });
    assert_eq!(front.get("/").status, 503);
    assert_eq!(upstream.requests(), 4, "it was sent once");
    first.reset();
    testkit::wait_for("the place to be free again", SOON, || {
        let before = upstream.requests();
        assert_eq!(front.get("/").status, 503);
        (upstream.requests() - before == 4).then_some(())
    });
}

#[test]
fn when_there_are_too_many_the_less_critical_are_refused_first() {
    let upstream = silent();
    let front = front(
        &upstream,
        "connections: {maxRequests: 4}, loadShedding: {shares: {critical: 75, sheddable: 50}}",
    );
    let mut open = vec![
        held(&front, &upstream, "sheddable"),
        held(&front, &upstream, "sheddable"),
    ];
    let answer = refused(&front, "sheddable");
    assert_eq!(reason(&answer), "circuit_open");
    assert!(
        answer.text().contains("sheddable may be 2"),
        "{}",
        answer.text()
    );
    // One that says nothing is critical.
    open.push(held(&front, &upstream, ""));
    refused(&front, "critical");
    open.push(held(&front, &upstream, "critical-plus"));
    refused(&front, "critical-plus");
    // A client that only ends its side still waits for its answer.
    open.into_iter().for_each(Raw::reset);
    testkit::wait_for("room again", SOON, || {
        let mut raw = ask(&front, "sheddable");
        raw.response(Duration::from_millis(300))
            .is_err()
            .then_some(())
    });
}

#[test]
fn a_service_that_is_asked_too_much_at_once_is_spared() {
    let upstream = silent();
    let front = front(
        &upstream,
        "adaptiveConcurrency: {minConcurrency: 2, maxConcurrency: 2}, fallback: {on: [timeout], response: {status: 203}}",
    );
    let _open = [held(&front, &upstream, ""), held(&front, &upstream, "")];
    let answer = refused(&front, "critical-plus");
    assert_eq!(reason(&answer), "overloaded");
    assert!(
        answer.text().contains("there may be 2"),
        "{}",
        answer.text()
    );
}

#[test]
fn the_limit_follows_how_much_a_service_can_do() {
    // One request at a time, and each takes 20 ms: whatever more there is queues.
    let turn = std::sync::Arc::new(std::sync::Mutex::new(()));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(stream), turn) = (stream, std::sync::Arc::clone(&turn)) else {
                return;
            };
            thread::spawn(move || serve(stream, &turn));
        }
    });
    let objects = "{apiVersion: tulle.dev/v1alpha1, kind: TrafficPolicy, metadata: {name: app}, spec: \
         {targetRefs: [{group: \"\", kind: Service, name: app}], adaptiveConcurrency: {maxConcurrency: 200, minRTT: {requestCount: 10}}}}";
    let front = Front::with(
        address,
        &Setup {
            objects: objects.to_owned(),
            ..Setup::default()
        },
    );
    let ask = |stop: std::time::Instant| {
        let mut raw = front.connect();
        let (mut good, mut refused, mut slowest) = (0, 0, Duration::ZERO);
        while std::time::Instant::now() < stop {
            let begun = std::time::Instant::now();
            match raw.get("app.local", "/").status {
                200 => {
                    good += 1;
                    slowest = slowest.max(begun.elapsed());
                }
                503 => {
                    refused += 1;
                    thread::sleep(Duration::from_millis(5));
                }
                other => panic!("status {other}"),
            }
        }
        (good, refused, slowest)
    };
    let stop = std::time::Instant::now() + Duration::from_secs(4);
    let all: Vec<_> = thread::scope(|scope| {
        let asking: Vec<_> = (0..40).map(|_| scope.spawn(|| ask(stop))).collect();
        asking
            .into_iter()
            .map(|one| one.join().expect("it ends"))
            .collect()
    });
    let good: u32 = all.iter().map(|(good, ..)| good).sum();
    let refused: u32 = all.iter().map(|(_, refused, _)| refused).sum();
    let slowest = all
        .iter()
        .map(|(.., slowest)| *slowest)
        .max()
        .expect("some");
    // Without a limit 40 at once would each wait for 800 ms.
    assert!(
        good >= 100 && refused > good,
        "{good} answered, {refused} refused"
    );
    assert!(
        slowest < Duration::from_millis(700),
        "the slowest took {slowest:?}"
    );
}

/// Answers requests on a connection, each in its turn.
fn serve(mut stream: std::net::TcpStream, turn: &std::sync::Mutex<()>) {
    use std::io::{Read as _, Write as _};
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).is_ok_and(|n| n > 0) {
        let turn = turn.lock().expect("nobody panics with it");
        thread::sleep(Duration::from_millis(20));
        drop(turn);
        if stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .is_err()
        {
            return;
        }
    }
}

#[test]
fn the_last_good_answer_is_given_where_there_is_none() {
    let upstream = Upstream::start(|n| {
        let answer = |status, vary| {
            let fields = [
                ("vary", "accept-language"),
                ("x-what", vary),
                ("connection", "close"),
            ];
            let mut steps = Step::answer_with(status, &fields, "the list");
            steps.pop();
            steps
        };
        match n {
            // Whoever asks whether the proxy is ready, and then one who does for good.
            0 | 1 => answer(200, "fresh"),
            _ => answer(500, "broken"),
        }
    });
    let front = front(
        &upstream,
        "retries: {attempts: 0}, outlierDetection: {maxEjectionPercent: 0}, fallback: {on: [\"5xx\"], cache: {maxAge: 1h}}",
    );
    let ask = |language: &str, path: &str| {
        let mut raw = front.connect();
        raw.request(format!(
            "GET {path} HTTP/1.1\r\nHost: app.local\r\nAccept-Language: {language}\r\n\r\n"
        ))
    };
    let fresh = ask("de", "/list");
    assert_eq!((fresh.status, fresh.header("age")), (200, None));
    let kept = ask("de", "/list");
    assert_eq!((kept.status, kept.text()), (200, "the list".to_owned()));
    assert_eq!(kept.header("x-what"), Some("fresh"));
    assert_eq!(kept.header("age"), Some("0"));
    let why = kept.header("proxy-status").unwrap_or_default();
    assert!(
        why.contains("fallback: status 500, an answer of 0 s ago"),
        "{why}"
    );
    // Not for another language, nor for another page.
    for (language, path) in [("en", "/list"), ("de", "/list?page=2")] {
        let other = ask(language, path);
        assert_eq!(
            (other.status, other.header("x-what")),
            (500, Some("broken"))
        );
    }
}
