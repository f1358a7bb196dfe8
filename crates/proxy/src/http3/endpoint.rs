//! A UDP socket on which QUIC connections are taken.
//!
//! Each worker has one for each port, as with TCP: the kernel gives all datagrams between two
//! addresses to the same socket for as long as the set of sockets does not change, so a connection
//! stays on the worker that took it. That is also why connections do not move to other addresses.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use model::limits::Limits;
use quinn::{ConnectionError, EndpointConfig, TokioRuntime, TransportConfig, TransportErrorCode};
use rustls::AlertDescription;

use super::tls::{Agreed, ByName, Choose, VERSION};
use super::{CONNECTION_WINDOW, SEND_WINDOW, STREAM_WINDOW};

/// A connection from which nothing came for so long is dead. What is alive answers to
/// [`KEEP_ALIVE`], whether requests are on their way or not; [`Limits::idle_timeout`] ends it then.
const SILENCE: Duration = Duration::from_mins(1);
/// Between signs of life; shorter than what routers forget a mapping after.
const KEEP_ALIVE: Duration = Duration::from_secs(25);
/// Streams in one direction that a client may have open (control, QPACK, and some to spare).
const UNIDIRECTIONAL: u32 = 8;
/// Handshakes of one worker at once that may be with forged addresses. Beyond it a client must first
/// prove that it gets what is sent to it (RFC 9000 8.1.2).
const UNPROVEN: usize = 64;
/// Handshakes of one worker at once.
const HANDSHAKES: usize = 1024;
/// Attempts that wait to be looked at, and bytes that came for them meanwhile.
const WAITING: usize = 256;
const WAITING_BYTES: u64 = 1024 * 1024;

/// A socket on which connections are taken.
pub(crate) struct Endpoint {
    quic: quinn::Endpoint,
    config: RefCell<(Limits, quinn::ServerConfig)>,
    handshakes: Rc<Cell<usize>>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// The server name is nobody's.
    #[error("{0}")]
    NoListener(String),
    /// Not done in time.
    #[error("QUIC handshake not finished within {0:?}")]
    Timeout(Duration),
    /// Anything else: no ALPN in common, no certificate where one is required.
    #[error("QUIC handshake failed")]
    Failed(#[source] ConnectionError),
}

impl Endpoint {
    /// Takes connections of a bound, non-blocking socket. `choose` says which listener and which TLS
    /// configuration a server name means.
    pub(crate) fn open<T: Send + Sync + 'static>(
        socket: UdpSocket,
        limits: &Limits,
        choose: Arc<Choose<T>>,
    ) -> io::Result<Self> {
        let mut versions = EndpointConfig::default();
        versions.supported_versions(vec![VERSION]);
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(ByName(choose)));
        config
            .transport_config(Arc::new(transport(limits)))
            .migration(false)
            .max_incoming(WAITING)
            .incoming_buffer_size(WAITING_BYTES / 16)
            .incoming_buffer_size_total(WAITING_BYTES);
        let runtime = Arc::new(TokioRuntime);
        let quic = quinn::Endpoint::new(versions, Some(config.clone()), socket, runtime)?;
        Ok(Self {
            quic,
            config: RefCell::new((limits.clone(), config)),
            handshakes: Rc::default(),
        })
    }

    /// New connections have these limits.
    pub(crate) fn limit(&self, limits: &Limits) {
        let mut known = self.config.borrow_mut();
        if known.0 != *limits {
            known.0 = limits.clone();
            known.1.transport_config(Arc::new(transport(limits)));
            self.quic.set_server_config(Some(known.1.clone()));
        }
    }

    /// The next client that wants a connection; those that must first prove their address have been
    /// told so.
    pub(crate) async fn accept(&self) -> Option<Attempt> {
        loop {
            let incoming = self.quic.accept().await?;
            let under_way = self.handshakes.get();
            if under_way >= HANDSHAKES {
                incoming.ignore();
            } else if under_way >= UNPROVEN && incoming.may_retry() {
                // Fails only for those that may not be told.
                let _ = incoming.retry();
            } else {
                self.handshakes.set(under_way + 1);
                let counted = Counted(Rc::clone(&self.handshakes));
                return Some(Attempt { incoming, counted });
            }
        }
    }

    /// Completes when there is no connection left.
    pub(crate) async fn idle(&self) {
        self.quic.wait_idle().await;
    }
}

/// Bounds of what a connection may hold in memory, and of how long it may be silent.
fn transport(limits: &Limits) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let silence = SILENCE.try_into().expect("a minute is a number of QUIC");
    transport
        .max_concurrent_bidi_streams(limits.max_concurrent_streams.into())
        .max_concurrent_uni_streams(UNIDIRECTIONAL.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(CONNECTION_WINDOW.into())
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(silence))
        .keep_alive_interval(Some(KEEP_ALIVE));
    transport
}

