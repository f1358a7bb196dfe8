//! Listeners, and the connections that they accept.
//!
//! Each listener says who its peers are; the same router answers on several of them. Connections
//! are bounded in number, handshakes and first requests in time: who sends garbage, or a byte an
//! hour, costs one slot for seconds and disturbs nobody. What fails is logged once, with its
//! reason, and not without end.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Extensions, Request};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use identity::tls::{ClientAuth, Credentials};
use runtime::Drain;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;
use xds::server::{PeerAddress, PeerIdentity};

use crate::caller::{Caller, Peer, own_uid};
use crate::error::ControlError;
use crate::limit::Limiter;
use crate::loopback;
use crate::metrics::Metrics;

/// Connections that a listener holds at once.
const CONNECTIONS: usize = 4096;
/// Of these, connections over TLS of peers without a certificate: newcomers come and go, and those
/// who only hold connections keep no proxy out.
const STRANGERS: usize = 1024;
/// After this such a connection takes no more requests, and after as long again it is cut.
const STRANGER_STAYS: Duration = Duration::from_mins(1);
/// For a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// For the first request of a connection, and for the head of each.
const FIRST_REQUEST: Duration = Duration::from_secs(15);
/// HTTP/2 peers that do not answer are gone.
const PING: Duration = Duration::from_secs(20);
/// After an accept that failed for want of file descriptors.
const BREATHER: Duration = Duration::from_millis(100);

/// How a listener reached the router, for those who decide what is allowed there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// The unix socket: the peer's user is checked.
    Socket,
    /// TLS: whoever has a certificate is known by it.
    Tls,
    /// TCP without TLS.
    Plain,
}

/// What connections are served with.
#[derive(Clone)]
pub struct Server {
    router: Router,
    drain: Drain,
    metrics: Metrics,
    slots: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    log: Arc<Limiter<&'static str>>,
}

/// Binds a TCP listener.
pub async fn bind(
    what: &'static str,
    flag: &'static str,
    address: SocketAddr,
) -> Result<TcpListener, ControlError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ControlError::Listen {
            what,
            address,
            flag,
            source,
        })
}

