//! The client's side of an HTTP/1 connection: one request at a time, its body sent while the
//! response may already be coming.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use model::Reason;
use net::splice::{Splice, SpliceError, Turn};
use net::tcp::Stream as _;
use tokio::net::TcpStream;
use wire::Fields;
use wire::h1::{self, Decoder, Event, HeadError, Length, Limits, ResponseFraming, Target};
use wire::{Method, RequestHead, ResponseHead};

use super::{Outbox, poll_fill};
use crate::error::{Failure, Replay};
use crate::http::Informer;
use crate::http::body::{Frame, Incoming, RequestBody};
use crate::io::Io;
use crate::pool::{Home, Link, Slot};
use crate::spare::{self, LARGE, SMALL};

/// For `100 Continue` from an endpoint, after which the body is sent without it (RFC 9110 10.1.1
/// asks not to wait for ever).
const CONTINUE: Duration = Duration::from_secs(1);
/// What is left of a piece of a body from which on the kernel moves it: a pipe has a price too.
const SPLICED: u64 = 32 * 1024;
/// Interim responses to one request.
const INTERIM: usize = 32;

/// A connection, at rest or with a request on it.
pub(crate) struct Conn {
    io: Io,
    read: BytesMut,
    /// How far the end of the response's head was looked for.
    scanned: usize,
    out: Outbox,
    pub(crate) link: Rc<Link>,
    /// Whether it served a request before: it may have been closed by the peer meanwhile.
    pub(crate) reused: bool,
    home: Home,
    limits: Limits,
    /// Of the response.
    decoder: Decoder,
    upload: Option<Box<Upload>>,
    /// Whether another request may follow.
    keep: bool,
    /// The endpoint has ended its side.
    ended: bool,
    /// Requests that it may still be used for.
    left: u32,
    /// Held for as long as the connection is open.
    pub(crate) slot: Slot,
}

/// A request as it is to be written.
pub(crate) struct Order<'a> {
    pub(crate) head: &'a RequestHead,
    pub(crate) target: Target<'a>,
    pub(crate) length: Length,
    pub(crate) upgrade: bool,
    pub(crate) trailers: bool,
    pub(crate) expects: bool,
}

/// A response whose body is still to come.
pub(crate) struct Response {
    pub(crate) head: ResponseHead,
    pub(crate) body: Incoming,
    pub(crate) length: Length,
    /// The connection itself, once it speaks another protocol.
    pub(crate) switched: Option<Io>,
}

/// A request that was not answered, with its body if nothing of it is lost.
pub(crate) struct Unanswered {
    pub(crate) failure: Failure,
    pub(crate) body: Option<RequestBody>,
}

/// A response's body; drives what is left of the request's.
pub(crate) struct Body(Option<Box<Conn>>);

/// A request's body on its way out.
struct Upload {
    body: RequestBody,
    length: Length,
    sent: u64,
    trailers: Option<Fields>,
}

/// Why a body could not be sent on.
enum UploadError {
    /// The client's doing.
    Client(Failure),
    /// The endpoint takes no more; it may have answered all the same.
    Endpoint(io::Error),
}

/// Sends a request and reads the head of its response.
pub(crate) async fn send(
    mut conn: Box<Conn>,
    order: &Order<'_>,
    body: RequestBody,
    informer: &Informer,
) -> Result<Response, Unanswered> {
    conn.begin(order, body);
    let mut pause = order
        .expects
        .then(|| Box::pin(tokio::time::sleep(CONTINUE)));
    let mut response = spare::response_head();
    for _ in 0..INTERIM {
        let framing = poll_fn(|cx| {
            if let Some(sleep) = &mut pause
                && sleep.as_mut().poll(cx).is_ready()
            {
                pause = None;
            }
            conn.poll_head(&order.head.method, &mut response, pause.is_some(), cx)
        })
        .await
        .map_err(|failure| conn.unanswered(failure))?;
        if response.status == 101 && !order.upgrade {
            let address = conn.link.address;
            let details = format!("{address} changed the protocol, which nobody had asked for");
            return Err(conn.unanswered(Failure::new(Reason::UpstreamReset, details)));
        }
        if response.status == 101 || response.status >= 200 {
            return Ok(conn.answered(response, &framing));
        }
        pause = None;
        informer.inform(&response).await;
    }
    let address = conn.link.address;
    let details = format!("{address}: more than {INTERIM} interim responses");
    Err(conn.unanswered(Failure::new(Reason::UpstreamReset, details)))
}

