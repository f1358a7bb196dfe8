//! HBONE outbound: connections as streams of one mutual TLS connection (HTTP/2 CONNECT), for
//! endpoints whose proxy speaks nothing else, such as Istio's ztunnel.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use model::Reason;
use tokio::time::Instant;
use wire::{Length, Method, RequestHead, Target};

use crate::destination::Endpoint;
use crate::error::{Failure, Replay};
use crate::http::Informer;
use crate::http::body::RequestBody;
use crate::http1::client::Order;
use crate::http2::client::{self as http2, Handle};
use crate::io::Io;
use crate::pool::Link;
use crate::tunnel::Form;
use crate::worker::Worker;
use crate::{connect, worker};

/// The tunnels of one worker, by endpoint.
#[derive(Default)]
pub(crate) struct Tunnels(worker::Map<u64, Tunnel>);

struct Tunnel {
    endpoint: Weak<Endpoint>,
    handle: Handle,
}

impl Tunnels {
    fn find(&mut self, endpoint: u64) -> Option<Handle> {
        let handle = &self.0.get(&endpoint)?.handle;
        handle.has_room().then(|| handle.clone())
    }

    fn keep(&mut self, endpoint: &Arc<Endpoint>, handle: &Handle) {
        self.0.insert(
            endpoint.id,
            Tunnel {
                endpoint: Arc::downgrade(endpoint),
                handle: handle.clone(),
            },
        );
    }

    /// Lets go of what is closed or leads to an endpoint that is gone.
    pub(crate) fn sweep(&mut self) {
        self.0
            .retain(|_, t| t.endpoint.strong_count() > 0 && !t.handle.is_closed());
    }
}

/// Opens a stream to `port` of an endpoint, whose proxy takes tunnels on `tunnel`.
pub(crate) async fn open(
    worker: &Worker,
    endpoint: &Arc<Endpoint>,
    port: u16,
    tunnel: u16,
    limit: Duration,
) -> Result<(Io, Link), Failure> {
    let begun = Instant::now();
    let found = worker.tunnels.borrow_mut().find(endpoint.id);
    let handle = if let Some(handle) = found {
        handle
    } else {
        let (io, link) = connect::tls(worker, endpoint, port, tunnel, Form::Hbone, limit).await?;
        let handle = http2::handshake(io, link, None).await?;
        worker.tunnels.borrow_mut().keep(endpoint, &handle);
        handle
    };
    let link = Link {
        address: handle.link.address,
        mtls: true,
        group: handle.link.group,
    };
    let address = connect::address(endpoint, port)?;
    let left = limit.saturating_sub(begun.elapsed());
    match tokio::time::timeout(left, connect_to(handle, address)).await {
        Ok(opened) => Ok((opened?, link)),
        Err(_) => Err(Failure::new(
            Reason::ConnectTimeout,
            format!("the tunnel to {address} did not open within {limit:?}"),
        )
        .replay(Replay::Safe)),
    }
}

async fn connect_to(handle: Handle, address: SocketAddr) -> Result<Io, Failure> {
    let mut head = RequestHead::new();
    head.method = Method::CONNECT;
    head.authority = address.to_string();
    let order = Order {
        head: &head,
        target: Target {
            authority: &head.authority,
            path: "",
        },
        length: Length::None,
        upgrade: true,
        trailers: false,
        expects: false,
    };
    let response = http2::send(handle, &order, RequestBody::empty(), &Informer::Nobody)
        .await
        .map_err(|unanswered| unanswered.failure.replay(Replay::Safe))?;
    let status = response.head.status;
    response.switched.ok_or_else(|| {
        let details = format!("the proxy of {address} answered CONNECT with {status}");
        Failure::new(Reason::ConnectRefused, details).replay(Replay::Safe)
    })
}
