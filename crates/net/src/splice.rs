//! Bytes from one TCP socket to another that never enter the process (splice(2)).
//!
//! The kernel moves pages from the receiving socket into a pipe and from there into the sending
//! one. A pipe costs two descriptors and up to [`PIPE_SIZE`] of the kernel's memory, so one is
//! held only while bytes are in it: empty ones go to a free list of the thread, and no more than
//! [`PIPES`] are out at a time. Who finds none left copies instead, through a buffer.
//! Small pieces are cheaper to copy, so a caller that has no need to stay may leave when only
//! those come ([`Turn::Trickle`]); [`crate::copy`] goes back and forth by itself.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Bytes that a pipe takes, where the kernel allows (`fs.pipe-max-size`,
/// `fs.pipe-user-pages-soft`); otherwise what it gives.
pub const PIPE_SIZE: usize = 1024 * 1024;
/// Pipes of a thread that hold bytes at one time: with slow readers everywhere they bind 64 MiB.
pub const PIPES: usize = 64;

/// Empty pipes kept by a thread.
const FREE: usize = 16;
/// Moves below this many bytes are cheaper as copies.
const SMALL: usize = 4096;
/// So many small moves in a row make a trickle.
const TRICKLE: u8 = 4;
/// Moves in one poll before others get their turn.
const TURNS: usize = 8;
/// Bytes copied at a time where there is no pipe.
const CHUNK: usize = 64 * 1024;

/// Why a splice ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// The source has ended, and all that it sent was delivered.
    End,
    /// As many bytes as were asked for were delivered.
    Complete,
    /// All that came was delivered, and it comes in small pieces: [`Splice::poll`] may be called
    /// again, but copying would be cheaper.
    Trickle,
}

