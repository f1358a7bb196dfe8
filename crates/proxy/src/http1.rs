//! HTTP/1 connections: the server's side, the client's side, and what both write through.
//!
//! The codec is `wire::h1`; here it meets sockets. Nothing runs beside a request: a connection is
//! driven by whoever reads or writes it, so that a request costs no task, no channel and no buffer
//! while nothing moves.

pub(crate) mod client;
pub(crate) mod server;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;
use wire::h1;

use crate::io::Io;
use crate::spare::{self, LARGE};

/// Data up to this size is copied behind the text before it, rather than gathered by the kernel.
const COPIED: usize = 4 * 1024;
/// Text that waits before it is written out.
const GATHERED: usize = 16 * 1024;

/// Reads what is there, up to `most` bytes, into `buffer`. Zero is the end.
fn poll_fill(
    io: &mut Io,
    buffer: &mut BytesMut,
    most: usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    if buffer.is_empty() {
        let ahead = io.take_ahead();
        if !ahead.is_empty() {
            *buffer = BytesMut::from(ahead);
            return Poll::Ready(Ok(buffer.len()));
        }
    }
    if buffer.capacity() == 0 {
        *buffer = spare::buffer(most);
    } else {
        buffer.reserve(most.min(LARGE));
    }
    tokio_util::io::poll_read_buf(Pin::new(io), cx, buffer)
}

/// What waits to be written: text, then data, then a tail.
#[derive(Default)]
struct Outbox {
    text: Vec<u8>,
    written: usize,
    data: Bytes,
    tail: &'static [u8],
    /// Written, but perhaps still held by TLS.
    unflushed: bool,
    moved: u64,
}

impl Outbox {
    /// Whether more may be put in before what is there is written.
    fn has_room(&self) -> bool {
        self.data.is_empty() && self.tail.is_empty() && self.text.len() < GATHERED
    }

    /// Text to be written after what is there; only while there is room.
    fn text(&mut self) -> &mut Vec<u8> {
        debug_assert!(self.data.is_empty() && self.tail.is_empty());
        if self.text.capacity() == 0 {
            self.text = spare::text();
        }
        &mut self.text
    }

    /// A piece of a body, in chunked form if asked.
    fn put(&mut self, data: Bytes, chunked: bool) {
        self.text();
        if chunked {
            h1::chunk_head(data.len(), &mut self.text);
        }
        if data.len() <= COPIED {
            self.text.extend_from_slice(&data);
            if chunked {
                self.text.extend_from_slice(h1::CHUNK_TAIL);
            }
        } else {
            self.data = data;
            self.tail = if chunked { h1::CHUNK_TAIL } else { b"" };
        }
    }

    /// Starts counting anew.
    fn begin(&mut self) {
        self.moved = 0;
    }

    /// Bytes written since the count began.
    fn moved(&self) -> u64 {
        self.moved
    }

    fn is_empty(&self) -> bool {
        self.written == self.text.len() && self.data.is_empty() && self.tail.is_empty()
    }

    /// Writes all of it. Most often this is one system call.
    fn poll_flush(&mut self, io: &mut Io, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let text = &self.text[self.written..];
            let n = if self.data.is_empty() && self.tail.is_empty() {
                ready!(Pin::new(&mut *io).poll_write(cx, text))?
            } else {
                let parts = [
                    IoSlice::new(text),
                    IoSlice::new(&self.data),
                    IoSlice::new(self.tail),
                ];
                let empty = usize::from(text.is_empty());
                ready!(Pin::new(&mut *io).poll_write_vectored(cx, &parts[empty..]))?
            };
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(n);
            self.moved += n as u64;
            self.unflushed = true;
        }
        self.text.clear();
        self.written = 0;
        if self.unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut n: usize) {
        let text = n.min(self.text.len() - self.written);
        self.written += text;
        n -= text;
        let data = n.min(self.data.len());
        self.data.advance(data);
        if self.data.is_empty() {
            self.data = Bytes::new();
        }
        self.tail = &self.tail[n - data..];
    }

    /// Lets go of the memory while nothing is to be written.
    fn rest(&mut self) {
        if self.text.is_empty() {
            spare::keep_text(std::mem::take(&mut self.text));
        }
    }
}