impl Conn {
    pub(crate) fn new(
        io: Io,
        link: Rc<Link>,
        slot: Slot,
        home: Home,
        limits: &Limits,
        left: u32,
    ) -> Box<Self> {
        Box::new(Self {
            io,
            read: BytesMut::new(),
            scanned: 0,
            out: Outbox::default(),
            link,
            reused: false,
            home,
            limits: limits.clone(),
            decoder: Decoder::new(Length::None, limits),
            upload: None,
            keep: false,
            ended: false,
            left,
            slot,
        })
    }

    /// Whether it can take another request: nothing may have come that nobody asked for.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.io.is_quiet()
    }

    /// Whether it was used for as many requests as it may.
    pub(crate) fn is_spent(&self) -> bool {
        self.left == 0
    }

    pub(crate) fn home(&self) -> Home {
        self.home.clone()
    }

    /// Puts the request's head where it will be written from.
    fn begin(&mut self, order: &Order<'_>, body: RequestBody) {
        self.left = self.left.saturating_sub(1);
        self.out.begin();
        let text = self.out.text();
        h1::encode_request(
            order.head,
            &order.target,
            order.length,
            order.upgrade,
            order.trailers,
            text,
        );
        self.upload = (!body.is_end()).then(|| {
            Box::new(Upload {
                body,
                length: order.length,
                sent: 0,
                trailers: None,
            })
        });
    }

    /// Writes what is to be written and reads a response's head.
    fn poll_head(
        &mut self,
        method: &Method,
        head: &mut ResponseHead,
        wait: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ResponseFraming, Failure>> {
        match self.poll_upload(wait, cx) {
            Poll::Ready(Err(UploadError::Client(failure))) => return Poll::Ready(Err(failure)),
            // What it has to say may still be there to be read.
            Poll::Ready(Err(UploadError::Endpoint(error))) => {
                if self.out.moved() == 0 {
                    return Poll::Ready(Err(self.broken(&error)));
                }
            }
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        loop {
            if !self.read.is_empty() {
                match h1::parse_response(&self.read, &mut self.scanned, &self.limits, method, head)
                {
                    Ok(Some((taken, framing))) => {
                        self.read.advance(taken);
                        self.scanned = 0;
                        return Poll::Ready(Ok(framing));
                    }
                    Ok(None) => {}
                    Err(error) => return Poll::Ready(Err(self.invalid(&error))),
                }
            }
            if self.ended {
                let error = io::Error::from(io::ErrorKind::UnexpectedEof);
                return Poll::Ready(Err(self.broken(&error)));
            }
            match ready!(poll_fill(&mut self.io, &mut self.read, SMALL, cx)) {
                Ok(0) => self.ended = true,
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(self.broken(&error))),
            }
        }
    }

    /// Sends the request on; `wait` holds its body back.
    fn poll_upload(&mut self, wait: bool, cx: &mut Context<'_>) -> Poll<Result<(), UploadError>> {
        loop {
            let mut waits = wait;
            if let Some(upload) = &mut self.upload
                && !wait
                && self.out.has_room()
            {
                match upload.poll_piece(cx) {
                    Poll::Ready(Ok(Some(data))) => {
                        self.out.put(data, upload.length == Length::Chunked);
                        continue;
                    }
                    Poll::Ready(Ok(None)) => {
                        upload.finish(self.out.text());
                        self.upload = None;
                    }
                    Poll::Ready(Err(failure)) => {
                        return Poll::Ready(Err(UploadError::Client(failure)));
                    }
                    Poll::Pending => waits = true,
                }
            }
            if let Err(error) = ready!(self.out.poll_flush(&mut self.io, cx)) {
                self.keep = false;
                return Poll::Ready(Err(UploadError::Endpoint(error)));
            }
            if self.upload.is_none() {
                return Poll::Ready(Ok(()));
            }
            if waits {
                return Poll::Pending;
            }
        }
    }

    fn answered(mut self: Box<Self>, head: ResponseHead, framing: &ResponseFraming) -> Response {
        if framing.upgrade {
            let Self { io, read, .. } = *self;
            return Response {
                head,
                body: Incoming::Empty,
                length: Length::None,
                switched: Some(io.with_ahead(read.freeze())),
            };
        }
        self.keep = framing.keep_alive;
        self.decoder = Decoder::new(framing.length, &self.limits);
        let body = if self.decoder.is_done() && self.upload.is_none() {
            self.finish();
            Incoming::Empty
        } else {
            Incoming::Response(Box::new(Body(Some(self))))
        };
        Response {
            head,
            body,
            length: framing.length,
            switched: None,
        }
    }

    /// Gives the connection back, if another request may follow.
    fn finish(self: Box<Self>) {
        // Bytes that nobody asked for could be taken for the answer to the next request.
        let clean = self.keep && !self.ended && self.upload.is_none() && self.read.is_empty();
        if clean {
            let mut conn = self;
            spare::keep_buffer(std::mem::take(&mut conn.read));
            conn.out.rest();
            Home::give_back(conn);
        }
    }

    fn unanswered(&mut self, failure: Failure) -> Unanswered {
        let untouched = self.upload.as_ref().is_none_or(|u| u.sent == 0);
        let body = match self.upload.take() {
            Some(upload) => upload.body,
            None => RequestBody::empty(),
        };
        Unanswered {
            failure,
            body: (untouched && self.out.moved() == 0).then_some(body),
        }
    }

    /// The connection broke before the response's head was there.
    fn broken(&self, error: &io::Error) -> Failure {
        let replay = if self.out.moved() == 0 {
            Replay::Safe
        } else if self.reused && self.read.is_empty() {
            Replay::IfIdempotent
        } else {
            Replay::No
        };
        let address = self.link.address;
        let details = match error.kind() {
            io::ErrorKind::UnexpectedEof if self.read.is_empty() => {
                format!("{address} closed the connection without an answer")
            }
            io::ErrorKind::UnexpectedEof => {
                format!("{address} closed the connection in the middle of the response's head")
            }
            _ => format!("{address}: {}", crate::error::chain(error)),
        };
        Failure::new(Reason::UpstreamReset, details).replay(replay)
    }

    fn invalid(&self, error: &HeadError) -> Failure {
        let details = format!(
            "{} sent what is no HTTP response: {error}",
            self.link.address
        );
        Failure::new(Reason::UpstreamReset, details)
    }
}

