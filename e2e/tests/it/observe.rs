//! What the mesh tells: metrics, access log, traces, health.

use std::collections::BTreeSet;

use serde_json::Value;
use testkit::upstream::Step;

use crate::mesh::{Mesh, Mode, SOON, in_both_modes};

in_both_modes!(metrics_count_the_requests_that_were_sent);

/// The keys of every line of the access log.
const KEYS: &str = "time trace_id span_id request_id direction method authority path protocol \
    status grpc_status reason details duration_ms upstream_duration_ms request_bytes \
    response_bytes source source_principal source_address destination destination_workload \
    destination_version destination_principal route upstream_address attempts mtls tls_group \
    user_agent";

fn metrics_count_the_requests_that_were_sent(mode: Mode) {
    let mesh = Mesh::start_in(mode);
    let arguments = ["--label", "version=v2"];
    let server = mesh.instance("web", "web-0", "/http", &arguments, |_| {
        Step::answer("12345")
    });
    let client = mesh.client();
    let missing = match mode {
        Mode::Explicit => "missing",
        Mode::Transparent => "240.240.255.250",
    };
    for n in 0..25 {
        let host = if n < 20 { "web" } else { missing };
        client.request("POST", host, "/", "", "123");
    }
    let web = [
        ("source", "client"),
        (
            "source_principal",
            "spiffe://mesh.local/ns/default/sa/client",
        ),
        ("destination", "web.default.svc.cluster.local"),
        ("destination_workload", "web-0"),
        ("destination_version", "v2"),
        ("protocol", "http"),
        ("response_code", "200"),
        ("reason", ""),
        ("mtls", "true"),
    ];
    let outbound = [&[("direction", "outbound")], web.as_slice()].concat();
    let inbound = [&[("direction", "inbound")], &web[..3], &web[5..]].concat();
    for (workload, labels) in [(&client, &outbound), (&server.workload, &inbound)] {
        let name = &workload.name;
        let count = || workload.metric("tulle_requests_total", labels);
        testkit::wait_for(&format!("20 requests at {name}"), SOON, || {
            (count() >= 20.0).then_some(())
        });
        let page = workload.page("metrics", "/metrics");
        assert!((count() - 20.0).abs() < 0.1, "{name}: {page}");
        let bytes = |metric: &str| workload.metric(metric, labels);
        assert!(
            (bytes("tulle_request_bytes_sum") - 60.0).abs() < 0.1,
            "{name}: {page}"
        );
        assert!(
            (bytes("tulle_response_bytes_sum") - 100.0).abs() < 0.1,
            "{name}: {page}"
        );
        let measured = bytes("tulle_request_duration_seconds_count");
        assert!((measured - 20.0).abs() < 0.1, "{name}: {page}");
    }
    let missing = [
        ("response_code", "404"),
        ("reason", "no_route"),
        ("direction", "outbound"),
    ];
    let failed = client.metric("tulle_requests_total", &missing);
    assert!(
        (failed - 5.0).abs() < 0.1,
        "{}",
        client.page("metrics", "/metrics")
    );
    assert_eq!(client.page("metrics", "/healthz/ready"), "ready\n");
}

#[test]
fn bytes_of_tcp_connections_are_counted() {
    let mesh = Mesh::start();
    let _server = mesh.server("sink", "/tcp", |_| {
        vec![Step::ReadToEnd, Step::send("done")]
    });
    let client = mesh.client();
    for _ in 0..3 {
        let mut raw = client.tunnel("sink:80");
        raw.send([0; 1000]).unwrap();
        raw.shut_write().unwrap();
        assert_eq!(raw.read_to_end(SOON).0, b"done");
    }
    let labels = [
        ("direction", "outbound"),
        ("destination", "sink.default.svc.cluster.local"),
        ("protocol", "tcp"),
    ];
    for (name, wanted) in [
        ("tulle_tcp_connections_opened_total", 3.0),
        ("tulle_tcp_connections_closed_total", 3.0),
        ("tulle_tcp_sent_bytes_total", 3000.0),
        ("tulle_tcp_received_bytes_total", 12.0),
    ] {
        testkit::wait_for(&format!("{name} to be {wanted}"), SOON, || {
            let value = client.metric(name, &labels);
            assert!(value <= wanted, "{name}: {value}");
            (value >= wanted).then_some(())
        });
    }
}

