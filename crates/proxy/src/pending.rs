//! Requests that wait for an HTTP/1 connection to a destination that has as many as its policy allows
//! (`connections.maxConnections`): no more than `maxPendingRequests`, the first to come the first to
//! go, and each no longer than its own time.

use std::pin::pin;
use std::rc::Rc;

use model::Reason;
use policy::effective::Effective;

use crate::destination::Endpoint;
use crate::error::Failure;
use crate::http1::client::Conn;
use crate::pool::{Home, Slot};
use crate::worker::Worker;

/// What came of waiting.
pub(crate) enum Room {
    /// A new connection may be made.
    New(Slot),
    /// One is free.
    Kept(Box<Conn>),
}

/// Waits until a connection to the endpoint can be had.
pub(crate) async fn wait(
    worker: &Rc<Worker>,
    endpoint: &Endpoint,
    policy: &Effective,
    home: &Home,
) -> Result<Room, Failure> {
    let waiting = endpoint.live.connections.wait(policy.max_pending);
    let waiting = waiting.ok_or_else(|| full(endpoint, policy))?;
    loop {
        let mut room = pin!(waiting.room());
        room.as_mut().enable();
        if let Some(conn) = home.http1() {
            return Ok(Room::Kept(conn));
        }
        if let Some(slot) = worker.pool.reserve(endpoint, policy.max_connections) {
            return Ok(Room::New(slot));
        }
        room.await;
    }
}

fn full(endpoint: &Endpoint, policy: &Effective) -> Failure {
    let details = format!(
        "{} connections to service {} are in use, and {} requests wait for one",
        policy.max_connections, endpoint.config.service, policy.max_pending
    );
    Failure::new(Reason::CircuitOpen, details)
}
