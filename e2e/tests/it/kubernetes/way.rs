//! Ways that a test can cut or turn: a listener of its own whose connections are carried on, until
//! they are not.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

/// A listener and the place to which its connections lead.
pub(super) struct Relay {
    /// Where it listens.
    pub(super) addr: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    to: SocketAddr,
    open: bool,
    connections: Vec<TcpStream>,
}

impl Relay {
    /// Carries connections to a place.
    pub(super) fn to(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("bound");
        let shared = Arc::new(Mutex::new(Shared {
            to,
            open: true,
            connections: Vec::new(),
        }));
        let relay = Self {
            addr,
            shared: Arc::clone(&shared),
        };
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let _ = carry(client, &shared);
            }
        });
        relay
    }

    /// Ends what is open, and everything that comes.
    pub(super) fn cut(&self) {
        let mut shared = self.shared.lock().expect("whole");
        shared.open = false;
        shared.end();
    }

    /// Carries on again what comes from now on.
    pub(super) fn open(&self) {
        self.shared.lock().expect("whole").open = true;
    }

    /// Ends what is open; what comes from now on is carried to another place.
    pub(super) fn turn(&self, to: SocketAddr) {
        let mut shared = self.shared.lock().expect("whole");
        shared.to = to;
        shared.end();
    }
}

impl Shared {
    fn end(&mut self) {
        for connection in self.connections.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

fn carry(client: TcpStream, shared: &Mutex<Shared>) -> io::Result<()> {
    let mut shared = shared.lock().expect("whole");
    if !shared.open {
        return client.shutdown(Shutdown::Both);
    }
    let upstream = TcpStream::connect(shared.to)?;
    shared.connections.push(client.try_clone()?);
    shared.connections.push(upstream.try_clone()?);
    for (mut from, mut to) in [
        (client.try_clone()?, upstream.try_clone()?),
        (upstream, client),
    ] {
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
        });
    }
    Ok(())
}

/// The way to an API server.
pub(super) struct Way {
    /// The API server.
    pub(super) server: SocketAddr,
    relay: Relay,
    config: Value,
}

impl Way {
    /// A way to the cluster of a kubeconfig.
    pub(super) fn to_cluster(kubeconfig: &Path) -> Self {
        let read = Command::new("kubectl")
            .args(["config", "view", "--raw", "--minify", "--flatten"])
            .args(["-o", "json"])
            .env("KUBECONFIG", kubeconfig)
            .output()
            .expect("kubectl runs");
        assert!(
            read.status.success(),
            "{}",
            String::from_utf8_lossy(&read.stderr)
        );
        let mut config: Value = serde_json::from_slice(&read.stdout).expect("a kubeconfig");
        let cluster = &mut config["clusters"][0]["cluster"];
        let url = cluster["server"].as_str().expect("a server").to_owned();
        let host = url.strip_prefix("https://").expect("an https server");
        let host = host.trim_end_matches('/');
        let with_port = if host.contains(':') {
            host.to_owned()
        } else {
            format!("{host}:443")
        };
        let server = with_port
            .to_socket_addrs()
            .expect("a host")
            .next()
            .expect("an address");
        let name = with_port.rsplit_once(':').expect("a port").0.to_owned();
        let relay = Relay::to(server);
        cluster["server"] = format!("https://{}", relay.addr).into();
        if cluster.get("tls-server-name").is_none_or(Value::is_null) {
            cluster["tls-server-name"] = json!(name);
        }
        Self {
            server,
            relay,
            config,
        }
    }

    /// Writes a kubeconfig that takes this way, as whoever the token belongs to.
    pub(super) fn write(&self, file: &Path, token: &str) {
        let mut config = self.config.clone();
        config["users"][0]["user"] = json!({"token": token});
        std::fs::write(file, config.to_string()).expect("written");
    }

    /// Ends what is open, and everything that comes.
    pub(super) fn cut(&self) {
        self.relay.cut();
    }

    /// Carries on again what comes from now on.
    pub(super) fn open(&self) {
        self.relay.open();
    }
}
