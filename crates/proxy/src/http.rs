//! HTTP as the proxy handles it, whatever its version: requests come in, replies go out, bodies
//! stream. [`serve`] runs a connection; the versions' own ways are in `http1`, `http2` and
//! `http3`.

pub(crate) mod body;
pub(crate) mod grpc_web;
pub(crate) mod websocket;

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use model::Reason;
use model::limits::Limits;
use net::splice::Splice;
use tokio::net::TcpStream;
use wire::Fields;
use wire::h1::{HeadError, Length, Part};
use wire::{Method, RequestHead, ResponseHead, Version};

use crate::error::Failure;
use crate::io::Io;
use crate::pool::Wire;
use crate::record::Exchange;
use crate::worker::Worker;
use crate::{http1, http2, http3};
use body::{Frame, Incoming};

/// Bounds of one connection; on by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Sizes of heads and trailers.
    pub(crate) codec: wire::h1::Limits,
    /// For a request's head, from its first byte.
    pub(crate) head_timeout: Duration,
    /// For the next request.
    pub(crate) idle_timeout: Duration,
    /// Without progress of a body in either direction.
    pub(crate) body_timeout: Duration,
    /// Most bytes of a request's body.
    pub(crate) body: Option<u64>,
    /// HTTP/2 or HTTP/3 streams that a client may have open.
    pub(crate) streams: u32,
    /// HTTP/2 streams that a client may have reset and the proxy has not yet let go.
    pub(crate) resets: usize,
    /// PING and SETTINGS frames that an HTTP/2 client may send in a minute.
    pub(crate) pings: u32,
    /// Bytes that an HTTP/2 client may send on all streams together before it hears that some was
    /// taken.
    pub(crate) window: u32,
}

impl Bounds {
    /// What the engines of HTTP/2 and HTTP/3 do not bound in a head by themselves.
    pub(crate) fn check_head(&self, head: &RequestHead) -> Result<(), Failure> {
        let part = if head.path.len() > self.codec.target {
            Part::Target
        } else if head.fields.len() > self.codec.fields {
            Part::Fields
        } else {
            return Ok(());
        };
        Err(Failure::head(&HeadError::TooLarge(part)))
    }

    /// Whether a request may have a body of `announced` bytes.
    pub(crate) fn check_length(&self, announced: u64) -> Result<(), Failure> {
        match self.body {
            Some(most) if announced > most => Err(Failure::new(
                Reason::BodyTooLarge,
                format!("the request's body has {announced} bytes, and {most} are allowed"),
            )),
            _ => Ok(()),
        }
    }
}

/// The length that a message of HTTP/2 or HTTP/3 announces, where the end of its stream is what counts.
pub(crate) fn announced(fields: &Fields) -> Option<u64> {
    fields.get_str("content-length")?.parse().ok()
}

/// Whether a client waits to be told to send its request's body (RFC 9110 10.1.1).
pub(crate) fn expects_continue(fields: &Fields, length: Length) -> bool {
    let expected = fields.get("expect");
    length != Length::None && expected.is_some_and(|v| v.eq_ignore_ascii_case(b"100-continue"))
}

impl Default for Bounds {
    fn default() -> Self {
        Self::from(&Limits::default())
    }
}

impl From<&Limits> for Bounds {
    fn from(limits: &Limits) -> Self {
        let size = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let codec = wire::h1::Limits {
            head: size(limits.request_header_bytes),
            fields: size(limits.request_header_count),
            target: size(limits.request_target_bytes),
            trailers: size(limits.trailers_bytes),
            ..wire::h1::Limits::default()
        };
        Self {
            codec,
            head_timeout: limits.request_head_timeout,
            idle_timeout: limits.idle_timeout,
            body_timeout: limits.body_idle_timeout,
            body: limits.max_request_body_bytes,
            streams: limits.max_concurrent_streams,
            resets: size(limits.max_reset_streams),
            pings: limits.max_pings_per_minute,
            window: http2::server::WINDOW,
        }
    }
}

/// A request beside its head, which is in its [`Exchange`].
pub(crate) struct Request {
    pub(crate) body: Incoming,
    pub(crate) length: Length,
    /// Asks for a change of protocol (RFC 9110 7.8), or is a CONNECT.
    pub(crate) upgrade: bool,
    /// Can take trailers of the response (`TE: trailers`).
    pub(crate) trailers: bool,
    /// Waits for `100 Continue` before it sends its body.
    pub(crate) expects: bool,
    pub(crate) informer: Informer,
}

