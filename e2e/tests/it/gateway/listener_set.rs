//! `ListenerSet`s (GEP-1713) at a running proxy: their listeners come and go without touching those
//! of others, and routes are attached to the listeners of the parent that they name.

use super::*;

/// The Gateway `web` with one listener for gateway.com.
fn open_gateway(port: u16) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: web, namespace: shop}}\nspec:\n  gatewayClassName: tulle\n  allowedListeners: {{namespaces: {{from: All}}}}\n  listeners: [{{name: http, port: {port}, protocol: HTTP, hostname: gateway.com}}]\n---\n"
    )
}

/// A set of the Gateway `web`, with listeners in YAML's flow style.
fn set(name: &str, listeners: &[String]) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: ListenerSet\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{parentRef: {{name: web}}, listeners: [{}]}}\n---\n",
        listeners.join(", ")
    )
}

/// A route of all requests to a Service, attached to these parents.
fn route_of(name: &str, parents: &str, service: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{parentRefs: [{parents}], rules: [{{backendRefs: [{{name: {service}, port: 80}}]}}]}}\n---\n"
    )
}

fn set_ref(name: &str) -> String {
    format!("{{group: gateway.networking.k8s.io, kind: ListenerSet, name: {name}}}")
}

#[test]
fn a_set_adds_listeners_to_a_port_and_takes_them_away_again() {
    let [own, more] = ["own", "more"].map(|body| Upstream::start(move |_| Step::answer(body)));
    let (shared, extra) = (free_port(), free_port());
    // Both have a listener called `http`.
    let listeners = [
        format!("{{name: http, port: {shared}, protocol: HTTP, hostname: set.com}}"),
        format!("{{name: extra, port: {extra}, protocol: HTTP}}"),
    ];
    let rest = [
        open_gateway(shared),
        service("own", "http", own.port()),
        service("more", "http", more.port()),
        route_of("own", "{name: web}", "own"),
        route_of("more", &set_ref("more"), "more"),
    ]
    .concat();
    let proxy = Static::start("set", &[("rest.yaml", rest)], shared);
    let mut kept = Raw::connect(("127.0.0.1", shared)).unwrap();
    assert_eq!(kept.get("gateway.com", "/").text(), "own");
    assert_eq!(get(shared, "set.com").0, 404);

    proxy.write("set.yaml", &set("more", &listeners));
    testkit::wait_for("the set's own port", SOON, || {
        Raw::connect(("127.0.0.1", extra)).ok()
    });
    assert_eq!(get(extra, "whatever").1, "more");
    assert_eq!(get(shared, "set.com").1, "more");
    assert_eq!(kept.get("gateway.com", "/").text(), "own");
    // The Gateway's route is not the set's.
    assert_eq!(get(shared, "gateway.com").1, "own");

    proxy.write("set.yaml", &set("more", &listeners[..1]));
    testkit::wait_for("the set's own port to close", SOON, || {
        Raw::connect(("127.0.0.1", extra)).is_err().then_some(())
    });
    assert_eq!(get(shared, "set.com").1, "more");
    assert_eq!(kept.get("gateway.com", "/").text(), "own");
}

#[test]
fn a_set_that_loses_to_another_serves_when_that_is_gone() {
    let [first, second] = ["first", "second"].map(|b| Upstream::start(move |_| Step::answer(b)));
    let port = free_port();
    let listener = [format!(
        "{{name: both, port: {port}, protocol: HTTP, hostname: set.com}}"
    )];
    let rest = [
        open_gateway(port),
        service("first", "http", first.port()),
        service("second", "http", second.port()),
        route_of("first", &set_ref("a-first"), "first"),
        route_of("second", &set_ref("b-second"), "second"),
        set("b-second", &listener),
    ]
    .concat();
    let files = [
        ("rest.yaml", rest),
        ("first.yaml", set("a-first", &listener)),
    ];
    let proxy = Static::start("set-conflict", &files, port);
    assert_eq!(get(port, "set.com").1, "first");
    proxy.write("first.yaml", "");
    testkit::wait_for("the other set", SOON, || {
        (get(port, "set.com").1 == "second").then_some(())
    });
}
