//! What the soak runs in: servers of every kind, the objects that lead to them, and what changes.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::thread;

use testkit::origin::Origin;
use testkit::place::free_port;

use crate::front::{Front, Setup, gateway};
use crate::grpc;

/// Servers of HTTP at once; those that are configured are fewer.
const SERVERS: usize = 4;

/// The addresses that clients use, and (in the one that changes) the servers.
pub(super) struct World {
    pub(super) http: SocketAddr,
    pub(super) grpc: SocketAddr,
    pub(super) websocket: SocketAddr,
    pub(super) tcp: SocketAddr,
    state: Option<State>,
}

struct State {
    file: PathBuf,
    /// Oldest first. The first is no longer configured, the last not yet.
    servers: VecDeque<(u64, Origin)>,
    grpc: u16,
    echo: u16,
    websocket: u16,
    changes: u64,
    /// A listener that is there in every other configuration.
    spare: u16,
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// A server that sends back what comes, after a handshake of WebSocket if asked for one; its port.
fn echo(websocket: bool) -> u16 {
    const SWITCHED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    let listener = TcpListener::bind(local(0)).expect("a port");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || -> std::io::Result<()> {
                stream.set_nodelay(true)?;
                let mut head = Vec::new();
                while websocket && !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte)?;
                    head.push(byte[0]);
                }
                if websocket {
                    stream.write_all(SWITCHED)?;
                }
                std::io::copy(&mut stream.try_clone()?, &mut stream)?;
                stream.shutdown(Shutdown::Write)
            });
        }
    });
    port
}

impl World {
    /// Starts servers and the proxy before them.
    pub(super) fn start() -> (Self, Front) {
        let listener = TcpListener::bind(local(0)).expect("a port");
        let grpc = listener.local_addr().expect("bound").port();
        grpc::serve(listener, grpc::Echo("soak"));
        let first = Origin::start();
        let front = Front::with(first.addr(), &Setup::default());
        let mut world = Self {
            http: front.addr,
            grpc: local(free_port()),
            websocket: local(free_port()),
            tcp: local(free_port()),
            state: None,
        };
        let servers = (0..SERVERS as u64)
            .map(|n| (n, Origin::forgetful()))
            .collect();
        world.state = Some(State {
            file: front.dir.join("config/gateway.yaml"),
            servers,
            grpc,
            echo: echo(false),
            websocket: echo(true),
            changes: 0,
            spare: free_port(),
        });
        world.change();
        // The configuration that it was started with had one listener.
        for address in [world.grpc, world.websocket, world.tcp] {
            testkit::wait_for("every listener", super::SOON, || {
                std::net::TcpStream::connect(address).ok()
            });
        }
        // Some time for the routes of those listeners, which come with them.
        testkit::wait_for("the new servers", super::SOON, || {
            (front.get("/new").status == 200 && first.count() > 0).then_some(())
        });
        (world, front)
    }

    /// The addresses alone.
    pub(super) fn addresses(&self) -> Self {
        Self {
            state: None,
            ..*self
        }
    }

    /// How often the configuration was changed.
    pub(super) fn changes(&self) -> u64 {
        self.state.as_ref().map_or(0, |state| state.changes)
    }

    /// One change: a server comes, one goes, a header's value and a listener change.
    pub(super) fn change(&mut self) {
        let addresses = self.addresses();
        let Some(state) = &mut self.state else {
            return;
        };
        state.changes += 1;
        // The oldest has been out of the configuration for one change: nobody should miss it.
        if state.changes.is_multiple_of(2) && state.changes > 2 {
            state.servers.pop_front();
            state
                .servers
                .push_back((state.changes + 100, Origin::forgetful()));
        }
        let text = state.objects(&addresses);
        let new = state.file.with_extension("new");
        fs::write(&new, text).expect("the directory can be written");
        fs::rename(&new, &state.file).expect("the file can be replaced");
    }
}

impl State {
    fn objects(&self, at: &World) -> String {
        let none = local(1);
        let mut text = gateway(at.http.port(), none, "http");
        // The Workload of the template is not wanted.
        if let Some(end) = text.rfind("---\n") {
            text.truncate(end);
        }
        text = text.replace(
            "rules: [{backendRefs: [{name: app, port: 80}]}]",
            &format!(
                "rules: [{{filters: [{{type: ResponseHeaderModifier, responseHeaderModifier: \
                 {{set: [{{name: x-change, value: \"{}\"}}]}}}}], backendRefs: [{{name: app, port: 80}}]}}]",
                self.changes
            ),
        );
        text = text.replace("targetPort: 1,", "targetPort: http,");
        // Without the oldest when it is about to go, and without the newest until it was there.
        let skip = usize::from(!self.changes.is_multiple_of(2));
        for (number, server) in self.servers.iter().skip(skip) {
            let port = server.addr().port();
            let _ = write!(
                text,
                "---\napiVersion: tulle.dev/v1alpha1\nkind: Workload\n\
                 metadata: {{name: app-{number}, namespace: default, labels: {{app: app}}}}\n\
                 spec: {{address: 127.0.0.1, ports: [{{name: http, port: {port}, appProtocol: http}}]}}\n"
            );
        }
        let http = "HTTPRoute";
        for (name, listen, kind, to, protocol) in [
            (
                "calls",
                at.grpc.port(),
                http,
                self.grpc,
                "kubernetes.io/h2c",
            ),
            ("sockets", at.websocket.port(), http, self.websocket, "http"),
            ("bytes", at.tcp.port(), "TCPRoute", self.echo, "tcp"),
        ] {
            text.push_str(&one(name, listen, kind, to, protocol));
        }
        if self.changes.is_multiple_of(2) {
            text.push_str(&one(
                "spare",
                self.spare,
                http,
                self.grpc,
                "kubernetes.io/h2c",
            ));
        }
        text
    }
}

/// A Gateway with its own route, Service and Workload.
fn one(name: &str, listen: u16, kind: &str, to: u16, protocol: &str) -> String {
    let (listener, version) = match kind {
        "TCPRoute" => ("TCP", "v1alpha2"),
        _ => ("HTTP", "v1"),
    };
    format!(
        "---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {name}, namespace: default}}
spec:
  gatewayClassName: tulle
  listeners: [{{name: main, port: {listen}, protocol: {listener}}}]
---
apiVersion: gateway.networking.k8s.io/{version}
kind: {kind}
metadata: {{name: {name}, namespace: default}}
spec: {{parentRefs: [{{name: {name}}}], rules: [{{backendRefs: [{{name: {name}, port: 80}}]}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: default}}
spec: {{selector: {{app: {name}}}, ports: [{{name: main, port: 80, targetPort: {to}, appProtocol: {protocol}}}]}}
---
apiVersion: tulle.dev/v1alpha1
kind: Workload
metadata: {{name: {name}-0, namespace: default, labels: {{app: {name}}}}}
spec: {{address: 127.0.0.1, ports: [{{name: main, port: {to}, appProtocol: {protocol}}}]}}
"
    )
}