/// What answers a request.
pub(crate) struct Reply {
    pub(crate) head: ResponseHead,
    pub(crate) body: Outgoing,
    /// How long the body is; [`Length::None`] also where the response speaks of a body that it does
    /// not have (HEAD, 304).
    pub(crate) length: Length,
    /// Takes the connection (or the stream) over once the head was written.
    pub(crate) takeover: Option<Takeover>,
}

/// What becomes of a connection that no longer speaks HTTP.
pub(crate) type Takeover = Box<dyn FnOnce(Io) -> Pin<Box<dyn Future<Output = ()>>>>;

/// A response's body as it goes to the client.
pub(crate) enum Outgoing {
    /// Written by the proxy.
    Own(Bytes),
    /// Passed on, and recorded when it ends.
    Stream(Box<Streamed>),
    /// There is no response, not even a head: the stream, or in HTTP/1 the connection, ends.
    Reset,
}

/// A response's body on its way from an endpoint, with what is to be done when it ends.
pub(crate) struct Streamed {
    pub(crate) incoming: Incoming,
    pub(crate) exchange: Exchange,
}

/// Answers requests.
pub(crate) trait Service: 'static {
    /// A request has come, perhaps one that cannot be read to its end.
    fn begin(&self, head: RequestHead) -> Exchange;

    /// Answers it.
    fn call(&self, exchange: Exchange, request: Request) -> impl Future<Output = Reply>;
}

/// How interim responses (1xx) reach the client.
#[derive(Clone)]
pub(crate) enum Informer {
    Http1(Rc<http1::server::Conn>),
    Http2(Rc<RefCell<h2::server::SendResponse<Bytes>>>),
    Http3(Rc<http3::Interims>),
    /// The proxy itself asks.
    Nobody,
}

impl Informer {
    /// Passes an interim response on, if the client can take it. A client that is gone is noticed
    /// with the final one.
    pub(crate) async fn inform(&self, head: &ResponseHead) {
        match self {
            Self::Http1(conn) => conn.inform(head).await,
            Self::Http2(respond) => http2::server::inform(respond, head),
            Self::Http3(interims) => interims.inform(head),
            Self::Nobody => {}
        }
    }
}

impl Reply {
    /// A reply of the proxy itself.
    pub(crate) fn own(status: u16, fields: Fields, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        Self {
            head: ResponseHead {
                status,
                version: Version::HTTP_11,
                reason: String::new(),
                fields,
            },
            length: Length::Known(body.len() as u64),
            body: Outgoing::Own(body),
            takeover: None,
        }
    }

    /// A reply whose body is this.
    pub(crate) fn bare_of(status: u16, fields: Fields, body: Outgoing) -> Self {
        Self {
            body,
            ..Self::own(status, fields, "")
        }
    }

    /// Passes a response on; `exchange` is closed with its end.
    pub(crate) fn stream(
        head: ResponseHead,
        incoming: Incoming,
        length: Length,
        mut exchange: Exchange,
    ) -> Self {
        let body = if incoming.is_end() {
            exchange.complete(None);
            Outgoing::Own(Bytes::new())
        } else {
            Outgoing::Stream(Box::new(Streamed { incoming, exchange }))
        };
        Self {
            head,
            body,
            length,
            takeover: None,
        }
    }

    /// A head alone.
    pub(crate) fn bare(head: ResponseHead) -> Self {
        Self {
            head,
            body: Outgoing::ended(),
            length: Length::None,
            takeover: None,
        }
    }

    pub(crate) fn then(mut self, takeover: Takeover) -> Self {
        self.takeover = Some(takeover);
        self
    }

    /// What follows its head, written in answer to `method`: nothing at all, or the length.
    pub(crate) fn length_for(&self, method: &Method) -> Length {
        let bodiless = *method == Method::HEAD || matches!(self.head.status, 100..200 | 204 | 304);
        if bodiless { Length::None } else { self.length }
    }
}

impl Outgoing {
    /// Nothing more.
    pub(crate) fn ended() -> Self {
        Self::Own(Bytes::new())
    }

    /// Whether nothing follows.
    pub(crate) fn is_end(&self) -> bool {
        match self {
            Self::Own(bytes) => bytes.is_empty(),
            Self::Stream(streamed) => streamed.is_end(),
            Self::Reset => false,
        }
    }

