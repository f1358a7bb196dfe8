//! Limits on requests (`RateLimitPolicy`): where they hold, for whom, and what clients are told.

use testkit::place::free_port;
use testkit::raw::Raw;
use testkit::upstream::Step;

use crate::front::entrance;
use crate::gateway::process::Edge;
use crate::grpc;
use crate::load::Load;
use crate::mesh::{Mesh, SOON};
use crate::routing::reason;

fn policy(target: &str, limits: &str) -> String {
    format!(
        "{{apiVersion: tulle.dev/v1alpha1, kind: RateLimitPolicy, metadata: {{name: few}}, spec: \
         {{targetRefs: [{target}], limits: [{limits}]}}}}"
    )
}

fn service(name: &str) -> String {
    format!("{{group: '', kind: Service, name: {name}}}")
}

#[test]
fn a_service_is_limited_at_its_workload_by_key() {
    let mesh = Mesh::start();
    let server = mesh.server("shop", "/http", |_| Step::answer("fine"));
    let client = mesh.client();
    mesh.apply(&policy(
        &service("shop"),
        "{name: per-user, match: {path: /api/*}, key: [{header: x-user}], requests: 2, per: 1h}",
    ));
    let ask = |path: &str, user: &str| {
        let headers = format!("x-user: {user}\r\n");
        client.request("GET", "shop", path, &headers, "")
    };
    // Each try with a name of its own, until the limit is there.
    let mut tries = 0;
    let first = testkit::wait_for("the limit", SOON, || {
        tries += 1;
        let response = ask("/api/x", &format!("try-{tries}"));
        response.header("ratelimit").is_some().then_some(response)
    });
    assert_eq!(
        first.header("ratelimit-policy"),
        Some("\"per-user\";q=2;w=3600")
    );
    assert!(
        first
            .header("ratelimit")
            .unwrap()
            .starts_with("\"per-user\";r=1;t="),
        "{first:?}"
    );
    assert_eq!(ask("/api/x", "ann").status, 200);
    assert_eq!(ask("/api/x", "ann").status, 200);
    let before = server.upstream.requests();
    let refused = ask("/api/x", "ann");
    assert_eq!(refused.status, 429);
    assert_eq!(
        server.upstream.requests(),
        before,
        "the application is spared"
    );
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=1800).contains(&wait), "{refused:?}");
    assert!(refused.header("ratelimit").unwrap().contains("r=0"));
    let text = refused.text();
    assert!(
        text.contains("rate_limited") && text.contains("default/few"),
        "{text}"
    );
    assert_eq!(reason(&refused), "rate_limited");
    // Others, and what does not match, are not in the way of it.
    assert_eq!(ask("/api/x", "bob").status, 200);
    assert_eq!(ask("/other", "ann").status, 200);
    for (workload, direction) in [(&server.workload, "inbound"), (&client, "outbound")] {
        let labels = [("reason", "rate_limited"), ("direction", direction)];
        assert!(
            workload.metric("tulle_requests_total", &labels) >= 1.0,
            "{direction}"
        );
    }
    // What was counted stays while the limit is the same, whatever else of the policy changes.
    let with_another = policy(
        &service("shop"),
        "{name: per-user, match: {path: /api/*}, key: [{header: x-user}], requests: 2, per: 1h}, \
         {name: other, match: {path: /other}, requests: 1, per: 1h}",
    );
    mesh.apply(&with_another);
    testkit::wait_for("the other limit", SOON, || {
        (ask("/other", "ann").status == 429).then_some(())
    });
    assert_eq!(ask("/api/x", "ann").status, 429);
}

