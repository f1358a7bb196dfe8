//! Limits that are counted for the whole mesh (`scope: Global`, `tulle ratelimit`).

mod service;

use testkit::place::free_port;
use testkit::process::Process;
use testkit::raw::{Raw, Response};
use testkit::upstream::Step;

use crate::front::entrance;
use crate::gateway::process::Edge;
use crate::mesh::{Mesh, SOON, Workload, binary};
use crate::routing::reason;

/// A rate limit service as a workload of the mesh, with a proxy of its own.
struct Counter {
    process: Process,
    port: u16,
    metrics: u16,
}

impl Counter {
    /// Starts one, and names it in the `MeshConfig`. The timeout is one that a busy machine keeps.
    fn start(mesh: &Mesh) -> Self {
        let (port, metrics) = (free_port(), free_port());
        let process = Self::spawn(mesh, port, metrics);
        mesh.wait_ready("ratelimit");
        mesh.apply(&format!(
            "{{apiVersion: tulle.dev/v1alpha1, kind: MeshConfig, metadata: {{name: default}}, spec: \
             {{rateLimit: {{backendRef: {{name: ratelimit, namespace: default, port: {port}}}, timeout: 5s}}}}}}"
        ));
        Self {
            process,
            port,
            metrics,
        }
    }

    fn spawn(mesh: &Mesh, port: u16, metrics: u16) -> Process {
        let binary = binary();
        let (listen, pages) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{metrics}"));
        let command = [
            binary.to_str().expect("text"),
            "ratelimit",
            "--listen",
            &listen,
            "--metrics",
            &pages,
        ];
        let port = format!("{port}/grpc");
        mesh.run("ratelimit", "ratelimit", &["--port", &port], &command)
    }

    /// Descriptors of which it said so.
    fn said(&self, code: &str) -> f64 {
        let mut raw = Raw::connect(("127.0.0.1", self.metrics)).expect("it listens");
        let page = raw.get("localhost", "/metrics").text();
        let start = format!("tulle_ratelimit_descriptors_total{{code=\"{code}\"}} ");
        let line = page
            .lines()
            .find_map(|line| line.strip_prefix(start.as_str()));
        line.map_or(0.0, |value| value.parse().expect("a number"))
    }
}

fn policy(name: &str, target: &str, limits: &str) -> String {
    format!(
        "{{apiVersion: tulle.dev/v1alpha1, kind: RateLimitPolicy, metadata: {{name: {name}}}, spec: \
         {{targetRefs: [{target}], limits: [{limits}]}}}}"
    )
}

fn ask(client: &Workload, path: &str, user: &str) -> Response {
    client.request("GET", "shop", path, &format!("x-user: {user}\r\n"), "")
}

/// Asks, each time as somebody else, until a limit is in force.
fn wait_for_limit(mut ask: impl FnMut(&str) -> Response) -> Response {
    let mut tries = 0;
    testkit::wait_for("the limit", SOON, || {
        tries += 1;
        let response = ask(&format!("try-{tries}"));
        response.header("ratelimit").is_some().then_some(response)
    })
}

#[test]
fn the_workloads_of_a_service_share_one_limit() {
    let mesh = Mesh::start();
    let servers = ["shop-a", "shop-b"]
        .map(|name| mesh.instance("shop", name, "/http", &[], |_| Step::answer("fine")));
    let client = mesh.client();
    let counter = Counter::start(&mesh);
    mesh.apply(&policy(
        "few",
        "{kind: Service, name: shop}",
        "{name: per-user, key: [{header: x-user}], requests: 6, per: 24h, scope: Global}",
    ));
    let first = wait_for_limit(|user| ask(&client, "/", user));
    let policy = first.header("ratelimit-policy");
    assert_eq!(policy, Some("\"per-user\";q=6;w=86400"));
    let before = servers.each_ref().map(|server| server.upstream.requests());
    let statuses: Vec<u16> = (0..20).map(|_| ask(&client, "/", "ann").status).collect();
    let passed = statuses.iter().filter(|status| **status == 200).count();
    assert_eq!(passed, 6, "{statuses:?}");
    for (server, before) in servers.iter().zip(before) {
        assert!(server.upstream.requests() > before, "one was never asked");
    }
    let refused = ask(&client, "/", "ann");
    assert_eq!(refused.status, 429);
    assert_eq!(reason(&refused), "rate_limited");
    let state = refused.header("ratelimit").unwrap();
    assert!(state.starts_with("\"per-user\";r=0;t="), "{state}");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=86_400).contains(&wait), "{refused:?}");
    // Others are not in the way of it.
    assert_eq!(ask(&client, "/", "bob").status, 200);
    assert!(counter.said("over_limit") >= 15.0);
    // It is a service like others: its callers have proven who they are, and are counted.
    let asked = [
        ("destination", "ratelimit.default.svc.cluster.local"),
        ("mtls", "true"),
    ];
    let workload = &servers[0].workload;
    assert!(workload.metric("tulle_requests_total", &asked) >= 1.0);
}

