//! A proxy in front of back ends, without a mesh: `tulle proxy --static` or, to judge the judges,
//! HAProxy, nginx or Envoy.
//!
//! `E2E_FRONT=mesh` takes two sidecars instead, with mutual TLS between them. `E2E_FRONT=haproxy`
//! (or `nginx`, `envoy`) puts that proxy where Tulle would be; what tests claim of Tulle alone is
//! then printed instead of asserted.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use testkit::origin::Origin;
use testkit::place::{DataDir, free_port};
use testkit::process::Process;
use testkit::raw::{Raw, Response};
use testkit::wait_for;

use crate::mesh::{Mesh, SOON, Workload, binary};

/// Which proxy is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Tulle,
    /// Tulle twice: the sidecar of a client and that of the server.
    Mesh,
    HaProxy,
    Nginx,
    Envoy,
}

impl Kind {
    /// What `E2E_FRONT` says; Tulle without it.
    pub(crate) fn chosen() -> Self {
        match std::env::var("E2E_FRONT").as_deref() {
            Ok("mesh") => Self::Mesh,
            Ok("haproxy") => Self::HaProxy,
            Ok("nginx") => Self::Nginx,
            Ok("envoy") => Self::Envoy,
            _ => Self::Tulle,
        }
    }

    /// Whether what is claimed of Tulle must hold.
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::Tulle | Self::Mesh)
    }
}

/// What a front is started with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Setup {
    /// Lines under `spec.limits` of the MeshConfig, for instance `requestHeadTimeout: 1s`.
    pub(crate) limits: String,
    /// More objects for the directory.
    pub(crate) objects: String,
    /// What the back end's port is declared to speak, for instance `http` or `kubernetes.io/h2c`.
    pub(crate) protocol: &'static str,
    /// Worker threads; 1 unless said.
    pub(crate) workers: usize,
}

/// A running proxy; it ends when dropped.
pub(crate) struct Front {
    pub(crate) kind: Kind,
    pub(crate) process: Process,
    pub(crate) dir: DataDir,
    /// Where it takes HTTP/1.
    pub(crate) addr: SocketAddr,
    /// Where it takes HTTP/2 in clear text.
    pub(crate) addr_h2: SocketAddr,
    metrics: SocketAddr,
    /// The server's sidecar, and then the control plane.
    _mesh: Option<(Workload, Mesh)>,
}

/// A Gateway with a plain listener, and a route of all its requests to a port of a service.
pub(crate) fn entrance(name: &str, port: u16, service: &str, to: u16) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {name}, namespace: default}}
spec:
  gatewayClassName: tulle
  listeners: [{{name: http, port: {port}, protocol: HTTP}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: all, namespace: default}}
spec:
  parentRefs: [{{name: {name}}}]
  rules: [{{backendRefs: [{{name: {service}, port: {to}}}]}}]
"
    )
}

/// The objects that send everything that comes to a port of the gateway to a back end.
pub(crate) fn gateway(port: u16, backend: SocketAddr, protocol: &str) -> String {
    let (ip, to) = (backend.ip(), backend.port());
    let protocol = if protocol.is_empty() {
        "http"
    } else {
        protocol
    };
    let entrance = entrance("edge", port, "app", 80);
    format!(
        "{entrance}---
apiVersion: v1
kind: Service
metadata: {{name: app, namespace: default}}
spec: {{selector: {{app: app}}, ports: [{{name: http, port: 80, targetPort: {to}, appProtocol: {protocol}}}]}}
---
apiVersion: tulle.dev/v1alpha1
kind: Workload
metadata: {{name: app-0, namespace: default, labels: {{app: app}}}}
spec: {{address: {ip}, ports: [{{name: http, port: {to}, appProtocol: {protocol}}}]}}
"
    )
}

impl Front {
    /// The chosen proxy before a back end.
    pub(crate) fn start(backend: SocketAddr) -> Self {
        Self::with(backend, &Setup::default())
    }

