//! A bound on frames that cost their sender nothing. Each PING and each SETTINGS obliges its receiver
//! to answer (RFC 9113 10.5); the engine answers them below us, so they are counted as a connection's
//! bytes pass on their way to it.
//!
//! Honest clients ping too: gRPC measures its window with a ping for the data that it gets. So a frame
//! that carries a request or data, or asks for data, makes up for one of them.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::frame::{ACK, DATA, HEAD, HEADERS, PING, PREFACE, SETTINGS, WINDOW_UPDATE};
use super::tap::Tap;
use super::watch::Heard;

const PERIOD: Duration = Duration::from_mins(1);

/// Counts a client's frames.
pub(super) struct Counted {
    heard: Heard,
    frames: Frames,
    calm: Rc<Calm>,
}

/// How many frames that ask for an answer a client may still send.
pub(super) struct Calm {
    limit: u32,
    left: Cell<u32>,
    since: Cell<Instant>,
    exceeded: Cell<bool>,
}

impl Calm {
    pub(super) fn new(limit: u32) -> Rc<Self> {
        Rc::new(Self {
            limit,
            left: Cell::new(limit),
            since: Cell::new(Instant::now()),
            exceeded: Cell::new(false),
        })
    }

    /// Ready when the client has sent more than it may. Asked after the connection was read from, by
    /// the same task.
    pub(super) async fn exceeded(&self) {
        poll_fn(|_| {
            if self.exceeded.get() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    fn frame(&self, kind: u8, flags: u8, length: usize) {
        let left = self.left.get();
        match kind {
            PING | SETTINGS if flags & ACK == 0 => match left.checked_sub(1) {
                Some(left) => self.left.set(left),
                None => self.renew(),
            },
            HEADERS | WINDOW_UPDATE => self.left.set(self.limit.min(left + 1)),
            DATA if length > 0 => self.left.set(self.limit.min(left + 1)),
            _ => {}
        }
    }

    /// The clock is read only when nothing is left.
    fn renew(&self) {
        let now = Instant::now();
        if now.duration_since(self.since.get()) < PERIOD {
            self.exceeded.set(true);
        } else {
            self.since.set(now);
            self.left.set(self.limit.saturating_sub(1));
        }
    }
}

/// Where frames begin in a stream of bytes.
struct Frames {
    /// Bytes to pass over before the next head.
    skip: usize,
    head: [u8; HEAD],
    have: usize,
}

impl Frames {
    fn after_preface() -> Self {
        Self {
            skip: PREFACE.len(),
            head: [0; HEAD],
            have: 0,
        }
    }

    /// Calls `frame` with kind, flags and length of each frame whose head is complete.
    fn read(&mut self, mut bytes: &[u8], mut frame: impl FnMut(u8, u8, usize)) {
        while !bytes.is_empty() {
            let (passed, rest) = bytes.split_at(self.skip.min(bytes.len()));
            self.skip -= passed.len();
            let (part, rest) = rest.split_at(rest.len().min(HEAD - self.have));
            self.head[self.have..self.have + part.len()].copy_from_slice(part);
            self.have += part.len();
            bytes = rest;
            if self.have == HEAD {
                let [a, b, c, kind, flags, ..] = self.head;
                self.have = 0;
                self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
                frame(kind, flags, self.skip);
            }
        }
    }
}

impl Counted {
    pub(super) fn new(heard: Heard, calm: &Rc<Calm>) -> Self {
        Self {
            heard,
            frames: Frames::after_preface(),
            calm: Rc::clone(calm),
        }
    }
}

impl Tap for Counted {
    /// Nothing more of it is read: whoever asked is told by `exceeded`.
    fn is_shut(&self) -> bool {
        self.calm.exceeded.get()
    }

    fn passed(&mut self, bytes: &[u8]) {
        self.heard.passed(bytes);
        let calm = &self.calm;
        self.frames.read(bytes, |kind, flags, length| {
            calm.frame(kind, flags, length);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(kind: u8, flags: u8, length: u8) -> Vec<u8> {
        let mut bytes = vec![0, 0, length, kind, flags, 0, 0, 0, 0];
        bytes.resize(HEAD + usize::from(length), 0xff);
        bytes
    }

    #[test]
    fn frames_are_found_wherever_the_bytes_are_cut() {
        let mut bytes = PREFACE.to_vec();
        let frames = [
            (SETTINGS, 0, 6),
            (HEADERS, 5, 20),
            (DATA, 1, 0),
            (PING, ACK, 8),
        ];
        for (kind, flags, length) in frames {
            bytes.extend(head(kind, flags, length));
        }
        for size in 1..bytes.len() {
            let (mut reader, mut seen) = (Frames::after_preface(), Vec::new());
            for piece in bytes.chunks(size) {
                reader.read(piece, |kind, flags, n| seen.push((kind, flags, n as u8)));
            }
            assert_eq!(seen, frames, "in pieces of {size}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pings_are_limited_unless_data_goes_with_them_or_time_goes_by() {
        let calm = Calm::new(2);
        let ping = || calm.frame(PING, 0, 8);
        for _ in 0..100 {
            calm.frame(HEADERS, 4, 20);
            ping();
            calm.frame(PING, ACK, 8);
            calm.frame(WINDOW_UPDATE, 0, 4);
            ping();
        }
        assert!(!calm.exceeded.get(), "each was made up for");
        tokio::time::advance(PERIOD).await;
        // One was left, and two are new.
        for _ in 0..3 {
            ping();
        }
        assert!(!calm.exceeded.get(), "a new minute has begun");
        ping();
        assert!(calm.exceeded.get());
    }
}