impl Upload {
    /// The next piece, held to the length that was announced; `None` at the end.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Failure>> {
        let piece = if self.body.is_end() {
            None
        } else {
            ready!(self.body.poll_frame(cx)).transpose()?
        };
        match piece {
            Some(Frame::Data(data)) => {
                self.sent += data.len() as u64;
                match self.length {
                    Length::Known(n) if self.sent > n => {
                        let details = format!("the request's body is longer than its {n} bytes");
                        Poll::Ready(Err(Failure::new(Reason::BadRequest, details)))
                    }
                    _ => Poll::Ready(Ok(Some(data))),
                }
            }
            end => match self.length {
                Length::Known(n) if self.sent < n => {
                    let details = format!("after {} of {n} bytes of its request's body", self.sent);
                    Poll::Ready(Err(Failure::new(Reason::ClientDisconnected, details)))
                }
                _ => {
                    if let Some(Frame::Trailers(fields)) = end {
                        self.trailers = Some(fields);
                    }
                    Poll::Ready(Ok(None))
                }
            },
        }
    }

    /// Writes the end of the body.
    fn finish(&self, out: &mut Vec<u8>) {
        if self.length == Length::Chunked {
            h1::last_chunk(self.trailers.as_ref(), out);
        }
    }
}

impl Body {
    pub(crate) fn is_end(&self) -> bool {
        self.0.is_none()
    }

