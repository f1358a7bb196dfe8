//! What keeps requests alive when endpoints are slow or fail, and what keeps endpoints alive.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use testkit::upstream::Step;

use crate::mesh::{Mesh, SOON, Workload, timed};
use crate::routing::reason;

/// A `TrafficPolicy` of a service.
fn policy(service: &str, settings: &str) -> String {
    format!(
        "{{apiVersion: tulle.dev/v1alpha1, kind: TrafficPolicy, metadata: {{name: {service}}}, spec: \
         {{targetRefs: [{{group: \"\", kind: Service, name: {service}}}], {settings}}}}}"
    )
}

fn named(name: &'static str) -> impl Fn(usize) -> Vec<Step> + Send + 'static {
    move |_| Step::answer(name)
}

/// Milliseconds since 1970.
fn millis(moment: SystemTime) -> u128 {
    let since = moment.duration_since(SystemTime::UNIX_EPOCH);
    since.expect("after 1970").as_millis()
}

#[test]
fn a_deadline_goes_with_the_request_and_holds_everywhere() {
    let mesh = Mesh::start();
    let slow = mesh.server("slow", "/http", |_| vec![Step::ReadRequest, Step::Stall]);
    let echo = mesh.server("echo", "/http", named("echo"));
    let client = mesh.client();
    let soon = millis(SystemTime::now() + Duration::from_millis(400));
    let headers = format!("X-Request-Deadline: {soon}\r\n");
    let (response, taken) = timed(|| client.request("GET", "slow", "/", &headers, ""));
    assert_eq!(
        (response.status, reason(&response)),
        (504, "request_timeout".into())
    );
    assert!(taken < SOON, "{taken:?}");
    let seen = slow.upstream.received_text(0).to_lowercase();
    assert!(seen.contains(&headers.to_lowercase()), "{seen}");

    let response = client.request("GET", "echo", "/", "X-Request-Deadline: 1000\r\n", "");
    assert_eq!(reason(&response), "request_timeout");
    assert!(response.text().contains("was over"), "{response:?}");
    assert_eq!(echo.upstream.requests(), 0, "nobody waits for the answer");

    mesh.apply(&policy("echo", "timeouts: {request: 5s}"));
    let before = millis(SystemTime::now());
    testkit::wait_for("the policy's limit as a deadline", SOON, || {
        assert_eq!(client.get("echo", "/").status, 200);
        let seen = echo.upstream.received_text(echo.upstream.connections() - 1);
        let (_, last) = seen.rsplit_once("x-request-deadline: ")?;
        let deadline: u128 = last.lines().next()?.parse().expect("milliseconds");
        let limit = before + 4_900..=before + 5_000 + SOON.as_millis();
        assert!(limit.contains(&deadline), "{deadline} after {before}");
        Some(())
    });
}

#[test]
fn a_server_that_asks_for_time_gets_it_before_the_next_try() {
    let mesh = Mesh::start();
    let busy = mesh.server("busy", "/http", |n| {
        let close = ("connection", "close");
        let mut steps = match n {
            0 => Step::answer_with(503, &[("retry-after", "1"), close], "x"),
            1 => Step::answer_with(200, &[close], "x"),
            _ => Step::answer_with(503, &[("retry-after", "60"), close], "x"),
        };
        steps.pop();
        steps
    });
    mesh.apply(&policy("busy", "retries: {attempts: 3, on: [\"503\"]}"));
    let client = mesh.client();
    let (response, taken) = timed(|| client.get("busy", "/"));
    assert_eq!(response.status, 200);
    assert!(taken >= Duration::from_secs(1), "{taken:?}");
    assert_eq!(busy.upstream.requests(), 2);
    let (response, taken) = timed(|| client.get("busy", "/"));
    assert_eq!(
        (response.status, response.header("retry-after")),
        (503, Some("60"))
    );
    assert!(taken < SOON, "the client is told instead: {taken:?}");
    assert_eq!(busy.upstream.requests(), 3);
}

#[test]
fn a_request_without_an_answer_is_sent_to_another_endpoint_as_well() {
    let mesh = Mesh::start();
    let silent = mesh.instance("pair", "silent", "/http", &[], |_| {
        vec![Step::ReadRequest, Step::Stall]
    });
    let quick = mesh.instance("pair", "quick", "/http", &[], named("quick"));
    mesh.apply(&policy(
        "pair",
        "loadBalancer: {algorithm: RoundRobin}, hedging: {delay: 50ms}, timeouts: {request: 20s}",
    ));
    let client = mesh.client();
    // Every other request goes to the silent one first.
    for _ in 0..6 {
        let (response, taken) = timed(|| client.get("pair", "/"));
        assert_eq!((response.status, response.text()), (200, "quick".into()));
        assert!(taken < SOON, "{taken:?}");
    }
    let asked = silent.upstream.requests();
    assert!(asked >= 2, "the silent one was asked {asked} times");
    testkit::wait_for("two tries of one request in the access log", SOON, || {
        let lines = client.access_log();
        let mut hedged = lines.iter().filter(|l| l["attempts"] == 2);
        hedged
            .any(|l| l["destination_workload"] == "quick" && l["status"] == 200)
            .then_some(())
    });
    // What may have an effect is sent once, to whom it was sent.
    let total = || silent.upstream.requests() + quick.upstream.requests();
    let mut unanswered = testkit::wait_for("an order to the silent one", SOON, || {
        let (before, all) = (silent.upstream.requests(), total());
        let mut raw = client.connect("pair");
        raw.send(client.text("POST", "pair", "/", "", "an order"))
            .unwrap();
        testkit::wait_for("the order", SOON, || (total() > all).then_some(()));
        (silent.upstream.requests() > before).then_some(raw)
    });
    let all = total();
    let answer = unanswered.response(Duration::from_millis(300));
    assert!(answer.is_err(), "{answer:?}");
    assert_eq!(total(), all);
}

/// A server of which every tenth answer is good, or nine of ten.
fn often(good: usize) -> impl Fn(usize) -> Vec<Step> + Send + 'static {
    move |n| {
        let status = if (n * 7) % 10 < good { 200 } else { 500 };
        let mut steps = Step::answer_with(status, &[("connection", "close")], "x");
        steps.pop();
        steps
    }
}