    /// As [`start`](Self::start), set up otherwise.
    pub(crate) fn with(backend: SocketAddr, setup: &Setup) -> Self {
        Self::with_ready(backend, setup, |raw| {
            let answer = raw.response(Duration::from_secs(2));
            answer.is_ok_and(|answer| answer.status == 200)
        })
    }

    /// As [`with`](Self::with); `ready` looks at the answer to a GET.
    pub(crate) fn with_ready(
        backend: SocketAddr,
        setup: &Setup,
        ready: impl Fn(&mut Raw) -> bool,
    ) -> Self {
        let dir = DataDir::new("front");
        let [port, port_h2, metrics] = [(); 3].map(|()| free_port());
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let kind = Kind::chosen();
        if kind == Kind::Mesh {
            return Self::sidecars(dir, at(port), backend, setup, &ready);
        }
        let mut command = match kind {
            Kind::Mesh => unreachable!("returned above"),
            Kind::Tulle => tulle(&dir, port, metrics, backend, setup),
            Kind::HaProxy => haproxy(&dir, port, port_h2, backend),
            Kind::Nginx => nginx_front(&dir, port, port_h2, backend),
            Kind::Envoy => envoy(&dir, port, port_h2, backend),
        };
        let process = Process::spawn("front", &mut command, dir.path());
        let mut front = Self {
            kind,
            process,
            dir,
            addr: at(port),
            addr_h2: at(if kind == Kind::Tulle { port } else { port_h2 }),
            metrics: at(metrics),
            _mesh: None,
        };
        front.wait(&ready);
        front
    }

    /// Two sidecars in explicit mode; the client's has a port that leads to the server.
    fn sidecars(
        dir: DataDir,
        addr: SocketAddr,
        backend: SocketAddr,
        setup: &Setup,
        ready: &dyn Fn(&mut Raw) -> bool,
    ) -> Self {
        let mesh = Mesh::start();
        let protocol = match setup.protocol {
            "" | "http" => "http",
            _ => "http2",
        };
        let port = format!("{}/{protocol}", backend.port());
        let server = mesh.idle("app", "app", &["--port", &port]);
        mesh.wait_ready("app");
        let upstream = format!("app:{}={}", backend.port(), addr.port());
        let client = mesh.client_with(&["--upstream", &upstream]);
        let mut front = Self {
            kind: Kind::Mesh,
            process: client.process,
            dir,
            addr,
            addr_h2: addr,
            metrics: addr,
            _mesh: Some((server, mesh)),
        };
        front.wait(ready);
        front
    }

    fn wait(&mut self, ready: &dyn Fn(&mut Raw) -> bool) {
        let addr = self.addr;
        self.process.wait_for("the front serves", SOON, || {
            let mut raw = Raw::connect(addr).ok()?;
            raw.send("GET /ready HTTP/1.1\r\nHost: app.local\r\nConnection: close\r\n\r\n")
                .ok()?;
            ready(&mut raw).then_some(())
        });
    }

    /// A connection to it.
    #[track_caller]
    pub(crate) fn connect(&self) -> Raw {
        Raw::connect(self.addr).expect("the front accepts")
    }

    /// One GET on a connection of its own.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Response {
        self.connect().get("app.local", path)
    }

    /// A page of its metrics port.
    #[track_caller]
    pub(crate) fn page(&self, path: &str) -> String {
        let mut raw = Raw::connect(self.metrics).expect("the proxy's metrics port listens");
        let response = raw.get("localhost", path);
        assert_eq!(response.status, 200, "{path}: {response:?}");
        response.text()
    }

    /// The lines of its access log so far.
    pub(crate) fn access_log(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.dir.join("access.log")).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole.lines().map(serde_json::from_str);
        lines.map(|line| line.expect("each line is JSON")).collect()
    }

    /// Proportional set size of the process, in KiB.
    pub(crate) fn memory(&self) -> usize {
        let path = format!("/proc/{}/smaps_rollup", self.process.pid());
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with("Pss:"));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
            .unwrap_or_default()
    }

    /// What it has spent of the processors, user and system.
    pub(crate) fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.process.pid()));
        let nanoseconds = tasks
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|task| {
                let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
                text.split_whitespace().next()?.parse::<u64>().ok()
            })
            .sum();
        Duration::from_nanos(nanoseconds)
    }

    /// Open file descriptors.
    pub(crate) fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.process.pid());
        fs::read_dir(path).map_or(0, Iterator::count)
    }
}

