//! A connection's bytes, whatever carries them: TCP, TLS over it, or a stream of an HTTP/2
//! connection. What detection has read ahead is given to the reader first.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use net::tcp::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use crate::http2::Tunnel;

/// A connection.
pub(crate) struct Io {
    ahead: Bytes,
    kind: Kind,
}

enum Kind {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Tunnel(Box<Tunnel>),
}

impl From<TcpStream> for Io {
    fn from(stream: TcpStream) -> Self {
        Self::over(Kind::Tcp(stream))
    }
}

impl From<Tunnel> for Io {
    fn from(tunnel: Tunnel) -> Self {
        Self::over(Kind::Tunnel(Box::new(tunnel)))
    }
}

impl Io {
    fn over(kind: Kind) -> Self {
        Self {
            ahead: Bytes::new(),
            kind,
        }
    }

    /// TLS over TCP, of either side.
    pub(crate) fn tls(stream: impl Into<TlsStream<TcpStream>>) -> Self {
        Self::over(Kind::Tls(Box::new(stream.into())))
    }

    /// Gives `ahead` to the reader before anything else.
    pub(crate) fn with_ahead(mut self, ahead: Bytes) -> Self {
        if self.ahead.is_empty() {
            self.ahead = ahead;
        } else if !ahead.is_empty() {
            self.ahead = [&ahead[..], &self.ahead].concat().into();
        }
        self
    }

    /// What was read ahead, for a reader with a buffer of its own.
    pub(crate) fn take_ahead(&mut self) -> Bytes {
        std::mem::take(&mut self.ahead)
    }
}

impl Stream for Io {
    fn plain(&self) -> Option<&TcpStream> {
        match &self.kind {
            Kind::Tcp(stream) if self.ahead.is_empty() => Some(stream),
            _ => None,
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.ahead.is_empty() {
            let n = this.ahead.len().min(buf.remaining());
            // Holds nothing once all is taken: it may be a part of something larger.
            buf.put_slice(&this.ahead.split_to(n));
            return Poll::Ready(Ok(()));
        }
        match &mut this.kind {
            Kind::Tcp(s) => Pin::new(s).poll_read(cx, buf),
            Kind::Tls(s) => Pin::new(s.as_mut()).poll_read(cx, buf),
            Kind::Tunnel(s) => Pin::new(s.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().kind {
            Kind::Tcp(s) => Pin::new(s).poll_write(cx, buf),
            Kind::Tls(s) => Pin::new(s.as_mut()).poll_write(cx, buf),
            Kind::Tunnel(s) => Pin::new(s.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().kind {
            Kind::Tcp(s) => Pin::new(s).poll_write_vectored(cx, bufs),
            Kind::Tls(s) => Pin::new(s.as_mut()).poll_write_vectored(cx, bufs),
            Kind::Tunnel(s) => Pin::new(s.as_mut()).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().kind {
            Kind::Tcp(_) => Poll::Ready(Ok(())),
            Kind::Tls(s) => Pin::new(s.as_mut()).poll_flush(cx),
            Kind::Tunnel(s) => Pin::new(s.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().kind {
            Kind::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            Kind::Tls(s) => Pin::new(s.as_mut()).poll_shutdown(cx),
            Kind::Tunnel(s) => Pin::new(s.as_mut()).poll_shutdown(cx),
        }
    }
}

impl Io {
    /// Waits until there is something to read (or the end), without holding a buffer for it. What
    /// had to be read to find out is kept ahead.
    pub(crate) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            return Poll::Ready(Ok(()));
        }
        match &mut self.kind {
            Kind::Tcp(stream) => return stream.poll_read_ready(cx),
            Kind::Tunnel(tunnel) => return tunnel.poll_ahead(cx),
            Kind::Tls(_) => {}
        }
        // Beneath TLS readiness says nothing: what came may be no data, or be decrypted already.
        let mut first = [0; 64];
        let mut buf = ReadBuf::new(&mut first);
        ready!(Pin::new(&mut *self).poll_read(cx, &mut buf))?;
        self.ahead = Bytes::copy_from_slice(buf.filled());
        Poll::Ready(Ok(()))
    }

    /// Whether a connection on which nothing is expected is still open and silent.
    pub(crate) fn is_quiet(&mut self) -> bool {
        if !self.ahead.is_empty() {
            return false;
        }
        let mut first = [0; 1];
        if let Kind::Tcp(stream) = &self.kind {
            // Without readiness noted by the runtime this makes no system call.
            return matches!(stream.try_read(&mut first), Err(e) if e.kind() == io::ErrorKind::WouldBlock);
        }
        let mut cx = Context::from_waker(std::task::Waker::noop());
        Pin::new(self)
            .poll_read(&mut cx, &mut ReadBuf::new(&mut first))
            .is_pending()
    }
}