    /// Whether the kernel may move a good part of it to a socket by itself.
    pub(crate) fn may_be_spliced(&self) -> bool {
        match self {
            Self::Stream(streamed) => match &streamed.incoming {
                Incoming::Response(body) => {
                    body.may_be_spliced() && !streamed.exchange.has_a_pace()
                }
                _ => false,
            },
            Self::Own(_) | Self::Reset => false,
        }
    }

    /// Moves what is left of a piece whose length is known to `to`.
    pub(crate) fn poll_splice(
        &mut self,
        to: &TcpStream,
        splice: &mut Option<Splice>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        let Self::Stream(streamed) = self else {
            return Poll::Ready(Ok(()));
        };
        let Incoming::Response(body) = &mut streamed.incoming else {
            return Poll::Ready(Ok(()));
        };
        let before = splice.as_ref().map_or(0, Splice::moved);
        let result = body.poll_splice(to, splice, cx);
        let moved = splice.as_ref().map_or(0, Splice::moved) - before;
        if moved > 0 {
            streamed.exchange.response_bytes(moved);
        }
        match result {
            Poll::Ready(Ok(())) => {
                *splice = None;
                if streamed.incoming.is_end() {
                    streamed.exchange.complete(None);
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(failure)) => {
                streamed.exchange.fail(&failure);
                Poll::Ready(Err(Broken))
            }
            Poll::Pending => streamed.exchange.poll_expired(cx).map(|()| Err(Broken)),
        }
    }

    /// The next piece; `None` at the end. When the body breaks off, the exchange has been told why.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, Broken>>> {
        let streamed = match self {
            Self::Own(bytes) if bytes.is_empty() => return Poll::Ready(None),
            Self::Own(bytes) => return Poll::Ready(Some(Ok(Frame::Data(std::mem::take(bytes))))),
            Self::Stream(streamed) => streamed,
            Self::Reset => return Poll::Ready(Some(Err(Broken))),
        };
        if streamed.exchange.holds_back() {
            return streamed.poll_held(cx).map(Some);
        }
        match streamed.incoming.poll_frame(cx) {
            Poll::Ready(Some(Ok(Frame::Data(data)))) => {
                streamed.exchange.response_bytes(data.len() as u64);
                if streamed.exchange.has_a_pace() {
                    streamed.exchange.hold_back(data);
                    return streamed.poll_held(cx).map(Some);
                }
                if streamed.incoming.is_end() {
                    streamed.exchange.complete(streamed.incoming.trailers());
                }
                Poll::Ready(Some(Ok(Frame::Data(data))))
            }
            Poll::Ready(Some(Ok(Frame::Trailers(fields)))) => {
                streamed.exchange.complete(Some(&fields));
                Poll::Ready(Some(Ok(Frame::Trailers(fields))))
            }
            Poll::Ready(Some(Err(failure))) => {
                streamed.exchange.fail(&failure);
                Poll::Ready(Some(Err(Broken)))
            }
            Poll::Ready(None) => {
                streamed.exchange.complete(streamed.incoming.trailers());
                Poll::Ready(None)
            }
            Poll::Pending => match streamed.exchange.poll_expired(cx) {
                Poll::Ready(()) => Poll::Ready(Some(Err(Broken))),
                Poll::Pending => Poll::Pending,
            },
        }
    }
}

impl Streamed {
    fn is_end(&self) -> bool {
        self.incoming.is_end() && !self.exchange.holds_back()
    }

    /// The next piece of what is held to a pace.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, Broken>> {
        match self.exchange.poll_held(cx) {
            Poll::Ready(data) => {
                if self.is_end() {
                    self.exchange.complete(self.incoming.trailers());
                }
                Poll::Ready(Ok(Frame::Data(data)))
            }
            Poll::Pending => self.exchange.poll_expired(cx).map(|()| Err(Broken)),
        }
    }
}

/// A response's body broke off: the client must not take what it has for the whole.
#[derive(Debug)]
pub(crate) struct Broken;

/// Serves a connection until its client is done or the proxy drains.
pub(crate) async fn serve<S: Service>(
    worker: &Rc<Worker>,
    io: Io,
    wire: Wire,
    bounds: &Rc<Bounds>,
    service: S,
) {
    match wire {
        Wire::Http1 => http1::server::serve(worker, io, bounds, service).await,
        // In a box: an HTTP/1 connection should not have room for it.
        Wire::Http2 => Box::pin(http2::server::serve(worker, io, bounds, service)).await,
    }
}
