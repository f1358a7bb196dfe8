//! HTTP/2 connections: framing, flow control and HPACK are `h2`'s; here streams become requests and
//! replies. Data is asked for only when the other side has taken what came before, so that each
//! stream runs at the pace of its slower end.

mod calm;
pub(crate) mod client;
mod crew;
mod frame;
pub(crate) mod server;
mod tap;
pub(crate) mod upgrade;
mod watch;

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::{RecvStream, SendStream};
use http::{Response, StatusCode};
use model::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::error::Failure;
use crate::http::body::{Allowance, Frame};
use crate::pool::Link;

/// What a peer may send on one stream before it hears that some was taken.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Data held for a peer that does not take it, for each stream.
const SEND_BUFFER: usize = 256 * 1024;
/// Bytes of one stream that are handed over without asking whether the peer's window has room for them.
const AHEAD: usize = 4 * 1024;
/// Most bytes of one write to a tunnel.
const MAX_TUNNEL_WRITE: usize = 64 * 1024;

type Responder = Rc<RefCell<h2::server::SendResponse<Bytes>>>;

/// A body on its way in: of a request, or of a response together with its request's body on the way
/// out.
pub(crate) struct Body {
    stream: RecvStream,
    side: Side,
    /// Whether it is known that nothing follows: to ask takes a lock, so it is asked when data has come.
    ended: bool,
}

enum Side {
    /// Of a request.
    Request {
        /// The client waits for `100 Continue`.
        waiting: Option<Responder>,
        allowance: Allowance,
    },
    /// Of a response; the stream counts towards its connection for as long as the link is held.
    Response {
        upload: Option<Box<client::Upload>>,
        link: Rc<Link>,
    },
}

impl Body {
    fn new(stream: RecvStream, side: Side) -> Self {
        Self {
            stream,
            side,
            ended: false,
        }
    }

    pub(crate) fn is_end(&self) -> bool {
        self.ended
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, Failure>>> {
        match &mut self.side {
            Side::Request { waiting, .. } => {
                if let Some(respond) = waiting.take() {
                    let mut head = Response::new(());
                    *head.status_mut() = StatusCode::CONTINUE;
                    // A client that is gone is noticed by reading from it.
                    drop(respond.borrow_mut().send_informational(head));
                }
            }
            Side::Response { upload, .. } => {
                if let Some(sending) = upload {
                    match sending.poll(cx) {
                        Poll::Ready(Err(client::UploadError::Client(failure))) => {
                            return Poll::Ready(Some(Err(failure)));
                        }
                        // It has answered without reading all: so be it.
                        Poll::Ready(_) => *upload = None,
                        Poll::Pending => {}
                    }
                }
            }
        }
        if self.ended {
            return Poll::Ready(None);
        }
        loop {
            let polled = self.stream.poll_data(cx);
            if polled.is_pending()
                && let Side::Request { allowance, .. } = &mut self.side
            {
                return allowance.poll_late(cx).map(|failure| Some(Err(failure)));
            }
            match ready!(polled) {
                Some(Ok(data)) => {
                    self.ended = self.stream.is_end_stream();
                    // What is handed out is written before more is asked for. The window of a stream that
                    // has ended is released with it.
                    if !self.ended {
                        drop(self.stream.flow_control().release_capacity(data.len()));
                    }
                    if let Side::Request { allowance, .. } = &mut self.side
                        && let Err(failure) = allowance.take(data.len())
                    {
                        return Poll::Ready(Some(Err(failure)));
                    }
                    if !data.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::Data(data))));
                    }
                    if self.ended {
                        return Poll::Ready(None);
                    }
                }
                Some(Err(error)) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(self.broken(&error))));
                }
                None => break,
            }
        }
        match ready!(self.stream.poll_trailers(cx)) {
            Ok(trailers) => {
                self.ended = true;
                let fields = trailers.map(wire::map::trailers_from_map);
                Poll::Ready(fields.map(|fields| Ok(Frame::Trailers(fields))))
            }
            Err(error) => {
                self.ended = true;
                Poll::Ready(Some(Err(self.broken(&error))))
            }
        }
    }

    fn broken(&self, error: &h2::Error) -> Failure {
        match &self.side {
            Side::Request { .. } => Failure::new(
                Reason::ClientDisconnected,
                format!("before its request was complete: {error}"),
            ),
            Side::Response { link, .. } => Failure::new(
                Reason::UpstreamReset,
                format!(
                    "{} broke off in the middle of the response's body: {error}",
                    link.address
                ),
            ),
        }
    }
}

