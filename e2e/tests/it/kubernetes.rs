//! `tulle control --store kubernetes` beside a real API server.
//!
//! Not part of a normal run: it needs a cluster with Gateway API's CRDs, in `TULLE_TEST_KUBECONFIG`
//! or `KUBECONFIG`, and `kubectl`:
//! `cargo test --profile quick --workspace --test it -- --ignored kubernetes`.
//!
//! The control plane and the Gateway's proxy run here, beside the cluster, and reach the API server
//! through [`Way`], which the test can cut.

mod way;

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use testkit::origin::Origin;
use testkit::place::{DataDir, free_port};
use testkit::process::Process;
use testkit::raw::Raw;

use crate::mesh::binary;
use way::Way;

/// For what takes a watch, a write and an acknowledgement, on a machine with much else to do.
const SOON: Duration = Duration::from_secs(40);

/// A cluster with a namespace of the test's own, and Tulle beside it.
struct World {
    control: Option<Process>,
    gateway: Option<Process>,
    dir: DataDir,
    kubeconfig: PathBuf,
    way: Way,
    namespace: String,
    /// Answers for the Service `backend`.
    origin: Origin,
    port: u16,
}

impl World {
    /// A namespace with a Gateway, a Service with one endpoint, and a route; nothing runs yet.
    fn new(name: &str) -> Self {
        let kubeconfig = std::env::var_os("TULLE_TEST_KUBECONFIG")
            .or_else(|| std::env::var_os("KUBECONFIG"))
            .expect("TULLE_TEST_KUBECONFIG or KUBECONFIG names a kubeconfig");
        let kubeconfig = PathBuf::from(kubeconfig);
        let dir = DataDir::new("kubernetes");
        let way = Way::to_cluster(&kubeconfig, &dir.join("kubeconfig"));
        let listener = TcpListener::bind((own_address(way.server), 0)).unwrap();
        let world = Self {
            control: None,
            gateway: None,
            origin: Origin::on(listener),
            kubeconfig,
            way,
            namespace: format!("tulle-e2e-{name}-{}", std::process::id()),
            port: free_port(),
            dir,
        };
        world.apply(&world.objects());
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

    /// A route that marks what it answers with this word.
    fn route(&self, word: &str) -> String {
        let ns = &self.namespace;
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: all, namespace: {ns}}}\nspec:\n  parentRefs: [{{name: web}}]\n  rules:\n  - filters: [{{type: ResponseHeaderModifier, responseHeaderModifier: {{set: [{{name: x-word, value: {word}}}]}}}}]\n    backendRefs: [{{name: backend, port: 80}}]\n"
        )
    }

    fn kubectl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.args(arguments).env("KUBECONFIG", &self.kubeconfig);
        command
    }

    fn apply(&self, yaml: &str) {
        let file = self.dir.write("apply.yaml", yaml);
        let mut command = self.kubectl(&["apply", "-f"]);
        command.arg(file);
        Process::run("kubectl", &mut command, self.dir.path(), SOON).success();
    }

    fn object(&self, kind: &str, name: &str) -> Value {
        let arguments = ["get", kind, name, "-n", &self.namespace, "-o", "json"];
        let mut command = self.kubectl(&arguments);
        let text = Process::run("kubectl", &mut command, self.dir.path(), SOON).success();
        serde_json::from_str(&text).unwrap()
    }

    /// Waits until an object's status says so.
    fn says(&self, what: &str, kind: &str, name: &str, so: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let found = testkit::deadline::try_wait_for(SOON, || {
            last = self.object(kind, name);
            so(&last).then_some(())
        });
        assert!(found.is_some(), "{what}: {kind} {name} is {last:#}");
        last
    }

    fn tulle(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        for (name, _) in std::env::vars() {
            if name.starts_with("TULLE_") {
                command.env_remove(name);
            }
        }
        command
            .args(arguments)
            .env("TULLE_DATA_DIR", self.dir.path())
            .env("TULLE_NAMESPACE", &self.namespace)
            .env("KUBECONFIG", self.dir.join("kubeconfig"));
        command
    }

    fn start_control(&mut self) {
        let _ = std::fs::remove_file(self.dir.join("control.json"));
        let mut command = self.tulle(&["-v", "control", "--store", "kubernetes"]);
        command.args(["--xds", "127.0.0.1:0", "--api", "127.0.0.1:0"]);
        command.args(["--metrics", "127.0.0.1:0", "--otlp", "127.0.0.1:0"]);
        let mut control = Process::spawn("control", &mut command, self.dir.path());
        control.wait_for("the control plane is ready", SOON, || {
            self.dir.join("control.json").is_file().then_some(())
        });
        self.control = Some(control);
    }

    fn start_gateway(&mut self) {
        let name = format!("{}/web", self.namespace);
        let create = [
            "token",
            "create",
            "-n",
            &self.namespace,
            "--service-account",
            "web",
        ];
        let token =
            Process::run("token", &mut self.tulle(&create), self.dir.path(), SOON).success();
        let token = self.dir.write("token", token);
        let text = std::fs::read_to_string(self.dir.join("control.json")).unwrap();
        let addresses: Value = serde_json::from_str(&text).unwrap();
        let mut command = self.tulle(&["-v", "gateway", "--name", &name, "--admin", "off"]);
        command.args([
            "--xds",
            addresses["xds"].as_str().unwrap(),
            "--workers",
            "1",
        ]);
        command.arg("--state-dir").arg(self.dir.join("web"));
        command.arg("--token-file").arg(token);
        self.gateway = Some(Process::spawn("gateway", &mut command, self.dir.path()));
    }

    /// What the route marks its answers with; `None` while nothing is served.
    fn word(&self) -> Option<String> {
        let mut raw = Raw::connect(("127.0.0.1", self.port)).ok()?;
        raw.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .ok()?;
        let response = raw.response(SOON).ok()?;
        let word = response
            .header("x-word")
            .filter(|_| response.status == 200)?;
        Some(word.to_owned())
    }

    fn serves(&self, word: &str) {
        testkit::wait_for(&format!("the route says {word}"), SOON, || {
            (self.word().as_deref() == Some(word)).then_some(())
        });
    }

    /// The source, as the control plane's status shows it.
    fn source(&self) -> Value {
        let mut command = self.tulle(&["status", "-o", "json"]);
        let text = Process::run("status", &mut command, self.dir.path(), SOON).success();
        serde_json::from_str::<Value>(&text).unwrap()["source"].clone()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.control = None;
        self.gateway = None;
        let objects = ["gatewayclass", "namespace"];
        for kind in objects {
            let arguments = [
                "delete",
                kind,
                &self.namespace,
                "--ignore-not-found",
                "--wait=false",
            ];
            let _ = self.kubectl(&arguments).output();
        }
    }
}

