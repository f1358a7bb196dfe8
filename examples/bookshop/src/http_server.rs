//! An HTTP server that finishes what it has begun.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::stop::Stop;
use crate::{forward::Forward, instance};

/// Bytes of a request's body.
const MAX_BODY: usize = 64 * 1024;
/// Connections at once.
const MAX_CONNECTIONS: usize = 4096;
/// For requests in flight when told to stop.
const GRACE: Duration = Duration::from_secs(10);

/// A request, read whole.
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Asked {
    /// What to pass on.
    pub(crate) fn forward(&self) -> Forward {
        Forward::of(&self.headers)
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    status: StatusCode,
    kind: &'static str,
    body: Bytes,
    headers: HeaderMap,
}

impl Reply {
    pub(crate) fn new(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            kind,
            body: body.into(),
            headers: HeaderMap::new(),
        }
    }

    pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::new(status, "application/json", body),
            Err(e) => Self::error(StatusCode::INTERNAL_SERVER_ERROR, &e.to_string()),
        }
    }

    pub(crate) fn error(status: StatusCode, message: &str) -> Self {
        let body = serde_json::json!({ "error": message }).to_string();
        Self::new(status, "application/json", body)
    }

    pub(crate) fn not_found() -> Self {
        Self::error(StatusCode::NOT_FOUND, "no such page")
    }

    pub(crate) fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.insert(name, HeaderValue::from_static(value));
        self
    }
}

/// What a service does with a request.
pub(crate) trait Handler: Send + Sync + 'static {
    fn handle(&self, asked: Asked) -> impl Future<Output = Reply> + Send;
}

/// Serves until `stop`, then lets requests in flight end.
pub(crate) async fn serve(
    workload: &str,
    handler: impl Handler,
    listener: TcpListener,
    stop: Stop,
) -> anyhow::Result<()> {
    let handler = Arc::new(handler);
    let instance = HeaderValue::from_str(&instance::name(workload))?;
    let mut connections = JoinSet::new();
    let mut stopped = pin!(stop.clone().wait());
    loop {
        let stream = tokio::select! {
            () = &mut stopped => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => stream,
                Err(e) => {
                    // Too many open files, say: those that are open will be closed.
                    eprintln!("cannot accept: {e}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let (handler, instance, stop) = (Arc::clone(&handler), instance.clone(), stop.clone());
        connections.spawn(connection(stream, handler, instance, stop));
    }
    drop(listener);
    let _ = tokio::time::timeout(GRACE, connections.join_all()).await;
    Ok(())
}

async fn connection<H: Handler>(
    stream: TcpStream,
    handler: Arc<H>,
    instance: HeaderValue,
    stop: Stop,
) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let (handler, instance) = (Arc::clone(&handler), instance.clone());
        async move { Ok::<_, Infallible>(answer(&*handler, request, instance).await) }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service)
    );
    tokio::select! {
        // A client that breaks off or breaks the rules is its own affair.
        _ = connection.as_mut() => return,
        () = stop.wait() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

async fn answer<H: Handler>(
    handler: &H,
    request: Request<Incoming>,
    instance: HeaderValue,
) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let reply = match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => {
            let path = parts.uri.path();
            if path == "/healthz" {
                Reply::new(StatusCode::OK, "text/plain", "ok\n")
            } else {
                let asked = Asked {
                    method: parts.method,
                    path: path.to_owned(),
                    headers: parts.headers,
                    body: body.to_bytes(),
                };
                handler.handle(asked).await
            }
        }
        Err(e) => Reply::error(StatusCode::BAD_REQUEST, &e.to_string()),
    };
    let mut response = Response::new(Full::new(reply.body));
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(reply.kind));
    response.headers_mut().insert(instance::HEADER, instance);
    response
}
