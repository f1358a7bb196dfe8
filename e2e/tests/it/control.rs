//! The control plane and its limits: the real binary, its commands, and peers who misbehave.
//!
//! Each test has a control plane of its own on free ports ([`Plane`]); workloads are started with
//! `tulle run` and what they serve is a scripted server of the test's own.

mod ads;
mod ahead;
mod authority;
mod browser;
mod certificate;
mod cli;
mod files;
mod garbage;
mod input;
mod mux;
mod programmed;
mod registry;
mod rpc;
mod store;
mod token;
mod transparent;

use std::env;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use testkit::place::{DataDir, free_port};
use testkit::process::{Finished, Process};
use testkit::raw::{Raw, Response};
use testkit::wait_for;

use crate::mesh::binary;

/// For anything that should happen at once; long, because the test host may be busy.
const SOON: Duration = Duration::from_secs(20);

/// A service with one port that is selected by `app`, and a route to it.
const SHOP: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 80, targetPort: 9080, appProtocol: http}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: reviews, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: reviews}]
  rules: [{backendRefs: [{name: reviews, port: 80}]}]
"#;

/// The binary with this data directory, and nothing else of the tester's environment.
fn tulle(data_dir: &Path) -> Command {
    let mut command = Command::new(binary());
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy().to_ascii_lowercase();
        if text.starts_with("tulle_") || text.ends_with("_proxy") {
            command.env_remove(name);
        }
    }
    command
        .env("TULLE_DATA_DIR", data_dir)
        .env("NO_COLOR", "1")
        .current_dir(data_dir);
    command
}

/// A running control plane.
struct Plane {
    // Dropped before the directory that it writes in.
    process: Process,
    arguments: Vec<String>,
    dir: DataDir,
}

impl Plane {
    fn start(name: &str) -> Self {
        Self::start_with(name, &[])
    }

    fn start_with(name: &str, more: &[&str]) -> Self {
        Self::start_in(DataDir::new(name), "127.0.0.1", more)
    }

    /// `xds_ip` is where proxies find it.
    fn start_in(dir: DataDir, xds_ip: &str, more: &[&str]) -> Self {
        let mut arguments = vec!["control".to_owned()];
        // The ports stay the same when it is started again.
        for (flag, ip) in [
            ("--xds", xds_ip),
            ("--api", "127.0.0.1"),
            ("--metrics", "127.0.0.1"),
            ("--otlp", "127.0.0.1"),
        ] {
            arguments.push(flag.to_owned());
            arguments.push(format!("{ip}:{}", free_port()));
        }
        arguments.extend(more.iter().map(|a| (*a).to_owned()));
        let process = spawn(dir.path(), &arguments);
        Self {
            process,
            arguments,
            dir,
        }
    }

    /// Kills it without warning, and starts it again on what it left.
    fn kill_and_restart(&mut self) {
        self.process.kill();
        self.restart();
    }

    fn restart(&mut self) {
        self.process = spawn(self.dir.path(), &self.arguments);
    }

    fn addresses(&self) -> Value {
        let text = fs::read(self.dir.join("control.json")).expect("it is ready");
        serde_json::from_slice(&text).expect("JSON")
    }

    /// Where it listens: `xds`, `api`, `metrics` or `otlp`.
    fn address(&self, what: &str) -> SocketAddr {
        let addresses = self.addresses();
        let text = addresses[what].as_str().expect("an address").to_owned();
        text.replace("0.0.0.0", "127.0.0.1")
            .parse()
            .expect("an address")
    }

    /// Runs a command to its end.
    fn cli(&self, arguments: &[&str]) -> Finished {
        let mut command = tulle(self.dir.path());
        command.args(arguments);
        let name = arguments.first().copied().unwrap_or("tulle");
        Process::run(name, &mut command, self.dir.path(), 3 * SOON)
    }

