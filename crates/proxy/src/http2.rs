//! HTTP/2 connections: framing, flow control and HPACK are `h2`'s; here streams become requests and
//! replies. Data is asked for only when the other side has taken what came before, so that each
//! stream runs at the pace of its slower end.

mod calm;
pub(crate) mod client;
mod crew;
pub(crate) mod server;

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::{Ping, PingPong, RecvStream, SendStream};
use http::{Response, StatusCode};
use model::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use crate::error::Failure;
use crate::http::body::{Allowance, Frame};
use crate::pool::Link;

/// What a peer may send on one stream before it hears that some was taken.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Data held for a peer that does not take it, for each stream.
const SEND_BUFFER: usize = 256 * 1024;
/// Most bytes of one write to a tunnel.
const MAX_TUNNEL_WRITE: usize = 64 * 1024;

type Responder = Rc<RefCell<h2::server::SendResponse<Bytes>>>;

/// A body on its way in: of a request, or of a response together with its request's body on the way
/// out.
pub(crate) struct Body {
    stream: RecvStream,
    side: Side,
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
    pub(crate) fn is_end(&self) -> bool {
        self.ended || self.stream.is_end_stream()
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
                    // What is handed out is written before more is asked for.
                    drop(self.stream.flow_control().release_capacity(data.len()));
                    if let Side::Request { allowance, .. } = &mut self.side
                        && let Err(failure) = allowance.take(data.len())
                    {
                        return Poll::Ready(Some(Err(failure)));
                    }
                    if !data.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::Data(data))));
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

/// Returns when the peer no longer answers: one that vanished without a word is noticed so. It is asked
/// `every` so often, while `wanted`, and at once for who waits for its `settings`, and has so much
/// `patience` to answer.
async fn vanished(
    pings: Option<PingPong>,
    every: Duration,
    patience: Duration,
    wanted: impl Fn() -> bool,
    settings: Option<&Settings>,
) {
    let Some(mut pings) = pings else {
        return std::future::pending().await;
    };
    loop {
        let asked = async {
            match settings {
                Some(settings) => settings.asked.notified().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = tokio::time::sleep(every) => {
                if !wanted() {
                    continue;
                }
            }
            () = asked => {}
        }
        let pong = pings.ping(Ping::opaque());
        if !matches!(tokio::time::timeout(patience, pong).await, Ok(Ok(_))) {
            return;
        }
        if let Some(settings) = settings {
            settings.have_come();
        }
    }
}

/// Whether a server's first SETTINGS have come, which `h2` does not say: they come before the answer
/// to any ping (RFC 9113 3.4).
#[derive(Default)]
struct Settings {
    asked: Notify,
    known: Cell<bool>,
    came: Notify,
}

impl Settings {
    async fn known(&self) {
        if !self.known.get() {
            self.asked.notify_one();
            self.came.notified().await;
        }
    }

    fn have_come(&self) {
        self.known.set(true);
        self.came.notify_waiters();
    }
}

/// Data on its way out on one stream.
struct Sink {
    stream: SendStream<Bytes>,
    left: Bytes,
}

impl Sink {
    fn new(stream: SendStream<Bytes>) -> Self {
        Self {
            stream,
            left: Bytes::new(),
        }
    }

    fn offer(&mut self, data: Bytes) {
        self.stream.reserve_capacity(data.len());
        self.left = data;
    }

    /// Hands over what the peer's window takes; `last` says that nothing follows it.
    fn poll_send(&mut self, last: bool, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        while !self.left.is_empty() {
            let room = match self.stream.capacity() {
                0 => match ready!(self.stream.poll_capacity(cx)) {
                    Some(room) => room?,
                    None => return Poll::Ready(Err(h2::Reason::CANCEL.into())),
                },
                room => room,
            };
            let part = self.left.split_to(room.min(self.left.len()));
            let end = last && self.left.is_empty();
            if !part.is_empty() {
                self.stream.send_data(part, end)?;
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// A stream that carries bytes, after CONNECT.
pub(crate) struct Tunnel {
    recv: RecvStream,
    ahead: Bytes,
    send: SendStream<Bytes>,
    /// Counts the stream towards its connection.
    _link: Option<Rc<Link>>,
}

impl Tunnel {
    fn new(recv: RecvStream, send: SendStream<Bytes>, link: Option<Rc<Link>>) -> Self {
        Self {
            recv,
            ahead: Bytes::new(),
            send,
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
        self.send.reserve_capacity(wanted);
        loop {
            match self.send.capacity() {
                0 => match ready!(self.send.poll_capacity(cx)) {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Poll::Ready(Err(to_io(error))),
                    None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                },
                room => return Poll::Ready(Ok(room.min(wanted))),
            }
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
            this.send.send_data(data.freeze(), false).map_err(to_io)?;
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
        Poll::Ready(
            self.get_mut()
                .send
                .send_data(Bytes::new(), true)
                .map_err(to_io),
        )
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
