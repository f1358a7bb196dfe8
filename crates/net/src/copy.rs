//! Bytes both ways between two streams, until both have ended.
//!
//! The end of one direction is passed on as a half-close and the other goes on (HTTP/1.0 style
//! clients and many protocols rely on it). A failed read or write ends both at once. Data is read
//! into a buffer shared by all copies of the thread, and only what the other side does not take
//! at once is kept: an idle connection holds no buffer at all, a slow one at most
//! [`Options::buffer`] for each direction, and then its sender is no longer read from.
//!
//! Where both streams turn out to be plain TCP connections and a direction is busy, the kernel
//! moves its bytes ([`crate::splice`]), with a pipe's size in the place of the buffer's; when the
//! stream becomes a trickle it is copied again.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::splice::{Splice, SpliceError, Turn};
use crate::tcp::Stream;

/// Limits of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Most bytes held for each direction; at least 1, at most 64 KiB.
    pub buffer: usize,
    /// Longest time without a byte in either direction.
    pub idle: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            buffer: SCRATCH,
            idle: Some(Duration::from_hours(1)),
        }
    }
}

/// One of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The first argument of [`bidirectional`].
    A,
    /// The second.
    B,
}

/// What ended a copy before both sides had finished.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// Reading from a side failed: usually its peer sent a reset.
    #[error("reading from side {side:?} failed")]
    Read {
        /// The side whose stream failed.
        side: Side,
        /// What the stream said.
        #[source]
        source: io::Error,
    },
    /// Writing to a side failed: it no longer takes data.
    #[error("writing to side {side:?} failed")]
    Write {
        /// The side whose stream failed.
        side: Side,
        /// What the stream said.
        #[source]
        source: io::Error,
    },
    /// No byte moved for the time allowed.
    #[error("no data in either direction for {0:?}")]
    Idle(Duration),
}

impl CopyError {
    /// The side whose stream failed; `None` for idleness.
    pub fn side(&self) -> Option<Side> {
        match self {
            Self::Read { side, .. } | Self::Write { side, .. } => Some(*side),
            Self::Idle(_) => None,
        }
    }
}

/// How a copy went.
#[derive(Debug)]
pub struct Outcome {
    /// Bytes taken from A and given to B.
    pub a_to_b: u64,
    /// Bytes taken from B and given to A.
    pub b_to_a: u64,
    /// The side that ended first; `None` where neither did before a failure.
    pub first_end: Option<Side>,
    /// Whether both directions came to their end.
    pub result: Result<(), CopyError>,
}

/// Copies until both directions have ended, one has failed, or nothing moves for too long.
///
/// Takes streams by value or by `&mut`; by value they are closed on return.
pub fn bidirectional<A, B>(a: A, b: B, options: Options) -> impl Future<Output = Outcome>
where
    A: Stream,
    B: Stream,
{
    bidirectional_counted(a, b, options, |_, _| {})
}

