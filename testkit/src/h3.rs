//! An HTTP/3 client: whole requests by `h3`, and streams of exact bytes as an attacker writes them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use h3::client::SendRequest;
use h3_quinn::OpenStreams;
use http::{HeaderMap, Request};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::ClientConfig;
use tokio::runtime::Runtime;

use crate::frames;

/// For everything that has no limit of its own.
const SOON: Duration = Duration::from_secs(20);

/// Sends requests on a connection.
pub type Requests = SendRequest<OpenStreams, Bytes>;

/// A connection, and the thread on which it is driven.
pub struct Client {
    runtime: Runtime,
    quic: quinn::Connection,
    requests: Requests,
}

/// A response.
#[derive(Debug, Clone)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Its fields.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
    /// Its trailers, where there were any.
    pub trailers: Option<HeaderMap>,
}

impl Response {
    /// The body as text, whatever it is.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A field as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// How a stream of exact bytes ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// In order, with these bytes.
    Ended(Vec<u8>),
    /// Reset with this code.
    Reset(u64),
    /// The connection was closed with this code.
    Closed(u64),
    /// The connection broke in another way.
    Lost(String),
}

impl Client {
    /// Connects to a port of 127.0.0.1. `config` must offer `h3`.
    pub fn connect(
        port: u16,
        name: &str,
        config: Arc<ClientConfig>,
    ) -> Result<Self, quinn::ConnectionError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let config = QuicClientConfig::try_from(config).expect("TLS 1.3 is offered");
        let config = quinn::ClientConfig::new(Arc::new(config));
        let (quic, requests) = runtime.block_on(async {
            let mut endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())
                .expect("a port of the loopback");
            endpoint.set_default_client_config(config);
            let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let connecting = endpoint.connect(to, name).expect("a server's name");
            let connected = tokio::time::timeout(SOON, connecting).await;
            let quic = connected.map_err(|_| quinn::ConnectionError::TimedOut)??;
            let carried = h3_quinn::Connection::new(quic.clone());
            let (mut driver, requests) = h3::client::new(carried)
                .await
                .map_err(|_| quinn::ConnectionError::LocallyClosed)?;
            tokio::spawn(async move { std::future::poll_fn(|cx| driver.poll_close(cx)).await });
            Ok::<_, quinn::ConnectionError>((quic, requests))
        })?;
        Ok(Self {
            runtime,
            quic,
            requests,
        })
    }

    /// Runs something on the client's thread.
    pub fn run<T>(&self, work: impl Future<Output = T>) -> T {
        let limited = async { tokio::time::timeout(SOON, work).await };
        let done = self.runtime.block_on(limited);
        done.unwrap_or_else(|_| panic!("not done within {SOON:?}"))
    }

    /// What sends requests, for many at once.
    pub fn requests(&self) -> Requests {
        self.requests.clone()
    }

    /// The connection itself.
    pub fn quic(&self) -> &quinn::Connection {
        &self.quic
    }

    /// One request with a body, and its response.
    pub fn send(&self, request: Request<()>, body: &[u8]) -> Result<Response, String> {
        self.run(exchange(self.requests(), request, body.to_vec()))
    }

    /// The response to a GET.
    pub fn get(&self, url: &str) -> Response {
        let request = Request::get(url).body(()).expect("a request");
        let sent = self.send(request, b"");
        sent.unwrap_or_else(|e| panic!("GET {url}: {e}"))
    }

    /// The certificate that the server has shown.
    pub fn certificate(&self) -> Vec<u8> {
        let shown = self.quic.peer_identity().expect("the handshake is done");
        let chain = shown.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>();
        chain.expect("certificates")[0].to_vec()
    }

    /// A request's stream with exactly these bytes, ended where `end` says so, and what comes back.
    pub fn stream(&self, bytes: &[u8], end: bool) -> Outcome {
        self.run(async {
            let (mut send, mut recv) = match self.quic.open_bi().await {
                Ok(streams) => streams,
                Err(error) => return lost(error),
            };
            // A server that has read enough may stop it.
            let _ = send.write_all(bytes).await;
            if end {
                let _ = send.finish();
            }
            match recv.read_to_end(64 << 20).await {
                Ok(bytes) => Outcome::Ended(bytes),
                Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(code))) => {
                    Outcome::Reset(code.into_inner())
                }
                Err(quinn::ReadToEndError::Read(quinn::ReadError::ConnectionLost(error))) => {
                    lost(error)
                }
                Err(error) => Outcome::Lost(error.to_string()),
            }
        })
    }

    /// Waits until the server closes the connection.
    pub fn closed(&self) -> Outcome {
        self.run(async { lost(self.quic.closed().await) })
    }
}

fn lost(error: quinn::ConnectionError) -> Outcome {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => {
            Outcome::Closed(close.error_code.into_inner())
        }
        other => Outcome::Lost(other.to_string()),
    }
}

/// One request with a body, and its response.
pub async fn exchange(
    mut requests: Requests,
    request: Request<()>,
    body: Vec<u8>,
) -> Result<Response, String> {
    let told = |error: h3::error::StreamError| error.to_string();
    let mut stream = requests.send_request(request).await.map_err(told)?;
    if !body.is_empty() {
        // Who is refused before all is sent still gets the response.
        let _ = stream.send_data(body.into()).await;
    }
    let _ = stream.finish().await;
    let mut response = stream.recv_response().await.map_err(told)?;
    while response.status().is_informational() {
        response = stream.recv_response().await.map_err(told)?;
    }
    let mut body = Vec::new();
    while let Some(mut data) = stream.recv_data().await.map_err(told)? {
        let piece = data.copy_to_bytes(data.remaining());
        body.extend_from_slice(&piece);
    }
    let trailers = stream.recv_trailers().await.map_err(told)?;
    Ok(Response {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body,
        trailers,
    })
}

/// A frame.
pub fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
    let length = number(payload.len() as u64);
    [number(kind), length, payload.to_vec()].concat()
}

/// A HEADERS frame: each field as a literal with a literal name (RFC 9204 4.5.6).
pub fn head(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    // No entry of a dynamic table is needed (RFC 9204 4.5.1).
    let mut block = vec![0, 0];
    for (name, value) in fields {
        frames::integer(name.len(), 3, 0x20, &mut block);
        block.extend_from_slice(name);
        frames::integer(value.len(), 7, 0, &mut block);
        block.extend_from_slice(value);
    }
    frame(1, &block)
}

/// A number as QUIC writes them (RFC 9000 16).
pub fn number(value: u64) -> Vec<u8> {
    match value {
        0..0x40 => vec![value as u8],
        0x40..0x4000 => (value as u16 | 0x4000).to_be_bytes().to_vec(),
        0x4000..0x4000_0000 => (value as u32 | 0x8000_0000).to_be_bytes().to_vec(),
        _ => (value | 0xc000_0000_0000_0000).to_be_bytes().to_vec(),
    }
}