fn tulle(dir: &DataDir, port: u16, metrics: u16, backend: SocketAddr, setup: &Setup) -> Command {
    let mut text = gateway(port, backend, setup.protocol);
    if !setup.limits.is_empty() {
        text.push_str(
            "---\napiVersion: tulle.dev/v1alpha1\nkind: MeshConfig\nmetadata: {name: default}\n\
             spec:\n  limits:\n",
        );
        for line in setup.limits.lines() {
            text.extend(["    ", line, "\n"]);
        }
    }
    if !setup.objects.is_empty() {
        text.push_str("---\n");
        text.push_str(&setup.objects);
    }
    dir.write("config/gateway.yaml", text);
    let mut command = Command::new(binary());
    command.args(["proxy", "--static"]).arg(dir.join("config"));
    command.args(["--workers", &setup.workers.max(1).to_string()]);
    command.args([
        "--admin",
        "off",
        "--metrics",
        &format!("127.0.0.1:{metrics}"),
    ]);
    command.arg("--access-log").arg(dir.join("access.log"));
    command
}

fn haproxy(dir: &DataDir, port: u16, port_h2: u16, backend: SocketAddr) -> Command {
    let file = dir.write(
        "haproxy.cfg",
        format!(
            "global\n  nbthread 1\ndefaults\n  mode http\n  timeout connect 2s\n  timeout client 3s\n\
             \x20 timeout server 3s\n  timeout http-request 3s\nfrontend h1\n  bind 127.0.0.1:{port}\n\
             \x20 default_backend up\nfrontend h2\n  bind 127.0.0.1:{port_h2} proto h2\n\
             \x20 default_backend up\nbackend up\n  http-reuse always\n  server s1 {backend}\n"
        ),
    );
    let mut command = Command::new("haproxy");
    command.args(["-db", "-f"]).arg(file);
    command
}

fn nginx_front(dir: &DataDir, port: u16, port_h2: u16, backend: SocketAddr) -> Command {
    let body = format!(
        "upstream up {{ server {backend}; keepalive 16; }}\n\
         server {{ listen 127.0.0.1:{port}; listen 127.0.0.1:{port_h2} http2; client_body_timeout 3s; \
         client_header_timeout 3s; client_max_body_size 0; \
         location / {{ proxy_pass http://up; proxy_http_version 1.1; \
         proxy_set_header Connection \"\"; proxy_request_buffering off; }} }}\n"
    );
    nginx_command(dir, &body)
}

/// nginx in the foreground, one process, everything it writes in its directory.
pub(crate) fn nginx_command(dir: &DataDir, http: &str) -> Command {
    let here = dir.path().display();
    let text = format!(
        "daemon off; master_process off; pid {here}/nginx.pid; error_log {here}/error.log;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\nclient_body_temp_path {here}/body; proxy_temp_path {here}/proxy; \
         fastcgi_temp_path {here}/f; uwsgi_temp_path {here}/u; scgi_temp_path {here}/s;\n\
         access_log off; keepalive_requests 100000; large_client_header_buffers 8 64k;\n{http}\n}}\n"
    );
    let file = dir.write("nginx.conf", text);
    let mut command = Command::new("nginx");
    command.arg("-c").arg(file).arg("-p").arg(dir.path());
    command.arg("-e").arg(dir.join("start.log"));
    command
}