/// As [`bidirectional`]; `moved` is told at each turn how many bytes went from A to B and back
/// since it was told last, so that a long connection is counted while it lives. The sums are those
/// of the outcome, also where the future is dropped.
pub fn bidirectional_counted<A, B>(
    a: A,
    b: B,
    options: Options,
    mut moved: impl FnMut(u64, u64),
) -> impl Future<Output = Outcome>
where
    A: Stream,
    B: Stream,
{
    let limit = options.buffer.clamp(1, SCRATCH);
    let mut there = Direction::new(Side::A, limit);
    let mut back = Direction::new(Side::B, limit);
    let mut first_end = None;
    let mut idle = options.idle.map(Idle::new);
    let mut streams = Some((a, b));
    // Not an async fn: that would hold each stream twice, and there are as many of these futures
    // as there are connections.
    poll_fn(move |cx| {
        let Some((a, b)) = &mut streams else {
            return Poll::Pending; // polled after its end
        };
        let before = (there.moved, back.moved);
        let a_done = there.poll(cx, a, b);
        let b_done = back.poll(cx, b, a);
        let (sent, received) = (there.moved - before.0, back.moved - before.1);
        if sent + received > 0 {
            moved(sent, received);
        }
        if first_end.is_none() {
            first_end = match (there.ended(), back.ended()) {
                (true, _) => Some(Side::A),
                (false, true) => Some(Side::B),
                _ => None,
            };
        }
        let result = match (a_done, b_done) {
            (Poll::Ready(Err(e)), _) | (_, Poll::Ready(Err(e))) => Err(e),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Ok(()),
            _ => {
                let Some(idle) = &mut idle else {
                    return Poll::Pending;
                };
                if sent + received > 0 {
                    idle.last = Instant::now();
                }
                ready!(idle.poll(cx));
                Err(CopyError::Idle(idle.limit))
            }
        };
        streams = None;
        Poll::Ready(Outcome {
            a_to_b: there.moved,
            b_to_a: back.moved,
            first_end,
            result,
        })
    })
}

/// The timer is moved only when it fires, not at each byte.
struct Idle {
    limit: Duration,
    last: Instant,
    sleep: Pin<Box<Sleep>>,
}

impl Idle {
    fn new(limit: Duration) -> Self {
        Self {
            limit,
            last: Instant::now(),
            sleep: Box::pin(tokio::time::sleep(limit)),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            let deadline = self.last + self.limit;
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(deadline);
        }
    }
}

const SCRATCH: usize = 64 * 1024;
/// Reads in one poll before others get their turn.
const TURNS: usize = 16;
/// Reads of at least so many bytes...
const LARGE: usize = 8 * 1024;
/// ...that together came to this make a direction busy, and worth a pipe.
const BUSY: usize = 64 * 1024;

