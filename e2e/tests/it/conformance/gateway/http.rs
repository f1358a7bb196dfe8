//! Cases of HTTPRoutes.

use super::*;

pub(super) const CASES: &[&str] = &[
    "matching",
    "across",
    "hosts",
    "headers",
    "weight",
    "cross",
    "foreign",
    "granted",
    "exact",
    "intersection",
    "tls-only",
];

pub(super) fn listeners(ports: &Ports) -> String {
    let mut all = String::new();
    for case in [
        "matching", "across", "headers", "weight", "foreign", "granted", "exact",
    ] {
        all.push_str(&listener(case, ports[case], "HTTP", ""));
    }
    let host = |host: &str| format!(", hostname: \"{host}\"");
    for (section, case, name) in [
        ("hosts-1", "hosts", "bar.com"),
        ("hosts-2", "hosts", "foo.bar.com"),
        ("hosts-3", "hosts", "*.bar.com"),
        ("hosts-4", "hosts", "*.foo.com"),
        ("intersection-1", "intersection", "very.specific.com"),
        ("intersection-2", "intersection", "*.wildcard.io"),
        ("intersection-3", "intersection", "*.anotherwildcard.io"),
    ] {
        all.push_str(&listener(section, ports[case], "HTTP", &host(name)));
    }
    let everywhere = ", allowedRoutes: {namespaces: {from: All}}";
    all.push_str(&listener("cross", ports["cross"], "HTTP", everywhere));
    let kinds = ", tls: {mode: Passthrough}, allowedRoutes: {kinds: [{kind: TLSRoute}]}";
    all.push_str(&listener("tls-only", ports["tls-only"], "TLS", kinds));
    all
}

fn to(backend: &str) -> String {
    format!("  - backendRefs: [{{name: web-{backend}, port: 8080}}]")
}

/// A rule for requests that meet one of these matches.
fn rule(matches: &str, backend: &str) -> String {
    format!("  - matches: [{matches}]\n    backendRefs: [{{name: web-{backend}, port: 8080}}]\n")
}

/// A rule for requests below a path or with this version.
fn path_or_version(path: &str, version: &str, backend: &str) -> String {
    let matches = format!(
        "{{path: {{type: PathPrefix, value: {path}}}}}, {{headers: [{{name: version, value: {version}}}]}}"
    );
    rule(&matches, backend)
}

/// The part of a match about one header.
pub(super) fn header(name: &str, value: &str) -> String {
    format!("{{name: {name}, value: {value}}}")
}