/// The address by which a cluster reaches this host.
fn own_address(server: SocketAddr) -> std::net::IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect(server).unwrap();
    socket.local_addr().unwrap().ip()
}

/// The status of a condition and the generation that it is about.
fn condition(list: &Value, kind: &str) -> Option<(String, u64)> {
    let found = list.as_array()?.iter().find(|c| c["type"] == kind)?;
    let status = found["status"].as_str()?.to_owned();
    Some((status, found["observedGeneration"].as_u64()?))
}

fn holds(list: &Value, kind: &str, generation: u64) -> bool {
    condition(list, kind) == Some(("True".to_owned(), generation))
}

#[test]
#[ignore = "needs a cluster: TULLE_TEST_KUBECONFIG"]
fn what_is_in_the_cluster_is_served_and_its_status_written() {
    let mut world = World::new("status");
    world.start_control();
    let class = world.says("accepted", "gatewayclass", &world.namespace.clone(), |o| {
        holds(&o["status"]["conditions"], "Accepted", 1)
    });
    let features = class["status"]["supportedFeatures"]
        .as_array()
        .expect("features");
    assert!(
        features.iter().any(|f| f["name"] == "HTTPRoute"),
        "{features:?}"
    );

    // Without a proxy nothing is programmed, whatever else holds.
    let before = world.says("accepted", "gateway", "web", |o| {
        holds(&o["status"]["conditions"], "Accepted", 1)
    });
    let programmed = condition(&before["status"]["conditions"], "Programmed");
    assert_ne!(programmed.expect("said").0, "True", "{before:#}");
    world.start_gateway();
    world.serves("first");
    let web = world.says("programmed by the proxy", "gateway", "web", |o| {
        let listener = &o["status"]["listeners"][0];
        holds(&o["status"]["conditions"], "Programmed", 1)
            && holds(&listener["conditions"], "Programmed", 1)
            && listener["attachedRoutes"] == 1
    });
    let kinds = &web["status"]["listeners"][0]["supportedKinds"];
    assert!(kinds.as_array().is_some_and(|k| !k.is_empty()), "{web:#}");

    let accepted = |generation| {
        move |o: &Value| {
            let parent = &o["status"]["parents"][0];
            parent["controllerName"] == "tulle.dev/gateway"
                && holds(&parent["conditions"], "Accepted", generation)
                && holds(&parent["conditions"], "ResolvedRefs", generation)
        }
    };
    let first = world.says("accepted", "httproute", "all", accepted(1));
    world.apply(&world.route("second"));
    world.serves("second");
    let second = world.says("the new generation", "httproute", "all", accepted(2));
    let since =
        |o: &Value| o["status"]["parents"][0]["conditions"][0]["lastTransitionTime"].clone();
    assert_eq!(
        since(&first),
        since(&second),
        "nothing has changed its status"
    );

    // Somebody overwrites it: it is said again.
    let patch = r#"{"status":{"parents":[]}}"#;
    let arguments = [
        "patch",
        "httproute",
        "all",
        "-n",
        &world.namespace,
        "--subresource=status",
    ];
    let mut command = world.kubectl(&arguments);
    command.args(["--type=merge", "-p", patch]);
    Process::run("kubectl", &mut command, world.dir.path(), SOON).success();
    world.says("said again", "httproute", "all", accepted(2));

    let arguments = ["delete", "httproute", "all", "-n", &world.namespace];
    let mut command = world.kubectl(&arguments);
    Process::run("kubectl", &mut command, world.dir.path(), SOON).success();
    testkit::wait_for("the route to be gone", SOON, || {
        world.word().is_none().then_some(())
    });
    world.says("no route", "gateway", "web", |o| {
        o["status"]["listeners"][0]["attachedRoutes"] == 0
    });
}

