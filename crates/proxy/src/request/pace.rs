//! Bytes that come no faster than they may.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use net::tcp::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// What a second's bytes come in.
const PIECES: u64 = 20;

/// When the next bytes may pass.
pub(crate) struct Pace {
    /// A second.
    bytes: u64,
    next: Instant,
    sleep: Pin<Box<Sleep>>,
}

impl Pace {
    pub(crate) fn new(bytes: u64) -> Self {
        let now = Instant::now();
        Self {
            bytes: bytes.max(1),
            next: now,
            sleep: Box::pin(tokio::time::sleep_until(now)),
        }
    }

    /// How many bytes may pass now; ready when it is time.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        if self.sleep.deadline() != self.next {
            self.sleep.as_mut().reset(self.next);
        }
        ready!(self.sleep.as_mut().poll(cx));
        let piece = (self.bytes / PIECES).max(1);
        Poll::Ready(usize::try_from(piece).unwrap_or(usize::MAX))
    }

    /// So many have passed.
    pub(crate) fn passed(&mut self, bytes: usize) {
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes as f64);
        self.next = self.next.max(Instant::now()) + takes;
    }
}

/// A body that is let through piece by piece.
pub(crate) struct Paced {
    pub(crate) pace: Pace,
    /// What has come and may not pass yet.
    pub(crate) held: Bytes,
}

impl Paced {
    pub(crate) fn new(bytes: u64) -> Self {
        Self {
            pace: Pace::new(bytes),
            held: Bytes::new(),
        }
    }

    /// The next piece of what has come.
    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        let most = ready!(self.pace.poll(cx));
        let piece = self.held.split_to(most.min(self.held.len()));
        self.pace.passed(piece.len());
        Poll::Ready(piece)
    }
}

/// A connection, each direction of which is held to a pace.
pub(crate) struct Slow<S> {
    inner: S,
    read: Pace,
    written: Pace,
}

impl<S> Slow<S> {
    pub(crate) fn new(inner: S, bytes: u64) -> Self {
        Self {
            inner,
            read: Pace::new(bytes),
            written: Pace::new(bytes),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Slow<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let most = ready!(this.read.poll(cx));
        // No unsafe code here: a part of the buffer is made ready, and read into as a buffer of its own.
        let most = most.min(buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
        ready!(Pin::new(&mut this.inner).poll_read(cx, &mut part))?;
        let count = part.filled().len();
        buf.advance(count);
        this.read.passed(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Slow<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let most = ready!(this.written.poll(cx)).min(data.len());
        let data = data.get(..most).unwrap_or(data);
        let count = ready!(Pin::new(&mut this.inner).poll_write(cx, data))?;
        this.written.passed(count);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

/// It may be no more than a TCP connection, but nothing goes straight to its socket.
impl<S: Stream> Stream for Slow<S> {}