    /// Runs a command that must succeed, and reads its JSON.
    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let mut all = arguments.to_vec();
        all.extend(["-o", "json"]);
        serde_json::from_str(&self.cli(&all).success()).expect("JSON")
    }

    /// Writes a file and applies it.
    fn apply(&self, name: &str, text: &str) -> Finished {
        self.dir.write(name, text);
        self.cli(&["apply", "-f", name])
    }

    /// One request of the HTTP API over TCP.
    #[track_caller]
    fn http(&self, method: &str, path: &str, body: &str) -> Response {
        let mut raw = Raw::connect(self.address("api")).expect("the API listens");
        raw.request(format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ))
    }

    /// `GET /api/v1/status`.
    #[track_caller]
    fn status(&self) -> Value {
        let response = self.http("GET", "/api/v1/status", "");
        serde_json::from_slice(&response.body).expect("JSON")
    }

    /// A metric of the control plane; the sum where there are several.
    #[track_caller]
    fn metric(&self, name: &str) -> u64 {
        let mut raw = Raw::connect(self.address("metrics")).expect("metrics are served");
        let text = raw.get("localhost", "/metrics").text();
        let of_name = text.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with([' ', '{']))
        });
        let values: Vec<f64> = of_name
            .filter_map(|line| line.rsplit_once(' ')?.1.parse().ok())
            .collect();
        assert!(!values.is_empty(), "no metric {name} in:\n{text}");
        values.iter().sum::<f64>() as u64
    }

    /// A condition of an object, as JSON.
    fn condition(&self, kind: &str, name: &str, which: &str) -> Option<Value> {
        let response = self.http("GET", &format!("/api/v1/resources/{kind}/{name}"), "");
        let object: Value = serde_json::from_slice(&response.body).expect("JSON");
        let own = object.pointer("/status/conditions").cloned();
        let parents = object.pointer("/status/parents/0/conditions").cloned();
        let ancestors = object.pointer("/status/ancestors/0/conditions").cloned();
        [own, parents, ancestors]
            .into_iter()
            .flatten()
            .flat_map(|list| list.as_array().cloned().unwrap_or_default())
            .find(|condition| condition["type"] == which)
    }

    /// Starts a program with a proxy in explicit mode; `arguments` come after `run`.
    fn run(&self, name: &str, arguments: &[&str]) -> Process {
        let mut command = tulle(self.dir.path());
        command.args(["run", "--mode", "explicit"]).args(arguments);
        Process::spawn(name, &mut command, self.dir.path())
    }

    /// Starts a workload `INSTANCE` of service `name` in namespace `shop`, whose program is whoever
    /// listens on `port` of this host; waits until it is ready and its proxy is up to date.
    fn serve(&self, name: &str, instance: &str, port: u16) -> Process {
        let mut process = self.run(
            instance,
            &[
                "--service",
                name,
                "-n",
                "shop",
                "--instance",
                instance,
                "--port",
                &format!("{port}/http"),
                "--",
                "sleep",
                "1000",
            ],
        );
        process.wait_for("the workload is ready", 2 * SOON, || {
            self.workload(instance)
                .filter(|w| w["ready"] == true)
                .map(drop)
        });
        process
    }

    /// Starts a mere client; gives it and the port of its HTTP proxy.
    fn client(&self, instance: &str, more: &[&str]) -> (Process, u16) {
        let mut arguments = vec!["--service", instance, "-n", "shop", "--instance", instance];
        arguments.extend(more);
        arguments.extend(["--", "sleep", "1000"]);
        let mut process = self.run(instance, &arguments);
        let port = process.wait_for("the client's proxy is known", 2 * SOON, || {
            self.proxy_port(instance, "explicit_http")
        });
        (process, port)
    }

    /// A workload of namespace `shop` as status has it.
    fn workload(&self, instance: &str) -> Option<Value> {
        let status = self.status();
        let workloads = status["workloads"].as_array()?;
        workloads.iter().find(|w| w["name"] == instance).cloned()
    }

    /// A port of a workload's proxy.
    fn proxy_port(&self, instance: &str, name: &str) -> Option<u16> {
        let workload = self.workload(instance)?;
        let port = workload.pointer(&format!("/lease/proxyPorts/{name}"))?;
        u16::try_from(port.as_u64()?).ok()
    }

    /// Where a workload's proxy keeps its certificate.
    fn svid(&self, instance: &str) -> Vec<u8> {
        let path = self.dir.join(format!("workloads/shop/{instance}/svid.pem"));
        wait_for("a certificate", SOON, || fs::read(&path).ok())
    }
}

fn spawn(dir: &Path, arguments: &[String]) -> Process {
    let _ = fs::remove_file(dir.join("control.json"));
    let mut command = tulle(dir);
    command.args(arguments);
    let mut process = Process::spawn("control", &mut command, dir);
    process.wait_stderr("control plane is ready", 2 * SOON);
    process
}

/// One GET through a client's HTTP proxy.
fn through(proxy: u16, url_host: &str) -> Response {
    let mut raw = Raw::connect(("127.0.0.1", proxy)).expect("the proxy listens");
    raw.request(format!(
        "GET http://{url_host}/ HTTP/1.1\r\nhost: {url_host}\r\nconnection: close\r\n\r\n"
    ))
}

/// Waits until a GET through the proxy is answered with 200 and this body.
#[track_caller]
fn wait_through(proxy: u16, url_host: &str, body: &str) {
    let mut last = String::new();
    let got = testkit::deadline::try_wait_for(SOON, || {
        let response = through(proxy, url_host);
        let fits = response.status == 200 && response.text() == body;
        last = format!("{response:?}");
        fits.then_some(())
    });
    assert!(got.is_some(), "http://{url_host}/ gives {last}");
}

/// Asserts that a text has all these parts.
#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}
