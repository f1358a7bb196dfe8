//! Each worker's listening sockets, kept in step with the snapshot.
//!
//! Every worker has sockets of its own (`SO_REUSEPORT`), so that the kernel spreads connections
//! without a lock.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use net::socket::{self, ListenOptions};
use tokio::task::JoinHandle;

use crate::server::{Door, accept};
use crate::worker::Worker;

/// Between attempts to bind what could not be bound.
const AGAIN: Duration = Duration::from_secs(1);

/// Opens and closes sockets as listeners come and go, for as long as the worker runs.
pub(crate) async fn listen(worker: Rc<Worker>) {
    let mut changed = worker.shared.state.changes();
    let mut open: BTreeMap<SocketAddr, Accepting> = BTreeMap::new();
    let mut failed: BTreeMap<SocketAddr, String> = BTreeMap::new();
    loop {
        let wanted = wanted(&worker);
        open.retain(|address, _| wanted.contains(address));
        failed.retain(|address, _| wanted.contains(address));
        for address in wanted {
            if open.contains_key(&address) {
                continue;
            }
            match bind(address) {
                Ok(listener) => {
                    failed.remove(&address);
                    let door = Door::Listener(address.port());
                    let task = accept(Rc::clone(&worker), door, Arc::new(listener));
                    open.insert(address, Accepting(tokio::task::spawn_local(task)));
                    tracing::info!(%address, "listening");
                }
                Err(error) => report(address, &error, &mut failed),
            }
        }
        tokio::select! {
            result = changed.changed() => if result.is_err() { return },
            () = tokio::time::sleep(AGAIN), if !failed.is_empty() => {}
        }
    }
}

/// A task that accepts; it ends, and its socket is closed, when this is dropped.
struct Accepting(JoinHandle<()>);

impl Drop for Accepting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn wanted(worker: &Worker) -> Vec<SocketAddr> {
    let snapshot = worker.shared.state.snapshot();
    let mut addresses = Vec::new();
    for (number, port) in snapshot.listeners.ports() {
        if port.addresses.is_empty() {
            addresses.push(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), number));
        }
        addresses.extend(port.addresses.iter().map(|ip| SocketAddr::new(*ip, number)));
    }
    addresses
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let everywhere = address.ip().is_unspecified();
    let options = ListenOptions {
        dual_stack: everywhere,
        ..ListenOptions::default()
    };
    let listener = socket::listen(address, &options);
    match listener {
        // A host without IPv6.
        Err(error) if everywhere && error.kind() != io::ErrorKind::AddrInUse => {
            let address = SocketAddr::from(([0, 0, 0, 0], address.port()));
            socket::listen(address, &ListenOptions::default())
        }
        listener => listener,
    }
}

/// Says once what is wrong, not at each attempt.
fn report(address: SocketAddr, error: &io::Error, failed: &mut BTreeMap<SocketAddr, String>) {
    let text = error.to_string();
    if failed.get(&address) == Some(&text) {
        return;
    }
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => "another program listens there; stop it, or change the port",
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need the capability CAP_NET_BIND_SERVICE; grant it, or use a higher port"
        }
        io::ErrorKind::AddrNotAvailable => "the host has no such address; mend `addresses`",
        _ => "it is tried again every second",
    };
    tracing::error!(%address, error = text, "a listener cannot be opened: {hint}");
    failed.insert(address, text);
}
