//! quinn's streams as the HTTP/3 engine wants them.
//!
//! On the way: frames are filtered ([`Frames`]), what is dropped unfinished is reset rather than
//! ended, since a response that merely stops must not look whole, and a connection that says
//! farewell takes no more requests than it has told its client.

use std::cell::{Cell, RefCell};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::Stream;
use futures_util::stream::unfold;
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};
use quinn::{ConnectionError, ReadError, VarInt, WriteError};

use super::frames::{CutOff, Frames, TooLong};

/// Bytes taken from a stream at once.
const PIECE: usize = 64 * 1024;
/// Unidirectional streams that a client may open in the life of its connection: the engine keeps a
/// place for each. Three are of use (RFC 9114 6.2, RFC 9204 4.2).
const UNIDIRECTIONAL: u32 = 64;

type Accepted<T> = Pin<Box<dyn Stream<Item = Result<T, ConnectionError>>>>;
type Bidirectional = (quinn::SendStream, quinn::RecvStream);

/// Completes when the client wants no more of a response, or cannot take it.
pub(super) type Stopped = Pin<Box<dyn Future<Output = ()>>>;

/// What is known of a request's stream beside what the engine has of it.
pub(super) struct Beside {
    pub(super) stopped: Stopped,
    /// Whether a response that is dropped unfinished is one that broke off. The engine's own
    /// (431, for a head that is too large) is finished by being dropped.
    pub(super) breaks: Rc<Cell<bool>>,
}

/// What a connection and its driver tell each other.
#[derive(Default)]
pub(super) struct Shared {
    /// Of the stream accepted last.
    beside: RefCell<Option<Beside>>,
    /// Requests accepted so far.
    accepted: Cell<u64>,
    /// Requests that are accepted at all.
    most: Cell<Option<u64>>,
}

impl Shared {
    /// What belongs to the request that was just accepted.
    pub(super) fn beside(&self) -> Option<Beside> {
        self.beside.take()
    }

    /// No more requests than there were so far; returns how many.
    pub(super) fn close(&self) -> u64 {
        self.most.set(Some(self.accepted.get()));
        self.accepted.get()
    }
}

/// A connection.
pub(super) struct Connection {
    opener: Opener,
    bidirectional: Accepted<Bidirectional>,
    unidirectional: Accepted<quinn::RecvStream>,
    opened: u32,
    shared: Rc<Shared>,
    /// Most bytes of a frame that is held.
    limit: usize,
}

impl Connection {
    pub(super) fn new(connection: quinn::Connection, shared: &Rc<Shared>, limit: usize) -> Self {
        let both = unfold(connection.clone(), async |c| Some((c.accept_bi().await, c)));
        let one = unfold(connection.clone(), async |c| {
            Some((c.accept_uni().await, c))
        });
        Self {
            bidirectional: Box::pin(both),
            unidirectional: Box::pin(one),
            opener: Opener {
                connection,
                opening: None,
            },
            opened: 0,
            shared: Rc::clone(shared),
            limit,
        }
    }
}

impl quic::Connection<Bytes> for Connection {
    type RecvStream = RecvStream;
    type OpenStreams = Opener;

