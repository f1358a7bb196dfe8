//! A connection to a Gateway's port.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use model::Reason;
use telemetry::Direction;
use tokio::net::TcpStream;
use wire::RequestHead;

use super::host::normal;
use crate::error::Failure;
use crate::http::{self, Reply, Request, Service};
use crate::io::Io;
use crate::outbound::{self, Inlet};
use crate::record::{Caller, Exchange, NONE};
use crate::reply;
use crate::tcp::{self, Spoken};
use crate::worker::Worker;

/// Serves a connection that came in on `port`.
pub(crate) async fn connection(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr, port: u16) {
    let Ok(Spoken::Http(stream, wire)) = tcp::read_http(Io::from(stream)).await else {
        return;
    };
    let (stream, ahead) = stream.into_parts();
    let service = Entrance {
        worker: Rc::clone(&worker),
        caller: Caller {
            address: peer,
            principal: Arc::clone(&NONE),
            mtls: false,
            group: "",
        },
        port,
    };
    http::serve(
        &worker,
        stream.with_ahead(ahead),
        wire,
        &worker.bounds,
        service,
    )
    .await;
}

/// Requests that come from outside on one port.
struct Entrance {
    worker: Rc<Worker>,
    caller: Caller,
    port: u16,
}

impl Service for Entrance {
    fn begin(&self, head: RequestHead) -> Exchange {
        Exchange::begin(&self.worker, Direction::Outbound, &self.caller, head)
    }

    async fn call(&self, mut exchange: Exchange, request: Request) -> Reply {
        let destination = {
            let snapshot = self.worker.shared.state.snapshot();
            let port = snapshot.listeners.port(self.port);
            let table = port.and_then(|port| port.find(&normal(exchange.head().host())));
            table.map(|table| Arc::clone(&table.destination))
        };
        if let Some(destination) = destination {
            let inlet = Inlet::Service(destination, self.port);
            return outbound::handle(&self.worker, &inlet, exchange, request).await;
        }
        let details = format!(
            "no route is attached to port {} for host \"{}\"",
            self.port,
            exchange.head().host()
        );
        let failure = Failure::new(Reason::NoRoute, details);
        exchange.fail(&failure);
        reply::failure(&failure, exchange.is_grpc())
    }
}
