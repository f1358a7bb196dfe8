//! Cases of what a route is for: a Service, one of its ports, the clients of one namespace.

use super::*;

/// A route that marks the answers of what it is for.
fn marking(metadata: &str, parent: &str, mark: &str, backend: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{{metadata}}}\nspec:\n  \
         parentRefs: [{{group: \"\", kind: Service, {parent}}}]\n  rules:\n  \
         - filters: [{{type: ResponseHeaderModifier, responseHeaderModifier: {{set: [{{name: X-Header-Set, value: {mark}}}]}}}}]\n    \
         backendRefs: [{{{backend}, port: 80}}]\n---\n"
    )
}

const V1: &str = "{app: echo, version: v1}";
const V2: &str = "{app: echo, version: v2}";

pub(super) fn objects() -> String {
    [
        frontend("basic"),
        case("simple", "  - backendRefs: [{name: echo-v1, port: 8080}]"),
        frontend("split"),
        route(
            "HTTPRoute",
            "split",
            None,
            "  - matches: [{path: {type: Exact, value: /v1}}]
    backendRefs: [{name: echo-v1, port: 80}]
  - matches: [{path: {type: Exact, value: /v2}}]
    backendRefs: [{name: echo-v2, port: 80}]",
        ),
        service("routed", V2),
        marking("name: routed", "name: routed", "set", "name: routed"),
        service("unrouted", V1),
        service("one-port", V1),
        marking(
            "name: one-port",
            "name: one-port, port: 80",
            "v1",
            "name: one-port",
        ),
        service("all-ports", V2),
        marking(
            "name: all-ports",
            "name: all-ports",
            "v2",
            "name: all-ports",
        ),
        service("consumed", V1),
        marking(
            "name: consumed, namespace: consumer",
            "name: consumed, namespace: default",
            "set",
            "name: consumed, namespace: default",
        ),
    ]
    .concat()
}

pub(super) fn mesh_basic(mode: Mode) {
    world(mode).check("basic", &[get("/")]);
}

pub(super) fn mesh_http_route_simple_same_namespace(mode: Mode) {
    world(mode).check("simple", &[get("/").by("v1")]);
}

pub(super) fn mesh_traffic_split(mode: Mode) {
    world(mode).check("split", &[get("/v1").by("v1"), get("/v2").by("v2")]);
}

pub(super) fn mesh_frontend(mode: Mode) {
    let world = world(mode);
    world.check("routed", &[get("/").by("v2").gets("x-header-set", "set")]);
    // The workload itself, where no Service was asked for.
    let workload = world.mesh.workload("echo-v2").expect("it is known");
    let port = workload["ports"][0].as_u64();
    let host = format!(
        "{}:{}",
        workload["address"].as_str().expect("an address"),
        port.expect("a port")
    );
    world.check(&host, &[get("/").by("v2").misses("x-header-set")]);
}

/// Matching by the Service's address, whatever the `Host`. An explicit proxy is asked by URL, which
/// counts for the `Host` there (RFC 9112 3.2.2).
pub(super) fn mesh_frontend_hostname(mode: Mode) {
    let world = world(mode);
    let send = |to: &str, host: &str| {
        let client = &world.client;
        let head = client
            .head("GET", to, "/")
            .replace(&format!("Host: {to}\r\n"), &format!("Host: {host}\r\n"));
        let response = client.connect(to).request(format!("{head}\r\n"));
        let header = |name| response.header(name).map(str::to_owned);
        (
            response.status,
            header("x-served-by"),
            header("x-header-set"),
        )
    };
    let served = |by: &str, mark: Option<&str>| (200, Some(by.to_owned()), mark.map(str::to_owned));
    assert_eq!(send("routed", "unrouted"), served("v2", Some("set")));
    assert_eq!(send("unrouted", "routed"), served("v1", None));
}

pub(super) fn mesh_ports(mode: Mode) {
    let marked = |value| get("/").gets("x-header-set", value);
    let world = world(mode);
    world.check("one-port", &[marked("v1").by("v1")]);
    world.check("one-port:8080", &[get("/").by("v1").misses("x-header-set")]);
    world.check("all-ports", &[marked("v2").by("v2")]);
    world.check("all-ports:8080", &[marked("v2").by("v2")]);
}

pub(super) fn mesh_consumer_route(mode: Mode) {
    let world = world(mode);
    let host = "consumed.default";
    let marked = get("/").by("v1").gets("x-header-set", "set");
    super::check_from(&world.consumer, host, &[marked]);
    world.check(host, &[get("/").by("v1").misses("x-header-set")]);
    let path = "/api/v1/resources/httproutes/consumer/consumed";
    let route = world.mesh.api("GET", path, "");
    let conditions = &route["status"]["parents"][0]["conditions"];
    for kind in ["Accepted", "ResolvedRefs"] {
        let mut all = conditions.as_array().into_iter().flatten();
        let found = all.find(|c| c["type"] == kind);
        assert!(found.is_some_and(|c| c["status"] == "True"), "{route}");
    }
}