    fn poll_accept_recv(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<RecvStream, ConnectionErrorIncoming>> {
        let stream = match ready!(self.unidirectional.as_mut().poll_next(cx)) {
            Some(Ok(stream)) => stream,
            Some(Err(error)) => return Poll::Ready(Err(lost(error))),
            None => return Poll::Pending,
        };
        self.opened += 1;
        if self.opened > UNIDIRECTIONAL {
            let text = "the client opens more streams than could be of use";
            let error = ConnectionErrorIncoming::InternalError(text.to_owned());
            return Poll::Ready(Err(error));
        }
        let frames = Frames::behind_type(self.limit);
        Poll::Ready(Ok(RecvStream { stream, frames }))
    }

    fn poll_accept_bidi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<BidiStream, ConnectionErrorIncoming>> {
        loop {
            let (mut send, mut recv) = match ready!(self.bidirectional.as_mut().poll_next(cx)) {
                Some(Ok(streams)) => streams,
                Some(Err(error)) => return Poll::Ready(Err(lost(error))),
                None => return Poll::Pending,
            };
            let shared = &self.shared;
            if shared.most.get().is_some_and(|n| send.id().index() >= n) {
                // RFC 9114 5.2: it may be sent again, elsewhere.
                let code = var(Code::H3_REQUEST_REJECTED.value());
                let _ = send.reset(code);
                let _ = recv.stop(code);
                continue;
            }
            shared.accepted.set(send.id().index() + 1);
            let stopped = send.stopped();
            let breaks = Rc::default();
            shared.beside.replace(Some(Beside {
                stopped: Box::pin(async move {
                    // Completes with nothing once all of a finished response has arrived.
                    if let Ok(None) = stopped.await {
                        std::future::pending::<()>().await;
                    }
                }),
                breaks: Rc::clone(&breaks),
            }));
            return Poll::Ready(Ok(BidiStream {
                send: SendStream {
                    stream: send,
                    writing: None,
                    finished: false,
                    breaks,
                },
                recv: RecvStream {
                    stream: recv,
                    frames: Frames::of_request(self.limit),
                },
            }));
        }
    }

    fn opener(&self) -> Opener {
        Opener {
            connection: self.opener.connection.clone(),
            opening: None,
        }
    }
}

impl quic::OpenStreams<Bytes> for Connection {
    type BidiStream = BidiStream;
    type SendStream = SendStream;

    fn poll_open_bidi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<BidiStream, StreamErrorIncoming>> {
        self.opener.poll_open_bidi(cx)
    }

    fn poll_open_send(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<SendStream, StreamErrorIncoming>> {
        self.opener.poll_open_send(cx)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.opener.close(code, reason);
    }
}

type Opening = Pin<Box<dyn Future<Output = Result<quinn::SendStream, ConnectionError>>>>;

/// Opens the streams that a server has: its control stream and two of QPACK.
pub(super) struct Opener {
    connection: quinn::Connection,
    opening: Option<Opening>,
}

impl quic::OpenStreams<Bytes> for Opener {
    type BidiStream = BidiStream;
    type SendStream = SendStream;

    fn poll_open_bidi(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<Result<BidiStream, StreamErrorIncoming>> {
        // RFC 9114 6.1.
        Poll::Ready(Err(unknown("a server opens no bidirectional streams")))
    }

    fn poll_open_send(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<SendStream, StreamErrorIncoming>> {
        let opening = self.opening.get_or_insert_with(|| {
            let connection = self.connection.clone();
            Box::pin(async move { connection.open_uni().await })
        });
        let opened = ready!(opening.as_mut().poll(cx));
        self.opening = None;
        Poll::Ready(match opened {
            Ok(stream) => Ok(SendStream {
                stream,
                writing: None,
                finished: false,
                breaks: Rc::new(Cell::new(true)),
            }),
            Err(error) => Err(StreamErrorIncoming::ConnectionErrorIncoming {
                connection_error: lost(error),
            }),
        })
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.connection.close(var(code.value()), reason);
    }
}

/// Both directions of a request.
pub(super) struct BidiStream {
    send: SendStream,
    recv: RecvStream,
}

impl quic::BidiStream<Bytes> for BidiStream {
    type SendStream = SendStream;
    type RecvStream = RecvStream;

    fn split(self) -> (SendStream, RecvStream) {
        (self.send, self.recv)
    }
}

impl quic::RecvStream for BidiStream {
    type Buf = Bytes;

    fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.recv.poll_data(cx)
    }

    fn stop_sending(&mut self, code: u64) {
        self.recv.stop_sending(code);
    }

    fn recv_id(&self) -> StreamId {
        self.recv.recv_id()
    }
}

impl quic::SendStream<Bytes> for BidiStream {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.send.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_finish(cx)
    }

    fn reset(&mut self, code: u64) {
        self.send.reset(code);
    }

    fn send_id(&self) -> StreamId {
        self.send.send_id()
    }
}

/// What a client sends on one stream.
pub(super) struct RecvStream {
    stream: quinn::RecvStream,
    frames: Frames,
}

impl quic::RecvStream for RecvStream {
    type Buf = Bytes;

    fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        loop {
            if let Some(piece) = self.frames.take() {
                return Poll::Ready(Ok(Some(piece)));
            }
            // Made anew at each poll: it has no state of its own (`read_chunk` is cancel-safe).
            let chunk = ready!(pin!(self.stream.read_chunk(PIECE, true)).poll(cx));
            let Some(chunk) = chunk.map_err(unreadable)? else {
                let whole = self.frames.finish().map(|()| None);
                let error = "the stream ends inside a frame";
                return Poll::Ready(whole.map_err(|CutOff| unknown(error)));
            };
            if let Err(TooLong) = self.frames.offer(chunk.bytes) {
                let _ = self.stream.stop(var(Code::H3_EXCESSIVE_LOAD.value()));
                return Poll::Ready(Err(unknown("a frame is longer than allowed")));
            }
        }
    }

    fn stop_sending(&mut self, code: u64) {
        let _ = self.stream.stop(var(code));
    }

    fn recv_id(&self) -> StreamId {
        id(self.stream.id())
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        // RFC 9114 4.1: what is left of a request that has been answered is of no interest. Where
        // all of it has come, this does nothing.
        let _ = self.stream.stop(var(Code::H3_NO_ERROR.value()));
    }
}

/// What a client is sent on one stream.
pub(super) struct SendStream {
    stream: quinn::SendStream,
    writing: Option<WriteBuf<Bytes>>,
    finished: bool,
    breaks: Rc<Cell<bool>>,
}

impl quic::SendStream<Bytes> for SendStream {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        if let Some(data) = &mut self.writing {
            while data.has_remaining() {
                let stream = Pin::new(&mut self.stream);
                let written = ready!(stream.poll_write(cx, data.chunk())).map_err(unwritable)?;
                data.advance(written);
            }
        }
        self.writing = None;
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.writing = Some(data.into());
        Ok(())
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.finished = true;
        let finished = self.stream.finish();
        Poll::Ready(finished.map_err(|error| StreamErrorIncoming::Unknown(Box::new(error))))
    }

    fn reset(&mut self, code: u64) {
        self.finished = true;
        let _ = self.stream.reset(var(code));
    }

    fn send_id(&self) -> StreamId {
        id(self.stream.id())
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        if !self.finished && self.breaks.get() {
            let _ = self.stream.reset(var(Code::H3_INTERNAL_ERROR.value()));
        }
    }
}

fn var(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

fn id(id: quinn::StreamId) -> StreamId {
    u64::from(id)
        .try_into()
        .expect("QUIC's and HTTP/3's streams have the same numbers")
}

fn unknown(text: &'static str) -> StreamErrorIncoming {
    StreamErrorIncoming::Unknown(text.into())
}

fn lost(error: ConnectionError) -> ConnectionErrorIncoming {
    match error {
        ConnectionError::ApplicationClosed(close) => ConnectionErrorIncoming::ApplicationClose {
            error_code: close.error_code.into_inner(),
        },
        ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        other => ConnectionErrorIncoming::Undefined(Arc::new(other)),
    }
}

fn unreadable(error: ReadError) -> StreamErrorIncoming {
    match error {
        ReadError::Reset(code) => StreamErrorIncoming::StreamTerminated {
            error_code: code.into_inner(),
        },
        ReadError::ConnectionLost(error) => StreamErrorIncoming::ConnectionErrorIncoming {
            connection_error: lost(error),
        },
        other => StreamErrorIncoming::Unknown(Box::new(other)),
    }
}

fn unwritable(error: WriteError) -> StreamErrorIncoming {
    match error {
        WriteError::Stopped(code) => StreamErrorIncoming::StreamTerminated {
            error_code: code.into_inner(),
        },
        WriteError::ConnectionLost(error) => StreamErrorIncoming::ConnectionErrorIncoming {
            connection_error: lost(error),
        },
        other => StreamErrorIncoming::Unknown(Box::new(other)),
    }
}