#[test]
fn each_request_leaves_a_line_of_json_at_both_proxies() {
    let mesh = Mesh::start();
    let server = mesh.server("web", "/http", |_| Step::answer("12345"));
    let client = mesh.client();
    let headers = "User-Agent: tests\r\nX-Request-Id: abc-1\r\n";
    client.request("POST", "web", "/path?secret=1", headers, "123");
    client.get("missing", "/");
    let lines = |workload: &crate::mesh::Workload, count: usize| {
        testkit::wait_for("the access log", SOON, || {
            let lines = workload.access_log();
            (lines.len() >= count).then_some(lines)
        })
    };
    let outbound = lines(&client, 2);
    let inbound = lines(&server.workload, 1);
    let keys: BTreeSet<_> = KEYS.split_whitespace().collect();
    for line in outbound.iter().chain(&inbound) {
        let found: BTreeSet<_> = line
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert!(found.is_superset(&keys), "{line}");
    }
    for (line, direction) in [(&outbound[0], "outbound"), (&inbound[0], "inbound")] {
        for (key, wanted) in [
            ("direction", Value::from(direction)),
            ("method", "POST".into()),
            ("authority", "web".into()),
            ("path", "/path".into()),
            ("status", 200.into()),
            ("reason", "".into()),
            ("request_bytes", 3.into()),
            ("response_bytes", 5.into()),
            (
                "source_principal",
                "spiffe://mesh.local/ns/default/sa/client".into(),
            ),
            ("destination_workload", "web".into()),
            ("mtls", true.into()),
            ("tls_group", "X25519MLKEM768".into()),
            ("request_id", "abc-1".into()),
            ("user_agent", "tests".into()),
        ] {
            assert_eq!(line[key], wanted, "{key} of {line}");
        }
    }
    assert_eq!(outbound[0]["trace_id"], inbound[0]["trace_id"]);
    assert_eq!(outbound[1]["reason"], "no_route");
    assert_eq!(outbound[1]["status"], 404);
}

#[test]
fn a_trace_goes_on_through_both_proxies_into_the_trace_store() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const PARENT: &str = "b7ad6b7169203331";
    let mesh = Mesh::start();
    let server = mesh.server("web", "/http", |_| Step::answer("hello"));
    let client = mesh.client();
    let headers = format!("traceparent: 00-{TRACE}-{PARENT}-01\r\ntracestate: a=1\r\n");
    assert_eq!(client.request("GET", "web", "/", &headers, "").status, 200);
    let request = server.upstream.received_text(0).to_lowercase();
    let line = request
        .lines()
        .find(|l| l.starts_with("traceparent:"))
        .unwrap();
    assert!(
        line.contains(TRACE) && line.ends_with("-01") && !line.contains(PARENT),
        "{line}"
    );
    assert!(request.contains("\r\ntracestate: a=1\r\n"), "{request}");

    let spans = testkit::wait_for("both spans", SOON, || {
        let list = mesh.api("GET", "/api/v1/traces", "");
        if !list.to_string().contains(TRACE) {
            return None;
        }
        let trace = mesh.api("GET", &format!("/api/v1/traces/{TRACE}"), "");
        let spans = trace["spans"].as_array()?.clone();
        (spans.len() >= 2).then_some(spans)
    });
    let of = |kind: &str| spans.iter().find(|s| s["kind"] == kind).unwrap();
    let (outbound, inbound) = (of("client"), of("server"));
    assert_eq!(outbound["parent_span_id"], PARENT);
    assert_eq!(inbound["parent_span_id"], outbound["span_id"]);
    assert_eq!(outbound["service"], "client.default");
    assert_eq!(inbound["service"], "web.default");
    assert!(
        line.contains(inbound["span_id"].as_str().unwrap()),
        "{line}"
    );
    assert_eq!(inbound["attributes"]["http.response.status_code"], 200);
    assert_eq!(inbound["attributes"]["tulle.mtls"], true);
}

#[test]
fn the_admin_endpoint_shows_configuration_and_drains() {
    let mesh = Mesh::start();
    let _server = mesh.server("web", "/http", |_| Step::answer("hello"));
    let client = mesh.client();
    assert_eq!(client.get("web", "/").status, 200);
    let dump: Value = serde_json::from_str(&client.page("admin", "/config_dump")).unwrap();
    assert_eq!(dump["connected"], true);
    let destinations = dump["destinations"].as_array().unwrap();
    assert_eq!(destinations.len(), 1, "only what it talks to: {dump}");
    assert_eq!(destinations[0]["service"], "default/web");
    let peers = client.page("admin", "/connections");
    assert!(
        peers.contains("spiffe://mesh.local/ns/default/sa/web"),
        "{peers}"
    );
    assert!(peers.contains("X25519MLKEM768"), "{peers}");
}