/// The way out on one stream, at the pace of the peer's window.
struct Outlet {
    stream: SendStream<Bytes>,
    /// Bytes handed over since the window was last asked. To ask costs as much as to send, and most
    /// messages are small; so it is asked only now and then.
    unasked: usize,
}

impl Outlet {
    fn new(stream: SendStream<Bytes>) -> Self {
        Self { stream, unasked: 0 }
    }

    /// How many of `wanted` bytes, not 0, may be sent now. `None`: the peer takes no more.
    fn poll_room(
        &mut self,
        wanted: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<usize, h2::Error>>> {
        if self.unasked + wanted <= AHEAD {
            self.unasked += wanted;
            return Poll::Ready(Some(Ok(wanted)));
        }
        self.stream.reserve_capacity(wanted);
        loop {
            match self.stream.capacity() {
                0 => match ready!(self.stream.poll_capacity(cx)) {
                    Some(Ok(_)) => {}
                    ended => return Poll::Ready(ended),
                },
                room => {
                    self.unasked = 0;
                    return Poll::Ready(Some(Ok(room.min(wanted))));
                }
            }
        }
    }

    fn send(&mut self, data: Bytes, last: bool) -> Result<(), h2::Error> {
        self.stream.send_data(data, last)
    }
}

/// Data on its way out on one stream.
struct Sink {
    outlet: Outlet,
    left: Bytes,
}

impl Sink {
    fn new(stream: SendStream<Bytes>) -> Self {
        Self {
            outlet: Outlet::new(stream),
            left: Bytes::new(),
        }
    }

    fn offer(&mut self, data: Bytes) {
        self.left = data;
    }

    /// Hands over what the peer's window takes; `last` says that nothing follows it.
    fn poll_send(&mut self, last: bool, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        while !self.left.is_empty() {
            let room = match ready!(self.outlet.poll_room(self.left.len(), cx)) {
                Some(room) => room?,
                None => return Poll::Ready(Err(h2::Reason::CANCEL.into())),
            };
            let part = if room == self.left.len() {
                std::mem::take(&mut self.left)
            } else {
                self.left.split_to(room)
            };
            self.outlet.send(part, last && self.left.is_empty())?;
        }
        Poll::Ready(Ok(()))
    }
}

/// A stream that carries bytes, after CONNECT.
pub(crate) struct Tunnel {
    recv: RecvStream,
    ahead: Bytes,
    send: Outlet,
    /// Counts the stream towards its connection.
    _link: Option<Rc<Link>>,
}

impl Tunnel {
    fn new(recv: RecvStream, send: SendStream<Bytes>, link: Option<Rc<Link>>) -> Self {
        Self {
            recv,
            ahead: Bytes::new(),
            send: Outlet::new(send),
            _link: link,
        }
    }

    /// Waits until something has come, or the end.
    pub(crate) fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.ahead.is_empty() {
            match ready!(self.recv.poll_data(cx)) {
                Some(Ok(data)) => self.ahead = data,
                Some(Err(error)) => return Poll::Ready(Err(to_io(error))),
                None => break,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// How many of `wanted` bytes the peer takes now.
    fn poll_room(&mut self, wanted: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let wanted = wanted.min(MAX_TUNNEL_WRITE);
        if wanted == 0 {
            return Poll::Ready(Ok(0));
        }
        match ready!(self.send.poll_room(wanted, cx)) {
            Some(room) => Poll::Ready(room.map_err(to_io)),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_ahead(cx))?;
        let n = this.ahead.len().min(buf.remaining());
        if n == 0 {
            return Poll::Ready(Ok(()));
        }
        // Holds nothing once all is taken: it is a part of what the whole connection reads into.
        buf.put_slice(&this.ahead.split_to(n));
        this.recv
            .flow_control()
            .release_capacity(n)
            .map_err(to_io)?;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let all = bufs.iter().map(|buf| buf.len()).sum();
        let mut room = ready!(this.poll_room(all, cx))?;
        let mut data = BytesMut::with_capacity(room);
        for buf in bufs {
            let part = &buf[..room.min(buf.len())];
            data.extend_from_slice(part);
            room -= part.len();
        }
        let n = data.len();
        if n > 0 {
            this.send.send(data.freeze(), false).map_err(to_io)?;
        }
        Poll::Ready(Ok(n))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's own driver writes.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.get_mut().send.send(Bytes::new(), true).map_err(to_io))
    }
}

fn to_io(error: h2::Error) -> io::Error {
    match error.reason() {
        // Ends without a fault.
        Some(h2::Reason::NO_ERROR | h2::Reason::CANCEL) => io::ErrorKind::BrokenPipe.into(),
        _ if error.is_io() => io::ErrorKind::ConnectionReset.into(),
        _ => io::Error::other(error),
    }
}
