//! HTTP/3 clients of a Gateway's port: their connections, from the first datagram to the last request.

use std::net::UdpSocket;
use std::rc::Rc;
use std::sync::Arc;

use model::Reason;
use policy::host::normal;
use tokio_util::sync::CancellationToken;

use super::Entrance;
use super::listeners::{Listener, Port};
use super::serve::{Visitor, bounds, refuse};
use crate::error::{Failure, chain};
use crate::http3::{self, Attempt, Endpoint, HandshakeError};
use crate::record::Caller;
use crate::worker::Worker;

/// Serves a socket for as long as `gone` does not say that its port is; then the connections that are
/// there finish what they have.
pub(super) async fn serve(
    worker: Rc<Worker>,
    socket: UdpSocket,
    number: u16,
    gone: CancellationToken,
) -> std::io::Result<()> {
    let Some(first) = port(&worker, number) else {
        return Ok(());
    };
    let state = Arc::clone(&worker.shared.state);
    let choose = move |name: Option<&str>| {
        let snapshot = state.snapshot();
        let port = snapshot.listeners.port(number)?;
        let listener = port.listener(name.map(normal).as_deref())?;
        Some((listener.quic.clone()?, Arc::clone(listener)))
    };
    let endpoint = Endpoint::open(socket, &first.limits, Arc::new(choose))?;
    loop {
        // Until the last connection is gone the socket stays one of those of its port, and should
        // the port come back meanwhile, new clients may well find this one.
        let done = async {
            gone.cancelled().await;
            endpoint.idle().await;
        };
        let attempt = tokio::select! {
            attempt = endpoint.accept() => attempt,
            () = done => None,
        };
        let Some(attempt) = attempt else {
            return Ok(());
        };
        let shared = &worker.shared;
        let now = port(&worker, number).filter(|_| !shared.drain.has_begun());
        let Some(port) = now else {
            attempt.refuse();
            continue;
        };
        endpoint.limit(&port.limits);
        let connection = connection(Rc::clone(&worker), attempt, port, number, gone.clone());
        tokio::task::spawn_local(shared.drain.track(connection));
    }
}

fn port(worker: &Worker, number: u16) -> Option<Arc<Port>> {
    let snapshot = worker.shared.state.snapshot();
    snapshot
        .listeners
        .port(number)
        .filter(|p| p.http3())
        .cloned()
}

async fn connection(
    worker: Rc<Worker>,
    attempt: Attempt,
    port: Arc<Port>,
    number: u16,
    gone: CancellationToken,
) {
    let shared = &worker.shared;
    // This one is counted already.
    let place = port
        .admit()
        .filter(|_| shared.drain.active() <= shared.connection_limit);
    let Some(_place) = place else {
        shared.connections_refused.inc();
        return attempt.refuse();
    };
    let mut caller = Caller {
        local: attempt.local(number),
        ..Caller::at(attempt.peer())
    };
    let limit = port.limits.tls_handshake_timeout;
    let connection = match Box::pin(attempt.connect::<Listener>(limit)).await {
        Ok(connection) => connection,
        Err(HandshakeError::NoListener(details)) => {
            return refuse(&worker, &caller, &Failure::new(Reason::NoRoute, details));
        }
        Err(error) => {
            shared.handshake_failures.inc();
            let error = chain(&error);
            tracing::debug!(client = %caller.address, error, "QUIC handshake failed");
            return;
        }
    };
    caller.group = connection.group;
    let listener = Arc::clone(&connection.chosen);
    let bounds = bounds(&worker, &listener.config.limits);
    let trusted_hops = listener.config.trusted_hops;
    let visitor = Visitor::new(&worker, caller, Entrance::behind(&listener), trusted_hops);
    http3::serve(&worker, connection, &bounds, visitor, &gone).await;
}