#[test]
fn an_endpoint_that_fails_more_often_than_the_others_is_left_alone() {
    let mesh = Mesh::start();
    let bad = mesh.instance("four", "bad", "/http", &[], often(2));
    let _good: Vec<_> = ["a", "b", "c"]
        .iter()
        .map(|name| mesh.instance("four", name, "/http", &[], often(9)))
        .collect();
    mesh.apply(&policy(
        "four",
        "loadBalancer: {algorithm: RoundRobin}, retries: {attempts: 0}, outlierDetection: \
         {consecutive5xx: 0, consecutiveGatewayErrors: 0, interval: 200ms, baseEjectionTime: 60s, \
         successRate: {minimumHosts: 4, minimumRequests: 10, stdevFactor: 1.5}}",
    ));
    let client = mesh.client();
    testkit::wait_for("the bad one to be left alone", SOON * 2, || {
        for _ in 0..60 {
            client.get("four", "/");
        }
        let before = bad.upstream.requests();
        for _ in 0..12 {
            client.get("four", "/");
        }
        (bad.upstream.requests() == before).then_some(())
    });
}

#[test]
fn another_service_answers_where_one_fails_and_else_always_the_same() {
    let mesh = Mesh::start();
    let status = |status: u16| {
        move |_| {
            let mut steps = Step::answer_with(status, &[("connection", "close")], "x");
            steps.pop();
            steps
        }
    };
    let _broken = mesh.server("broken", "/http", status(500));
    let lite = mesh.server("lite", "/http", named("lite"));
    let _poor = mesh.server("poor", "/http", status(503));
    let _silent = mesh.server("silent", "/http", |_| vec![Step::ReadRequest, Step::Stall]);
    mesh.apply(&policy(
        "broken",
        "fallback: {on: [\"5xx\"], backendRef: {name: lite, port: 80}}",
    ));
    mesh.apply(&policy(
        "silent",
        "timeouts: {request: 200ms}, fallback: {on: [timeout], backendRef: {name: poor, port: 80}, \
         response: {status: 203, headers: {content-type: application/json}, body: \"[]\"}}",
    ));
    mesh.apply(&policy(
        "poor",
        "fallback: {on: [\"5xx\"], backendRef: {name: lite, port: 80}}",
    ));
    let client = mesh.client();
    let response = client.request("POST", "broken", "/", "", "the body");
    assert_eq!((response.status, response.text()), (200, "lite".into()));
    let why = response.header("proxy-status");
    assert_eq!(why, Some("tulle; details=\"fallback: status 500\""));
    assert!(lite.upstream.received_text(0).ends_with("the body"));

    // A chain: of the silent one to the poor one to the light one.
    let response = client.get("silent", "/");
    assert_eq!((response.status, response.text()), (200, "lite".into()));
    let why = response.header("proxy-status");
    assert_eq!(why, Some("tulle; details=\"fallback: request_timeout\""));

    drop(lite);
    let response = client.until("the answer that needs nobody", "silent", "/", |response| {
        response.status == 203
    });
    assert_eq!(
        (response.text().as_str(), response.header("content-type")),
        ("[]", Some("application/json"))
    );
    // Each request tries the service itself first.
    mesh.apply(&policy("silent", "timeouts: {request: 200ms}"));
    client.until("the failure itself", "silent", "/", |response| {
        response.status == 504
    });
}

