//! Bodies on their way in: streamed, counted, and kept for a retry up to a bound.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use model::Reason;
use tokio::time::Sleep;
use wire::Fields;

use crate::error::Failure;
use crate::http::{Bounds, grpc_web};
use crate::{http1, http2, http3, mirror};

/// How much of a request's body is kept so that it can be sent again. Envoy's default is of the
/// same order (its per-connection buffer limit).
const REPLAY_LIMIT: usize = 64 * 1024;

/// A piece of a body.
#[derive(Debug)]
pub(crate) enum Frame {
    /// Never empty.
    Data(Bytes),
    /// The end, with fields.
    Trailers(Fields),
}

/// A body on its way in.
pub(crate) enum Incoming {
    Empty,
    /// Of a request that the proxy itself makes.
    Own(Bytes),
    /// Of a request over HTTP/1.
    Request(Rc<http1::server::Conn>),
    /// Of a response over HTTP/1.
    Response(Box<http1::client::Body>),
    /// Of a request or response over HTTP/2.
    Stream(Box<http2::Body>),
    /// Of a request over HTTP/3.
    Http3(Box<http3::Body>),
    /// Of a request or response, between gRPC-Web and gRPC.
    Web(Box<grpc_web::Body>),
    /// Of a request that is copied.
    Copied(Box<mirror::Copied>),
    /// Of a request that is a copy.
    Copy(Box<mirror::Copy>),
}

impl Incoming {
    /// Whether nothing follows, as far as is known without waiting.
    pub(crate) fn is_end(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Own(bytes) => bytes.is_empty(),
            Self::Request(conn) => conn.body_ended(),
            Self::Response(body) => body.is_end(),
            Self::Stream(body) => body.is_end(),
            Self::Http3(body) => body.is_end(),
            Self::Web(body) => body.is_end(),
            Self::Copied(body) => body.is_end(),
            Self::Copy(body) => body.is_end(),
        }
    }

    /// Trailers that were passed on as data, once they were.
    pub(crate) fn trailers(&self) -> Option<&Fields> {
        match self {
            Self::Web(body) => body.trailers(),
            _ => None,
        }
    }

    /// The next piece; `None` at the end.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, Failure>>> {
        match self {
            Self::Empty => Poll::Ready(None),
            Self::Own(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Own(bytes) => Poll::Ready(Some(Ok(Frame::Data(std::mem::take(bytes))))),
            Self::Request(conn) => conn.poll_body(cx),
            Self::Response(body) => body.poll_frame(cx),
            Self::Stream(body) => body.poll_frame(cx),
            Self::Http3(body) => body.poll_frame(cx),
            Self::Web(body) => body.poll_frame(cx),
            Self::Copied(body) => body.poll_frame(cx),
            Self::Copy(body) => body.poll_frame(cx),
        }
    }
}

/// What a request's body over HTTP/2 or HTTP/3 may still have, and how long its next piece may take.
pub(crate) struct Allowance {
    left: u64,
    patience: Duration,
    /// Made when a piece is first waited for.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Allowance {
    pub(crate) fn of(bounds: &Bounds) -> Self {
        Self {
            left: bounds.body.unwrap_or(u64::MAX),
            patience: bounds.body_timeout,
            deadline: None,
        }
    }

    /// A piece of so many bytes has come.
    pub(crate) fn take(&mut self, size: usize) -> Result<(), Failure> {
        self.left = self.left.checked_sub(size as u64).ok_or_else(|| {
            let details = "the request's body is longer than allowed";
            Failure::new(Reason::BodyTooLarge, details)
        })?;
        self.deadline = None;
        Ok(())
    }

    /// Ready when nothing came for too long.
    pub(crate) fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        let patience = self.patience;
        let deadline = self
            .deadline
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        deadline.as_mut().poll(cx).map(|()| {
            Failure::too_slow(format!(
                "nothing of the request's body came for {patience:?}"
            ))
        })
    }
}