/// What a splice failed at.
#[derive(Debug, thiserror::Error)]
pub enum SpliceError {
    /// Taking bytes from the source: usually its peer sent a reset.
    #[error("reading failed")]
    Read(#[source] io::Error),
    /// Giving bytes to the destination: it no longer takes any.
    #[error("writing failed")]
    Write(#[source] io::Error),
}

impl From<SpliceError> for io::Error {
    fn from(error: SpliceError) -> Self {
        match error {
            SpliceError::Read(e) | SpliceError::Write(e) => e,
        }
    }
}

/// Moves exactly `bytes` from one connection to the other, fewer if the source ends before.
///
/// Returns how many were delivered. A future dropped half-way may have taken bytes that were not
/// delivered; who must know keeps a [`Splice`] and asks [`Splice::moved`].
pub async fn splice_exact(from: &TcpStream, to: &TcpStream, bytes: u64) -> io::Result<u64> {
    let mut splice = Splice::exact(bytes);
    loop {
        match std::future::poll_fn(|cx| splice.poll(cx, from, to)).await? {
            Turn::End | Turn::Complete => return Ok(splice.moved()),
            Turn::Trickle => {}
        }
    }
}

/// One direction being spliced.
#[derive(Debug)]
pub struct Splice {
    held: Held,
    /// Bytes still to be taken from the source.
    left: u64,
    moved: u64,
    small: u8,
    ended: bool,
}

/// What was taken and not yet given.
#[derive(Debug)]
enum Held {
    Nothing,
    /// So many bytes, never 0 between two calls.
    Pipe(Pipe, usize),
    /// Bytes, and how many of them are given already.
    Copied(Vec<u8>, usize),
}

impl Splice {
    /// Until the source ends.
    pub fn until_end() -> Self {
        Self::exact(u64::MAX)
    }

    /// `bytes`, and not one more is taken from the source.
    pub fn exact(bytes: u64) -> Self {
        Self {
            held: Held::Nothing,
            left: bytes,
            moved: 0,
            small: 0,
            ended: false,
        }
    }

    /// Bytes delivered so far.
    pub fn moved(&self) -> u64 {
        self.moved
    }

    /// Goes on as far as both connections let it. Always the same two must be given.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        to: &TcpStream,
    ) -> Poll<Result<Turn, SpliceError>> {
        for _ in 0..TURNS {
            ready!(self.poll_give(cx, to)).map_err(SpliceError::Write)?;
            if self.left == 0 {
                return Poll::Ready(Ok(Turn::Complete));
            }
            if self.ended {
                return Poll::Ready(Ok(Turn::End));
            }
            if self.small >= TRICKLE {
                self.small = 0;
                return Poll::Ready(Ok(Turn::Trickle));
            }
            let taken = ready!(self.poll_take(cx, from)).map_err(SpliceError::Read)?;
            self.ended = taken == 0;
            self.small = if taken < SMALL { self.small + 1 } else { 0 };
            self.left -= taken as u64;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Ready when nothing is held.
    fn poll_give(&mut self, cx: &mut Context<'_>, to: &TcpStream) -> Poll<io::Result<()>> {
        loop {
            if matches!(self.held, Held::Nothing) {
                return Poll::Ready(Ok(()));
            }
            ready!(to.poll_write_ready(cx))?;
            let given = match &self.held {
                Held::Nothing => return Poll::Ready(Ok(())),
                Held::Pipe(pipe, held) => {
                    let out = || splice(pipe.read.as_fd(), to.as_fd(), *held);
                    to.try_io(Interest::WRITABLE, out)
                }
                Held::Copied(bytes, given) => to.try_write(&bytes[*given..]),
            };
            match given {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(n) => self.given(n),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }

    fn given(&mut self, n: usize) {
        self.moved += n as u64;
        self.held = match std::mem::replace(&mut self.held, Held::Nothing) {
            Held::Pipe(pipe, held) if n < held => Held::Pipe(pipe, held - n),
            Held::Pipe(pipe, _) => {
                pipe.free();
                Held::Nothing
            }
            Held::Copied(bytes, given) if given + n < bytes.len() => Held::Copied(bytes, given + n),
            Held::Copied(..) | Held::Nothing => Held::Nothing,
        };
    }

    /// Takes what is there; 0 at the end of the source. Called when nothing is held.
    fn poll_take(&mut self, cx: &mut Context<'_>, from: &TcpStream) -> Poll<io::Result<usize>> {
        loop {
            ready!(from.poll_read_ready(cx))?;
            let most = usize::try_from(self.left).unwrap_or(usize::MAX);
            let taken = match Pipe::take() {
                Some(pipe) => self.take_into(pipe, from, most.min(PIPE_SIZE)),
                None => self.take_copy(from, most.min(CHUNK)),
            };
            match taken {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
        }
    }

    fn take_into(&mut self, pipe: Pipe, from: &TcpStream, most: usize) -> io::Result<usize> {
        let into = || splice(from.as_fd(), pipe.write.as_fd(), most);
        let taken = from.try_io(Interest::READABLE, into);
        match taken {
            Ok(n) if n > 0 => self.held = Held::Pipe(pipe, n),
            _ => pipe.free(),
        }
        taken
    }

    fn take_copy(&mut self, from: &TcpStream, most: usize) -> io::Result<usize> {
        let mut bytes = vec![0; most];
        let n = from.try_read(&mut bytes)?;
        bytes.truncate(n);
        if n > 0 {
            self.held = Held::Copied(bytes, 0);
        }
        Ok(n)
    }
}

/// A pipe in use.
#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    out: Out,
}

#[derive(Default)]
struct Pipes {
    free: Vec<(OwnedFd, OwnedFd)>,
    out: usize,
}

thread_local! {
    static LIST: RefCell<Pipes> = RefCell::default();
}

impl Pipe {
    /// An empty pipe; `None` where too many are out already, or no descriptors are left.
    fn take() -> Option<Self> {
        LIST.with_borrow_mut(|list| {
            if list.out >= PIPES {
                return None;
            }
            let (read, write) = list.free.pop().or_else(open)?;
            list.out += 1;
            Some(Self {
                read,
                write,
                out: Out,
            })
        })
    }

    /// Keeps it for the next; it must be empty.
    fn free(self) {
        let Self { read, write, out } = self;
        drop(out);
        LIST.with_borrow_mut(|list| {
            if list.free.len() < FREE {
                list.free.push((read, write));
            }
        });
    }
}

/// Counts a pipe for as long as it is in use.
#[derive(Debug)]
struct Out;

impl Drop for Out {
    fn drop(&mut self) {
        // A thread that ends has no list any more, and nobody to ask for it.
        let _ = LIST.try_with(|list| {
            let mut list = list.borrow_mut();
            list.out = list.out.saturating_sub(1);
        });
    }
}

fn open() -> Option<(OwnedFd, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).ok()?;
    // Above the user's share of pipe memory the kernel refuses; the usual 64 KiB do as well.
    let _ = fcntl(&write, FcntlArg::F_SETPIPE_SZ(PIPE_SIZE as i32));
    Some((read, write))
}

fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, length: usize) -> io::Result<usize> {
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    loop {
        // SAFETY: both descriptors are borrowed, hence open, for the length of the call; without
        // offsets the kernel reads and writes no memory of this process.
        #[expect(
            unsafe_code,
            reason = "splice(2) has no safe wrapper without another feature of nix"
        )]
        let moved = unsafe {
            libc::splice(
                from.as_raw_fd(),
                std::ptr::null_mut(),
                to.as_raw_fd(),
                std::ptr::null_mut(),
                length,
                flags,
            )
        };
        if let Ok(n) = usize::try_from(moved) {
            return Ok(n);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests;
