//! Serving HTTP connections: one task a connection, requests handed to a handler, a clean end when
//! the proxy drains.

use std::convert::Infallible;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use ::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::body::ResponseBody;
use crate::error::chain;
use crate::pool::Wire;
use crate::worker::{LocalExecutor, Worker};

/// Bytes of a request's head, and the read buffer of a connection.
const HEAD_LIMIT: usize = 64 * 1024;
/// Streams that a client may have open on one connection.
const STREAMS: u32 = 1024;

/// Serves `io` until its client is done or the proxy drains. `patience` bounds the wait for each
/// request's head, the idle time before it included.
pub(crate) async fn serve<S, H, F>(
    worker: &Rc<Worker>,
    io: S,
    wire: Wire,
    patience: Duration,
    handler: H,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<Incoming>) -> F + 'static,
    F: Future<Output = Response<ResponseBody>> + 'static,
{
    let service = service_fn(move |request| {
        let response = handler(request);
        async move { Ok::<_, Infallible>(response.await) }
    });
    let drain = &worker.shared.drain;
    let io = TokioIo::new(io);
    // The two kinds of connection have no trait in common, only method names.
    macro_rules! drive {
        ($connection:expr) => {{
            let mut connection = std::pin::pin!($connection);
            let result = tokio::select! {
                result = connection.as_mut() => Some(result),
                () = drain.begun() => {
                    connection.as_mut().graceful_shutdown();
                    tokio::select! {
                        result = connection.as_mut() => Some(result),
                        () = drain.cut() => None,
                    }
                }
            };
            if let Some(Err(error)) = result {
                tracing::debug!(error = chain(&error), "connection from a client ended");
            }
        }};
    }
    match wire {
        Wire::Http1 => drive!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(patience)
                .max_buf_size(HEAD_LIMIT)
                .preserve_header_case(true)
                .half_close(true)
                .serve_connection(io, service)
                .with_upgrades()
        ),
        Wire::Http2 => drive!(
            http2::Builder::new(LocalExecutor)
                .timer(TokioTimer::new())
                .adaptive_window(true)
                .max_concurrent_streams(STREAMS)
                .max_header_list_size(HEAD_LIMIT as u32)
                .keep_alive_interval(Duration::from_mins(1))
                .keep_alive_timeout(Duration::from_secs(20))
                .serve_connection(io, service)
        ),
    }
}
