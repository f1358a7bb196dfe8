//! Connections: bounded in number, and told to end when the service drains.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use runtime::Drain;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower::ServiceExt as _;

use crate::error::RateLimitError;

/// Connections of a listener at once; further ones wait to be accepted.
const CONNECTIONS: usize = 4096;
/// Streams of a connection at once.
const STREAMS: u32 = 1024;
/// For the head of a request.
const HEAD: Duration = Duration::from_secs(15);
/// Peers that do not answer are gone.
const PING: Duration = Duration::from_secs(20);
/// After an accept that failed for want of file descriptors.
const BREATHER: Duration = Duration::from_millis(100);

/// Takes a port.
pub(crate) async fn bind(
    address: SocketAddr,
    flag: &'static str,
) -> Result<TcpListener, RateLimitError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| RateLimitError::Listen {
            address,
            flag,
            source,
        })
}

/// Serves until the drain begins.
pub(crate) async fn serve(listener: TcpListener, router: Router, drain: Drain) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = async {
                let slot = Arc::clone(&slots).acquire_owned().await;
                (listener.accept().await, slot)
            } => accepted,
            () = drain.begun() => return,
        };
        match accepted {
            (Ok((stream, _)), Ok(slot)) => {
                let (router, drain) = (router.clone(), drain.clone());
                let connection = connection(stream, router, drain.clone());
                tokio::spawn(drain.track(async move {
                    connection.await;
                    drop(slot);
                }));
            }
            // The semaphore is never closed.
            (_, Err(_)) => return,
            (Err(error), _) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(BREATHER).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, router: Router, drain: Drain) {
    // Answers are small, and waited for.
    let _ = stream.set_nodelay(true);
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        router.clone().oneshot(request.map(Body::new))
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut draining = false;
    loop {
        tokio::select! {
            // What a peer does wrong is its own affair.
            _ = connection.as_mut() => return,
            () = drain.begun(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
            () = drain.cut() => return,
        }
    }
}
