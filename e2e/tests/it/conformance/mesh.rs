//! MESH-HTTP and MESH-GRPC: routes of Services, as sidecars of their clients follow them.
//!
//! Two versions of one application stand behind `echo-v1`, `echo-v2` and a frontend for each case
//! (the suite has one, `echo`, and one case at a time).

mod filters;
mod frontends;
mod matching;
mod redirects;
mod weights;

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;

use testkit::upstream::{Step, Upstream};

use super::{Ask, Shared, get};
use crate::grpc::{self, Echo};
use crate::mesh::{Mesh, Mode, Workload, in_both_modes};

in_both_modes!(
    mesh_basic,
    mesh_consumer_route,
    mesh_frontend,
    mesh_frontend_hostname,
    mesh_grpc_route_weight,
    mesh_http_route_303_redirect,
    mesh_http_route_307_redirect,
    mesh_http_route_308_redirect,
    mesh_http_route_backend_request_header_modifier,
    mesh_http_route_matching,
    mesh_http_route_named_rule,
    mesh_http_route_query_param_matching,
    mesh_http_route_redirect_host_and_status,
    mesh_http_route_redirect_path,
    mesh_http_route_redirect_port,
    mesh_http_route_request_header_modifier,
    mesh_http_route_rewrite_path,
    mesh_http_route_scheme_redirect,
    mesh_http_route_simple_same_namespace,
    mesh_http_route_weight,
    mesh_ports,
    mesh_traffic_split,
);

use filters::{
    mesh_http_route_backend_request_header_modifier, mesh_http_route_request_header_modifier,
    mesh_http_route_rewrite_path,
};
use frontends::{
    mesh_basic, mesh_consumer_route, mesh_frontend, mesh_frontend_hostname,
    mesh_http_route_simple_same_namespace, mesh_ports, mesh_traffic_split,
};
use matching::{
    mesh_http_route_matching, mesh_http_route_named_rule, mesh_http_route_query_param_matching,
};
use redirects::{
    mesh_http_route_303_redirect, mesh_http_route_307_redirect, mesh_http_route_308_redirect,
    mesh_http_route_redirect_host_and_status, mesh_http_route_redirect_path,
    mesh_http_route_redirect_port, mesh_http_route_scheme_redirect,
};
use weights::{mesh_grpc_route_weight, mesh_http_route_weight};

/// The ports of the application in transparent mode: HTTP, and gRPC.
const PORTS: [u16; 2] = [8080, 7070];

/// A mesh with all objects of all cases.
struct World {
    client: Workload,
    /// A client of another namespace.
    consumer: Workload,
    _backends: [Backend; 2],
    mesh: Mesh,
}

/// One version of the application.
struct Backend {
    _workload: Workload,
    _http: Upstream,
}

/// The world of a mode.
fn world(mode: Mode) -> Arc<World> {
    static EXPLICIT: Shared<World> = Shared::new();
    static TRANSPARENT: Shared<World> = Shared::new();
    let shared = match mode {
        Mode::Explicit => &EXPLICIT,
        Mode::Transparent => &TRANSPARENT,
    };
    shared.get(|| World::start(mode))
}

impl World {
    fn start(mode: Mode) -> Self {
        let mesh = Mesh::start_in(mode);
        let services = [
            service("echo-v1", "{app: echo, version: v1}"),
            service("echo-v2", "{app: echo, version: v2}"),
        ];
        let cases = [
            matching::objects(),
            filters::objects(),
            redirects::objects(),
            weights::objects(),
            frontends::objects(),
        ];
        mesh.apply(&[services.concat(), cases.concat()].concat());
        let backends = [
            backend(&mesh, "echo-v1", "v1"),
            backend(&mesh, "echo-v2", "v2"),
        ];
        for instance in ["echo-v1", "echo-v2"] {
            mesh.wait_ready(instance);
        }
        Self {
            client: mesh.client(),
            consumer: mesh.idle("client", "consumer", &["--namespace", "consumer"]),
            _backends: backends,
            mesh,
        }
    }

    /// Puts a table of requests to a frontend; fails with all rows that do not hold.
    #[track_caller]
    fn check(&self, frontend: &str, asks: &[Ask]) {
        check_from(&self.client, frontend, asks);
    }
}

#[track_caller]
fn check_from(client: &Workload, frontend: &str, asks: &[Ask]) {
    let send = |ask: &Ask| {
        let host = ask.host_or(frontend);
        client.request("GET", host, ask.path(), &ask.lines(), "")
    };
    let judged = asks.iter().filter_map(|ask| ask.judge(send).err());
    let wrong: Vec<String> = judged.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Starts a version of the application.
fn backend(mesh: &Mesh, instance: &str, version: &'static str) -> Backend {
    let bind = |ip: Ipv4Addr, port: u16| TcpListener::bind((ip, port)).expect("a free port");
    let early = (mesh.mode == Mode::Explicit).then(|| [0, 0].map(|p| bind(Ipv4Addr::LOCALHOST, p)));
    let [http, grpc] = match &early {
        Some(listeners) => listeners
            .each_ref()
            .map(|l| l.local_addr().expect("bound").port()),
        None => PORTS,
    };
    let label = format!("version={version}");
    let (http, grpc) = (format!("http:{http}/http"), format!("grpc:{grpc}/grpc"));
    let arguments = ["--label", &label, "--port", &http, "--port", &grpc];
    let workload = mesh.idle("echo", instance, &arguments);
    let [http, grpc] = early
        .unwrap_or_else(|| workload.inside(|| PORTS.map(|port| bind(Ipv4Addr::UNSPECIFIED, port))));
    grpc::serve(grpc, Echo(version));
    Backend {
        _workload: workload,
        _http: Upstream::on(http, move |_| Step::reflect(&[("x-served-by", version)])),
    }
}

/// A Service with the ports that the suite's have.
fn service(name: &str, selector: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  selector: {selector}\n  ports:\n  \
         - {{name: http, port: 80, targetPort: http, appProtocol: http}}\n  \
         - {{name: http-alt, port: 8080, targetPort: http, appProtocol: http}}\n  \
         - {{name: grpc, port: 7070, targetPort: grpc, appProtocol: kubernetes.io/h2c}}\n---\n"
    )
}

/// A frontend of both versions.
fn frontend(name: &str) -> String {
    service(name, "{app: echo}")
}

/// A route in the frontend's own namespace and with its name; `rules` are items of a YAML list.
fn route(kind: &str, frontend: &str, port: Option<u16>, rules: &str) -> String {
    let port = port
        .map(|port| format!(", port: {port}"))
        .unwrap_or_default();
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {frontend}}}\nspec:\n  \
         parentRefs: [{{group: \"\", kind: Service, name: {frontend}{port}}}]\n  rules:\n{rules}\n---\n"
    )
}

/// A frontend with an HTTPRoute for its port 80.
fn case(name: &str, rules: &str) -> String {
    frontend(name) + &route("HTTPRoute", name, Some(80), rules)
}
