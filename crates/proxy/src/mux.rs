//! Connections to endpoints as streams of one mutual TLS connection (HTTP/2 CONNECT).
//!
//! Between two Tulle proxies (`tulle-mux`) each stream says which port of which workload it is for and
//! what follows: many requests then share a record and a system call. Other proxies, such as Istio's
//! ztunnel, are asked for an address and a port (HBONE).

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use model::Reason;
use tokio::time::Instant;
use wire::{Length, Method, RequestHead, Target};

use crate::connect;
use crate::destination::Endpoint;
use crate::error::{Failure, Replay};
use crate::headers::FORM;
use crate::http::Informer;
use crate::http::body::RequestBody;
use crate::http1::client::{Order, Response};
use crate::http2::client::{self as http2, Handle};
use crate::io::Io;
use crate::pool::Link;
use crate::tunnel::{self, Form};
use crate::worker::Worker;

/// Streams on one connection: enough to share records and system calls, and few enough that a busy
/// peer spreads over the threads of the other.
const STREAMS: usize = 32;
/// A connection without a stream is kept for so long.
const IDLE: Duration = Duration::from_mins(2);

/// Who takes the streams.
#[derive(Clone, Copy)]
pub(crate) enum Taker {
    /// A Tulle proxy, which is told what follows.
    Tulle(Form),
    /// Another that speaks HBONE.
    Hbone,
}

impl Taker {
    /// What its connection is announced as.
    fn form(self) -> Form {
        match self {
            Self::Tulle(_) => Form::Mux,
            Self::Hbone => Form::Hbone,
        }
    }
}

/// Opens a stream to `port` of an endpoint, whose proxy takes them on `tunnel`.
pub(crate) async fn open(
    worker: &Rc<Worker>,
    endpoint: &Arc<Endpoint>,
    port: u16,
    tunnel: u16,
    taker: Taker,
    limit: Duration,
) -> Result<(Io, Link), Failure> {
    let head = asking(endpoint, port, taker)?;
    let begun = Instant::now();
    let home = worker.pool.home(endpoint, tunnel, Some(IDLE), None);
    loop {
        let (handle, reused) = if let Some(handle) = home.http2() {
            (handle, true)
        } else {
            // Made once for all who need one at this moment.
            let opening = home.opening(STREAMS).unwrap_or_else(|| {
                let (worker, endpoint) = (Rc::clone(worker), Arc::clone(endpoint));
                home.open(async move {
                    let form = taker.form();
                    let tls = connect::tls(&worker, &endpoint, port, tunnel, form, limit);
                    let (io, link) = tls.await?;
                    http2::handshake(io, link, None, STREAMS).await
                })
            });
            (opening.await?, false)
        };
        let left = limit.saturating_sub(begun.elapsed());
        let link = Link {
            address: handle.link.address,
            mtls: true,
            group: handle.link.group,
        };
        // No copy of the handle is kept: each counts as a stream.
        let closed = handle.closed();
        match tokio::time::timeout(left, ask(handle, &head)).await {
            Ok(Ok(response)) => return Ok((opened(response, &head)?, link)),
            // It was about to close: another takes its place.
            Ok(Err(failure)) if reused && failure.replay == Replay::Safe => closed.set(true),
            Ok(Err(failure)) => return Err(failure.replay(Replay::Safe)),
            Err(_) => {
                let to = &head.authority;
                let details = format!("the tunnel to {to} did not open within {limit:?}");
                return Err(Failure::new(Reason::ConnectTimeout, details).replay(Replay::Safe));
            }
        }
    }
}

/// What a stream is asked for with.
fn asking(endpoint: &Endpoint, port: u16, taker: Taker) -> Result<RequestHead, Failure> {
    let mut head = RequestHead::new();
    head.method = Method::CONNECT;
    match taker {
        Taker::Tulle(form) => {
            head.authority = tunnel::name(port, &endpoint.config.workload);
            head.fields.append(FORM, form.alpn());
        }
        Taker::Hbone => head.authority = connect::address(endpoint, port)?.to_string(),
    }
    Ok(head)
}

async fn ask(handle: Handle, head: &RequestHead) -> Result<Response, Failure> {
    let order = Order {
        head,
        target: Target {
            authority: &head.authority,
            path: "",
        },
        length: Length::None,
        upgrade: true,
        trailers: false,
        expects: false,
    };
    let (map, body) = (HeaderMap::new(), RequestBody::empty());
    let sent = http2::send(handle, &order, map, body, &Informer::Nobody);
    sent.await.map_err(|unanswered| unanswered.failure)
}

/// The stream, if it was granted.
fn opened(response: Response, head: &RequestHead) -> Result<Io, Failure> {
    let status = response.head.status;
    response.switched.ok_or_else(|| {
        let to = &head.authority;
        let details = format!("the proxy of {to} answered CONNECT with {status}");
        Failure::new(Reason::ConnectRefused, details).replay(Replay::Safe)
    })
}
