//! GATEWAY-HTTP, -GRPC, -TLS, -TCP and -UDP: routes of a Gateway that a control plane feeds.
//!
//! One Gateway has a listener, or several on one port, for each case (the suite has a Gateway for
//! many, and one case at a time). Conditions are those that the control plane's API shows.

mod grpc;
mod http;
mod streams;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use testkit::place::free_port;
use testkit::raw::Raw;
use testkit::upstream::{Step, Upstream};

use super::{Ask, Shared, assert_seventy_thirty, get};
use crate::gateway::process::Edge;
use crate::grpc::Echo;
use crate::mesh::{Mesh, SOON};

/// A Gateway with the listeners and routes of all cases.
struct World {
    ports: Ports,
    /// When all objects were there.
    applied: SystemTime,
    /// Ends before the control plane and the backends do.
    _edge: Edge,
    mesh: Mesh,
    backends: Backends,
}

/// The port of each case, by its name.
type Ports = BTreeMap<&'static str, u16>;

/// What stands behind the Services of both namespaces.
struct Backends {
    web: Vec<(&'static str, Upstream)>,
    tcp: Vec<(&'static str, Upstream)>,
    udp: Vec<(&'static str, Datagrams)>,
    tls: streams::TlsServer,
}

/// A server that answers every datagram with its name; stops when dropped.
struct Datagrams {
    port: u16,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The cases, each with a port of its own, in the order of their modules.
const CASES: [&[&str]; 3] = [http::CASES, grpc::CASES, streams::CASES];

/// The second namespace.
const OTHER: &str = "backends";

fn world() -> Arc<World> {
    static SHARED: Shared<World> = Shared::new();
    SHARED.get(World::start)
}

impl World {
    fn start() -> Self {
        let mesh = Mesh::start();
        let cases = CASES.into_iter().flatten();
        let ports: Ports = cases.map(|case| (*case, free_port())).collect();
        let backends = Backends::start();
        let listeners = [
            http::listeners(&ports),
            grpc::listeners(&ports),
            streams::listeners(&ports),
        ];
        let gateway = format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: web}}\nspec:\n  gatewayClassName: tulle\n  listeners:\n{}---\n",
            listeners.concat()
        );
        let routes = [http::routes(), grpc::routes(), streams::routes()].concat();
        mesh.apply(&[backends.objects(), gateway, routes].concat());
        let applied = SystemTime::now();
        let edge = Edge::start(&mesh, "edge");
        // It opens nothing before all is known, and then one port after the other.
        for (case, port) in ports.iter().filter(|(case, _)| !case.starts_with("udp")) {
            testkit::wait_for(&format!("the port of {case}"), SOON, || {
                Raw::connect(("127.0.0.1", *port)).ok()
            });
        }
        Self {
            ports,
            applied,
            _edge: edge,
            mesh,
            backends,
        }
    }

    fn port(&self, case: &str) -> u16 {
        self.ports[case]
    }

    /// Puts a table of requests to a case's port; fails with all rows that do not hold.
    #[track_caller]
    fn check(&self, case: &str, asks: &[Ask]) {
        let port = self.port(case);
        let send = |ask: &Ask| {
            let mut raw = Raw::connect(("127.0.0.1", port)).expect("the Gateway listens");
            let (path, host) = (ask.path(), ask.host_or("any.example"));
            let lines = ask.lines();
            raw.request(format!(
                "GET {path} HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n"
            ))
        };
        let judged = asks.iter().filter_map(|ask| ask.judge(send).err());
        let wrong: Vec<String> = judged.collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    /// Status and reason of a condition of a route about its first parent.
    fn condition(&self, kind: &str, name: &str, which: &str) -> (String, String) {
        let route = self.object(kind, name);
        let conditions = &route["status"]["parents"][0]["conditions"];
        let mut all = conditions.as_array().into_iter().flatten();
        let found = all.find(|c| c["type"] == which);
        let found = found.unwrap_or_else(|| panic!("no {which}: {route}"));
        let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
        (text("status"), text("reason"))
    }

    /// An object, by `namespace/name`.
    fn object(&self, kind: &str, name: &str) -> Value {
        let path = format!("/api/v1/resources/{kind}/{name}");
        self.mesh.api("GET", &path, "")
    }

    /// A route is accepted and all its references lead somewhere.
    #[track_caller]
    fn assert_accepted(&self, kind: &str, name: &str) {
        for (which, reason) in [("Accepted", "Accepted"), ("ResolvedRefs", "ResolvedRefs")] {
            let condition = self.condition(kind, name, which);
            let wanted = ("True".to_owned(), reason.to_owned());
            assert_eq!(condition, wanted, "{which} of {kind} {name}");
        }
    }

    /// Takes a grant away, and waits until the route that needs it says so.
    #[track_caller]
    fn revoke(&self, grant: &str, kind: &str, route: &str) {
        let path = format!("/api/v1/resources/referencegrants/{OTHER}/{grant}");
        self.mesh.api("DELETE", &path, "");
        let refused = ("False".to_owned(), "RefNotPermitted".to_owned());
        testkit::wait_for("the reference to be refused", SOON, || {
            (self.condition(kind, route, "ResolvedRefs") == refused).then_some(())
        });
    }
}

impl Backends {
    fn start() -> Self {
        let web = |name: &'static str| {
            let script = move |_| Step::reflect(&[("x-served-by", name)]);
            (name, Upstream::start(script))
        };
        let tcp = |name: &'static str| {
            let script = [Step::ReadExact(1), Step::send(format!("{name}\n"))];
            (name, Upstream::start(move |_| script.to_vec()))
        };
        Self {
            web: ["v1", "v2", "v3", "web"].map(web).into(),
            tcp: ["v1", "v2", "v3", "web"].map(tcp).into(),
            udp: ["v1", "v2", "web"]
                .map(|name| (name, Datagrams::start(name)))
                .into(),
            tls: streams::TlsServer::start(),
        }
    }