fn envoy(dir: &DataDir, port: u16, port_h2: u16, backend: SocketAddr) -> Command {
    let listener = |port: u16, codec: &str| {
        format!(
            r#"{{"name":"l{port}","address":{{"socket_address":{{"address":"127.0.0.1","port_value":{port}}}}},
"filter_chains":[{{"filters":[{{"name":"envoy.filters.network.http_connection_manager","typed_config":{{
"@type":"type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
"stat_prefix":"in","codec_type":"{codec}","request_timeout":"3s","stream_idle_timeout":"3s",
"route_config":{{"virtual_hosts":[{{"name":"all","domains":["*"],"routes":[{{"match":{{"prefix":"/"}},"route":{{"cluster":"up"}}}}]}}]}},
"http_filters":[{{"name":"envoy.filters.http.router","typed_config":{{"@type":"type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}}}]}}}}]}}]}}"#
        )
    };
    let (ip, to) = (backend.ip(), backend.port());
    let text = format!(
        r#"{{"static_resources":{{"listeners":[{},{}],"clusters":[{{"name":"up","type":"STATIC","connect_timeout":"2s",
"load_assignment":{{"cluster_name":"up","endpoints":[{{"lb_endpoints":[{{"endpoint":{{"address":
{{"socket_address":{{"address":"{ip}","port_value":{to}}}}}}}}}]}}]}}}}]}}}}"#,
        listener(port, "HTTP1"),
        listener(port_h2, "HTTP2")
    );
    let file = dir.write("envoy.json", text);
    let binary = std::env::var_os("ENVOY_BIN").map_or_else(|| "envoy".into(), PathBuf::from);
    let mut command = Command::new(binary);
    command.arg("-c").arg(file);
    command.args(["--concurrency", "1", "--use-dynamic-base-id"]);
    command.args(["--log-level", "error", "--disable-hot-restart"]);
    command
}

/// A server behind the front that others wrote, and what it saw.
pub(crate) enum BackEnd {
    Hyper(Origin),
    Nginx {
        process: Process,
        dir: DataDir,
        addr: SocketAddr,
    },
}

impl BackEnd {
    /// hyper.
    pub(crate) fn hyper() -> Self {
        Self::Hyper(Origin::start())
    }

    /// nginx, or `None`, said aloud, where it is not installed.
    pub(crate) fn nginx() -> Option<Self> {
        let known = Command::new("nginx").arg("-v").output();
        if known.is_err() {
            eprintln!("skipped: nginx as a back end: it is not installed (apt-get install nginx)");
            return None;
        }
        let dir = DataDir::new("nginx");
        let port = free_port();
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let log = dir.join("seen.log");
        let http = format!(
            "log_format seen '$status $request_method $request_uri';\n\
             server {{ listen {addr}; access_log {} seen;\n\
             location / {{ return 200 \"$request_method $request_uri\\n\"; }} }}",
            log.display()
        );
        let process = Process::spawn("nginx", &mut nginx_command(&dir, &http), dir.path());
        wait_for("nginx", SOON, || TcpStream::connect(addr).ok());
        Some(Self::Nginx { process, dir, addr })
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        match self {
            Self::Hyper(origin) => origin.addr(),
            Self::Nginx { addr, .. } => *addr,
        }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Hyper(_) => "hyper",
            Self::Nginx { .. } => "nginx",
        }
    }

    /// `METHOD TARGET` of each request so far; one that it refused as malformed begins with the
    /// status it gave.
    pub(crate) fn seen(&self) -> Vec<String> {
        match self {
            Self::Hyper(origin) => {
                let seen = origin.seen().into_iter();
                seen.map(|s| format!("{} {}", s.method, s.target)).collect()
            }
            Self::Nginx { dir, .. } => {
                let text = fs::read(dir.join("seen.log")).unwrap_or_default();
                let text = String::from_utf8_lossy(&text).into_owned();
                let lines = text.lines();
                lines
                    .map(|line| line.strip_prefix("200 ").unwrap_or(line).to_owned())
                    .collect()
            }
        }
    }

    /// Whether it still runs; for a failure's text.
    pub(crate) fn is_running(&mut self) -> bool {
        match self {
            Self::Hyper(_) => true,
            Self::Nginx { process, .. } => process.is_running(),
        }
    }
}
