//! Faults made on purpose (`FaultPolicy`): who meets them, how they look, and when they end.

use std::time::Duration;

use testkit::place::free_port;
use testkit::raw::Raw;
use testkit::upstream::Step;

use crate::front::entrance;
use crate::gateway::process::Edge;
use crate::grpc;
use crate::load::Load;
use crate::mesh::{Mesh, SOON, timed};
use crate::routing::reason;

/// A FaultPolicy of a target in flow style.
fn policy(target: &str, more: &str) -> String {
    format!(
        "{{apiVersion: tulle.dev/v1alpha1, kind: FaultPolicy, metadata: {{name: chaos}}, spec: \
         {{targetRefs: [{target}], {more}}}}}"
    )
}

fn service(name: &str) -> String {
    format!("{{group: '', kind: Service, name: {name}}}")
}

#[test]
fn only_requests_that_match_meet_a_fault_and_retries_do_not_hide_it() {
    let mesh = Mesh::start();
    let server = mesh.server("shop", "/http", |_| Step::answer("fine"));
    let client = mesh.client();
    assert_eq!(client.get("shop", "/").text(), "fine");
    mesh.apply(&policy(
        &service("shop"),
        "faults: [{match: {headers: {x-chaos: 'yes'}, path: /a/*, method: GET}, delay: 300ms}, \
         {match: {headers: {x-chaos: 'yes'}, path: /a/*}, abort: {httpStatus: 503}}]",
    ));
    let ask = |method: &str, path: &str, headers: &str| {
        timed(|| client.request(method, "shop", path, headers, ""))
    };
    testkit::wait_for("the fault", SOON, || {
        (ask("GET", "/a/b", "x-chaos: yes\r\n").0.status == 503).then_some(())
    });
    let before = server.upstream.requests();
    let (response, took) = ask("GET", "/a/b", "x-chaos: yes\r\n");
    assert_eq!(
        (response.status, reason(&response)),
        (503, "fault_injected".into())
    );
    assert!(
        response.text().contains("FaultPolicy default/chaos"),
        "{response:?}"
    );
    assert!(took >= Duration::from_millis(300), "{took:?}");
    let (response, took) = ask("POST", "/a/b", "x-chaos: yes\r\n");
    assert_eq!(response.status, 503);
    assert!(
        took < Duration::from_millis(300),
        "only GETs wait: {took:?}"
    );
    assert_eq!(server.upstream.requests(), before, "none was sent");
    for (path, headers) in [
        ("/a/b", ""),
        ("/b", "x-chaos: yes\r\n"),
        ("/ab", "x-chaos: yes\r\n"),
    ] {
        assert_eq!(ask("GET", path, headers).0.status, 200, "{path} {headers}");
    }
    let labels = [("reason", "fault_injected")];
    assert!(client.metric("tulle_requests_total", &labels) >= 2.0);
    testkit::wait_for("the access log", SOON, || {
        let lines = client.access_log();
        lines.into_iter().find(|l| l["reason"] == "fault_injected")
    });
    mesh.api(
        "DELETE",
        "/api/v1/resources/faultpolicies/default/chaos",
        "",
    );
    client.until("the end of it", "shop", "/", |r| r.status == 200);
    testkit::wait_for("no fault", SOON, || {
        (ask("GET", "/a/b", "x-chaos: yes\r\n").0.status == 200).then_some(())
    });
}

#[test]
fn a_reset_breaks_off_and_a_slow_response_comes_whole() {
    let mesh = Mesh::start();
    let body = "x".repeat(4000);
    let answer = body.clone();
    let _server = mesh.server("shop", "/http", move |_| Step::answer(&answer));
    let client = mesh.client();
    mesh.apply(&policy(
        &service("shop"),
        "faults: [{match: {path: /reset}, abort: {reset: true}}, {match: {path: /slow}, bandwidth: 8000}]",
    ));
    let reset = || {
        let mut raw = client.connect("shop");
        raw.send(client.text("GET", "shop", "/reset", "", ""))
            .unwrap();
        raw.response(SOON)
    };
    testkit::wait_for("a reset", SOON, || reset().is_err().then_some(()));
    let (response, took) = timed(|| client.get("shop", "/slow"));
    assert_eq!((response.status, response.text()), (200, body.clone()));
    assert!(took >= Duration::from_millis(350), "{took:?}");
    let (response, took) = timed(|| client.get("shop", "/"));
    assert_eq!((response.status, response.text()), (200, body));
    assert!(took < Duration::from_millis(350), "{took:?}");
}

#[test]
fn a_fault_is_over_when_its_time_is() {
    let mesh = Mesh::start();
    let _server = mesh.server("shop", "/http", |_| Step::answer("fine"));
    let client = mesh.client();
    mesh.apply(&policy(
        &service("shop"),
        "for: 4s, faults: [{abort: {httpStatus: 418}}]",
    ));
    client.until("the fault", "shop", "/", |r| r.status == 418);
    client.until("its end", "shop", "/", |r| r.status == 200);
    let path = "/api/v1/resources/faultpolicies/default/chaos";
    let text = mesh.api("GET", path, "").to_string();
    assert!(text.contains("in force until 20"), "{text}");
}

