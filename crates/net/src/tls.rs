//! TLS handshakes over any stream, and who the peer turned out to be.
//!
//! The configurations come from `identity`; here they meet sockets, deadlines and the reasons for
//! failure that the proxy reports. A failed verification is told apart from everything else by
//! what `identity` left in the error, never by its text. Note that in TLS 1.3 a client learns only
//! after its handshake that the server refused its certificate: the first read then fails, and
//! [`TlsError::from_io`] tells why.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use identity::verify::VerifyError;
use model::SpiffeId;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig, CommonState, NamedGroup, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// What a handshake agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The peer's verified identity; `None` for a client without certificate where that is allowed.
    pub id: Option<SpiffeId>,
    /// The application protocol.
    pub alpn: Option<Vec<u8>>,
    /// The name the client asked for.
    pub sni: Option<String>,
    /// The key exchange, such as `X25519MLKEM768`.
    pub kx_group: &'static str,
    /// The protocol version, such as `TLSv1.3`.
    pub version: &'static str,
}

/// Why a handshake, or a TLS connection after it, failed.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The peer is genuine, but somebody else.
    #[error("the peer is not who it should be")]
    IdentityMismatch(#[source] VerifyError),
    /// The peer's certificate is past its time, or not yet in it: a failed rotation or a wrong clock.
    #[error("the peer's certificate is out of its time")]
    Expired(#[source] VerifyError),
    /// The peer presented no certificate where one is required.
    #[error("the peer presented no certificate")]
    NoCertificate,
    /// The peer's certificate does not lead to a trusted root, or is no SVID.
    #[error("the peer's certificate is not trusted")]
    Untrusted(#[source] VerifyError),
    /// The peer ended the handshake with an alert; its own log says why.
    #[error("the peer refused with the alert {0:?}")]
    Refused(AlertDescription),
    /// What the peer sent is not TLS, or nothing that both sides support.
    #[error("not a TLS peer, or nothing in common")]
    Protocol(#[source] rustls::Error),
    /// Not done in time.
    #[error("TLS handshake not finished within {0:?}")]
    Timeout(Duration),
    /// The peer closed the connection in the middle.
    #[error("the peer closed the connection before TLS was done")]
    Eof,
    /// The transport failed.
    #[error("the connection broke")]
    Io(#[source] io::Error),
}

impl TlsError {
    /// Classifies what a TLS stream returned from handshake, read or write.
    pub fn from_io(error: io::Error) -> Self {
        match identity::tls::tls_error(&error) {
            Some(tls) => Self::from_tls(tls),
            None if error.kind() == io::ErrorKind::UnexpectedEof => Self::Eof,
            None => Self::Io(error),
        }
    }

    /// Classifies an error of rustls.
    pub fn from_tls(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::NoCertificatesPresented => Self::NoCertificate,
            rustls::Error::AlertReceived(alert) => Self::Refused(*alert),
            other => identity::tls::verify_error(other)
                .map_or_else(|| Self::Protocol(other.clone()), Self::from),
        }
    }

    /// Whether the peer is genuine but another than expected (reason `identity_mismatch`).
    pub fn is_identity_mismatch(&self) -> bool {
        matches!(self, Self::IdentityMismatch(_))
    }

    /// Whether the failure lies in who the peer is, rather than in the connection to it.
    pub fn is_about_identity(&self) -> bool {
        matches!(
            self,
            Self::IdentityMismatch(_) | Self::Expired(_) | Self::NoCertificate | Self::Untrusted(_)
        )
    }
}

impl From<VerifyError> for TlsError {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::NoCertificate => Self::NoCertificate,
            VerifyError::IdentityMismatch { .. } => Self::IdentityMismatch(error),
            VerifyError::Expired { .. } | VerifyError::NotYetValid { .. } => Self::Expired(error),
            _ => Self::Untrusted(error),
        }
    }
}

/// Server side of a handshake.
pub async fn accept<S>(
    stream: S,
    config: Arc<ServerConfig>,
    timeout: Duration,
) -> Result<(server::TlsStream<S>, Peer), TlsError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = TlsAcceptor::from(config).accept(stream);
    let stream = within(timeout, handshake).await?;
    let connection = stream.get_ref().1;
    let peer = peer(connection, connection.server_name().map(str::to_owned))?;
    Ok((stream, peer))
}

/// Client side of a handshake. `sni` is the name that goes out in the ClientHello; whether the
/// server is who it should be is decided by the configuration, not by that name.
pub async fn connect<S>(
    stream: S,
    config: Arc<ClientConfig>,
    sni: ServerName<'static>,
    timeout: Duration,
) -> Result<(client::TlsStream<S>, Peer), TlsError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let name = match &sni {
        ServerName::DnsName(name) => Some(name.as_ref().to_owned()),
        _ => None,
    };
    let handshake = TlsConnector::from(config).connect(sni, stream);
    let stream = within(timeout, handshake).await?;
    let peer = peer(stream.get_ref().1, name)?;
    Ok((stream, peer))
}

async fn within<T>(
    timeout: Duration,
    handshake: impl Future<Output = io::Result<T>>,
) -> Result<T, TlsError> {
    // On the heap until it is done: what runs after it is smaller.
    tokio::time::timeout(timeout, Box::pin(handshake))
        .await
        .map_err(|_| TlsError::Timeout(timeout))?
        .map_err(TlsError::from_io)
}

fn peer(connection: &CommonState, sni: Option<String>) -> Result<Peer, TlsError> {
    let id = match connection.peer_certificates() {
        None | Some([]) => None,
        Some(certificates) => Some(identity::tls::peer_id(certificates)?),
    };
    let group = connection.negotiated_key_exchange_group();
    Ok(Peer {
        id,
        alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
        sni,
        kx_group: group.map_or("none", |g| group_name(g.name())),
        version: match connection.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "unknown",
        },
    })
}

/// The key exchange of a session, such as `X25519MLKEM768`.
pub fn group(connection: &CommonState) -> &'static str {
    let group = connection.negotiated_key_exchange_group();
    group.map_or("none", |g| group_name(g.name()))
}

fn group_name(group: NamedGroup) -> &'static str {
    match group {
        NamedGroup::X25519MLKEM768 => "X25519MLKEM768",
        NamedGroup::secp256r1MLKEM768 => "SecP256r1MLKEM768",
        NamedGroup::MLKEM768 => "MLKEM768",
        NamedGroup::MLKEM1024 => "MLKEM1024",
        NamedGroup::X25519 => "X25519",
        NamedGroup::X448 => "X448",
        NamedGroup::secp256r1 => "secp256r1",
        NamedGroup::secp384r1 => "secp384r1",
        NamedGroup::secp521r1 => "secp521r1",
        _ => "other",
    }
}

#[cfg(test)]
mod tests;