#[test]
fn a_route_and_a_grpc_service_are_limited_and_say_so_in_their_words() {
    let mesh = Mesh::start();
    let (_echo, listener) = mesh.bound("echo", "echo", "/grpc", &[]);
    grpc::serve(listener, grpc::Echo("a"));
    mesh.wait_ready("echo");
    let workload = mesh.client();
    mesh.apply(&policy(
        &service("echo"),
        "{match: {path: /test.Echo/Unary}, requests: 1, per: 1h, algorithm: SlidingWindow}",
    ));
    grpc::runtime().block_on(async {
        let mut client = grpc::client(&workload, "echo").await;
        let deadline = std::time::Instant::now() + SOON;
        loop {
            match grpc::unary(&mut client, "Unary", "x").await {
                Err(status) if status.code() == tonic::Code::ResourceExhausted => {
                    assert!(status.message().contains("rate_limited"), "{status}");
                    break;
                }
                other => assert!(std::time::Instant::now() < deadline, "{other:?}"),
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(grpc::unary(&mut client, "Who", "x").await.unwrap(), "a");
    });
}

#[test]
fn a_gateway_limits_by_address_before_anything_is_sent() {
    let mesh = Mesh::start();
    let reviews = mesh.server("reviews", "/http", |_| Step::answer("reviews"));
    let port = free_port();
    mesh.apply(&entrance("web", port, "reviews", reviews.upstream.port()));
    let _edge = Edge::start(&mesh, "edge");
    let get = |path: &str| {
        let mut raw = Raw::connect(("127.0.0.1", port)).ok()?;
        raw.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"))
            .ok()?;
        raw.response(SOON).ok()
    };
    testkit::wait_for("the Gateway", SOON, || {
        (get("/")?.status == 200).then_some(())
    });
    mesh.apply(&policy(
        "{group: gateway.networking.k8s.io, kind: Gateway, name: web}",
        "{name: all, match: {path: /few}, key: [{sourceIP: true}], requests: 3, per: 1h}",
    ));
    testkit::wait_for("the limit", SOON, || {
        let response = get("/few")?;
        (response.status == 429).then_some(())
    });
    let before = reviews.upstream.requests();
    let refused = get("/few").unwrap();
    assert_eq!(
        (refused.status, reason(&refused)),
        (429, "rate_limited".into())
    );
    assert_eq!(reviews.upstream.requests(), before);
    assert_eq!(get("/").unwrap().status, 200);
}

#[test]
fn a_limit_that_changes_under_load_costs_no_request() {
    let mesh = Mesh::start();
    let _server = mesh.server("shop", "/http", |_| Step::answer("fine"));
    let client = mesh.client();
    client.until("the service", "shop", "/", |r| r.status == 200);
    let load = Load::start(&client, "shop", &["GET", "POST"]);
    for round in 1..10 {
        let limit = format!("{{requests: {round}00000000, per: 1s, key: [{{identity: true}}]}}");
        mesh.apply(&policy(&service("shop"), &limit));
        load.progress(20);
    }
    load.stop_without_failures();
}

/// Its peer is this mesh's own proxy, asked in the words of another make: CONNECT, and bytes.
#[test]
fn a_caller_that_sends_its_requests_as_bytes_is_counted_all_the_same() {
    let mesh = Mesh::start();
    let server = mesh.server("shop", "/http", |_| Step::answer("fine"));
    let (port, tunnel) = (server.upstream.port(), server.workload.proxy_port("tunnel"));
    mesh.apply(&format!(
        "apiVersion: v1
kind: Service
metadata: {{name: detour, namespace: default}}
spec: {{selector: {{app: detour}}, ports: [{{name: main, port: 80, targetPort: {port}, appProtocol: tcp}}]}}
---
apiVersion: tulle.dev/v1alpha1
kind: Workload
metadata: {{name: detour-0, namespace: default, labels: {{app: detour}}}}
spec: {{address: 127.0.0.1, serviceAccount: shop, ports: [{{name: main, port: {port}, appProtocol: tcp}}], tunnel: {{port: {tunnel}, protocol: HBONE}}}}
"
    ));
    let client = mesh.client();
    let ask = |path: &str| {
        let mut raw = client.tunnel("detour:80");
        raw.send(format!("GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n"))
            .ok()?;
        raw.response(SOON).ok()
    };
    testkit::wait_for("the detour", SOON, || {
        (ask("/")?.status == 200).then_some(())
    });
    mesh.apply(&policy(
        &service("shop"),
        "{match: {path: /few}, requests: 2, per: 1h}",
    ));
    testkit::wait_for("the limit", SOON, || {
        let response = client.get("shop", "/few");
        (response.status == 429).then_some(())
    });
    assert_eq!(ask("/few").map(|r| r.status), Some(429));
    assert_eq!(ask("/").map(|r| r.status), Some(200));
}