#[test]
fn clients_and_a_gateway_share_the_limit_of_a_route_and_not_that_of_another_target() {
    let mesh = Mesh::start();
    let server = mesh.server("shop", "/http", |_| Step::answer("fine"));
    let clients = ["one", "two"].map(|name| mesh.idle("client", name, &[]));
    let counter = Counter::start(&mesh);
    let (port, to) = (free_port(), server.upstream.port());
    mesh.apply(&entrance("web", port, "shop", to));
    mesh.apply(&format!(
        "{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{name: all}}, spec: \
         {{parentRefs: [{{name: web}}, {{group: '', kind: Service, name: shop}}], \
         rules: [{{backendRefs: [{{name: shop, port: {to}}}]}}]}}}}"
    ));
    let _edge = Edge::start(&mesh, "edge");
    let through_gateway = |user: &str| {
        let mut raw = Raw::connect(("127.0.0.1", port)).ok()?;
        raw.send(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX-User: {user}\r\n\r\n"
        ))
        .ok()?;
        raw.response(SOON).ok()
    };
    testkit::wait_for("the Gateway", SOON, || {
        (through_gateway("x")?.status == 200).then_some(())
    });
    let group = "group: gateway.networking.k8s.io";
    mesh.apply(&policy(
        "route",
        &format!("{{{group}, kind: HTTPRoute, name: all}}"),
        "{name: route, key: [{header: x-user}], requests: 3, per: 24h, scope: Global, failureMode: Closed}",
    ));
    wait_for_limit(|user| through_gateway(user).unwrap());
    for client in &clients {
        wait_for_limit(|user| ask(client, "/", &format!("{}-{user}", client.name)));
    }
    assert_eq!(ask(&clients[0], "/", "ann").status, 200);
    assert_eq!(through_gateway("ann").unwrap().status, 200);
    assert_eq!(ask(&clients[1], "/", "ann").status, 200);
    assert_eq!(ask(&clients[0], "/", "ann").status, 429);
    let before = server.upstream.requests();
    let refused = through_gateway("ann").unwrap();
    assert_eq!(
        (refused.status, reason(&refused)),
        (429, "rate_limited".into())
    );
    assert_eq!(server.upstream.requests(), before, "it was sent nowhere");
    assert!(counter.said("over_limit") >= 2.0);
}

#[test]
fn while_nobody_counts_requests_pass_or_are_refused_as_each_limit_says() {
    let mesh = Mesh::start();
    let server = mesh.server("shop", "/http", |_| Step::answer("fine"));
    let client = mesh.client();
    let limits = "{name: open, match: {path: /open}, key: [{header: x-user}], requests: 2, per: 24h, scope: Global}, \
                  {name: closed, match: {path: /closed}, key: [{header: x-user}], requests: 2, per: 24h, scope: Global, failureMode: Closed}";
    // Before anybody is named who counts.
    mesh.apply(&policy("few", "{kind: Service, name: shop}", limits));
    let refused = client.until("the limit", "shop", "/closed", |r| r.status == 503);
    assert_eq!(reason(&refused), "extension_failed");
    assert_eq!(ask(&client, "/open", "ann").status, 200);

    let mut counter = Counter::start(&mesh);
    wait_for_limit(|user| ask(&client, "/closed", user));
    let statuses = [(); 3].map(|()| ask(&client, "/closed", "ann").status);
    assert_eq!(statuses, [200, 200, 429]);

    let (port, metrics) = (counter.port, counter.metrics);
    assert!(counter.process.terminate(SOON).success());
    let before = server.upstream.requests();
    let refused = ask(&client, "/closed", "bob");
    assert_eq!(
        (refused.status, reason(&refused)),
        (503, "extension_failed".into())
    );
    let text = refused.text();
    assert!(
        text.contains("ratelimit.default") && text.contains("closed"),
        "{text}"
    );
    assert_eq!(server.upstream.requests(), before);
    assert_eq!(ask(&client, "/open", "ann").status, 200);
    assert_eq!(ask(&client, "/other", "ann").status, 200);
    for outcome in ["passed", "refused"] {
        let labels = [("outcome", outcome)];
        let count = server
            .workload
            .metric("tulle_rate_limit_uncounted_total", &labels);
        assert!(count >= 1.0, "{outcome}");
    }

    // It comes back, and is asked again without anybody's help.
    let _again = Counter::spawn(&mesh, port, metrics);
    wait_for_limit(|user| ask(&client, "/closed", &format!("again-{user}")));
    assert_eq!(ask(&client, "/open", "ann").status, 200);
}

#[test]
fn the_service_itself_is_not_asked_about_its_own_requests() {
    let mesh = Mesh::start();
    let _server = mesh.server("shop", "/http", |_| Step::answer("fine"));
    let client = mesh.client();
    let counter = Counter::start(&mesh);
    mesh.apply(&policy(
        "itself",
        "{kind: Service, name: ratelimit}",
        "{requests: 1, per: 24h, scope: Global, failureMode: Closed}",
    ));
    mesh.apply(&policy(
        "few",
        "{kind: Service, name: shop}",
        "{key: [{header: x-user}], requests: 1, per: 24h, scope: Global, failureMode: Closed}",
    ));
    wait_for_limit(|user| ask(&client, "/", user));
    let statuses = [(); 3].map(|()| ask(&client, "/", "ann").status);
    assert_eq!(statuses, [200, 429, 429]);
    let asked = counter.said("ok") + counter.said("over_limit");
    assert_eq!(ask(&client, "/", "bob").status, 200);
    let after = counter.said("ok") + counter.said("over_limit");
    assert!(
        (after - asked - 1.0).abs() < f64::EPSILON,
        "{asked} {after}"
    );
}
