//! A way to the API server that a test can cut: a listener of its own whose connections are
//! carried on, until they are not.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

/// The way.
pub(super) struct Way {
    /// The API server.
    pub(super) server: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    open: bool,
    connections: Vec<TcpStream>,
}

impl Way {
    /// A way to the cluster of a kubeconfig; writes one that takes it.
    pub(super) fn to_cluster(kubeconfig: &Path, own: &Path) -> Self {
        let read = Command::new("kubectl")
            .args([
                "config",
                "view",
                "--raw",
                "--minify",
                "--flatten",
                "-o",
                "json",
            ])
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

        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        cluster["server"] = format!("https://{}", listener.local_addr().expect("bound")).into();
        if cluster.get("tls-server-name").is_none_or(Value::is_null) {
            cluster["tls-server-name"] = json!(name);
        }
        std::fs::write(own, config.to_string()).expect("written");
        let shared = Arc::new(Mutex::new(Shared {
            open: true,
            connections: Vec::new(),
        }));
        let way = Self {
            server,
            shared: Arc::clone(&shared),
        };
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let _ = carry(client, server, &shared);
            }
        });
        way
    }

    /// Ends what is open, and everything that comes.
    pub(super) fn cut(&self) {
        let mut shared = self.shared.lock().expect("whole");
        shared.open = false;
        for connection in shared.connections.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Carries on again what comes from now on.
    pub(super) fn open(&self) {
        self.shared.lock().expect("whole").open = true;
    }
}

fn carry(client: TcpStream, server: SocketAddr, shared: &Mutex<Shared>) -> io::Result<()> {
    let mut shared = shared.lock().expect("whole");
    if !shared.open {
        return client.shutdown(Shutdown::Both);
    }
    let upstream = TcpStream::connect(server)?;
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
