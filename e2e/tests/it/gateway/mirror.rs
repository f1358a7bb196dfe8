//! Copies of requests, as Gateway API's conformance tests ask (HTTPRouteRequestMirror,
//! ...MultipleMirrors, ...PercentageMirror).

use super::*;

/// A proxy whose one rule leads to `live` and has these mirrors.
fn start(name: &str, services: &[(&str, u16)], mirrors: &[&str]) -> (Static, u16) {
    let port = free_port();
    let filters: Vec<String> = mirrors
        .iter()
        .map(|mirror| format!(", {{type: RequestMirror, requestMirror: {mirror}}}"))
        .collect();
    let filters = filters.concat();
    let route = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r, namespace: shop}}\nspec:\n  parentRefs: [{{name: web}}]\n  rules:\n  - filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: x-added, value: \"1\"}}]}}}}{filters}]\n    backendRefs: [{{name: live, port: 80}}]\n"
    );
    let mut text = http_listener(port);
    for (name, endpoint) in services {
        text.push_str(&service(name, "http", *endpoint));
    }
    text.push_str(&route);
    (Static::start(name, &[("all.yaml", text)], port), port)
}

fn server() -> Upstream {
    Upstream::start(|_| Step::answer("ok"))
}

/// What came on all connections.
fn received(server: &Upstream) -> String {
    (0..server.connections())
        .map(|at| server.received_text(at))
        .collect()
}

fn wait_for_requests(server: &Upstream, count: usize) {
    testkit::wait_for("the copies to arrive", SOON, || {
        (server.requests() >= count).then_some(())
    });
}

#[test]
fn copies_go_where_the_rule_says_and_only_the_original_is_answered() {
    let (live, one, other) = (server(), server(), server());
    let (_proxy, port) = start(
        "mirror",
        &[
            ("live", live.port()),
            ("one", one.port()),
            ("other", other.port()),
        ],
        &[
            "{backendRef: {name: one, port: 80}}",
            "{backendRef: {name: other, port: 80}}",
        ],
    );
    let mut raw = Raw::connect(("127.0.0.1", port)).unwrap();
    assert_eq!(raw.get("a", "/first?x=1").text(), "ok");
    let long = "y".repeat(100_000);
    let post = format!(
        "POST /second HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n5\r\nhello\r\n{:x}\r\n{long}\r\n0\r\nx-sum: 7\r\n\r\n",
        long.len()
    );
    assert_eq!(raw.request(post).text(), "ok");
    for server in [&live, &one, &other] {
        wait_for_requests(server, 2);
        let text = received(server);
        for part in [
            "GET /first?x=1 HTTP/1.1\r\n",
            "POST /second HTTP/1.1\r\n",
            "x-added: 1\r\n",
            "Host: a\r\n",
            "hello",
            "x-sum: 7",
        ] {
            assert!(text.contains(part), "{part}: {text:.2000}");
        }
        assert!(text.matches('y').count() >= 100_000);
    }
}

#[test]
fn a_share_of_the_requests_is_copied() {
    let (live, half, never) = (server(), server(), server());
    let (_proxy, port) = start(
        "mirror-share",
        &[
            ("live", live.port()),
            ("half", half.port()),
            ("never", never.port()),
        ],
        &[
            "{backendRef: {name: half, port: 80}, fraction: {numerator: 1, denominator: 2}}",
            "{backendRef: {name: never, port: 80}, percent: 0}",
        ],
    );
    let mut raw = Raw::connect(("127.0.0.1", port)).unwrap();
    for _ in 0..400 {
        assert_eq!(raw.get("a", "/").text(), "ok");
    }
    // Outside of these bounds once in a billion runs.
    wait_for_requests(&half, 140);
    assert!(half.requests() <= 260, "{}", half.requests());
    assert_eq!((live.requests(), never.requests()), (400, 0));
}

#[test]
fn a_copy_that_fails_or_hangs_disturbs_nobody() {
    let live = server();
    let stalled = Upstream::start(|_| vec![Step::Stall]);
    let (proxy, port) = start(
        "mirror-broken",
        &[
            ("live", live.port()),
            ("stalled", stalled.port()),
            ("closed", free_port()),
        ],
        &[
            "{backendRef: {name: stalled, port: 80}}",
            "{backendRef: {name: closed, port: 80}}",
            "{backendRef: {name: missing, port: 80}}",
        ],
    );
    let mut raw = Raw::connect(("127.0.0.1", port)).unwrap();
    // More than sockets and the proxy hold for the endpoint that reads nothing.
    let body = "z".repeat(16 << 20);
    let post = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(raw.request(post).text(), "ok");
    testkit::wait_for("the copies to be logged", SOON, || {
        let log = proxy.proxy.stdout();
        let slow = log.contains("its endpoint takes the body too slowly");
        (slow && log.contains("connect_refused")).then_some(())
    });
    assert_eq!(raw.get("a", "/").text(), "ok");
}
