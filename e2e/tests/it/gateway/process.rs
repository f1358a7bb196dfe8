//! `tulle gateway`: a process of its own that a control plane feeds, with an identity of the mesh.

use serde_json::Value;

use super::*;
use crate::front::entrance;
use crate::mesh::Mesh;

/// A Gateway's proxy beside a mesh.
pub(crate) struct Edge {
    process: Process,
    log: std::path::PathBuf,
}

impl Edge {
    /// Starts the proxy of Gateway `default/web`, which may come back with what it has kept.
    pub(crate) fn start(mesh: &Mesh, name: &str) -> Self {
        let token = mesh.dir.join("token");
        if !token.is_file() {
            let mut create = mesh.tulle(&["token", "create", "--service-account", "web"]);
            let made = Process::run("token", &mut create, mesh.dir.path(), SOON).success();
            std::fs::write(&token, made).unwrap();
        }
        let text = std::fs::read_to_string(mesh.dir.join("control.json")).unwrap();
        let addresses: Value = serde_json::from_str(&text).unwrap();
        let log = mesh.dir.join(format!("{name}.log"));
        let mut command = mesh.tulle(&["-v", "gateway", "--name", "default/web"]);
        command.args(["--xds", addresses["xds"].as_str().unwrap()]);
        command.arg("--state-dir").arg(mesh.dir.join("web"));
        command.arg("--token-file").arg(token);
        command.args(["--admin", "off", "--workers", "2", "--access-log"]);
        command.arg(&log);
        let process = Process::spawn(name, &mut command, mesh.dir.path());
        Self { process, log }
    }

    /// The last line of its access log for this path.
    fn line(&mut self, path: &str) -> Value {
        let log = self.log.clone();
        self.process.wait_for("a line of the access log", SOON, || {
            let text = std::fs::read_to_string(&log).ok()?;
            let lines = text.lines().rev();
            lines
                .filter_map(|line| serde_json::from_str::<Value>(line).ok())
                .find(|line| line["path"] == path)
        })
    }
}

/// The first 200 of a GET.
fn served(process: &mut Process, port: u16) -> String {
    process.wait_for("the Gateway serves", SOON, || {
        let mut raw = Raw::connect(("127.0.0.1", port)).ok()?;
        raw.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .ok()?;
        let response = raw.response(SOON).ok()?;
        (response.status == 200).then(|| response.text())
    })
}

#[test]
fn it_enters_the_mesh_with_an_identity_and_outlives_the_control_plane() {
    let mut mesh = Mesh::start();
    let reviews = mesh.server("reviews", "/http", |_| Step::answer("reviews"));
    let ratings = mesh.server("ratings", "/http", |_| Step::answer("ratings"));
    let port = free_port();
    mesh.apply(&entrance("web", port, "reviews", reviews.upstream.port()));
    let mut edge = Edge::start(&mesh, "edge");
    assert_eq!(served(&mut edge.process, port), "reviews");

    // As a member of the mesh: the connection is mutual TLS, and the workload's proxy knows whom
    // it came from.
    let mut raw = Raw::connect(("127.0.0.1", port)).unwrap();
    assert_eq!(raw.get("a", "/who").text(), "reviews");
    let line = edge.line("/who");
    assert_eq!(line["mtls"], true, "{line}");
    assert_eq!(line["route"], "default/all/0", "{line}");
    let principal = "spiffe://mesh.local/ns/default/sa/web";
    let inbound = testkit::wait_for("the workload's own line", SOON, || {
        let lines = reviews.workload.access_log();
        lines.into_iter().find(|line| line["path"] == "/who")
    });
    assert_eq!(inbound["source_principal"], principal, "{inbound}");

    // What changes is taken over on the connection that is open.
    mesh.apply(&entrance("web", port, "ratings", ratings.upstream.port()));
    testkit::wait_for("the new route", SOON, || {
        (raw.get("a", "/").text() == "ratings").then_some(())
    });

    // Without a control plane it goes on, and comes back by what it has kept.
    mesh.control.take().unwrap().kill();
    assert_eq!(raw.get("a", "/").text(), "ratings");
    let kept = mesh.dir.join("web/resources.bin");
    edge.process.wait_for("the new state to be kept", SOON, || {
        let bytes = std::fs::read(&kept).ok()?;
        let named = bytes.windows(7).any(|seven| seven == b"ratings");
        named.then_some(())
    });
    edge.process.kill();
    let mut edge = Edge::start(&mesh, "again");
    assert_eq!(served(&mut edge.process, port), "ratings");
    let exit = edge.process.terminate(SOON);
    assert!(exit.success(), "{exit}");
}

#[test]
fn somebody_else_is_not_given_the_gateways_keys() {
    let mesh = Mesh::start();
    let port = free_port();
    mesh.apply(&entrance("web", port, "reviews", 80));
    let mut create = mesh.tulle(&["token", "create", "--service-account", "thief"]);
    let made = Process::run("token", &mut create, mesh.dir.path(), SOON).success();
    std::fs::write(mesh.dir.join("token"), made).unwrap();
    let mut edge = Edge::start(&mesh, "thief");
    edge.process.wait_stderr("service account", SOON);
    assert!(Raw::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn a_session_outlives_the_proxy_and_the_control_plane() {
    let mut mesh = Mesh::start();
    let reviews = mesh.server("reviews", "/http", |_| Step::answer("reviews"));
    let ratings = mesh.server("ratings", "/http", |_| Step::answer("ratings"));
    let port = free_port();
    mesh.apply(&entrance("web", port, "reviews", reviews.upstream.port()));
    let (a, b) = (reviews.upstream.port(), ratings.upstream.port());
    mesh.apply(&format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: all, namespace: default}}\nspec:\n  parentRefs: [{{name: web}}]\n  rules:\n  - sessionPersistence: {{type: Header, sessionName: x-session}}\n    backendRefs: [{{name: reviews, port: {a}}}, {{name: ratings, port: {b}}}]\n"
    ));
    let ask = |token: &str| {
        let mut raw = Raw::connect(("127.0.0.1", port)).unwrap();
        let response = raw.request(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX-Session: {token}\r\n\r\n"
        ));
        (
            response.text(),
            response.header("x-session").map(str::to_owned),
        )
    };
    let mut edge = Edge::start(&mesh, "edge");
    served(&mut edge.process, port);
    let (home, token) = testkit::wait_for("a session", SOON, || {
        let (body, token) = ask("none");
        Some((body, token?))
    });

    // Another control plane with the same authority, another proxy that has kept nothing.
    let addresses = std::fs::read_to_string(mesh.dir.join("control.json")).unwrap();
    let addresses: Value = serde_json::from_str(&addresses).unwrap();
    edge.process.kill();
    mesh.control.take().unwrap().kill();
    std::fs::remove_dir_all(mesh.dir.join("web")).unwrap();
    std::fs::remove_file(mesh.dir.join("token")).unwrap();
    mesh.start_control(addresses["xds"].as_str().unwrap());
    let mut edge = Edge::start(&mesh, "again");
    served(&mut edge.process, port);
    testkit::wait_for("its endpoint to be known again", SOON, || {
        (ask(&token).0 == home).then_some(())
    });
    for _ in 0..10 {
        assert_eq!(ask(&token), (home.clone(), None));
    }
}
