//! Cases of GRPCRoutes.

use tonic::Code;

use super::http::header_rules;
use super::*;
use crate::grpc::{client_at, runtime, unary_with};

pub(super) const CASES: &[&str] = &[
    "grpc-method",
    "grpc-named",
    "grpc-headers",
    "grpc-hosts",
    "grpc-weight",
];

pub(super) fn listeners(ports: &Ports) -> String {
    let mut all = String::new();
    for case in ["grpc-method", "grpc-named", "grpc-headers", "grpc-weight"] {
        all.push_str(&listener(case, ports[case], "HTTP", ""));
    }
    for (section, host) in [
        ("grpc-hosts-1", "bar.com"),
        ("grpc-hosts-2", "foo.bar.com"),
        ("grpc-hosts-3", "*.bar.com"),
        ("grpc-hosts-4", "*.foo.com"),
    ] {
        let host = format!(", hostname: \"{host}\"");
        all.push_str(&listener(section, ports["grpc-hosts"], "HTTP", &host));
    }
    all
}

fn to(backend: &str) -> String {
    format!("backendRefs: [{{name: grpc-{backend}, port: 8080}}]")
}

/// A rule for one method, begun so.
fn of_method(begin: &str, method: &str, backend: &str) -> String {
    let to = to(backend);
    format!(
        "  - {begin}matches: [{{method: {{service: test.Echo, method: {method}}}}}]\n    {to}\n"
    )
}

pub(super) fn routes() -> String {
    let grpc =
        |name: &str, sections: &[&str], rules: &str| route("GRPCRoute", name, sections, "", rules);
    let first = of_method("", "Who", "v1");
    let second = of_method("", "WhoElse", "v2");
    let named = of_method("name: named\n    ", "Who", "v1");
    let rules = header_rules();
    let rule = |(matches, backend): &(String, &str)| {
        format!("  - matches: [{matches}]\n    {}\n", to(backend))
    };
    let headers = rules.iter().map(rule).collect::<Vec<String>>().concat();
    let whole = |backend: &str| format!("  - {}", to(backend));
    [
        grpc("grpc-method", &["grpc-method"], &(first + &second)),
        grpc("grpc-named", &["grpc-named"], &(named + &second)),
        grpc("grpc-headers", &["grpc-headers"], &headers),
        grpc("grpc-hosts-1", &["grpc-hosts-1"], &whole("v1")),
        grpc("grpc-hosts-2", &["grpc-hosts-2"], &whole("v2")),
        grpc("grpc-hosts-3", &["grpc-hosts-3", "grpc-hosts-4"], &whole("v3")),
        grpc("grpc-weight", &["grpc-weight"], "  - backendRefs: [{name: grpc-v1, port: 8080, weight: 70}, {name: grpc-v2, port: 8080, weight: 30}, {name: grpc-v3, port: 8080, weight: 0}]"),
    ]
    .concat()
}

/// A call: its host, method and metadata, and which backend answers; `None` for nobody.
type Call = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    Option<&'static str>,
);

/// Makes each call of a table to a case's port, on a connection of its own.
#[track_caller]
fn check(case: &str, calls: &[Call]) {
    let world = world();
    let address = (Ipv4Addr::LOCALHOST, world.port(case)).into();
    let runtime = runtime();
    for (host, method, metadata, by) in calls {
        let called = runtime.block_on(async {
            let mut client = client_at(address, host).await.unwrap();
            unary_with(&mut client, method, "", metadata).await
        });
        let answered = called
            .as_ref()
            .map(String::as_str)
            .map_err(tonic::Status::code);
        let wanted = by.ok_or(Code::Unimplemented);
        assert_eq!(answered, wanted, "{host} {method} {metadata:?}: {called:?}");
    }
}

#[test]
fn grpc_exact_method_matching() {
    let world = world();
    world.assert_accepted("grpcroutes", "default/grpc-method");
    check(
        "grpc-method",
        &[
            ("any.example", "Who", &[], Some("v1")),
            ("any.example", "WhoElse", &[], Some("v2")),
            ("any.example", "Unary", &[], None),
        ],
    );
}

#[test]
fn grpc_route_named_rule() {
    let world = world();
    world.assert_accepted("grpcroutes", "default/grpc-named");
    check(
        "grpc-named",
        &[
            ("any.example", "Who", &[], Some("v1")),
            ("any.example", "WhoElse", &[], Some("v2")),
        ],
    );
}

#[test]
fn grpc_route_header_matching() {
    let of = |metadata: &'static [(&'static str, &'static str)], by| -> Call {
        ("any.example", "Who", metadata, by)
    };
    check(
        "grpc-headers",
        &[
            of(&[("version", "one")], Some("v1")),
            of(&[("version", "two")], Some("v2")),
            of(&[("version", "two"), ("color", "orange")], Some("v1")),
            of(&[("version", "two"), ("color", "blue")], Some("v2")),
            of(&[("color", "orange")], None),
            of(&[("some-other-header", "one")], None),
            of(&[("color", "blue")], Some("v1")),
            of(&[("color", "green")], Some("v1")),
            of(&[("color", "red")], Some("v2")),
            of(&[("color", "yellow")], Some("v2")),
            of(&[("color", "purple")], None),
        ],
    );
}

#[test]
fn grpc_route_listener_hostname_matching() {
    let of = |host, by| -> Call { (host, "Who", &[], by) };
    check(
        "grpc-hosts",
        &[
            of("bar.com", Some("v1")),
            of("foo.bar.com", Some("v2")),
            of("baz.bar.com", Some("v3")),
            of("boo.bar.com", Some("v3")),
            of("multiple.prefixes.bar.com", Some("v3")),
            of("multiple.prefixes.foo.com", Some("v3")),
            of("foo.com", None),
            of("no.matching.host", None),
        ],
    );
}

#[test]
fn grpc_route_weight() {
    let world = world();
    let address = (Ipv4Addr::LOCALHOST, world.port("grpc-weight")).into();
    let runtime = runtime();
    let mut client = runtime.block_on(client_at(address, "any.example")).unwrap();
    assert_seventy_thirty(|_| {
        let called = runtime.block_on(unary_with(&mut client, "Who", "", &[]));
        called.unwrap()
    });
}