/// A handshake that is under way.
struct Counted(Rc<Cell<usize>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// A client that wants a connection.
pub(crate) struct Attempt {
    incoming: quinn::Incoming,
    counted: Counted,
}

impl Attempt {
    pub(crate) fn peer(&self) -> SocketAddr {
        net::socket::canonical(self.incoming.remote_address())
    }

    /// Where it has sent its first datagram to, on this port.
    pub(crate) fn local(&self, port: u16) -> Option<SocketAddr> {
        let ip = self.incoming.local_ip()?.to_canonical();
        Some(SocketAddr::new(ip, port))
    }

    /// Tells it that there will be none.
    pub(crate) fn refuse(self) {
        self.incoming.refuse();
    }

    /// Finishes the handshake.
    pub(crate) async fn connect<T: Send + Sync + 'static>(
        self,
        limit: Duration,
    ) -> Result<Connection<T>, HandshakeError> {
        let _counted = self.counted;
        let connecting = self.incoming.accept().map_err(failed)?;
        let quic = tokio::time::timeout(limit, connecting)
            .await
            .map_err(|_| HandshakeError::Timeout(limit))?
            .map_err(failed)?;
        let agreed = quic
            .handshake_data()
            .and_then(|data| data.downcast::<Agreed<T>>().ok())
            .expect("a handshake that is done has chosen");
        Ok(Connection {
            quic,
            chosen: agreed.chosen,
            group: agreed.group,
        })
    }
}

fn failed(error: ConnectionError) -> HandshakeError {
    let unknown = TransportErrorCode::crypto(AlertDescription::UnrecognisedName.into());
    match error {
        ConnectionError::TransportError(error) if error.code == unknown => {
            HandshakeError::NoListener(error.reason)
        }
        error => HandshakeError::Failed(error),
    }
}

/// A connection whose handshake is done.
pub(crate) struct Connection<T> {
    pub(super) quic: quinn::Connection,
    /// What its server name meant.
    pub(crate) chosen: Arc<T>,
    /// The key exchange.
    pub(crate) group: &'static str,
}

#[cfg(test)]
mod tests {
    use testkit::certs::{Forge, anonymous_client_config};
    use testkit::h3::Client;
    use tokio::task::{LocalSet, spawn_blocking};

    use super::*;
    use crate::http3::ALPN;

    const SOON: Duration = Duration::from_secs(10);

    /// An endpoint that serves `a.com`, and its port.
    fn endpoint() -> (Endpoint, u16) {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let socket = net::socket::share_udp(address).expect("a port");
        let port = socket.local_addr().expect("bound").port();
        let forge = Forge::new("mesh.local");
        let config = forge.svid("spiffe://mesh.local/x").server_config(&[ALPN]);
        let choose = move |name: Option<&str>| {
            (name == Some("a.com")).then(|| (Arc::clone(&config), Arc::new(7_u32)))
        };
        let limits = Limits::default();
        let endpoint = Endpoint::open(socket, &limits, Arc::new(choose)).expect("open");
        (endpoint, port)
    }

    fn client(port: u16, name: &'static str, alpn: &'static [u8]) -> tokio::task::JoinHandle<bool> {
        let config = anonymous_client_config(&[alpn]);
        spawn_blocking(move || Client::connect(port, name, config).is_ok())
    }

    #[tokio::test]
    async fn beyond_so_many_handshakes_an_address_must_be_proven() {
        let test = async {
            let (endpoint, port) = endpoint();
            for (under_way, proven) in [(0, false), (UNPROVEN, true)] {
                endpoint.handshakes.set(under_way);
                let client = client(port, "a.com", ALPN);
                let attempt = endpoint.accept().await.expect("open");
                assert_eq!(attempt.incoming.remote_address_validated(), proven);
                assert_eq!(endpoint.handshakes.get(), under_way + 1);
                let connected = attempt.connect::<u32>(SOON).await;
                let connection = connected.expect("a handshake");
                assert_eq!(
                    (*connection.chosen, connection.group),
                    (7, "X25519MLKEM768")
                );
                assert_eq!(endpoint.handshakes.get(), under_way);
                assert!(client.await.expect("no panic"));
            }
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn there_is_no_handshake_without_a_listener_or_a_protocol_in_common() {
        let test = async {
            let (endpoint, port) = endpoint();
            for (name, alpn, unknown) in [("b.com", ALPN, true), ("a.com", b"h2", false)] {
                let client = client(port, name, alpn);
                let attempt = endpoint.accept().await.expect("open");
                let refused = attempt.connect::<u32>(SOON).await.err().expect("refused");
                assert_eq!(
                    matches!(refused, HandshakeError::NoListener(_)),
                    unknown,
                    "{refused}"
                );
                assert!(!client.await.expect("no panic"));
            }
        };
        LocalSet::new().run_until(test).await;
    }
}