thread_local! {
    static BUFFER: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// Runs `f` with the thread's buffer. A nested call finds none and makes its own.
fn with_scratch<T>(f: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut buffer = BUFFER
        .take()
        .unwrap_or_else(|| vec![0; SCRATCH].into_boxed_slice());
    let result = f(&mut buffer);
    BUFFER.set(Some(buffer));
    result
}

#[derive(Debug)]
enum Stage {
    Copying,
    Splicing(Splice),
    ShuttingDown,
    Done,
}

/// From one side to the other.
struct Direction {
    from: Side,
    limit: usize,
    /// Read, but not yet taken by the writer.
    kept: Vec<u8>,
    written: usize,
    unflushed: bool,
    moved: u64,
    /// Bytes of the latest reads, as long as those were large.
    busy: usize,
    stage: Stage,
}

impl Direction {
    fn new(from: Side, limit: usize) -> Self {
        Self {
            from,
            limit,
            kept: Vec::new(),
            written: 0,
            unflushed: false,
            moved: 0,
            busy: 0,
            stage: Stage::Copying,
        }
    }

    fn ended(&self) -> bool {
        matches!(self.stage, Stage::ShuttingDown | Stage::Done)
    }

    fn read_error(&self, source: io::Error) -> CopyError {
        CopyError::Read {
            side: self.from,
            source,
        }
    }

    fn write_error(&self, source: io::Error) -> CopyError {
        let side = match self.from {
            Side::A => Side::B,
            Side::B => Side::A,
        };
        CopyError::Write { side, source }
    }

    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
    ) -> Poll<Result<(), CopyError>>
    where
        R: Stream,
        W: Stream,
    {
        for _ in 0..TURNS {
            match &mut self.stage {
                Stage::Copying => {
                    ready!(self.poll_kept(cx, to))?;
                    ready!(self.poll_move(cx, from, to))?;
                    if self.busy >= BUSY
                        && matches!(self.stage, Stage::Copying)
                        && from.plain().is_some()
                        && to.plain().is_some()
                    {
                        self.stage = Stage::Splicing(Splice::until_end());
                    }
                }
                Stage::Splicing(_) => ready!(self.poll_splice(cx, from, to))?,
                Stage::ShuttingDown => {
                    ready!(self.poll_kept(cx, to))?;
                    match ready!(Pin::new(&mut *to).poll_shutdown(cx)) {
                        // Its peer has gone completely; the other direction will say whether that is bad.
                        Err(e) if e.kind() != io::ErrorKind::NotConnected => {
                            return Poll::Ready(Err(self.write_error(e)));
                        }
                        _ => self.stage = Stage::Done,
                    }
                }
                Stage::Done => return Poll::Ready(Ok(())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what is kept; ready when nothing is.
    fn poll_kept<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
    ) -> Poll<Result<(), CopyError>> {
        while self.written < self.kept.len() {
            let n = ready!(Pin::new(&mut *to).poll_write(cx, &self.kept[self.written..]))
                .and_then(some)
                .map_err(|e| self.write_error(e))?;
            self.written += n;
            self.moved += n as u64;
            self.unflushed = true;
        }
        if self.written > 0 {
            self.kept = Vec::new();
            self.written = 0;
        }
        Poll::Ready(Ok(()))
    }

    /// The kernel moves the bytes, until it is no longer worth its while.
    fn poll_splice<R: Stream, W: Stream>(
        &mut self,
        cx: &mut Context<'_>,
        from: &R,
        to: &W,
    ) -> Poll<Result<(), CopyError>> {
        let (Stage::Splicing(splice), Some(from), Some(to)) =
            (&mut self.stage, from.plain(), to.plain())
        else {
            return Poll::Ready(Ok(()));
        };
        let before = splice.moved();
        let turn = splice.poll(cx, from, to);
        self.moved += splice.moved() - before;
        self.stage = match ready!(turn) {
            Ok(Turn::End | Turn::Complete) => Stage::ShuttingDown,
            Ok(Turn::Trickle) => Stage::Copying,
            Err(SpliceError::Read(e)) => return Poll::Ready(Err(self.read_error(e))),
            Err(SpliceError::Write(e)) => return Poll::Ready(Err(self.write_error(e))),
        };
        self.busy = 0;
        Poll::Ready(Ok(()))
    }

    /// One read, and as much of it written as the other side takes.
    fn poll_move<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
    ) -> Poll<Result<(), CopyError>>
    where
        R: Stream,
        W: Stream,
    {
        with_scratch(|scratch| {
            let mut buf = ReadBuf::new(&mut scratch[..self.limit]);
            match Pin::new(from).poll_read(cx, &mut buf) {
                Poll::Pending => {
                    if self.unflushed {
                        ready!(Pin::new(to).poll_flush(cx)).map_err(|e| self.write_error(e))?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
                Poll::Ready(Err(e)) => return Poll::Ready(Err(self.read_error(e))),
                Poll::Ready(Ok(())) => {}
            }
            let mut data = buf.filled();
            if data.is_empty() {
                self.stage = Stage::ShuttingDown;
                return Poll::Ready(Ok(()));
            }
            self.busy = if data.len() < LARGE {
                0
            } else {
                self.busy.saturating_add(data.len())
            };
            while !data.is_empty() {
                match Pin::new(&mut *to).poll_write(cx, data) {
                    Poll::Ready(result) => {
                        let n = result.and_then(some).map_err(|e| self.write_error(e))?;
                        data = &data[n..];
                        self.moved += n as u64;
                        self.unflushed = true;
                    }
                    Poll::Pending => {
                        self.kept.extend_from_slice(data);
                        return Poll::Pending;
                    }
                }
            }
            Poll::Ready(Ok(()))
        })
    }
}

fn some(n: usize) -> io::Result<usize> {
    if n == 0 {
        Err(io::ErrorKind::WriteZero.into())
    } else {
        Ok(n)
    }
}

#[cfg(test)]
mod tests;