#[test]
fn a_rule_of_a_route_has_its_own_faults_and_a_grpc_client_its_own_words() {
    let mesh = Mesh::start();
    let (_echo, listener) = mesh.bound("echo", "echo", "/grpc", &[]);
    grpc::serve(listener, grpc::Echo("a"));
    mesh.wait_ready("echo");
    let workload = mesh.client();
    mesh.apply(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: echo}
spec:
  parentRefs: [{group: '', kind: Service, name: echo}]
  rules:
    - {name: unary, matches: [{method: {method: Unary}}], backendRefs: [{name: echo, port: 80}]}
    - {backendRefs: [{name: echo, port: 80}]}
",
    );
    mesh.apply(&policy(
        "{group: gateway.networking.k8s.io, kind: GRPCRoute, name: echo, sectionName: unary}",
        "faults: [{abort: {grpcStatus: RESOURCE_EXHAUSTED}}]",
    ));
    grpc::runtime().block_on(async {
        let mut client = grpc::client(&workload, "echo").await;
        let deadline = std::time::Instant::now() + SOON;
        loop {
            match grpc::unary(&mut client, "Unary", "x").await {
                Err(status) if status.code() == tonic::Code::ResourceExhausted => {
                    assert!(status.message().contains("fault_injected"), "{status}");
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
fn connections_meet_faults_too() {
    let mesh = Mesh::start();
    let _server = mesh.server("mail", "/tcp", |_| {
        vec![Step::send("220 ready\r\n"), Step::ReadToEnd]
    });
    let client = mesh.client();
    let greeting = || client.tunnel("mail:80").read_until(b"\r\n", SOON).ok();
    assert!(greeting().is_some());
    mesh.apply(&policy(
        &service("mail"),
        "faults: [{delay: 300ms, bandwidth: 20}]",
    ));
    testkit::wait_for("a slow connection", SOON, || {
        let (heard, took) = timed(greeting);
        assert_eq!(heard.as_deref(), Some(&b"220 ready\r\n"[..]));
        (took >= Duration::from_millis(700)).then_some(())
    });
    mesh.apply(&policy(
        &service("mail"),
        "faults: [{abort: {reset: true}}]",
    ));
    testkit::wait_for("a reset", SOON, || greeting().is_none().then_some(()));
    testkit::wait_for("the access log", SOON, || {
        let lines = client.access_log();
        lines.into_iter().find(|l| l["reason"] == "fault_injected")
    });
}

#[test]
fn a_gateway_meets_its_own_faults_and_those_of_the_service_behind_it() {
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
        "faults: [{match: {path: /gateway}, abort: {httpStatus: 418}}]",
    ));
    let of_service = policy(
        &service("reviews"),
        "faults: [{match: {path: /service, identities: ['spiffe://mesh.local/*']}, abort: {httpStatus: 404}}, \
         {match: {path: /service}, abort: {httpStatus: 410}}]",
    );
    mesh.apply(&of_service.replace("name: chaos", "name: service"));
    testkit::wait_for("the Gateway's fault", SOON, || {
        (get("/gateway")?.status == 418).then_some(())
    });
    // Clients from outside prove no identity.
    testkit::wait_for("the service's fault", SOON, || {
        (get("/service")?.status == 410).then_some(())
    });
    assert_eq!(get("/").map(|r| r.status), Some(200));
}

#[test]
fn a_policy_that_comes_and_goes_costs_no_request() {
    let mesh = Mesh::start();
    let _server = mesh.server("shop", "/http", |_| Step::answer("fine"));
    let client = mesh.client();
    client.until("the service", "shop", "/", |r| r.status == 200);
    let load = Load::start(&client, "shop", &["GET", "POST"]);
    for round in 0..10 {
        let faults = format!("faults: [{{delay: {round}ms, match: {{path: /never}}}}]");
        mesh.apply(&policy(&service("shop"), &faults));
        load.progress(20);
        mesh.api(
            "DELETE",
            "/api/v1/resources/faultpolicies/default/chaos",
            "",
        );
        load.progress(20);
    }
    load.stop_without_failures();
}

#[test]
fn a_gateway_tells_grpc_clients_of_faults_and_limits_in_their_words() {
    let mesh = Mesh::start();
    let (_echo, listener) = mesh.bound("echo", "echo", "/grpc", &[]);
    let to = listener.local_addr().unwrap().port();
    grpc::serve(listener, grpc::Echo("a"));
    mesh.wait_ready("echo");
    let port = free_port();
    mesh.apply(&entrance("web", port, "echo", to));
    let _edge = Edge::start(&mesh, "edge");
    mesh.apply(&policy(
        "{group: gateway.networking.k8s.io, kind: Gateway, name: web, sectionName: http}",
        "faults: [{match: {path: /test.Echo/Unary}, abort: {httpStatus: 404}}]",
    ));
    mesh.apply(
        "{apiVersion: tulle.dev/v1alpha1, kind: RateLimitPolicy, metadata: {name: few}, spec: \
         {targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: all}], \
         limits: [{match: {path: /test.Echo/Who}, requests: 1, per: 1h}]}}",
    );
    grpc::runtime().block_on(async {
        let deadline = std::time::Instant::now() + SOON;
        for (method, code, reason) in [
            ("Unary", tonic::Code::Unimplemented, "fault_injected"),
            ("Who", tonic::Code::ResourceExhausted, "rate_limited"),
        ] {
            loop {
                let asked = match grpc::client_at(([127, 0, 0, 1], port).into(), "a").await {
                    Ok(mut client) => grpc::unary(&mut client, method, "x").await,
                    Err(error) => Err(tonic::Status::unavailable(error)),
                };
                match asked {
                    Err(status) if status.code() == code => {
                        assert!(status.message().contains(reason), "{status}");
                        break;
                    }
                    other => assert!(std::time::Instant::now() < deadline, "{other:?}"),
                }
                tokio::task::yield_now().await;
            }
        }
        let address = ([127, 0, 0, 1], port).into();
        let mut client = grpc::client_at(address, "a").await.unwrap();
        assert_eq!(grpc::unary(&mut client, "WhoElse", "x").await.unwrap(), "a");
    });
}
