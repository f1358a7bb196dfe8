//! A namespace of a real cluster for one test, and Tulle beside the cluster.
//!
//! Control planes run as a service account with what `deploy/kubernetes/rbac.yaml` allows, and
//! nothing else.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use testkit::origin::Origin;
use testkit::place::{DataDir, free_port};
use testkit::process::Process;
use testkit::raw::Raw;

use super::way::Way;
use crate::mesh::binary;

/// For what takes a watch, a write and an acknowledgement, on a machine with much else to do.
pub(super) const SOON: Duration = Duration::from_mins(1);

/// A cluster with a namespace of the test's own, and Tulle beside it.
pub(super) struct World {
    pub(super) control: Option<Process>,
    pub(super) gateway: Option<Process>,
    pub(super) dir: DataDir,
    /// The administrator's.
    pub(super) kubeconfig: PathBuf,
    pub(super) way: Way,
    /// Also the name of the GatewayClass and of the control planes' account.
    pub(super) namespace: String,
    /// Answers for the Service `backend`.
    origin: Origin,
    port: u16,
}

impl World {
    /// A namespace with a Gateway, a Service with one endpoint, and a route; nothing runs yet.
    pub(super) fn new(name: &str) -> Self {
        let kubeconfig = std::env::var_os("TULLE_TEST_KUBECONFIG")
            .or_else(|| std::env::var_os("KUBECONFIG"))
            .expect("TULLE_TEST_KUBECONFIG or KUBECONFIG names a kubeconfig");
        let kubeconfig = PathBuf::from(kubeconfig);
        let way = Way::to_cluster(&kubeconfig);
        let listener = TcpListener::bind((own_address(way.server), 0)).unwrap();
        let world = Self {
            control: None,
            gateway: None,
            origin: Origin::on(listener),
            kubeconfig,
            way,
            namespace: format!("tulle-e2e-{name}-{}", std::process::id()),
            port: free_port(),
            dir: DataDir::new("kubernetes"),
        };
        world.apply(&world.objects());
        world.allow();
        world
    }

