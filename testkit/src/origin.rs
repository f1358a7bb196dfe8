//! A real HTTP server that writes down every request it sees and answers each with what it saw.
//!
//! HTTP/1.1 and HTTP/2 with prior knowledge on one port, by hyper: a back end that somebody else
//! wrote, so that what it takes for one request is not a matter of our own reading. A request is
//! noted when its head has come; its body follows when that is whole.
//!
//! ```
//! use testkit::origin::Origin;
//! use testkit::raw::Raw;
//!
//! let origin = Origin::start();
//! let mut client = Raw::connect(origin.addr()).unwrap();
//! assert_eq!(client.get("a", "/b").text(), "GET /b\n");
//! assert_eq!(origin.seen()[0].target, "/b");
//! ```

use std::convert::Infallible;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::sync::oneshot;

/// Largest request body that is kept and sent back.
const BODY: usize = 32 << 20;

/// A request as the server understood it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// On which connection, from 0.
    pub connection: usize,
    /// Its method.
    pub method: String,
    /// Its target: path and query, or as it was sent.
    pub target: String,
    /// Name (lower case) and value of each field.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Its body, once that is whole; `None` before, and for ever when it never was.
    pub body: Option<Vec<u8>>,
    /// Trailers, with the body.
    pub trailers: Vec<(String, Vec<u8>)>,
}

impl Seen {
    /// The first value of a field, as text; the name in lower case.
    pub fn header(&self, name: &str) -> Option<String> {
        let field = self.headers.iter().find(|(n, _)| n == name);
        field.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
    }
}

/// The running server; stops when dropped.
pub struct Origin {
    addr: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Origin {
    /// Listens on a free port of 127.0.0.1.
    pub fn start() -> Self {
        Self::on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port of the loopback"))
    }

    /// As [`start`](Self::start), but nothing is written down: for runs without end.
    pub fn forgetful() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        Self::with(listener.expect("a port of the loopback"), false)
    }

    /// As [`start`](Self::start), on a listener of the test's own.
    pub fn on(listener: TcpListener) -> Self {
        Self::with(listener, true)
    }

    fn with(listener: TcpListener, notes: bool) -> Self {
        let addr = listener
            .local_addr()
            .expect("a bound socket has an address");
        listener.set_nonblocking(true).expect("a socket");
        let seen = Arc::new(Mutex::default());
        let connections = Arc::new(AtomicUsize::new(0));
        let (stop, stopped) = oneshot::channel();
        let served = (Arc::clone(&seen), Arc::clone(&connections));
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, notes.then_some(served.0), served.1) => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            addr,
            seen,
            connections,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Every request seen so far, in the order in which their heads came.
    pub fn seen(&self) -> Vec<Seen> {
        locked(&self.seen).clone()
    }

    /// How many requests were seen so far.
    pub fn count(&self) -> usize {
        locked(&self.seen).len()
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Origin({})", self.addr)
    }
}

async fn serve(
    listener: TcpListener,
    seen: Option<Arc<Mutex<Vec<Seen>>>>,
    connections: Arc<AtomicUsize>,
) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let _ = stream.set_nodelay(true);
        let number = connections.fetch_add(1, Ordering::AcqRel);
        let seen = seen.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, number, seen.clone()));
            let mut server = auto::Builder::new(TokioExecutor::new());
            // Small, so that a proxy that ignores flow control is found out.
            server.http2().max_concurrent_streams(1000);
            let _ = server
                .serve_connection_with_upgrades(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    connection: usize,
    seen: Option<Arc<Mutex<Vec<Seen>>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let fields = |map: &hyper::HeaderMap| -> Vec<(String, Vec<u8>)> {
        map.iter()
            .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
            .collect()
    };
    let (parts, body) = request.into_parts();
    let target = match parts.uri.path_and_query() {
        Some(path) => path.as_str().to_owned(),
        None => parts.uri.to_string(),
    };
    let text = format!("{} {target}\n", parts.method);
    let index = seen.as_ref().map(|seen| {
        let mut seen = locked(seen);
        seen.push(Seen {
            connection,
            method: parts.method.to_string(),
            target,
            headers: fields(&parts.headers),
            body: None,
            trailers: Vec::new(),
        });
        seen.len() - 1
    });
    let mut response = Response::new(Full::default());
    match Limited::new(body, BODY).collect().await {
        Ok(whole) => {
            let trailers = whole.trailers().map(fields).unwrap_or_default();
            let bytes = whole.to_bytes();
            let mut text = text.into_bytes();
            text.extend_from_slice(&bytes);
            *response.body_mut() = Full::new(text.into());
            if let (Some(seen), Some(index)) = (&seen, index) {
                let mut seen = locked(seen);
                seen[index].body = Some(bytes.to_vec());
                seen[index].trailers = trailers;
            }
        }
        Err(error) => {
            *response.status_mut() = hyper::StatusCode::BAD_REQUEST;
            *response.body_mut() = Full::new(format!("body: {error}\n").into());
        }
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw::Raw;

    #[test]
    fn requests_are_noted_with_their_bodies_and_trailers() {
        let origin = Origin::start();
        let mut client = Raw::connect(origin.addr()).unwrap();
        let answer = client.request(
            "POST /p HTTP/1.1\r\nhost: a\r\nX-Y: 1\r\ntransfer-encoding: chunked\r\n\r\n\
             3\r\nabc\r\n0\r\nt: u\r\n\r\n",
        );
        assert_eq!(answer.text(), "POST /p\nabc");
        let seen = &origin.seen()[0];
        assert_eq!(seen.header("x-y").as_deref(), Some("1"));
        assert_eq!(seen.body.as_deref(), Some(b"abc".as_slice()));
        assert_eq!(seen.trailers, [("t".to_owned(), b"u".to_vec())]);
        assert_eq!((origin.count(), origin.connections()), (1, 1));
    }
}
