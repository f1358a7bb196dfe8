//! A server of HTTP/2 tunnels, made of the `h2` crate and nothing of ours.
//!
//! What comes with extended CONNECT (RFC 8441) is sent back; CONNECT leads to the address that it
//! names, as at the proxies of ambient meshes (HBONE). All else is answered with an empty 200.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use hyper::{Method, Request, Response, StatusCode};
use model::SpiffeId;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// On which connection, from 0.
    pub connection: usize,
    /// Method.
    pub method: Method,
    /// `:authority`.
    pub authority: String,
    /// `:path`; empty with CONNECT.
    pub path: String,
    /// `:protocol`.
    pub protocol: Option<String>,
    /// Names of the fields.
    pub fields: Vec<String>,
    /// Who asked, as the certificate says.
    pub peer: Option<SpiffeId>,
}

/// The running server; stops when dropped.
pub struct Tunnels {
    addr: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    asked: Mutex<Vec<Asked>>,
    connections: AtomicUsize,
    tls: Option<Arc<ServerConfig>>,
    /// Whether extended CONNECT is announced.
    extended: bool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tunnels {
    /// In the clear; `extended` says whether extended CONNECT is announced.
    pub fn plain(extended: bool) -> Self {
        Self::start(Shared {
            extended,
            ..Shared::default()
        })
    }

    /// Behind TLS.
    pub fn behind(tls: Arc<ServerConfig>) -> Self {
        Self::start(Shared {
            tls: Some(tls),
            ..Shared::default()
        })
    }

    fn start(shared: Shared) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let addr = listener.local_addr().expect("bound");
        listener.set_nonblocking(true).expect("a socket");
        let shared = Arc::new(shared);
        let served = Arc::clone(&shared);
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, served) => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            addr,
            shared,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What was asked for so far.
    pub fn asked(&self) -> Vec<Asked> {
        locked(&self.shared.asked).clone()
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Acquire)
    }
}

impl Drop for Tunnels {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Tunnels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tunnels({})", self.addr)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let Some(tls) = shared.tls.clone() else {
                return connection(stream, None, shared).await;
            };
            // A peer whose certificate is refused leaves by itself.
            if let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await {
                let certificates = stream.get_ref().1.peer_certificates();
                let peer = certificates.and_then(|c| identity::tls::peer_id(c).ok());
                connection(stream, peer, shared).await;
            }
        });
    }
}

async fn connection<S>(stream: S, peer: Option<SpiffeId>, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let number = shared.connections.fetch_add(1, Ordering::AcqRel);
    let mut builder = h2::server::Builder::new();
    if shared.extended {
        builder.enable_connect_protocol();
    }
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let protocol = request.extensions().get::<h2::ext::Protocol>();
        let uri = request.uri();
        let asked = Asked {
            connection: number,
            method: request.method().clone(),
            authority: uri.authority().map(ToString::to_string).unwrap_or_default(),
            path: uri
                .path_and_query()
                .map(ToString::to_string)
                .unwrap_or_default(),
            protocol: protocol.map(|p| p.as_str().to_owned()),
            fields: request.headers().keys().map(ToString::to_string).collect(),
            peer: peer.clone(),
        };
        locked(&shared.asked).push(asked.clone());
        tokio::spawn(async move {
            // The peer may leave at any time.
            let _ = answer(asked, request, respond).await;
        });
    }
}

type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;

async fn answer(
    asked: Asked,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Ended {
    let recv = request.into_body();
    let mut response = Response::new(());
    if asked.method != Method::CONNECT {
        respond.send_response(response, true)?;
        return Ok(());
    }
    if asked.protocol.is_some() {
        let send = respond.send_response(response, false)?;
        return echo(recv, send).await;
    }
    let Ok(stream) = TcpStream::connect(&asked.authority).await else {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        respond.send_response(response, true)?;
        return Ok(());
    };
    let send = respond.send_response(response, false)?;
    let (read, write) = stream.into_split();
    let ends = tokio::join!(up(recv, write), down(read, send));
    ends.0.and(ends.1)
}

async fn echo(mut recv: RecvStream, mut send: SendStream<Bytes>) -> Ended {
    while let Some(data) = recv.data().await {
        let data = data?;
        recv.flow_control().release_capacity(data.len())?;
        send.send_data(data, false)?;
    }
    send.send_data(Bytes::new(), true)?;
    Ok(())
}

async fn up(mut recv: RecvStream, mut write: impl AsyncWrite + Unpin) -> Ended {
    while let Some(data) = recv.data().await {
        let data = data?;
        write.write_all(&data).await?;
        recv.flow_control().release_capacity(data.len())?;
    }
    write.shutdown().await?;
    Ok(())
}

async fn down(mut read: impl AsyncRead + Unpin, mut send: SendStream<Bytes>) -> Ended {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let n = read.read(&mut buffer).await?;
        send.send_data(Bytes::copy_from_slice(&buffer[..n]), n == 0)?;
        if n == 0 {
            return Ok(());
        }
    }
}