/// The body of a request as sent to an endpoint; its bytes are counted.
pub(crate) struct RequestBody {
    source: Source,
    bytes: Rc<Cell<u64>>,
}

enum Source {
    /// Passed on as it arrives.
    Once(Incoming),
    /// Passed on as it arrives, and kept for another try; the next piece to be read.
    Kept(Replay, usize),
}

/// A request's body that more than one try can read; one at a time.
#[derive(Clone)]
pub(crate) struct Replay(Rc<RefCell<Kept>>);

struct Kept {
    incoming: Incoming,
    chunks: Vec<Bytes>,
    ended: bool,
    size: usize,
    /// More came than is kept: no further try can have it all.
    overflowed: bool,
}

impl RequestBody {
    /// A body that is not kept.
    pub(crate) fn once(incoming: Incoming, bytes: &Rc<Cell<u64>>) -> Self {
        Self {
            source: Source::Once(incoming),
            bytes: Rc::clone(bytes),
        }
    }

    /// No body.
    pub(crate) fn empty() -> Self {
        thread_local! {
            static NOTHING: Rc<Cell<u64>> = Rc::default();
        }
        Self {
            source: Source::Once(Incoming::Empty),
            bytes: NOTHING.with(Rc::clone),
        }
    }

    /// The body from its start, for one try.
    pub(crate) fn replay(kept: &Replay, bytes: &Rc<Cell<u64>>) -> Self {
        Self {
            source: Source::Kept(kept.clone(), 0),
            bytes: Rc::clone(bytes),
        }
    }

    pub(crate) fn is_end(&self) -> bool {
        match &self.source {
            Source::Once(incoming) => incoming.is_end(),
            Source::Kept(replay, next) => {
                let kept = replay.0.borrow();
                *next >= kept.chunks.len() && (kept.ended || kept.incoming.is_end())
            }
        }
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, Failure>>> {
        let (frame, fresh) = match &mut self.source {
            Source::Once(incoming) => (ready!(incoming.poll_frame(cx)), true),
            Source::Kept(replay, next) => ready!(replay.poll_from(next, cx)),
        };
        if let Some(Ok(Frame::Data(data))) = &frame
            && fresh
        {
            self.bytes.set(self.bytes.get() + data.len() as u64);
        }
        Poll::Ready(frame)
    }
}

impl Replay {
    pub(crate) fn new(incoming: Incoming) -> Self {
        Self(Rc::new(RefCell::new(Kept {
            incoming,
            chunks: Vec::new(),
            ended: false,
            size: 0,
            overflowed: false,
        })))
    }

    /// Whether another try can still read the body from its start.
    pub(crate) fn is_whole(&self) -> bool {
        !self.0.borrow().overflowed
    }

    /// The piece at `next`, and whether it has just come.
    fn poll_from(
        &self,
        next: &mut usize,
        cx: &mut Context<'_>,
    ) -> Poll<(Option<Result<Frame, Failure>>, bool)> {
        let mut kept = self.0.borrow_mut();
        if let Some(chunk) = kept.chunks.get(*next) {
            *next += 1;
            return Poll::Ready((Some(Ok(Frame::Data(chunk.clone()))), false));
        }
        if kept.ended {
            return Poll::Ready((None, false));
        }
        let frame = match ready!(kept.incoming.poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(failure)) => {
                kept.overflowed = true;
                return Poll::Ready((Some(Err(failure)), false));
            }
            None => {
                kept.ended = true;
                return Poll::Ready((None, false));
            }
        };
        match &frame {
            Frame::Data(data) => {
                kept.size += data.len();
                if kept.overflowed || kept.size > REPLAY_LIMIT {
                    kept.overflowed = true;
                    kept.chunks.clear();
                    *next = 0;
                } else {
                    kept.chunks.push(data.clone());
                    *next += 1;
                }
            }
            // Trailers end the body; a retry after they were sent would lack them.
            Frame::Trailers(_) => {
                kept.overflowed = true;
                kept.ended = true;
            }
        }
        Poll::Ready((Some(Ok(frame)), true))
    }
}