    /// Whether a good part of it is still in the socket, and nothing else has to be done meanwhile.
    pub(crate) fn may_be_spliced(&self) -> bool {
        self.0.as_ref().is_some_and(|conn| {
            conn.decoder.remaining().is_some_and(|n| n >= SPLICED)
                && conn.read.is_empty()
                && conn.upload.is_none()
                && conn.io.plain().is_some()
        })
    }

    /// Moves what is left of a piece whose length is known to `to`, without reading it.
    pub(crate) fn poll_splice(
        &mut self,
        to: &TcpStream,
        splice: &mut Option<Splice>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failure>> {
        let Some(conn) = &mut self.0 else {
            return Poll::Ready(Ok(()));
        };
        let Some(from) = conn.io.plain() else {
            return Poll::Ready(Ok(()));
        };
        let length = conn.decoder.remaining().unwrap_or(0);
        let splice = splice.get_or_insert_with(|| Splice::exact(length));
        loop {
            let address = conn.link.address;
            let broken = |why: &dyn std::fmt::Display| {
                let details =
                    format!("{address} broke off in the middle of the response's body: {why}");
                Failure::new(Reason::UpstreamReset, details)
            };
            match ready!(splice.poll(cx, from, to)) {
                Ok(Turn::Trickle) => {}
                Ok(Turn::Complete) => break,
                Ok(Turn::End) => return Poll::Ready(Err(broken(&"it ended"))),
                Err(SpliceError::Read(error)) => return Poll::Ready(Err(broken(&error))),
                Err(SpliceError::Write(error)) => {
                    let failure = Failure::new(Reason::ClientDisconnected, error.to_string());
                    return Poll::Ready(Err(failure));
                }
            }
        }
        conn.decoder.skip(length);
        if conn.decoder.is_done()
            && let Some(conn) = self.0.take()
        {
            conn.finish();
        }
        Poll::Ready(Ok(()))
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, Failure>>> {
        let Some(conn) = &mut self.0 else {
            return Poll::Ready(None);
        };
        if conn.upload.is_some() {
            match conn.poll_upload(false, cx) {
                Poll::Ready(Err(UploadError::Client(failure))) => {
                    return Poll::Ready(Some(Err(failure)));
                }
                // It has answered without reading all: so be it.
                Poll::Ready(Err(UploadError::Endpoint(_))) => conn.upload = None,
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        loop {
            let frame = match conn.decoder.decode(&mut conn.read, conn.ended) {
                Ok(Event::Data(data)) => Some(Frame::Data(data)),
                Ok(Event::Trailers(fields)) => Some(Frame::Trailers(fields)),
                Ok(Event::End) => None,
                Ok(Event::NeedMore) => {
                    let most = conn.decoder.remaining().unwrap_or(SMALL as u64);
                    let most = (most.min(LARGE as u64) as usize).max(SMALL);
                    match ready!(poll_fill(&mut conn.io, &mut conn.read, most, cx)) {
                        Ok(0) => conn.ended = true,
                        Ok(_) => {}
                        Err(error) => {
                            let details = format!(
                                "{} broke off in the middle of the response's body: {error}",
                                conn.link.address
                            );
                            return Poll::Ready(Some(Err(Failure::new(
                                Reason::UpstreamReset,
                                details,
                            ))));
                        }
                    }
                    continue;
                }
                Err(error) => {
                    let details = format!("the response's body of {}: {error}", conn.link.address);
                    return Poll::Ready(Some(Err(Failure::new(Reason::UpstreamReset, details))));
                }
            };
            if conn.decoder.is_done()
                && let Some(conn) = self.0.take()
            {
                conn.finish();
            }
            return Poll::Ready(frame.map(Ok));
        }
    }
}
