//! `tulle control --gateways spawn`: the control plane runs a process for each Gateway.

use serde_json::Value;

use super::*;
use crate::front::entrance;
use crate::mesh::{Mesh, Mode, SOON};

/// What `/api/v1/status` says of Gateway `default/web`.
fn told(mesh: &Mesh) -> Value {
    let status = mesh.api("GET", "/api/v1/status", "");
    status["gateways"][0].clone()
}

fn pid(mesh: &Mesh) -> Option<u64> {
    told(mesh)["process"]["pid"].as_u64()
}

fn answer(port: u16) -> Option<String> {
    let mut raw = Raw::connect(("127.0.0.1", port)).ok()?;
    raw.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .ok()?;
    let response = raw.response(SOON).ok()?;
    (response.status == 200).then(|| response.text())
}

fn is_alive(pid: u64) -> bool {
    std::path::Path::new(&format!("/proc/{pid}/exe")).exists()
}

#[test]
fn a_gateway_is_served_by_a_process_that_comes_and_goes_with_it() {
    let mut mesh = Mesh::start_with(Mode::Explicit, &["--gateways", "spawn"]);
    let reviews = mesh.server("reviews", "/http", |_| Step::answer("reviews"));
    let to = reviews.upstream.port();
    let (port, other) = (free_port(), free_port());
    mesh.apply(&entrance("web", port, "reviews", to));
    let first = testkit::wait_for("it serves", SOON, || answer(port));
    assert_eq!(first, "reviews");
    let begun = pid(&mesh).expect("its process");
    let says = told(&mesh);
    let address = says["addresses"][0]["value"].as_str().expect("an address");
    address
        .parse::<std::net::IpAddr>()
        .expect("an address of this host");
    let gateway = mesh.api("GET", "/api/v1/resources/gateways/default/web", "");
    assert_eq!(
        gateway["status"]["addresses"], says["addresses"],
        "{gateway}"
    );

    // Another port is opened by the same process, and a connection to the first lives on.
    let mut open = Raw::connect(("127.0.0.1", port)).unwrap();
    assert_eq!(open.get("a", "/").text(), "reviews");
    let both = entrance("web", port, "reviews", to).replace(
        "listeners: [",
        &format!("listeners: [{{name: more, port: {other}, protocol: HTTP}}, "),
    );
    mesh.apply(&both);
    testkit::wait_for("the other port", SOON, || answer(other));
    assert_eq!(open.get("a", "/").text(), "reviews");
    assert_eq!(pid(&mesh), Some(begun));

    // A crash is mended.
    let victim = nix::unistd::Pid::from_raw(begun.try_into().unwrap());
    nix::sys::signal::kill(victim, nix::sys::signal::Signal::SIGKILL).unwrap();
    testkit::wait_for("another process", SOON, || {
        pid(&mesh).filter(|next| *next != begun)
    });
    testkit::wait_for("it serves again", SOON, || answer(port));
    assert_eq!(told(&mesh)["process"]["restarts"], 1);

    // Without its Gateway it ends.
    let last = pid(&mesh).unwrap();
    mesh.api("DELETE", "/api/v1/resources/gateways/default/web", "");
    testkit::wait_for("its end", SOON, || (!is_alive(last)).then_some(()));
    assert!(Raw::connect(("127.0.0.1", port)).is_err());

    // And all end with the control plane.
    mesh.apply(&both);
    testkit::wait_for("it serves", SOON, || answer(port));
    let last = pid(&mesh).unwrap();
    let exit = mesh.control.take().unwrap().terminate(SOON);
    assert!(exit.success(), "{exit}");
    assert!(!is_alive(last));
}

#[test]
fn a_proxy_that_somebody_else_runs_is_left_alone() {
    let mesh = Mesh::start_with(Mode::Explicit, &["--gateways", "spawn"]);
    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    mesh.apply(&entrance("web", port, "reviews", 80));
    let problem = testkit::wait_for("a problem", SOON, || {
        told(&mesh)["problem"].as_str().map(str::to_owned)
    });
    assert!(problem.contains("is taken by another process"), "{problem}");
    assert_eq!(pid(&mesh), None);
    let gateway = mesh.api("GET", "/api/v1/resources/gateways/default/web", "");
    let conditions = gateway["status"]["conditions"].as_array().unwrap();
    let programmed = conditions.iter().find(|c| c["type"] == "Programmed");
    assert_eq!(programmed.unwrap()["status"], "False", "{gateway}");
}

/// A Gateway of a class whose Gateways share a proxy, for one host, with its route.
fn sharing(host: &str, port: u16, to: u16) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: shared, annotations: {{tulle.dev/merge-gateways: \"true\"}}}}
spec: {{controllerName: tulle.dev/gateway}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {host}, namespace: default}}
spec:
  gatewayClassName: shared
  listeners: [{{name: http, port: {port}, protocol: HTTP, hostname: {host}}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {host}, namespace: default}}
spec:
  parentRefs: [{{name: {host}}}]
  rules: [{{backendRefs: [{{name: {host}, port: {to}}}]}}]
"
    )
}

#[test]
fn gateways_of_a_class_share_a_process_and_its_ports() {
    let mesh = Mesh::start_with(Mode::Explicit, &["--gateways", "spawn"]);
    let port = free_port();
    let hosts = ["one", "two"];
    let servers = hosts.map(|host| mesh.server(host, "/http", move |_| Step::answer(host)));
    for (host, server) in hosts.iter().zip(&servers) {
        mesh.apply(&sharing(host, port, server.upstream.port()));
    }
    for host in hosts {
        let text = testkit::wait_for("it is served", SOON, || {
            let mut raw = Raw::connect(("127.0.0.1", port)).ok()?;
            let response = raw.get(host, "/");
            (response.status == 200).then(|| response.text())
        });
        assert_eq!(text, host);
    }
    let gateways = mesh.api("GET", "/api/v1/status", "")["gateways"].clone();
    let pids: Vec<u64> = (0..2)
        .map(|i| gateways[i]["process"]["pid"].as_u64().expect("a process"))
        .collect();
    assert_eq!(pids[0], pids[1], "{gateways}");
    for host in hosts {
        let path = format!("/api/v1/resources/gateways/default/{host}");
        testkit::wait_for("it is programmed", SOON, || {
            let gateway = mesh.api("GET", &path, "");
            let conditions = gateway["status"]["conditions"].as_array()?.clone();
            let is = |c: &&Value| c["type"] == "Programmed" && c["status"] == "True";
            conditions.iter().find(is).map(|_| ())
        });
    }
    mesh.api("DELETE", "/api/v1/resources/gateways/default/one", "");
    testkit::wait_for("one has gone", SOON, || {
        let mut raw = Raw::connect(("127.0.0.1", port)).ok()?;
        (raw.get("one", "/").status == 404).then_some(())
    });
    let mut raw = Raw::connect(("127.0.0.1", port)).unwrap();
    assert_eq!(raw.get("two", "/").text(), "two");
    assert!(is_alive(pids[0]));
}
