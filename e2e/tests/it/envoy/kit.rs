//! A control plane, a proxy of Tulle's and an Envoy beside it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::place::free_port;
use testkit::process::Process;
use testkit::raw::Raw;

use crate::gateway::{process::Edge, secret};
use crate::mesh::{self, Mesh, SOON};

/// The mode in which Envoy asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    StateOfTheWorld,
    Delta,
}

/// All of it; ends when it is dropped.
pub(crate) struct World {
    pub(crate) envoy_process: Process,
    _edge: Option<Edge>,
    pub(crate) mesh: Mesh,
    /// The port of the Gateway that Tulle serves.
    pub(crate) tulle: u16,
    /// That of the one that Envoy serves.
    pub(crate) envoy: u16,
    /// For both, the ports on which `paths.test` is served inside TLS.
    pub(crate) secure: [u16; 2],
    admin: u16,
}

impl World {
    /// Objects, and routes for both Gateways, of which each document is a spec without its parents.
    pub(crate) fn start(mode: Mode, objects: &str, routes: &str) -> Self {
        let mesh = Mesh::start_with(mesh::Mode::Explicit, &["--insecure-xds=127.0.0.1:0"]);
        let (tulle, envoy, admin) = (free_port(), free_port(), free_port());
        let secure = [free_port(), free_port()];
        let of = |name: &str, port: u16, secure: u16| {
            format!(
                "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  gatewayClassName: tulle\n  listeners:\n  - {{name: http, port: {port}, protocol: HTTP}}\n  - {{name: https, port: {secure}, protocol: HTTPS, hostname: paths.test, tls: {{certificateRefs: [{{name: paths}}]}}}}\n---\n"
            )
        };
        let secret = secret("paths", "paths.test").replace("namespace: shop", "namespace: default");
        let gateways = of("web", tulle, secure[0]) + &of("peer", envoy, secure[1]);
        mesh.apply(&(secret + &gateways + objects + "\n---\n" + &attached(routes)));
        let edge = Edge::start(&mesh, "edge");
        let envoy_process = start_envoy(&mesh, "gateway/default/peer", mode, admin);
        let mut world = Self {
            envoy_process,
            _edge: Some(edge),
            mesh,
            tulle,
            envoy,
            secure,
            admin,
        };
        for port in [tulle, envoy, secure[0], secure[1]] {
            world.envoy_process.wait_for("both to listen", SOON, || {
                Raw::connect(("127.0.0.1", port)).ok()
            });
        }
        world
    }

    /// An Envoy of another name, and nothing that it could serve.
    pub(crate) fn start_envoy_as(node: &str) -> Self {
        let mesh = Mesh::start_with(mesh::Mode::Explicit, &["--insecure-xds=127.0.0.1:0"]);
        let admin = free_port();
        Self {
            envoy_process: start_envoy(&mesh, node, Mode::Delta, admin),
            _edge: None,
            mesh,
            tulle: 0,
            envoy: 0,
            secure: [0, 0],
            admin,
        }
    }

    /// Puts other routes in the place of the first ones.
    pub(crate) fn route(&self, routes: &str) {
        self.mesh.apply(&attached(routes));
    }

    /// What Envoy's admin endpoint says.
    pub(crate) fn admin(&self, path: &str) -> String {
        let mut raw = Raw::connect(("127.0.0.1", self.admin)).unwrap();
        raw.get("admin", path).text()
    }

    /// The control plane's metrics.
    pub(crate) fn control_metrics(&self) -> String {
        let at = address(&self.mesh, "metrics");
        let mut raw = Raw::connect(at.as_str()).unwrap();
        raw.get("control", "/metrics").text()
    }
}

/// A Service with the ports of its endpoints, which have no proxy.
pub(crate) fn service(name: &str, endpoints: &[u16]) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\nspec: {{ports: [{{name: main, port: 80, appProtocol: http}}]}}\n---\n"
    );
    for (at, port) in endpoints.iter().enumerate() {
        let _ = write!(
            text,
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}-{at}, namespace: default, labels: {{kubernetes.io/service-name: {name}}}}}\naddressType: IPv4\nports: [{{name: main, port: {port}}}]\nendpoints: [{{addresses: [127.0.0.1]}}]\n---\n"
        );
    }
    text
}

fn attached(routes: &str) -> String {
    let mut text = String::new();
    for (at, spec) in routes.split("\n---\n").enumerate() {
        let _ = writeln!(
            text,
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r{at}, namespace: default}}\nspec:\n  parentRefs: [{{name: web}}, {{name: peer}}]"
        );
        for line in spec.lines().filter(|line| !line.is_empty()) {
            let _ = writeln!(text, "  {line}");
        }
        text.push_str("---\n");
    }
    text
}

fn address(mesh: &Mesh, name: &str) -> String {
    let text = std::fs::read_to_string(mesh.dir.join("control.json")).unwrap();
    let addresses: Value = serde_json::from_str(&text).unwrap();
    addresses[name].as_str().unwrap().to_owned()
}

/// The program, which is installed where it is not there.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/suites/envoy.sh");
        let made = Command::new("bash").arg(script).output().unwrap();
        assert!(
            made.status.success(),
            "there is no Envoy to compare with: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        String::from_utf8_lossy(&made.stdout).trim().into()
    })
}

fn start_envoy(mesh: &Mesh, node: &str, mode: Mode, admin: u16) -> Process {
    let at = address(mesh, "insecure_xds");
    let (host, port) = at.rsplit_once(':').unwrap();
    let port: u16 = port.parse().unwrap();
    let socket =
        |host: &str, port: u16| json!({"socket_address": {"address": host, "port_value": port}});
    let over_ads = json!({"resource_api_version": "V3", "ads": {}});
    let kind = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let bootstrap = json!({
        "node": {"id": node, "cluster": "edge"},
        "admin": {"address": socket("127.0.0.1", admin)},
        "dynamic_resources": {
            "ads_config": {
                "api_type": match mode { Mode::StateOfTheWorld => "GRPC", Mode::Delta => "DELTA_GRPC" },
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "control"}}],
            },
            "cds_config": over_ads,
            "lds_config": over_ads,
        },
        "static_resources": {"clusters": [{
            "name": "control",
            "type": "STATIC",
            "connect_timeout": "1s",
            "load_assignment": {
                "cluster_name": "control",
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(host, port)}}]}],
            },
            "typed_extension_protocol_options": {options: {"@type": kind, "explicit_http_config": {"http2_protocol_options": {}}}},
        }]},
    });
    let file = mesh.dir.write("envoy.json", bootstrap.to_string());
    let mut command = Command::new(program());
    command.arg("-c").arg(file);
    command.args([
        "--disable-hot-restart",
        "--concurrency",
        "1",
        "-l",
        "warning",
    ]);
    let mut process = Process::spawn("envoy", &mut command, mesh.dir.path());
    process.wait_for("Envoy to start", Duration::from_secs(30), || {
        Raw::connect(("127.0.0.1", admin)).ok()
    });
    process
}
