//! Routes, retries and timeouts, and what the proxy says when it cannot deliver.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::Duration;

use testkit::raw::{Raw, Response};
use testkit::upstream::{Step, Upstream};

use crate::mesh::{Mesh, Mode, SOON, Workload, forward, in_both_modes, timed};

in_both_modes!(routes_choose_by_path_header_query_and_method);

/// A service of its own for routes to be attached to.
const SHOP: &str = "
apiVersion: v1
kind: Service
metadata: {name: shop}
spec: {selector: {app: shop}, ports: [{port: 80, appProtocol: http}]}
---
";

/// An HTTPRoute of the shop with these rules.
pub(crate) fn shop_route(rules: &str) -> String {
    format!(
        "{SHOP}
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: shop}}
spec:
  parentRefs: [{{group: \"\", kind: Service, name: shop}}]
  rules:
{rules}"
    )
}

/// A server that answers with its own name.
fn named(name: &'static str) -> impl Fn(usize) -> Vec<Step> + Send + 'static {
    move |_| Step::answer(name)
}

/// The reason that a response of the proxy gives, after checking its form.
#[track_caller]
pub(crate) fn reason(response: &Response) -> String {
    let status = response.header("proxy-status");
    let status = status.unwrap_or_else(|| panic!("no Proxy-Status: {response:?}"));
    let rest = status.strip_prefix("tulle; error=").expect("RFC 9209");
    let (_, details) = rest.split_once("; details=\"").expect("details");
    let (reason, _) = details
        .split_once(": ")
        .expect("a reason and what happened");
    assert!(
        response.text().contains(reason),
        "the body explains it as well: {response:?}"
    );
    reason.to_owned()
}

fn routes_choose_by_path_header_query_and_method(mode: Mode) {
    let mesh = Mesh::start_in(mode);
    let _a = mesh.server("a", "/http", named("a"));
    let _b = mesh.server("b", "/http", named("b"));
    mesh.apply(&shop_route(
        "
    - matches: [{path: {type: Exact, value: /exact}}]
      backendRefs: [{name: b, port: 80}]
    - matches: [{path: {type: PathPrefix, value: /prefix}}]
      backendRefs: [{name: b, port: 80}]
    - matches: [{headers: [{name: x-tester, value: \"yes\"}]}]
      backendRefs: [{name: b, port: 80}]
    - matches: [{queryParams: [{name: version, value: \"2\"}]}]
      backendRefs: [{name: b, port: 80}]
    - matches: [{path: {value: /by-method}, method: DELETE}]
      backendRefs: [{name: b, port: 80}]
    - matches: [{path: {value: /}}]
      backendRefs: [{name: a, port: 80}]
",
    ));
    let client = mesh.client();
    for (method, path, headers, wanted) in [
        ("GET", "/", "", "a"),
        ("GET", "/exact", "", "b"),
        ("GET", "/exact/not", "", "a"),
        ("GET", "/prefix", "", "b"),
        ("GET", "/prefix/below", "", "b"),
        ("GET", "/prefixed", "", "a"),
        ("GET", "/x/../exact", "", "b"),
        ("GET", "/any", "X-Tester: yes\r\n", "b"),
        ("GET", "/any", "X-Tester: no\r\n", "a"),
        ("GET", "/any?a=1&version=2", "", "b"),
        ("GET", "/any?version=3", "", "a"),
        ("DELETE", "/by-method", "", "b"),
        ("GET", "/by-method", "", "a"),
    ] {
        let response = client.request(method, "shop", path, headers, "");
        let answered = (response.status, response.text());
        assert_eq!(
            answered,
            (200, wanted.to_owned()),
            "{method} {path} {headers}"
        );
    }
}

/// A `ServiceImport` is another service than the Service of its name, with a route and endpoints of
/// its own.
#[test]
fn a_service_of_several_clusters_is_asked_for_by_a_host_of_its_own() {
    let mesh = Mesh::start();
    let _own = mesh.server("cart", "/http", named("own"));
    let elsewhere = Upstream::start(named("elsewhere"));
    let port = elsewhere.port();
    mesh.apply(&format!(
        "
apiVersion: multicluster.x-k8s.io/v1alpha1
kind: ServiceImport
metadata: {{name: cart}}
spec: {{type: ClusterSetIP, ports: [{{name: http, port: 80, appProtocol: http}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: cart-east, labels: {{multicluster.kubernetes.io/service-name: cart}}}}
addressType: IPv4
ports: [{{name: http, port: {port}}}]
endpoints: [{{addresses: [127.0.0.1]}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: cart}}
spec:
  parentRefs: [{{group: multicluster.x-k8s.io, kind: ServiceImport, name: cart}}]
  rules:
    - filters: [{{type: ResponseHeaderModifier, responseHeaderModifier: {{set: [{{name: x-routed, value: \"yes\"}}]}}}}]
      backendRefs: [{{group: multicluster.x-k8s.io, kind: ServiceImport, name: cart, port: 80}}]
"
    ));
    let client = mesh.client();
    let response = client.get("cart.default.svc.clusterset.local", "/");
    assert_eq!(
        (response.text().as_str(), response.header("x-routed")),
        ("elsewhere", Some("yes"))
    );
    let response = client.get("cart.default.svc.cluster.local", "/");
    assert_eq!(
        (response.text().as_str(), response.header("x-routed")),
        ("own", None)
    );
    let import = mesh.api("GET", "/api/v1/resources/serviceimports/default/cart", "");
    let ips = import["spec"]["ips"].as_array().map(Vec::len);
    assert_eq!(ips, Some(2), "addresses were chosen for it: {import}");
}

#[test]
fn filters_change_what_is_sent_and_what_comes_back() {
    let mesh = Mesh::start();
    let server = mesh.server("a", "/http", |_| {
        Step::answer_with(200, &[("x-internal", "secret"), ("x-old", "1")], "a")
    });
    mesh.apply(&shop_route(
        "
    - matches: [{path: {value: /old}}]
      filters:
        - {type: URLRewrite, urlRewrite: {hostname: inner.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}
        - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Set, value: \"2\"}], add: [{name: X-Add, value: b}], remove: [X-Gone]}}
        - {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-old, value: new}], add: [{name: x-by, value: tulle}], remove: [x-internal]}}
      backendRefs: [{name: a, port: 80}]
    - matches: [{path: {value: /moved}}]
      filters:
        - {type: RequestRedirect, requestRedirect: {scheme: https, hostname: shop.example, statusCode: 301, path: {type: ReplacePrefixMatch, replacePrefixMatch: /there}}}
",
    ));
    let client = mesh.client();
    let headers = "X-Set: 1\r\nX-Add: a\r\nX-Gone: 1\r\n";
    let response = client.request("GET", "shop", "/old/page?q=1", headers, "");
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(response.header("x-old"), Some("new"));
    assert_eq!(response.header("x-by"), Some("tulle"));
    assert_eq!(response.header("x-internal"), None);
    let request = server.upstream.received_text(0);
    let lower = request.to_lowercase();
    assert!(
        request.starts_with("GET /new/page?q=1 HTTP/1.1\r\n"),
        "{request}"
    );
    for part in [
        "host: inner.example\r\n",
        "x-set: 2\r\n",
        "x-add: a",
        "b\r\n",
    ] {
        assert!(lower.contains(part), "{part:?} in {request}");
    }
    assert!(!lower.contains("x-gone"), "{request}");

    let response = client.get("shop", "/moved/page?q=1");
    let there = Some("https://shop.example/there/page?q=1");
    assert_eq!((response.status, response.header("location")), (301, there));
}

#[test]
fn weights_divide_the_traffic() {
    let mesh = Mesh::start();
    let _a = mesh.server("a", "/http", named("a"));
    let _b = mesh.server("b", "/http", named("b"));
    mesh.apply(&shop_route(
        "    - backendRefs: [{name: a, port: 80, weight: 90}, {name: b, port: 80, weight: 10}, {name: a, port: 80, weight: 0}]",
    ));
    let client = mesh.client();
    let mut raw = client.connect("shop");
    let mut counts = BTreeMap::<String, u32>::new();
    for _ in 0..1000 {
        let response = raw.request(client.text("GET", "shop", "/", "", ""));
        *counts.entry(response.text()).or_default() += 1;
    }
    // Six standard deviations around 100.
    assert!((43..=157).contains(&counts["b"]), "{counts:?}");
    assert_eq!(counts["a"] + counts["b"], 1000);
}

#[test]
fn a_request_that_takes_too_long_is_ended_with_504() {
    let mesh = Mesh::start();
    let _slow = mesh.server("slow", "/http", |_| vec![Step::ReadRequest, Step::Stall]);
    let _late = mesh.server("late", "/http", |_| {
        vec![
            Step::ReadRequest,
            Step::send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
            Step::Stall,
        ]
    });
    mesh.apply(&shop_route(
        "
    - matches: [{path: {value: /late}}]
      timeouts: {request: 300ms}
      backendRefs: [{name: late, port: 80}]
    - timeouts: {request: 300ms}
      backendRefs: [{name: slow, port: 80}]
",
    ));
    let client = mesh.client();
    let (response, taken) = timed(|| client.get("shop", "/"));
    assert_eq!(
        (response.status, reason(&response)),
        (504, "request_timeout".into())
    );
    let limit = Duration::from_millis(300)..Duration::from_secs(3);
    assert!(limit.contains(&taken), "{taken:?}");

    // The head was passed on: all that is left is to end the connection.
    let mut raw = client.connect("shop");
    raw.send(client.text("GET", "shop", "/late", "", ""))
        .unwrap();
    let (bytes, _) = raw.read_to_end(Duration::from_secs(5));
    assert!(
        bytes.ends_with(b"half"),
        "{:?}",
        String::from_utf8_lossy(&bytes)
    );
}

/// Answers the first two requests with 503.
fn busy_twice(n: usize) -> Vec<Step> {
    let status = if n < 2 { 503 } else { 200 };
    let mut steps = Step::answer_with(status, &[("connection", "close")], "x");
    steps.pop();
    steps
}

#[test]
fn a_503_is_tried_again_where_the_route_says_so_and_the_method_allows_it() {
    let mesh = Mesh::start();
    let server = mesh.server("busy", "/http", busy_twice);
    let posts = mesh.server("posts", "/http", busy_twice);
    mesh.apply(&shop_route(
        "
    - matches: [{path: {value: /busy}}]
      retry: {codes: [503], attempts: 2, backoff: 10ms}
      backendRefs: [{name: busy, port: 80}]
    - matches: [{path: {value: /posts}}]
      retry: {codes: [503], attempts: 2, backoff: 10ms}
      backendRefs: [{name: posts, port: 80}]
",
    ));
    let client = mesh.client();
    assert_eq!(
        client
            .request("PUT", "shop", "/busy", "", "the body")
            .status,
        200
    );
    assert_eq!(server.upstream.requests(), 3);
    for n in 0..3 {
        assert!(server.upstream.received_text(n).ends_with("the body"));
    }
    let response = client.request("POST", "shop", "/posts", "", "an order");
    assert_eq!(
        (response.status, response.header("proxy-status")),
        (503, None)
    );
    assert_eq!(
        posts.upstream.requests(),
        1,
        "a POST may have had its effect"
    );
    assert_eq!(
        client.get("posts", "/").status,
        503,
        "without a route nothing is retried"
    );
}

#[test]
fn a_workload_that_refuses_connections_costs_no_request() {
    let mesh = Mesh::start();
    let _good = mesh.instance("pair", "good", "/http", &[], named("good"));
    let (_bad, listener) = mesh.bound("pair", "bad", "/http", &[]);
    mesh.wait_ready("bad");
    drop(listener);
    let client = mesh.client();
    for n in 0..30 {
        let method = if n % 2 == 0 { "GET" } else { "POST" };
        let response = client.request(method, "pair", "/", "", "");
        assert_eq!((response.status, response.text()), (200, "good".into()));
    }
}

#[test]
fn each_failure_has_its_status_and_reason() {
    let mesh = Mesh::start();
    let _silent = mesh.idle("silent", "silent", &["--port", "1/http"]);
    let (_closed, listener) = mesh.bound("closed", "closed", "/http", &[]);
    mesh.wait_ready("closed");
    drop(listener);
    let resetting = mesh.server("resetting", "/http", |_| {
        vec![Step::ReadRequest, Step::Reset]
    });
    mesh.apply(&shop_route(
        "    - matches: [{path: {value: /only}}]\n      backendRefs: [{name: silent, port: 80}]\n    - matches: [{path: {value: /empty}}]\n      backendRefs: [{name: shop, port: 80}]",
    ));
    let client = mesh.client();
    for (host, path, status, wanted) in [
        ("nothing", "/", 404, "no_route"),
        ("silent:99", "/", 404, "no_route"),
        ("shop", "/other", 404, "no_route"),
        ("shop", "/only", 503, "no_healthy_endpoints"),
        ("silent", "/", 503, "no_healthy_endpoints"),
        ("shop", "/empty", 503, "no_endpoints"),
        ("shop", "/a%zzb", 400, "bad_request"),
        ("closed", "/", 503, "connect_refused"),
    ] {
        let response = client.get(host, path);
        assert_eq!(
            (reason(&response).as_str(), response.status),
            (wanted, status),
            "{host}{path}"
        );
    }
    let response = client.request("POST", "resetting", "/", "", "order");
    assert_eq!(
        (response.status, reason(&response)),
        (502, "upstream_reset".into())
    );
    assert_eq!(
        resetting.upstream.requests(),
        1,
        "a POST may have had its effect"
    );
    let response = client.get("resetting", "/");
    assert_eq!(reason(&response), "upstream_reset");
    assert_eq!(
        resetting.upstream.requests(),
        4,
        "a GET is tried again twice"
    );
    testkit::wait_for("three tries in the access log", SOON, || {
        let lines = client.access_log();
        let mut tries = lines.iter().filter(|l| l["reason"] == "upstream_reset");
        tries.any(|l| l["attempts"] == 3).then_some(())
    });

    let mut raw = client.connect("shop");
    let response = raw.request("GET / HTTP/1.1\r\nHost: shop\r\nHost: silent\r\n\r\n");
    assert_eq!(
        (response.status, reason(&response)),
        (400, "bad_request".into())
    );

    mesh.apply(
        "{apiVersion: tulle.dev/v1alpha1, kind: TrafficPolicy, metadata: {name: resetting}, spec: \
         {targetRefs: [{group: \"\", kind: Service, name: resetting}], retries: {attempts: 0}}}",
    );
    testkit::wait_for("no more retries", SOON, || {
        let before = resetting.upstream.requests();
        assert_eq!(reason(&client.get("resetting", "/")), "upstream_reset");
        (resetting.upstream.requests() == before + 1).then_some(())
    });
}

#[test]
fn plain_text_to_a_strict_workload_is_refused_in_words() {
    let mesh = Mesh::start();
    let server = mesh.server("vault", "/http", named("vault"));
    let port = server.workload.proxy_port("tunnel");
    let response = Raw::connect(("127.0.0.1", port)).unwrap().get("vault", "/");
    assert_eq!(
        (response.status, reason(&response)),
        (403, "unauthenticated".into())
    );
    assert_eq!(server.upstream.connections(), 0);
}

/// Ends a workload without a farewell and lets another's proxy answer at its address.
fn reuse_address(gone: Workload, by: &Workload) {
    let port = gone.proxy_port("tunnel");
    let to = ([127, 0, 0, 1], by.proxy_port("tunnel")).into();
    drop(gone);
    let listener = testkit::wait_for("the port of the dead", SOON, || {
        TcpListener::bind(("127.0.0.1", port)).ok()
    });
    forward(listener, to);
}

#[test]
fn an_address_that_another_workload_has_taken_over_is_not_believed() {
    let mesh = Mesh::start();
    let other = mesh.server("other", "/http", named("other"));
    let bank = mesh.server("bank", "/http", named("bank"));
    let twin = mesh.instance("twin", "twin-1", "/http", &[], named("twin-1"));
    let second = mesh.instance("twin", "twin-2", "/http", &[], named("twin-2"));
    let client = mesh.client();
    assert_eq!(client.get("bank", "/").text(), "bank");
    // The applications outlive their proxies.
    let _kept: [Upstream; 2] = [bank.upstream, twin.upstream];

    reuse_address(bank.workload, &other.workload);
    let response = client.until("another's certificate", "bank", "/", |r| {
        assert_ne!(r.status, 200, "answered by {}", r.text());
        r.text().contains("identity")
    });
    assert_eq!(reason(&response), "retries_exhausted");
    assert!(
        response.text().contains("identity_mismatch"),
        "{response:?}"
    );
    assert_eq!(other.upstream.connections(), 0);

    // The same identity, but not the workload that is meant: it says so, and another is tried.
    reuse_address(twin.workload, &second.workload);
    for _ in 0..10 {
        let response = client.request("POST", "twin", "/", "", "");
        assert_eq!((response.status, response.text()), (200, "twin-2".into()));
    }
}
