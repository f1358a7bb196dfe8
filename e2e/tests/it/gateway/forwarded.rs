//! `X-Forwarded-For`, `-Proto` and `-Host`: at a Gateway and beside a workload.

use super::*;
use crate::mesh::Mesh;

const SENT: &str = "GET / HTTP/1.1\r\nHost: a.example\r\nX-Forwarded-For: 6.6.6.6, 198.51.100.1\r\n\
    X-Forwarded-Proto: gopher\r\nX-Forwarded-Host: bank.example\r\nForwarded: for=6.6.6.6\r\n\r\n";

fn trusting(hops: u32) -> String {
    format!(
        "apiVersion: tulle.dev/v1alpha1\nkind: ListenerPolicy\nmetadata: {{name: p, namespace: shop}}\nspec: {{targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: web}}], numTrustedHops: {hops}}}\n---\n"
    )
}

/// A route that sends another host on.
fn rewriting() -> String {
    "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: rewriting, namespace: shop}\nspec:\n  parentRefs: [{name: web}]\n  rules:\n  - matches: [{path: {value: /rewritten}}]\n    filters: [{type: URLRewrite, urlRewrite: {hostname: b.example}}]\n    backendRefs: [{name: s, port: 80}]\n---\n".to_owned()
}

/// The lines of the last request that a server has read, in lower case.
fn last(server: &Upstream) -> Vec<String> {
    let text = server.received_text(server.connections() - 1);
    let head = text.trim_end().rsplit("\r\n\r\n").next().unwrap();
    head.lines().map(str::to_lowercase).collect()
}

#[test]
fn a_gateway_says_where_a_request_came_from_and_believes_only_trusted_hops() {
    let server = Upstream::start(|_| Step::answer("ok"));
    let (plain, tls) = (free_port(), free_port());
    let listeners = [
        format!("{{name: http, port: {plain}, protocol: HTTP}}"),
        format!(
            "{{name: https, port: {tls}, protocol: HTTPS, tls: {{certificateRefs: [{{name: a}}]}}}}"
        ),
    ];
    let rest = [
        gateway(&listeners),
        secret("a", "a.example"),
        service("s", "http", server.port()),
        http_route("r", "", "s"),
        rewriting(),
    ];
    let files = [("rest.yaml", rest.concat()), ("policy.yaml", trusting(0))];
    let mut proxy = Static::start("forwarded", &files, plain);

    let has = |line: &str| {
        let lines = last(&server);
        assert!(lines.iter().any(|l| l == line), "no {line} in {lines:?}");
    };
    let mut raw = Raw::connect(("127.0.0.1", plain)).unwrap();
    assert_eq!(raw.request(SENT).status, 200);
    has("x-forwarded-for: 127.0.0.1");
    has("x-forwarded-proto: http");
    for name in ["forwarded", "x-forwarded-host"] {
        assert!(!last(&server).iter().any(|l| l.starts_with(name)));
    }
    assert_eq!(raw.get("a.example", "/rewritten").status, 200);
    has("host: b.example");
    has("x-forwarded-host: a.example");

    let config = anonymous_client_config(&[b"http/1.1"]);
    let mut secure = Raw::connect_tls(("127.0.0.1", tls), config, "a.example").unwrap();
    assert_eq!(secure.request(SENT).status, 200);
    has("x-forwarded-proto: https");

    // Behind one proxy that is trusted: what it says is believed, and whom it saw is the client.
    proxy.write("policy.yaml", &trusting(1));
    testkit::wait_for("the policy", SOON, || {
        let mut raw = Raw::connect(("127.0.0.1", plain)).ok()?;
        raw.send(SENT).ok()?;
        raw.response(SOON).ok()?;
        let wanted = "x-forwarded-for: 198.51.100.1, 127.0.0.1";
        last(&server).iter().any(|l| l == wanted).then_some(())
    });
    has("x-forwarded-proto: gopher");
    has("forwarded: for=6.6.6.6");
    proxy.proxy.wait_stdout("198.51.100.1", SOON);
}

#[test]
fn a_sidecar_leaves_them_alone() {
    let mesh = Mesh::start();
    let server = mesh.server("web", "/http", |_| Step::answer("ok"));
    let client = mesh.client();
    let head = format!("web:{}", server.upstream.port());
    let sent = SENT.replace("a.example", &head);
    let mut raw = client.connect(&head);
    let sent = sent.replace("GET /", &format!("GET http://{head}/"));
    assert_eq!(raw.request(sent).status, 200);
    let lines = last(&server.upstream);
    for line in [
        "x-forwarded-for: 6.6.6.6, 198.51.100.1",
        "x-forwarded-proto: gopher",
        "x-forwarded-host: bank.example",
        "forwarded: for=6.6.6.6",
    ] {
        assert!(lines.iter().any(|l| l == line), "no {line} in {lines:?}");
    }
    let hosts = lines.iter().filter(|l| l.starts_with("x-forwarded-host"));
    assert_eq!(hosts.count(), 1, "{lines:?}");
}

#[test]
fn on_a_port_in_clear_text_the_least_trust_of_its_listeners_holds() {
    let server = Upstream::start(|_| Step::answer("ok"));
    let port = free_port();
    let listener =
        |name| format!("{{name: {name}, port: {port}, protocol: HTTP, hostname: {name}.example}}");
    let text = [
        gateway(&[listener("a"), listener("b")]),
        service("s", "http", server.port()),
        http_route("r", "", "s"),
        trusting(1).replace("name: web}", "name: web, sectionName: a}"),
    ];
    let _proxy = Static::start("forwarded-least", &[("all.yaml", text.concat())], port);
    let mut raw = Raw::connect(("127.0.0.1", port)).unwrap();
    assert_eq!(raw.request(SENT).status, 200);
    let lines = last(&server);
    assert!(
        lines
            .iter()
            .any(|line| line == "x-forwarded-for: 127.0.0.1"),
        "{lines:?}"
    );
}
