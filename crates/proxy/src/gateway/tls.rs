//! TLS of a Gateway's clients: whom they ask for, and the handshake.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use net::detect::{self, ClientHello};
use policy::host::normal;
use rustls::ServerConfig;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Reads the ClientHello into `seen` and finds the server name in it, in normal form.
pub(super) async fn server_name<S>(
    client: &mut S,
    seen: &mut BytesMut,
) -> io::Result<Option<String>>
where
    S: tokio::io::AsyncRead + Unpin,
{
    match detect::read_client_hello(client, seen).await? {
        ClientHello::Found { sni, .. } => Ok(sni.map(|name| normal(&name).into_owned())),
        ClientHello::NeedMore | ClientHello::Invalid => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the connection does not begin with a TLS ClientHello",
        )),
    }
}

/// Ends TLS on a connection of which `seen` has been read.
pub(super) async fn accept(
    client: TcpStream,
    seen: &[u8],
    config: Arc<ServerConfig>,
    limit: Duration,
) -> io::Result<TlsStream<TcpStream>> {
    let mut begun = Ok(());
    let handshake = TlsAcceptor::from(config).accept_with(client, |connection| {
        begun = feed(connection, seen);
    });
    let stream = tokio::time::timeout(limit, handshake).await.map_err(|_| {
        io::Error::new(
            io::ErrorKind::TimedOut,
            "TLS handshake not finished in time",
        )
    })?;
    begun?;
    stream
}

/// Gives a connection what was read ahead of it.
fn feed(connection: &mut rustls::ServerConnection, mut seen: &[u8]) -> io::Result<()> {
    while !seen.is_empty() {
        if connection.read_tls(&mut seen)? == 0 {
            break;
        }
        connection
            .process_new_packets()
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    }
    Ok(())
}
