//! Telling a plain TCP connection from what is wrapped around one: two plain ones may be spliced.

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::TcpStream;
use tokio_rustls::{client, server};

use crate::prefixed::Prefixed;

/// A stream of bytes that may be no more than a TCP connection.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// The connection that it is, if all that is read or written goes straight to the socket.
    fn plain(&self) -> Option<&TcpStream> {
        None
    }
}

impl Stream for TcpStream {
    fn plain(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

impl<S: Stream> Stream for Prefixed<S> {
    fn plain(&self) -> Option<&TcpStream> {
        let stream = self.inner().plain()?;
        self.prefix().is_empty().then_some(stream)
    }
}

impl<S: Stream + ?Sized> Stream for &mut S {
    fn plain(&self) -> Option<&TcpStream> {
        (**self).plain()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for client::TlsStream<S> {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for server::TlsStream<S> {}
impl Stream for DuplexStream {}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_connection_with_nothing_read_ahead_is_plain() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        assert!(stream.plain().is_some());
        let stream = Prefixed::new(stream, &b"x"[..]);
        assert!(stream.plain().is_none(), "a byte is still to be read");
        let (stream, _) = stream.into_parts();
        let stream = Prefixed::new(stream, bytes::Bytes::new());
        assert_eq!(stream.plain().unwrap().peer_addr().unwrap(), address);
        assert!(tokio::io::duplex(1).0.plain().is_none());
    }
}
