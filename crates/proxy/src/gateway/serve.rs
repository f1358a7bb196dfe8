//! A connection to a Gateway's port.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use model::Reason;
use telemetry::Direction;
use tokio::net::TcpStream;

use super::host::normal;
use crate::body::ResponseBody;
use crate::error::Failure;
use crate::outbound::{self, Inlet};
use crate::record::{Caller, Exchange, NONE};
use crate::tcp::{self, Spoken};
use crate::worker::Worker;
use crate::{headers, http as serve_http, reply};

/// For the next request on a kept connection.
const IDLE: Duration = Duration::from_mins(5);

/// Serves a connection that came in on `port`.
pub(crate) async fn connection(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr, port: u16) {
    let caller = Rc::new(Caller {
        address: peer,
        principal: Arc::clone(&NONE),
        mtls: false,
        group: "",
    });
    let Ok(Spoken::Http(stream, wire)) = tcp::read_http(stream).await else {
        return;
    };
    let handler = {
        let worker = Rc::clone(&worker);
        move |request| serve(Rc::clone(&worker), Rc::clone(&caller), port, request)
    };
    serve_http::serve(&worker, stream, wire, IDLE, handler).await;
}

async fn serve(
    worker: Rc<Worker>,
    caller: Rc<Caller>,
    port: u16,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let authority = headers::authority(request.uri(), request.headers());
    let host = authority.as_ref().map_or("", |a| a.host());
    let destination = {
        let snapshot = worker.shared.state.snapshot();
        let port = snapshot.listeners.port(port);
        let table = port.and_then(|port| port.find(&normal(host)));
        table.map(|table| Arc::clone(&table.destination))
    };
    match destination {
        Some(destination) => {
            let inlet = Inlet::Service(destination, port);
            outbound::handle(worker, inlet, caller, request).await
        }
        None => {
            let details = format!("no route is attached to port {port} for host \"{host}\"");
            let failure = Failure::new(Reason::NoRoute, details);
            let (mut head, _) = request.into_parts();
            let mut exchange = Exchange::begin(&worker, Direction::Outbound, &caller, &mut head);
            exchange.fail(&failure);
            reply::failure(&failure, exchange.is_grpc())
        }
    }
}