    /// Their Services: `web-v1`, `tcp-v1` and so on; `web` in the other namespace.
    fn objects(&self) -> String {
        let mut objects = String::new();
        let mut add = |kind: &str, name: &str, declared: &str, port: u16| {
            let namespace = if name == "web" { OTHER } else { "default" };
            let name = format!("{kind}-{name}");
            objects.push_str(&service(&name, namespace, declared, port));
        };
        for (name, server) in &self.web {
            add("web", name, "appProtocol: http", server.port());
        }
        for (name, server) in &self.tcp {
            add("tcp", name, "appProtocol: tcp", server.port());
        }
        for (name, server) in &self.udp {
            add("udp", name, "protocol: UDP", server.port);
        }
        for name in ["v1", "v2", "v3"] {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            let port = listener.local_addr().expect("bound").port();
            crate::grpc::serve(listener, Echo(name));
            add("grpc", name, "appProtocol: kubernetes.io/h2c", port);
        }
        add("tls", "v1", "appProtocol: tls", self.tls.port());
        objects
    }
}

impl Datagrams {
    fn start(name: &'static str) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = socket.local_addr().expect("bound").port();
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .expect("a time");
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !stopping.load(Ordering::Acquire) {
                if let Ok((_, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(name.as_bytes(), from);
                }
            }
        });
        Self {
            port,
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A time in whole seconds, as objects have it.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// A Service with port 8080 and the one endpoint behind it.
fn service(name: &str, namespace: &str, declared: &str, endpoint: u16) -> String {
    let transport = if declared.contains("UDP") {
        ", protocol: UDP"
    } else {
        ""
    };
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{ports: [{{name: main, port: 8080, {declared}}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}-1, namespace: {namespace}, labels: {{kubernetes.io/service-name: {name}}}}}\n\
         addressType: IPv4\nports: [{{name: main, port: {endpoint}{transport}}}]\nendpoints: [{{addresses: [127.0.0.1]}}]\n---\n"
    )
}

/// A listener of the Gateway; `more` are fields of its own.
fn listener(name: &str, port: u16, protocol: &str, more: &str) -> String {
    format!("  - {{name: {name}, port: {port}, protocol: {protocol}{more}}}\n")
}

/// A route of a namespace; `sections` are listeners, `hosts` its hostnames, `rules` items of a list.
fn route(kind: &str, name: &str, sections: &[&str], hosts: &str, rules: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    let parents: Vec<String> = sections
        .iter()
        .map(|section| format!("{{name: web, namespace: default, sectionName: {section}}}"))
        .collect();
    let parents = parents.join(", ");
    let hosts = match hosts {
        "" => String::new(),
        hosts => format!("  hostnames: [{hosts}]\n"),
    };
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  parentRefs: [{parents}]\n{hosts}  rules:\n{rules}\n---\n"
    )
}

/// A grant for routes of a kind in the first namespace to a Service of the second.
fn grant(name: &str, kind: &str, service: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {{name: {name}, namespace: {OTHER}}}\nspec:\n  \
         from: [{{group: gateway.networking.k8s.io, kind: {kind}, namespace: default}}]\n  to: [{{group: \"\", kind: Service, name: {service}}}]\n---\n"
    )
}