/// Waits until a dozen requests in a row are answered as wanted.
fn settled(client: &Workload, service: &str, what: &str, wanted: impl Fn(&str) -> bool) {
    testkit::wait_for(what, SOON, || {
        let fine = |_| {
            let response = client.get(service, "/");
            response.status == 200 && wanted(&response.text())
        };
        (0..12).all(fine).then_some(())
    });
}

/// Nothing else that could keep requests from an endpoint that fails.
const NOTHING_ELSE: &str = "loadBalancer: {algorithm: RoundRobin}, retries: {attempts: 0}, outlierDetection: {maxEjectionPercent: 0}";

#[test]
fn an_endpoint_that_fails_its_health_check_gets_no_requests() {
    let mesh = Mesh::start();
    let sick = Arc::new(AtomicBool::new(true));
    let state = Arc::clone(&sick);
    let ill = mesh.instance("duo", "ill", "/http", &[], move |_| {
        let status = if state.load(Ordering::Relaxed) {
            503
        } else {
            200
        };
        let mut steps = Step::answer_with(status, &[("connection", "close")], "ill");
        steps.pop();
        steps
    });
    let _well = mesh.instance("duo", "well", "/http", &[], named("well"));
    mesh.apply(&policy(
        "duo",
        &format!(
            "{NOTHING_ELSE}, healthCheck: {{http: {{path: \"/healthz?deep=1\"}}, interval: 100ms, \
             timeout: 10s, healthyThreshold: 2, unhealthyThreshold: 2}}"
        ),
    ));
    let client = mesh.client();
    settled(&client, "duo", "the ill one to be left alone", |who| {
        who == "well"
    });
    let received = (0..ill.upstream.connections()).map(|n| ill.upstream.received_text(n));
    let mut checks = received.filter(|seen| seen.starts_with("GET /healthz?deep=1 HTTP/1.1\r\n"));
    let seen = checks.next().expect("a check among what it was asked");
    let seen = seen.to_lowercase();
    assert!(
        seen.contains("host: duo.default.svc.cluster.local\r\n"),
        "{seen}"
    );
    assert!(
        seen.contains("user-agent: tulle-health-check/1\r\n"),
        "{seen}"
    );
    assert!(client.metric("tulle_health_check_failures_total", &[]) >= 2.0);
    let dump = client.page("admin", "/config_dump");
    assert!(dump.contains("\"health\": \"Unhealthy\""), "{dump}");

    sick.store(false, Ordering::Relaxed);
    client.until("the one that is well again", "duo", "/", |response| {
        response.text() == "ill"
    });
    settled(&client, "duo", "both to answer", |_| true);
}

#[test]
fn an_endpoint_that_takes_no_connection_fails_its_health_check() {
    let mesh = Mesh::start();
    let gone = mesh.instance("duo", "gone", "/http", &[], named("gone"));
    let _there = mesh.instance("duo", "there", "/http", &[], named("there"));
    mesh.apply(&policy(
        "duo",
        &format!(
            "{NOTHING_ELSE}, healthCheck: {{tcp: {{}}, interval: 100ms, unhealthyThreshold: 1}}"
        ),
    ));
    let client = mesh.client();
    client.until("both", "duo", "/", |response| response.text() == "gone");
    // The proxy beside it goes on: only the program is away.
    drop(gone.upstream);
    settled(
        &client,
        "duo",
        "the one without a program to be left alone",
        |who| who == "there",
    );
}
