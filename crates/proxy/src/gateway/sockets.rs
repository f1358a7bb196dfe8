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
use policy::gateway::Transport;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{datagrams, quic};
use crate::server::{Door, accept};
use crate::udp;
use crate::worker::Worker;

/// Between attempts to bind what could not be bound.
const AGAIN: Duration = Duration::from_secs(1);

/// Opens and closes sockets as listeners come and go, for as long as the worker runs.
pub(crate) async fn listen(worker: Rc<Worker>) {
    let mut changed = worker.shared.state.changes();
    let mut open: BTreeMap<Place, Serving> = BTreeMap::new();
    let mut failed: BTreeMap<Place, String> = BTreeMap::new();
    loop {
        let wanted = wanted(&worker);
        open.retain(|place, _| wanted.contains(place));
        failed.retain(|place, _| wanted.contains(place));
        for place in wanted {
            if open.contains_key(&place) {
                continue;
            }
            match serve(&worker, place) {
                Ok(serving) => {
                    failed.remove(&place);
                    open.insert(place, serving);
                    tracing::info!(address = %place.address, kind = ?place.kind, "listening");
                }
                Err(error) => report(place, &error, &mut failed),
            }
        }
        tokio::select! {
            result = changed.changed() => if result.is_err() { return },
            () = tokio::time::sleep(AGAIN), if !failed.is_empty() => {}
        }
    }
}

/// Where a socket is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    kind: Kind,
    address: SocketAddr,
}

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Tcp,
    Udp,
    /// HTTP/3.
    Quic,
}

/// A task that serves a socket; it ends when this is dropped.
enum Serving {
    /// At once, and the socket is closed.
    Aborted(JoinHandle<()>),
    /// When its connections have finished, which live on its socket.
    Told(#[expect(dead_code, reason = "it tells when it is dropped")] DropGuard),
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Self::Aborted(task) = self {
            task.abort();
        }
    }
}

fn wanted(worker: &Worker) -> Vec<Place> {
    let snapshot = worker.shared.state.snapshot();
    let mut places = Vec::new();
    for (number, port) in snapshot.listeners.ports() {
        let kind = match port.transport() {
            Transport::Udp => Kind::Udp,
            Transport::Http | Transport::Tls | Transport::Tcp => Kind::Tcp,
        };
        let everywhere = [Ipv6Addr::UNSPECIFIED.into()];
        let addresses = match port.addresses.as_slice() {
            [] => &everywhere,
            addresses => addresses,
        };
        for ip in addresses {
            let address = SocketAddr::new(*ip, number);
            places.push(Place { kind, address });
            if port.http3() {
                let kind = Kind::Quic;
                places.push(Place { kind, address });
            }
        }
    }
    places
}

fn serve(worker: &Rc<Worker>, place: Place) -> io::Result<Serving> {
    let number = place.address.port();
    if place.kind == Kind::Tcp {
        let listener = Arc::new(bind(place.address)?);
        let task = accept(Rc::clone(worker), Door::Listener(number), listener);
        return Ok(Serving::Aborted(tokio::task::spawn_local(task)));
    }
    let socket = or_without_ipv6(place.address, socket::share_udp)?;
    let unusable = move |error: io::Error| {
        tracing::error!(port = number, %error, "a socket for datagrams cannot be used");
    };
    let (worker, picker) = (Rc::clone(worker), Rc::clone(worker));
    if place.kind == Kind::Quic {
        let gone = CancellationToken::new();
        let serving = quic::serve(worker, socket, number, gone.clone());
        tokio::task::spawn_local(async move { serving.await.unwrap_or_else(unusable) });
        return Ok(Serving::Told(gone.drop_guard()));
    }
    let task = async move {
        let pick = move |client: SocketAddr| datagrams(&picker, number, client.ip());
        udp::serve(worker, socket, pick)
            .await
            .unwrap_or_else(unusable);
    };
    Ok(Serving::Aborted(tokio::task::spawn_local(task)))
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    or_without_ipv6(address, |address| {
        let options = ListenOptions {
            dual_stack: address.is_ipv6() && address.ip().is_unspecified(),
            ..ListenOptions::default()
        };
        socket::listen(address, &options)
    })
}

/// Everywhere means IPv4 alone on a host without IPv6.
fn or_without_ipv6<T>(
    address: SocketAddr,
    open: impl Fn(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    match open(address) {
        Err(error) if address.ip().is_unspecified() && error.kind() != io::ErrorKind::AddrInUse => {
            open(SocketAddr::from(([0, 0, 0, 0], address.port())))
        }
        opened => opened,
    }
}

/// Says once what is wrong, not at each attempt.
fn report(place: Place, error: &io::Error, failed: &mut BTreeMap<Place, String>) {
    let text = error.to_string();
    if failed.get(&place) == Some(&text) {
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
    tracing::error!(address = %place.address, error = text, "a listener cannot be opened: {hint}");
    failed.insert(place, text);
}