/// Binds the unix socket. One that is left from a killed process is replaced: the data
/// directory's lock, which the caller holds, says that nobody listens there.
pub fn bind_socket(path: &Path) -> Result<UnixListener, ControlError> {
    let failed = |source| ControlError::Socket {
        path: path.to_owned(),
        source,
    };
    // sockaddr_un has room for 108 bytes with the terminator.
    if path.as_os_str().len() > 107 {
        return Err(failed(io::Error::other(
            "the path is longer than the 107 bytes that a unix socket may have; choose a shorter data directory with TULLE_DATA_DIR",
        )));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    // Between the two the directory's own mode of 0700 keeps others out.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

impl Server {
    /// A server for one listener.
    pub fn new(router: Router, drain: Drain, metrics: Metrics) -> Self {
        Self {
            router,
            drain,
            metrics,
            slots: Arc::new(Semaphore::new(CONNECTIONS)),
            strangers: Arc::new(Semaphore::new(STRANGERS)),
            log: Arc::new(Limiter::new(20, 0.2)),
        }
    }

    /// Serves the unix socket until the drain begins.
    pub async fn unix(self, listener: UnixListener) {
        let own = own_uid();
        while let Some((stream, permit)) = self.next(|| listener.accept()).await {
            let uid = match stream.0.peer_cred() {
                Ok(credentials) => credentials.uid(),
                Err(error) => {
                    self.warn(
                        "socket",
                        &format!("peer of the unix socket cannot be told: {error}"),
                    );
                    continue;
                }
            };
            if uid != own && uid != 0 {
                self.warn(
                    "socket",
                    &format!("user {uid} may not use the control socket, which is user {own}'s"),
                );
                continue;
            }
            let server = self.clone();
            self.spawn(permit, async move {
                server.unix_connection(stream.0, uid).await;
            });
        }
    }

    async fn unix_connection(&self, stream: UnixStream, uid: u32) {
        let mut extensions = Extensions::new();
        extensions.insert(Caller::Local { uid });
        extensions.insert(Peer::default());
        extensions.insert(Via::Socket);
        extensions.insert(PeerAddress("unix".to_owned()));
        self.serve(stream, extensions, None, None).await;
    }

    /// Serves a TCP listener without TLS until the drain begins. Peers on this host are known by
    /// their user, all others are nobody.
    pub async fn plain(self, listener: TcpListener) {
        while let Some(((stream, remote), permit)) = self.next(|| listener.accept()).await {
            let server = self.clone();
            self.spawn(permit, async move {
                server.plain_connection(stream, remote).await;
            });
        }
    }

    async fn plain_connection(&self, stream: TcpStream, remote: SocketAddr) {
        let Ok(local) = stream.local_addr() else {
            return;
        };
        let uid = if remote.ip().to_canonical().is_loopback() {
            let lookup = tokio::task::spawn_blocking(move || loopback::uid_of_peer(local, remote));
            lookup.await.ok().flatten()
        } else {
            None
        };
        let caller = match uid {
            Some(uid) if uid == own_uid() || uid == 0 => Caller::Local { uid },
            _ => Caller::Anonymous,
        };
        let mut extensions = peers(remote, local);
        extensions.insert(caller);
        extensions.insert(Via::Plain);
        self.serve(stream, extensions, None, None).await;
    }

    /// Serves a TCP listener with TLS until the drain begins.
    pub async fn tls(self, listener: TcpListener, credentials: Arc<Credentials>) {
        while let Some(((stream, remote), permit)) = self.next(|| listener.accept()).await {
            let server = self.clone();
            let credentials = Arc::clone(&credentials);
            self.spawn(permit, async move {
                if let Err((reason, message)) =
                    server.tls_connection(stream, remote, &credentials).await
                {
                    server.metrics.handshake_failed(reason);
                    server.warn(
                        reason,
                        &format!("handshake with {remote} failed: {message}"),
                    );
                }
            });
        }
    }

    async fn tls_connection(
        &self,
        stream: TcpStream,
        remote: SocketAddr,
        credentials: &Arc<Credentials>,
    ) -> Result<(), (&'static str, String)> {
        let _ = stream.set_nodelay(true);
        let local = stream
            .local_addr()
            .map_err(|error| ("closed", error.to_string()))?;
        let config =
            identity::tls::server_config(credentials, &[b"h2", b"http/1.1"], ClientAuth::Optional);
        let handshake = TlsAcceptor::from(config).accept(stream);
        let stream = tokio::time::timeout(HANDSHAKE, handshake)
            .await
            .map_err(|_| {
                (
                    "timeout",
                    format!("not finished within {} s", HANDSHAKE.as_secs()),
                )
            })?
            .map_err(|error| explain_handshake(&error))?;
        let (_, session) = stream.get_ref();
        let mut extensions = peers(remote, local);
        extensions.insert(Via::Tls);
        let stranger = if let Some(certificates) = session.peer_certificates() {
            let id = identity::tls::peer_id(certificates)
                .map_err(|error| ("certificate", error.to_string()))?;
            extensions.insert(PeerIdentity(id.clone()));
            extensions.insert(Caller::Workload(id));
            None
        } else {
            let slot = Arc::clone(&self.strangers).try_acquire_owned();
            let slot = slot.map_err(|_| {
                let message =
                    format!("{STRANGERS} peers without a certificate are connected already");
                ("strangers", message)
            })?;
            extensions.insert(Caller::Anonymous);
            Some(slot)
        };
        let http2 = session.alpn_protocol().map(|alpn| alpn == b"h2");
        let stays = stranger.is_some().then_some(STRANGER_STAYS);
        self.serve(stream, extensions, http2, stays).await;
        Ok(())
    }

    /// The next connection, once there is a slot for it; `None` when the drain has begun.
    async fn next<T, F>(&self, accept: impl Fn() -> F) -> Option<(T, OwnedSemaphorePermit)>
    where
        F: Future<Output = io::Result<T>>,
    {
        loop {
            let permit = tokio::select! {
                permit = Arc::clone(&self.slots).acquire_owned() => permit.ok()?,
                () = self.drain.begun() => return None,
            };
            tokio::select! {
                accepted = accept() => match accepted {
                    Ok(connection) => return Some((connection, permit)),
                    Err(error) => {
                        self.warn("accept", &format!("a connection cannot be accepted: {error}"));
                        tokio::time::sleep(BREATHER).await;
                    }
                },
                () = self.drain.begun() => return None,
            }
        }
    }

    fn spawn(&self, permit: OwnedSemaphorePermit, work: impl Future<Output = ()> + Send + 'static) {
        let drain = self.drain.clone();
        tokio::spawn(self.drain.track(async move {
            tokio::select! {
                () = work => {}
                () = drain.cut() => {}
            }
            drop(permit);
        }));
    }

    /// Serves HTTP on a connection until it ends; `http2` where the protocol is known, `stays`
    /// where it should end by itself.
    async fn serve<I>(
        &self,
        io: I,
        extensions: Extensions,
        http2: Option<bool>,
        stays: Option<Duration>,
    ) where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let asked = Arc::new(AtomicBool::new(false));
        let noted = Arc::clone(&asked);
        let router = self.router.clone();
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            noted.store(true, Ordering::Relaxed);
            request.extensions_mut().extend(extensions.clone());
            router.clone().oneshot(request.map(Body::new))
        });
        let builder = builder(http2);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
        let mut first_request = pin!(tokio::time::sleep(FIRST_REQUEST));
        let mut waiting = true;
        let mut draining = false;
        let mut end = pin!(tokio::time::sleep(stays.unwrap_or_default()));
        let mut overdue = false;
        loop {
            tokio::select! {
                // What a peer does wrong on an accepted connection is its own affair.
                _ = connection.as_mut() => return,
                () = &mut first_request, if waiting => {
                    waiting = false;
                    if !asked.load(Ordering::Relaxed) {
                        return;
                    }
                }
                () = &mut end, if stays.is_some() => {
                    if overdue {
                        return;
                    }
                    overdue = true;
                    end.as_mut().reset(Instant::now() + stays.unwrap_or_default());
                    connection.as_mut().graceful_shutdown();
                }
                () = self.drain.begun(), if !draining => {
                    draining = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }

    fn warn(&self, reason: &'static str, message: &str) {
        if self.log.take(reason).is_ok() {
            tracing::warn!(reason, "{message}");
        }
    }
}

fn peers(remote: SocketAddr, local: SocketAddr) -> Extensions {
    let mut extensions = Extensions::new();
    extensions.insert(Peer {
        remote: Some(remote),
        local: Some(local),
    });
    extensions.insert(PeerAddress(remote.to_string()));
    extensions
}

fn builder(http2: Option<bool>) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(FIRST_REQUEST)
        .max_buf_size(64 * 1024);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(256)
        .max_header_list_size(32 * 1024)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    match http2 {
        Some(true) => builder.http2_only(),
        Some(false) => builder.http1_only(),
        None => builder,
    }
}

/// One word for metrics and a sentence for the log.
fn explain_handshake(error: &io::Error) -> (&'static str, String) {
    let Some(tls) = identity::tls::tls_error(error) else {
        return ("closed", format!("the peer went away: {error}"));
    };
    if let Some(verify) = identity::tls::verify_error(tls) {
        return ("certificate", verify.to_string());
    }
    match tls {
        rustls::Error::InvalidMessage(_) => (
            "not_tls",
            format!("the peer does not speak TLS; plain HTTP belongs on the API's port ({tls})"),
        ),
        rustls::Error::AlertReceived(alert) => (
            "alert",
            format!(
                "the peer refused this control plane's certificate ({alert:?}); does it trust another root?"
            ),
        ),
        rustls::Error::PeerIncompatible(_) => ("incompatible", format!("{tls}; TLS 1.3 is needed")),
        other => ("tls", other.to_string()),
    }
}
