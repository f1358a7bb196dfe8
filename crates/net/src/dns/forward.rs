//! Asking another server what the mesh does not know.
//!
//! Each question has a connected UDP socket of its own, so that the kernel picks a fresh port and
//! drops datagrams from anybody else; the answer must carry the query's id and question. An answer
//! marked as truncated is asked for again over TCP.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Header, Message, MessageType, Query};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use crate::dns::{read_framed, write_framed};
use crate::socket::{self, ConnectError, ConnectOptions};

/// Why a server gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// No valid answer in time.
    #[error("name server {0} did not answer within {1:?}")]
    Timeout(SocketAddr, Duration),
    /// The bytes to forward are no query.
    #[error("not a DNS query")]
    NotAQuery,
    /// The socket failed; with UDP usually because nothing listens there.
    #[error("name server {0} cannot be asked")]
    Io(SocketAddr, #[source] io::Error),
    /// The answer was truncated, and TCP did not work.
    #[error("name server {0} has a long answer, but cannot be asked over TCP")]
    Connect(SocketAddr, #[source] ConnectError),
    /// There is no server to ask.
    #[error("no name server is configured; /etc/resolv.conf has no nameserver line")]
    NoServer,
}

/// Several servers, asked in turn.
#[derive(Debug, Clone)]
pub struct Forwarder {
    /// The servers, in order of preference.
    pub servers: Vec<SocketAddr>,
    /// Wait for one server before the next is asked.
    pub timeout: Duration,
    /// Mark of the sockets.
    pub mark: Option<u32>,
}

impl Forwarder {
    /// Asks the servers in order until one answers.
    pub async fn ask(&self, query: &[u8]) -> Result<Vec<u8>, ForwardError> {
        let mut last = ForwardError::NoServer;
        for server in &self.servers {
            match forward(query, *server, self.timeout, self.mark).await {
                Ok(answer) => return Ok(answer),
                Err(e @ ForwardError::NotAQuery) => return Err(e),
                Err(e) => last = e,
            }
        }
        Err(last)
    }
}

/// Sends `query` (without framing) to `server` and returns its answer, which may exceed what a
/// client takes over UDP: see [`crate::dns::Query::relay`]. A lost datagram is repeated once.
pub async fn forward(
    query: &[u8],
    server: SocketAddr,
    timeout: Duration,
    mark: Option<u32>,
) -> Result<Vec<u8>, ForwardError> {
    let asked = Message::from_vec(query).map_err(|_| ForwardError::NotAQuery)?;
    let deadline = Instant::now() + timeout;
    let answer =
        match timeout_at(deadline, over_udp(query, &asked, server, timeout / 2, mark)).await {
            Ok(answer) => answer?,
            Err(_) => return Err(ForwardError::Timeout(server, timeout)),
        };
    let truncated = answer.get(2).is_some_and(|flags| flags & 0x02 != 0);
    if !truncated {
        return Ok(answer);
    }
    let left = deadline.saturating_duration_since(Instant::now());
    match timeout_at(deadline, over_tcp(query, &asked, server, left, mark)).await {
        Ok(answer) => answer,
        Err(_) => Err(ForwardError::Timeout(server, timeout)),
    }
}

async fn over_udp(
    query: &[u8],
    asked: &Message,
    server: SocketAddr,
    repeat: Duration,
    mark: Option<u32>,
) -> Result<Vec<u8>, ForwardError> {
    let io = |e| ForwardError::Io(server, e);
    let any: IpAddr = if server.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = socket::bind_udp(SocketAddr::new(any, 0), mark).map_err(io)?;
    let socket = UdpSocket::from_std(socket).map_err(io)?;
    socket.connect(server).await.map_err(io)?;
    socket.send(query).await.map_err(io)?;
    let again = tokio::time::sleep(repeat);
    tokio::pin!(again);
    let mut repeated = false;
    let mut buffer = vec![0; 4096];
    loop {
        tokio::select! {
            received = socket.recv(&mut buffer) => {
                let n = received.map_err(io)?;
                if answers(asked, &buffer[..n]) {
                    buffer.truncate(n);
                    return Ok(buffer);
                }
            }
            () = &mut again, if !repeated => {
                repeated = true;
                socket.send(query).await.map_err(io)?;
            }
        }
    }
}

async fn over_tcp(
    query: &[u8],
    asked: &Message,
    server: SocketAddr,
    timeout: Duration,
    mark: Option<u32>,
) -> Result<Vec<u8>, ForwardError> {
    let io = |e| ForwardError::Io(server, e);
    let options = ConnectOptions {
        mark,
        timeout,
        ..ConnectOptions::default()
    };
    let mut stream = socket::connect(server, &options)
        .await
        .map_err(|e| ForwardError::Connect(server, e))?;
    write_framed(&mut stream, query).await.map_err(io)?;
    let answer = read_framed(&mut stream).await.map_err(io)?;
    match answer {
        Some(answer) if answers(asked, &answer) => Ok(answer),
        Some(_) => Err(io(io::ErrorKind::InvalidData.into())),
        None => Err(io(io::ErrorKind::UnexpectedEof.into())),
    }
}

/// Whether the bytes answer that question. Records are not looked at: the client knows best.
fn answers(asked: &Message, bytes: &[u8]) -> bool {
    let mut decoder = BinDecoder::new(bytes);
    let Ok(header) = Header::read(&mut decoder) else {
        return false;
    };
    if header.metadata.id != asked.metadata.id
        || header.metadata.message_type != MessageType::Response
    {
        return false;
    }
    match header.counts.queries {
        // Some servers leave the question out of an error.
        0 => true,
        1 => Query::read(&mut decoder).is_ok_and(|q| asked.queries.first() == Some(&q)),
        _ => false,
    }
}