/// The matches of the cases about headers, in the order of the suite's rules, and the backend of
/// each.
pub(super) fn header_rules() -> [(String, &'static str); 5] {
    let one = |name, value| format!("{{headers: [{}]}}", header(name, value));
    let both = format!(
        "{{headers: [{}, {}]}}",
        header("version", "two"),
        header("color", "orange")
    );
    let either = |a, b| format!("{}, {}", one("color", a), one("color", b));
    [
        (one("version", "one"), "v1"),
        (one("version", "two"), "v2"),
        (both, "v1"),
        (either("blue", "green"), "v1"),
        (either("red", "yellow"), "v2"),
    ]
}

pub(super) fn routes() -> String {
    let http = |name: &str, sections: &[&str], hosts: &str, rules: &str| {
        route("HTTPRoute", name, sections, hosts, rules)
    };
    let (v1, v2) = (
        path_or_version("/", "one", "v1"),
        path_or_version("/v2", "two", "v2"),
    );
    let headers: String = header_rules().iter().map(|(m, b)| rule(m, b)).collect();
    let exact = [
        rule("{path: {type: Exact, value: /one}}", "v1"),
        rule("{path: {type: Exact, value: /two}}", "v2"),
    ];
    let below = |path: &str, backend: &str| {
        rule(
            &format!("{{path: {{type: PathPrefix, value: {path}}}}}"),
            backend,
        )
    };
    let foreign = format!("  - backendRefs: [{{name: web-web, namespace: {OTHER}, port: 8080}}]");
    let whole = ["intersection-1", "intersection-2", "intersection-3"];
    [
        http("matching", &["matching"], "", &[v1.clone(), v2.clone()].concat()),
        http("part-1", &["across"], "example.com, example.net", &v1),
        http("part-2", &["across"], "example.com", &v2),
        http("hosts-1", &["hosts-1"], "", &to("v1")),
        http("hosts-2", &["hosts-2"], "", &to("v2")),
        http("hosts-3", &["hosts-3", "hosts-4"], "", &to("v3")),
        http("headers", &["headers"], "", &headers),
        http("weight", &["weight"], "", "  - backendRefs: [{name: web-v1, port: 8080, weight: 70}, {name: web-v2, port: 8080, weight: 30}, {name: web-v3, port: 8080, weight: 0}]"),
        http("backends/cross", &["cross"], "", &to("web")),
        http("foreign", &["foreign"], "", &foreign.replace("web-web", "web-closed")),
        service("web-closed", OTHER, "appProtocol: http", 1),
        http("granted", &["granted"], "", &foreign),
        grant("granted", "HTTPRoute", "web-web"),
        http("exact", &["exact"], "", &exact.concat()),
        http("specific-specific", &whole, "non.matching.com, \"*.nonmatchingwildcard.io\", very.specific.com", &below("/s1", "v1")),
        http("specific-wild", &whole, "non.matching.com, wildcard.io, foo.wildcard.io, bar.wildcard.io, foo.bar.wildcard.io", &below("/s2", "v2")),
        http("wild-specific", &whole, "non.matching.com, \"*.specific.com\"", &below("/s3", "v3")),
        http("wild-wild", &whole, "\"*.anotherwildcard.io\"", &below("/s4", "v1")),
        http("disjoint", &["intersection-1"], "specific.but.wrong.com, wildcard.io", &below("/s5", "v2")),
        http("disallowed-kind", &["tls-only"], "", &to("v1")),
    ]
    .concat()
}

#[test]
fn http_route_matching() {
    let world = world();
    world.assert_accepted("httproutes", "default/matching");
    world.check(
        "matching",
        &[
            get("/").by("v1"),
            get("/example").by("v1"),
            get("/").with("Version", "one").by("v1"),
            get("/v2").by("v2"),
            get("/v2/example").by("v2"),
            get("/").with("Version", "two").by("v2"),
            get("/v2/").by("v2"),
            get("/v2example").by("v1"),
            get("/foo/v2/example").by("v1"),
        ],
    );
}

#[test]
fn http_route_matching_across_routes() {
    let world = world();
    for part in ["default/part-1", "default/part-2"] {
        world.assert_accepted("httproutes", part);
    }
    let com = |path| get(path).host("example.com");
    let net = |path| get(path).host("example.net");
    world.check(
        "across",
        &[
            com("/").by("v1"),
            com("/example").by("v1"),
            net("/example").by("v1"),
            com("/example").with("Version", "one").by("v1"),
            com("/v2").by("v2"),
            // The second route is for example.com alone.
            net("/v2").by("v1"),
            com("/v2/example").by("v2"),
            com("/").with("Version", "two").by("v2"),
        ],
    );
}

#[test]
fn http_route_listener_hostname_matching() {
    let of = |host| get("/").host(host);
    world().check(
        "hosts",
        &[
            of("bar.com").by("v1"),
            of("foo.bar.com").by("v2"),
            of("baz.bar.com").by("v3"),
            of("boo.bar.com").by("v3"),
            of("multiple.prefixes.bar.com").by("v3"),
            of("multiple.prefixes.foo.com").by("v3"),
            of("foo.com").status(404),
            of("no.matching.host").status(404),
        ],
    );
}

#[test]
fn http_route_header_matching() {
    let version = |value| get("/").with("Version", value);
    let color = |value| get("/").with("Color", value);
    world().check(
        "headers",
        &[
            version("one").by("v1"),
            version("two").by("v2"),
            version("two").with("Color", "orange").by("v1"),
            version("two").with("Color", "blue").by("v2"),
            color("orange").status(404),
            get("/").with("Some-Other-Header", "one").status(404),
            color("blue").by("v1"),
            color("green").by("v1"),
            color("red").by("v2"),
            color("yellow").by("v2"),
            color("purple").status(404),
        ],
    );
}

#[test]
fn http_route_weight() {
    let world = world();
    let mut raw = Raw::connect(("127.0.0.1", world.port("weight"))).unwrap();
    assert_seventy_thirty(|_| {
        let response = raw.get("any.example", "/");
        let by = response.header("x-served-by");
        by.unwrap_or_else(|| panic!("{response:?}")).to_owned()
    });
}

#[test]
fn http_route_exact_path_matching() {
    world().check(
        "exact",
        &[
            get("/one").by("v1"),
            get("/two").by("v2"),
            get("/").status(404),
            get("/one/example").status(404),
            get("/two/").status(404),
            get("/Two").status(404),
        ],
    );
}

#[test]
fn http_route_cross_namespace() {
    let world = world();
    world.assert_accepted("httproutes", "backends/cross");
    world.check("cross", &[get("/").by("web")]);
}

#[test]
fn http_route_invalid_cross_namespace_backend_ref() {
    let world = world();
    let route = |which| world.condition("httproutes", "default/foreign", which);
    assert_eq!(route("Accepted").0, "True");
    let refused = ("False".to_owned(), "RefNotPermitted".to_owned());
    assert_eq!(route("ResolvedRefs"), refused);
    world.check("foreign", &[get("/").status(500)]);
}

/// With the grant and, once it is gone, without.
#[test]
fn http_route_reference_grant() {
    let world = world();
    world.mesh.apply(&grant("granted", "HTTPRoute", "web-web"));
    world.until("granted", 200);
    world.assert_accepted("httproutes", "default/granted");
    world.check("granted", &[get("/").by("web")]);
    world.revoke("granted", "httproutes", "default/granted");
    world.until("granted", 500);
}

impl World {
    /// Waits until requests to a case's port get this status.
    fn until(&self, case: &str, status: u16) {
        testkit::wait_for(&format!("{status} of {case}"), SOON, || {
            let mut raw = Raw::connect(("127.0.0.1", self.port(case))).ok()?;
            (raw.get("any.example", "/").status == status).then_some(())
        });
    }
}

#[test]
fn http_route_hostname_intersection() {
    let world = world();
    let of = |host, path| get(path).host(host);
    world.check(
        "intersection",
        &[
            of("very.specific.com", "/s1").by("v1"),
            // The port in `Host` is none of the hostname.
            of("very.specific.com:1234", "/s1").by("v1"),
            of("non.matching.com", "/s1").status(404),
            of("foo.nonmatchingwildcard.io", "/s1").status(404),
            of("foo.wildcard.io", "/s1").status(404),
            of("very.specific.com", "/non-matching-prefix").status(404),
            of("foo.wildcard.io", "/s2").by("v2"),
            of("bar.wildcard.io", "/s2").by("v2"),
            of("foo.bar.wildcard.io", "/s2").by("v2"),
            of("non.matching.com", "/s2").status(404),
            of("wildcard.io", "/s2").status(404),
            of("very.specific.com", "/s2").status(404),
            of("foo.wildcard.io", "/non-matching-prefix").status(404),
            of("very.specific.com", "/s3").by("v3"),
            of("non.matching.com", "/s3").status(404),
            of("foo.specific.com", "/s3").status(404),
            of("foo.wildcard.io", "/s3").status(404),
            of("foo.anotherwildcard.io", "/s4").by("v1"),
            of("bar.anotherwildcard.io", "/s4").by("v1"),
            of("foo.bar.anotherwildcard.io", "/s4").by("v1"),
            of("anotherwildcard.io", "/s4").status(404),
            of("foo.wildcard.io", "/s4").status(404),
            of("very.specific.com", "/s4").status(404),
            of("specific.but.wrong.com", "/s5").status(404),
            of("wildcard.io", "/s5").status(404),
        ],
    );
    let accepted = world.condition("httproutes", "default/disjoint", "Accepted");
    let refused = ("False".to_owned(), "NoMatchingListenerHostname".to_owned());
    assert_eq!(accepted, refused);
}

#[test]
fn http_route_disallowed_kind() {
    let world = world();
    let route = |which| world.condition("httproutes", "default/disallowed-kind", which);
    let refused = ("False".to_owned(), "NotAllowedByListeners".to_owned());
    assert_eq!(route("Accepted"), refused);
    assert_eq!(route("ResolvedRefs").0, "True");
    let gateway = world.object("gateways", "default/web");
    let listeners = gateway["status"]["listeners"].as_array();
    let mut listeners = listeners.into_iter().flatten();
    let own = listeners.find(|l| l["name"] == "tls-only");
    let own = own.unwrap_or_else(|| panic!("no listener: {gateway}"));
    assert_eq!(own["attachedRoutes"], 0, "{own}");
}