    fn objects(&self) -> String {
        let (ns, port, origin) = (&self.namespace, self.port, self.origin.addr());
        format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {ns}}}\n---\n\
             apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {{name: {ns}}}\nspec: {{controllerName: tulle.dev/gateway}}\n---\n\
             apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: web, namespace: {ns}}}\nspec:\n  gatewayClassName: {ns}\n  listeners: [{{name: http, port: {port}, protocol: HTTP}}]\n---\n\
             apiVersion: v1\nkind: Service\nmetadata: {{name: backend, namespace: {ns}}}\nspec: {{ports: [{{name: http, port: 80}}]}}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: backend-1, namespace: {ns}, labels: {{kubernetes.io/service-name: backend}}}}\naddressType: IPv4\nports: [{{name: http, port: {}}}]\nendpoints: [{{addresses: [{}]}}]\n---\n{}",
            origin.port(),
            origin.ip(),
            self.route("first"),
        )
    }

    /// An account for control planes, allowed what the manifests allow theirs.
    fn allow(&self) {
        let ns = &self.namespace;
        let manifest = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../deploy/kubernetes/rbac.yaml"
        );
        let manifest = std::fs::read_to_string(manifest).unwrap();
        let own = manifest
            .replace("namespace: tulle-system", &format!("namespace: {ns}"))
            .replace("name: tulle-control", &format!("name: {ns}"));
        self.apply(&own);
        let token = self.run_kubectl(&["create", "token", ns, "-n", ns, "--duration=1h"]);
        self.way.write(&self.dir.join("kubeconfig"), token.trim());
    }

    /// A route that marks what it answers with this word.
    pub(super) fn route(&self, word: &str) -> String {
        self.route_of("all", "", word)
    }

    /// The same, of this name and for this host alone.
    pub(super) fn route_of(&self, name: &str, host: &str, word: &str) -> String {
        let ns = &self.namespace;
        let hosts = if host.is_empty() {
            String::new()
        } else {
            format!("  hostnames: [{host}]\n")
        };
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: {ns}}}\nspec:\n  parentRefs: [{{name: web}}]\n{hosts}  rules:\n  - filters: [{{type: ResponseHeaderModifier, responseHeaderModifier: {{set: [{{name: x-word, value: {word}}}]}}}}]\n    backendRefs: [{{name: backend, port: 80}}]\n"
        )
    }

    pub(super) fn kubectl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.args(arguments).env("KUBECONFIG", &self.kubeconfig);
        command
    }

    /// What kubectl says; fails the test where it fails.
    pub(super) fn run_kubectl(&self, arguments: &[&str]) -> String {
        let mut command = self.kubectl(arguments);
        Process::run("kubectl", &mut command, self.dir.path(), SOON).success()
    }

    pub(super) fn apply(&self, yaml: &str) {
        let file = self.dir.write("apply.yaml", yaml);
        let file = file.to_str().unwrap();
        self.run_kubectl(&["apply", "-f", file]);
    }

    /// Deletes an object of the namespace, and waits until it is gone.
    pub(super) fn delete(&self, kind: &str, name: &str) {
        self.run_kubectl(&["delete", kind, name, "-n", &self.namespace]);
    }

    /// An object of the namespace.
    pub(super) fn find(&self, kind: &str, name: &str) -> Option<Value> {
        let arguments = ["get", kind, name, "-n", &self.namespace, "-o", "json"];
        let mut command = self.kubectl(&arguments);
        let got = Process::run("kubectl", &mut command, self.dir.path(), SOON);
        let there = got.status.success();
        there.then(|| serde_json::from_str(&got.stdout).unwrap())
    }

    /// Waits until an object is there and its status says so.
    pub(super) fn says(
        &self,
        what: &str,
        kind: &str,
        name: &str,
        so: impl Fn(&Value) -> bool,
    ) -> Value {
        let mut last = Value::Null;
        let found = testkit::deadline::try_wait_for(SOON, || {
            last = self.find(kind, name)?;
            so(&last).then_some(())
        });
        assert!(found.is_some(), "{what}: {kind} {name} is {last:#}");
        last
    }

    /// A command for the control plane of the test's directory.
    pub(super) fn tulle(&self, arguments: &[&str]) -> Command {
        self.tulle_in(self.dir.path(), arguments)
    }

    /// A command for the control plane with this data directory, or that control plane.
    pub(super) fn tulle_in(&self, data: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        for (name, _) in std::env::vars() {
            if name.starts_with("TULLE_") {
                command.env_remove(name);
            }
        }
        command
            .args(arguments)
            .env("TULLE_DATA_DIR", data)
            .env("TULLE_NAMESPACE", &self.namespace)
            .env("KUBECONFIG", self.dir.join("kubeconfig"));
        command
    }

    pub(super) fn start_control(&mut self) {
        let control = self.control_in(self.dir.path(), &[]);
        self.control = Some(control);
    }

    /// A control plane with a data directory of its own; ready when it is returned.
    pub(super) fn control_in(&self, data: &Path, more: &[&str]) -> Process {
        std::fs::create_dir_all(data).unwrap();
        let ready = data.join("control.json");
        let _ = std::fs::remove_file(&ready);
        let mut command = self.tulle_in(data, &["-v", "control", "--store", "kubernetes"]);
        command.args(["--xds", "127.0.0.1:0", "--api", "127.0.0.1:0"]);
        command.args(["--metrics", "127.0.0.1:0", "--otlp", "127.0.0.1:0"]);
        command.args(more);
        let mut control = Process::spawn("control", &mut command, data);
        control.wait_for("the control plane is ready", SOON, || {
            ready.is_file().then_some(())
        });
        control
    }

    /// Where the control plane with this data directory takes proxies.
    pub(super) fn xds_of(data: &Path) -> SocketAddr {
        let text = std::fs::read_to_string(data.join("control.json")).unwrap();
        let addresses: Value = serde_json::from_str(&text).unwrap();
        addresses["xds"].as_str().unwrap().parse().unwrap()
    }

    pub(super) fn start_gateway(&mut self) {
        let data = self.dir.path().to_owned();
        self.start_gateway_at(&data, Self::xds_of(&data));
    }

    /// Starts the Gateway's proxy with a token of the control plane with this data directory.
    pub(super) fn start_gateway_at(&mut self, data: &Path, xds: SocketAddr) {
        let ns = &self.namespace;
        let mut create = self.tulle_in(data, &["token", "create", "--service-account", "web"]);
        create.args(["-n", ns]);
        let token = Process::run("token", &mut create, self.dir.path(), SOON).success();
        let token = self.dir.write("token", token);
        self.spawn_gateway(xds, &["--token-file", token.to_str().unwrap()]);
    }

    pub(super) fn spawn_gateway(&mut self, xds: SocketAddr, more: &[&str]) {
        let name = format!("{}/web", self.namespace);
        let mut command = self.tulle(&["-v", "gateway", "--name", &name, "--admin", "off"]);
        command.args(["--xds", &xds.to_string(), "--workers", "1"]);
        command.arg("--state-dir").arg(self.dir.join("web"));
        command.args(more);
        self.gateway = Some(Process::spawn("gateway", &mut command, self.dir.path()));
    }

    /// What the route marks its answers with; `None` while nothing is served.
    pub(super) fn word(&self) -> Option<String> {
        self.word_of("a")
    }

    /// The same, of a request to this host.
    pub(super) fn word_of(&self, host: &str) -> Option<String> {
        let mut raw = Raw::connect(("127.0.0.1", self.port)).ok()?;
        raw.send(format!(
            "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        ))
        .ok()?;
        let response = raw.response(SOON).ok()?;
        let word = response
            .header("x-word")
            .filter(|_| response.status == 200)?;
        Some(word.to_owned())
    }

    pub(super) fn serves(&self, word: &str) {
        testkit::wait_for(&format!("the route says {word}"), SOON, || {
            (self.word().as_deref() == Some(word)).then_some(())
        });
    }

    /// The source, as the control plane's status shows it.
    pub(super) fn source(&self) -> Value {
        self.source_in(self.dir.path())
    }

    /// The same, of the control plane with this data directory.
    pub(super) fn source_in(&self, data: &Path) -> Value {
        let mut command = self.tulle_in(data, &["status", "-o", "json"]);
        let text = Process::run("status", &mut command, self.dir.path(), SOON).success();
        serde_json::from_str::<Value>(&text).unwrap()["source"].clone()
    }

    /// One watch, as the control plane's status shows it.
    pub(super) fn watch(&self, kind: &str) -> Value {
        let source = self.source();
        let watches = source["watches"].as_array().expect("watches");
        let found = watches.iter().find(|watch| watch["kind"] == kind);
        found
            .unwrap_or_else(|| panic!("no watch of {kind}: {source:#}"))
            .clone()
    }

    /// Waits until a watch is known to fail.
    pub(super) fn watches_fail(&self) {
        testkit::wait_for("the lost watches to be told", SOON, || {
            let source = self.source();
            let watches = source["watches"].as_array()?;
            let failing = watches.iter().any(|w| w["state"] == "failing");
            failing.then_some(())
        });
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.control = None;
        self.gateway = None;
        for kind in [
            "flowschema",
            "prioritylevelconfiguration",
            "clusterrolebinding",
            "clusterrole",
            "gatewayclass",
            "namespace",
        ] {
            let name = self.namespace.as_str();
            let arguments = ["delete", kind, name, "--ignore-not-found", "--wait=false"];
            let _ = self.kubectl(&arguments).output();
        }
    }
}

/// The address by which a cluster reaches this host.
fn own_address(server: SocketAddr) -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect(server).unwrap();
    socket.local_addr().unwrap().ip()
}

/// The status of a condition and the generation that it is about.
pub(super) fn condition(list: &Value, kind: &str) -> Option<(String, u64)> {
    let found = list.as_array()?.iter().find(|c| c["type"] == kind)?;
    let status = found["status"].as_str()?.to_owned();
    Some((status, found["observedGeneration"].as_u64()?))
}

pub(super) fn holds(list: &Value, kind: &str, generation: u64) -> bool {
    condition(list, kind) == Some(("True".to_owned(), generation))
}

/// Whether a route's only parent has accepted it as it was in this generation.
pub(super) fn accepted(generation: u64) -> impl Fn(&Value) -> bool {
    move |o: &Value| {
        let parent = &o["status"]["parents"][0];
        parent["controllerName"] == "tulle.dev/gateway"
            && holds(&parent["conditions"], "Accepted", generation)
            && holds(&parent["conditions"], "ResolvedRefs", generation)
    }
}