#[test]
#[ignore = "needs a cluster: TULLE_TEST_KUBECONFIG"]
fn the_api_server_may_be_away() {
    let mut world = World::new("away");
    world.start_control();
    world.start_gateway();
    world.serves("first");
    let source = world.source();
    assert_eq!(source["synced"], true, "{source:#}");

    world.way.cut();
    let lagging = |world: &World| {
        let source = world.source();
        let watches = source["watches"].as_array().cloned().unwrap_or_default();
        watches.iter().any(|w| w["state"] == "failing")
    };
    testkit::wait_for("the lost watches to be told", SOON, || {
        lagging(&world).then_some(())
    });
    world.serves("first");

    // Also a control plane that starts meanwhile has what it last knew.
    world.control.take().unwrap().kill();
    world.apply(&world.route("second"));
    world.start_control();
    let control = world.control.as_mut().unwrap();
    control.wait_stderr("begins with the objects of the last run", SOON);
    let arguments = [
        "get",
        "httproute",
        "all",
        "-n",
        &world.namespace,
        "-o",
        "json",
    ];
    let mut command = world.tulle(&arguments);
    let text = Process::run("get", &mut command, world.dir.path(), SOON).success();
    assert!(
        text.contains("first") && text.contains("kubernetes"),
        "{text}"
    );

    world.way.open();
    let file = world.dir.write("mine.yaml", world.route("third"));
    testkit::wait_for("all to be listed again", SOON, || {
        (world.source()["synced"] == true).then_some(())
    });

    // What belongs to Kubernetes is changed there.
    let mut command = world.tulle(&["apply", "-f"]);
    command.arg(&file);
    let refused = Process::run("apply", &mut command, world.dir.path(), SOON);
    assert_ne!(refused.code(), 0);
    assert!(
        refused.stderr.contains("kubectl edit httproute all"),
        "{}",
        refused.stderr
    );
    world.apply(&world.route("third"));
    world.says("the status follows", "httproute", "all", |o| {
        holds(&o["status"]["parents"][0]["conditions"], "Accepted", 3)
    });
}
