//! Bodies on their way through: streamed, counted, and kept for a retry up to a bound.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::record::Exchange;

/// How much of a request's body is kept so that it can be sent again. Envoy's default is of the
/// same order (its per-connection buffer limit).
const REPLAY_LIMIT: usize = 64 * 1024;

/// The body of a request as sent to an endpoint.
pub(crate) enum RequestBody {
    /// None.
    Empty,
    /// Passed on as it arrives.
    Stream(Counted),
    /// Passed on as it arrives, and kept for another try.
    Replay(Replay, usize),
}

/// An incoming body whose bytes are counted.
pub(crate) struct Counted {
    incoming: Incoming,
    bytes: Rc<Cell<u64>>,
}

/// A request's body that more than one try can read; one at a time.
#[derive(Clone)]
pub(crate) struct Replay(Rc<RefCell<Kept>>);

struct Kept {
    incoming: Incoming,
    chunks: Vec<Bytes>,
    ended: bool,
    size: usize,
    /// More came than is kept: no second try can have it all.
    overflowed: bool,
    bytes: Rc<Cell<u64>>,
}

impl RequestBody {
    /// A body that is not kept, with the counter of its bytes.
    pub(crate) fn stream(incoming: Incoming, bytes: &Rc<Cell<u64>>) -> Self {
        if incoming.is_end_stream() {
            return Self::Empty;
        }
        Self::Stream(Counted {
            incoming,
            bytes: bytes.clone(),
        })
    }
}

impl Replay {
    pub(crate) fn new(incoming: Incoming, bytes: &Rc<Cell<u64>>) -> Self {
        Self(Rc::new(RefCell::new(Kept {
            incoming,
            chunks: Vec::new(),
            ended: false,
            size: 0,
            overflowed: false,
            bytes: bytes.clone(),
        })))
    }

    /// Whether another try can still read the body from its start.
    pub(crate) fn is_whole(&self) -> bool {
        !self.0.borrow().overflowed
    }

    /// The body from its start, for one try.
    pub(crate) fn attempt(&self) -> RequestBody {
        RequestBody::Replay(self.clone(), 0)
    }

    fn poll_from(
        &self,
        next: &mut usize,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut kept = self.0.borrow_mut();
        if let Some(chunk) = kept.chunks.get(*next) {
            *next += 1;
            return Poll::Ready(Some(Ok(Frame::data(chunk.clone()))));
        }
        if kept.ended {
            return Poll::Ready(None);
        }
        let frame = match ready!(Pin::new(&mut kept.incoming).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => {
                kept.ended = true;
                return Poll::Ready(None);
            }
        };
        if let Some(data) = frame.data_ref() {
            kept.bytes.set(kept.bytes.get() + data.len() as u64);
            kept.size += data.len();
            if kept.overflowed || kept.size > REPLAY_LIMIT {
                kept.overflowed = true;
                kept.chunks.clear();
                *next = 0;
            } else {
                let data = data.clone();
                kept.chunks.push(data);
                *next += 1;
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            // Trailers end the body; a retry after they were sent would lack them.
            kept.overflowed |= !trailers.is_empty();
            kept.ended = true;
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Stream(counted) => {
                let frame = ready!(Pin::new(&mut counted.incoming).poll_frame(cx));
                if let Some(data) = frame
                    .as_ref()
                    .and_then(|f| f.as_ref().ok())
                    .and_then(Frame::data_ref)
                {
                    counted.bytes.set(counted.bytes.get() + data.len() as u64);
                }
                Poll::Ready(frame)
            }
            Self::Replay(replay, next) => replay.poll_from(next, cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Stream(counted) => counted.incoming.is_end_stream(),
            Self::Replay(replay, next) => {
                let kept = replay.0.borrow();
                *next >= kept.chunks.len() && (kept.ended || kept.incoming.is_end_stream())
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Stream(counted) => counted.incoming.size_hint(),
            Self::Replay(replay, next) => {
                let kept = replay.0.borrow();
                let waiting: u64 = kept.chunks.iter().skip(*next).map(|c| c.len() as u64).sum();
                let rest = kept.incoming.size_hint();
                let mut hint = SizeHint::new();
                hint.set_lower(waiting + rest.lower());
                if let Some(upper) = rest.upper() {
                    hint.set_upper(waiting + upper);
                }
                hint
            }
        }
    }
}

/// The body of a response as sent to the client.
pub(crate) enum ResponseBody {
    /// Written by the proxy.
    Own(Option<Bytes>),
    /// Passed on as it arrives.
    Stream(Box<Streamed>),
}

/// A response's body on its way from an endpoint, with what is to be done when it ends.
pub(crate) struct Streamed {
    incoming: Incoming,
    exchange: Exchange,
}

impl ResponseBody {
    pub(crate) fn empty() -> Self {
        Self::Own(None)
    }

    pub(crate) fn text(text: String) -> Self {
        Self::Own((!text.is_empty()).then(|| Bytes::from(text)))
    }

    /// Passes `incoming` on and closes `exchange` with its end.
    pub(crate) fn stream(incoming: Incoming, mut exchange: Exchange) -> Self {
        if incoming.is_end_stream() {
            exchange.complete(None);
            return Self::Own(None);
        }
        Self::Stream(Box::new(Streamed { incoming, exchange }))
    }
}

/// Why a response's body broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error(transparent)]
    Upstream(#[from] hyper::Error),
    #[error("the response took longer than allowed")]
    Timeout,
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let streamed = match self.get_mut() {
            Self::Own(bytes) => return Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Self::Stream(streamed) => streamed,
        };
        match Pin::new(&mut streamed.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    streamed.exchange.response_bytes(data.len() as u64);
                }
                if streamed.incoming.is_end_stream() {
                    streamed.exchange.complete(frame.trailers_ref());
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                streamed.exchange.complete(None);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                streamed.exchange.broken(&error);
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Pending => match streamed.exchange.poll_expired(cx) {
                Poll::Ready(()) => Poll::Ready(Some(Err(BodyError::Timeout))),
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(bytes) => bytes.is_none(),
            Self::Stream(streamed) => streamed.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Stream(streamed) => streamed.incoming.size_hint(),
        }
    }
}
