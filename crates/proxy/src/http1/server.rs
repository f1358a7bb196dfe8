//! The server's side of an HTTP/1 connection: requests one after another, each answered before the
//! next is looked at, however many the client has sent ahead (RFC 9112 9.3.2).

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use model::Reason;
use net::splice::Splice;
use net::tcp::Stream as _;
use tokio::io::AsyncWrite;
use wire::h1::{self, Decoder, Event, Length, RequestFraming};
use wire::{Method, RequestHead, ResponseHead, Version};

use super::{Outbox, poll_fill};
use crate::error::Failure;
use crate::http::body::{Frame, Incoming};
use crate::http::{Bounds, Informer, Outgoing, Reply, Request, Service, Takeover};
use crate::http2::upgrade::{self, Offer};
use crate::io::Io;
use crate::reply;
use crate::spare::{self, LARGE, SMALL};
use crate::timer::{Deadline, Lull};
use crate::worker::Worker;

/// For a client that is told something and may not have read it yet.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes of a request that nobody wants, read so that the connection can be kept or the client can
/// read its answer.
const UNWANTED: usize = 256 * 1024;
/// A busy connection that was silent for so long, or for up to twice as long, gives back the room for
/// a request; making it anew for each would cost more than reading one.
const BUSY: Duration = Duration::from_secs(1);
/// For the first request of a connection that came as the proxy began to drain.
const LATE: Duration = Duration::from_secs(1);

/// A connection; shared with the body of the request that it is on.
pub(crate) struct Conn(RefCell<State>);

struct State {
    /// Gone when something else has taken it over.
    io: Option<Io>,
    read: BytesMut,
    /// The client has ended its side.
    ended: bool,
    body: Decoder,
    /// Bytes of the body that were handed out.
    taken: u64,
    /// The client waits for `100 Continue`.
    owes_continue: bool,
    version: Version,
    out: Outbox,
    deadline: Deadline,
    bounds: Rc<Bounds>,
}

enum Next {
    Request,
    /// No request has come for a while.
    Rest,
    Close,
    /// Close, but let the client read what it was told (RFC 9112 9.6).
    Linger,
    Takeover(Takeover),
    /// The client goes on in HTTP/2.
    Http2(Box<Offer>),
}

/// Serves a connection until its client is done or the proxy drains.
pub(crate) async fn serve<S: Service>(
    worker: &Rc<Worker>,
    io: Io,
    bounds: &Rc<Bounds>,
    service: S,
) {
    let conn = Rc::new(Conn::new(io, bounds));
    let mut drain = pin!(worker.shared.drain.begun());
    let mut fresh = true;
    // Whether another request may follow soon: not after the first, nor after a silence.
    let mut busy = false;
    while conn.idle(drain.as_mut(), fresh).await {
        fresh = false;
        // In a box of its own: an idle connection should not have room for a request.
        match Box::pin(requests(worker, &conn, &service, drain.as_mut(), busy)).await {
            Next::Request => {
                busy = true;
                conn.settle(Duration::ZERO);
            }
            Next::Rest => {
                busy = false;
                conn.settle(conn.patience());
            }
            Next::Close => return,
            Next::Linger => return conn.linger().await,
            Next::Takeover(takeover) => {
                if let Some(io) = conn.take_io() {
                    takeover(io).await;
                }
                return;
            }
            Next::Http2(offer) => {
                if let Some(io) = conn.take_io() {
                    // In a box: see `http::serve`.
                    Box::pin(upgrade::serve(worker, io, bounds, service, offer)).await;
                }
                return;
            }
        }
    }
}

/// A request and its response; if the connection is `busy`, others for as long as they follow one
/// another.
async fn requests<S: Service>(
    worker: &Rc<Worker>,
    conn: &Rc<Conn>,
    service: &S,
    mut drain: Pin<&mut impl Future<Output = ()>>,
    busy: bool,
) -> Next {
    let mut lull = busy.then(|| Lull::of(conn.patience()));
    loop {
        match exchange(worker, conn, service).await {
            Next::Request => conn.rest(),
            other => return other,
        }
        let Some(lull) = &mut lull else {
            return Next::Request;
        };
        lull.busy();
        let waited = poll_fn(|cx| {
            if let Poll::Ready(next) = conn.poll_idle(cx) {
                return Poll::Ready(next);
            }
            if drain.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Next::Close);
            }
            lull.poll(cx).map(|()| Next::Rest)
        });
        match waited.await {
            Next::Request => {}
            other => return other,
        }
    }
}

/// One request and its response.
async fn exchange<S: Service>(worker: &Rc<Worker>, conn: &Rc<Conn>, service: &S) -> Next {
    let mut head = spare::request_head();
    let framing = match conn.read_head(&mut head).await {
        Ok(Some(framing)) => framing,
        Ok(None) => return Next::Close,
        Err(failure) => {
            service.begin(head).fail(&failure);
            let reply = reply::failure(&failure, false);
            conn.respond(reply, &Method::GET, false).await;
            return Next::Linger;
        }
    };
    if framing.h2c {
        let settings = upgrade::take_settings(&mut head.fields);
        if conn.is_clear() && !worker.draining.get() {
            return Next::Http2(Box::new(Offer {
                head,
                settings,
                trailers: framing.te_trailers,
            }));
        }
    }
    let method = head.method.clone();
    let request = Request {
        body: match framing.length {
            Length::None => Incoming::Empty,
            _ => Incoming::Request(Rc::clone(conn)),
        },
        length: framing.length,
        upgrade: framing.upgrade || method == Method::CONNECT,
        trailers: framing.te_trailers,
        expects: framing.expect_continue && framing.length != Length::None,
        informer: Informer::Http1(Rc::clone(conn)),
    };
    let exchange = service.begin(head);
    let mut call = pin!(service.call(exchange, request));
    let reply = poll_fn(|cx| match call.as_mut().poll(cx) {
        Poll::Ready(reply) => Poll::Ready(Some(reply)),
        Poll::Pending => conn.poll_gone(cx).map(|()| None),
    });
    match reply.await {
        Some(reply) => {
            let keep = framing.keep_alive && !worker.draining.get();
            conn.respond(reply, &method, keep).await
        }
        None => Next::Close,
    }
}

impl Conn {
    fn new(mut io: Io, bounds: &Rc<Bounds>) -> Self {
        Self(RefCell::new(State {
            read: BytesMut::from(io.take_ahead()),
            io: Some(io),
            ended: false,
            body: Decoder::new(Length::None, &bounds.codec),
            taken: 0,
            owes_continue: false,
            version: Version::HTTP_11,
            out: Outbox::default(),
            deadline: Deadline::after(bounds.idle_timeout),
            bounds: Rc::clone(bounds),
        }))
    }

    /// Waits for the next request. `false`: there will be none.
    async fn idle(&self, mut drain: Pin<&mut impl Future<Output = ()>>, mut fresh: bool) -> bool {
        poll_fn(|cx| {
            if let Poll::Ready(next) = self.poll_idle(cx) {
                return Poll::Ready(matches!(next, Next::Request));
            }
            let deadline = &mut self.0.borrow_mut().deadline;
            if drain.as_mut().poll(cx).is_ready() {
                if !std::mem::take(&mut fresh) {
                    return Poll::Ready(false);
                }
                deadline.set(LATE);
            }
            deadline.poll(cx).map(|()| false)
        })
        .await
    }

    /// Ready when a request begins to come, or when there will be none.
    fn poll_idle(&self, cx: &mut Context<'_>) -> Poll<Next> {
        let state = &mut *self.0.borrow_mut();
        if !state.read.is_empty() {
            return Poll::Ready(Next::Request);
        }
        let Some(io) = state.io.as_mut().filter(|_| !state.ended) else {
            return Poll::Ready(Next::Close);
        };
        let readable = ready!(io.poll_readable(cx));
        Poll::Ready(readable.map_or(Next::Close, |()| Next::Request))
    }

    /// Reads a request's head. `None`: the client left.
    async fn read_head(&self, head: &mut RequestHead) -> Result<Option<RequestFraming>, Failure> {
        let mut scanned = 0;
        let mut begun = false;
        poll_fn(|cx| {
            let state = &mut *self.0.borrow_mut();
            loop {
                if !state.read.is_empty() {
                    let parsed =
                        h1::parse_request(&state.read, &mut scanned, &state.bounds.codec, head);
                    match parsed {
                        Ok(Some((taken, framing))) => {
                            return Poll::Ready(state.begin_body(head, taken, framing).map(Some));
                        }
                        Ok(None) => {}
                        Err(error) => return Poll::Ready(Err(Failure::head(&error))),
                    }
                    if !begun {
                        begun = true;
                        state.deadline.set(state.bounds.head_timeout);
                    }
                }
                let Some(io) = state.io.as_mut().filter(|_| !state.ended) else {
                    return Poll::Ready(Ok(None));
                };
                match poll_fill(io, &mut state.read, SMALL, cx) {
                    Poll::Ready(Ok(0)) => state.ended = true,
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(Ok(None)),
                    Poll::Pending => {
                        ready!(state.deadline.poll(cx));
                        let limit = state.bounds.head_timeout;
                        return Poll::Ready(if begun {
                            Err(Failure::too_slow(format!(
                                "the request's head was not complete within {limit:?}"
                            )))
                        } else {
                            Ok(None)
                        });
                    }
                }
            }
        })
        .await
    }

    /// Whether the request's body was read to its end.
    pub(crate) fn body_ended(&self) -> bool {
        self.0.borrow().body.is_done()
    }

    /// The next piece of the request's body.
    pub(crate) fn poll_body(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Failure>>> {
        let state = &mut *self.0.borrow_mut();
        if state.owes_continue {
            state.owes_continue = false;
            // RFC 9110 10.1.1: not when the body has begun to arrive.
            if state.read.is_empty() && state.out.has_room() {
                state
                    .out
                    .text()
                    .extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
        }
        let Some(io) = state.io.as_mut() else {
            return Poll::Ready(Some(Err(gone())));
        };
        if !state.out.is_empty() && matches!(state.out.poll_flush(io, cx), Poll::Ready(Err(_))) {
            return Poll::Ready(Some(Err(gone())));
        }
        loop {
            match state.body.decode(&mut state.read, state.ended) {
                Ok(Event::Data(data)) => {
                    state.taken += data.len() as u64;
                    if state.bounds.body.is_some_and(|most| state.taken > most) {
                        let details = "the request's body is longer than allowed";
                        let failure = Failure::new(Reason::BodyTooLarge, details);
                        return Poll::Ready(Some(Err(failure)));
                    }
                    return Poll::Ready(Some(Ok(Frame::Data(data))));
                }
                Ok(Event::Trailers(fields)) => {
                    state.deadline.clear();
                    return Poll::Ready(Some(Ok(Frame::Trailers(fields))));
                }
                Ok(Event::End) => {
                    state.deadline.clear();
                    return Poll::Ready(None);
                }
                Ok(Event::NeedMore) => {}
                Err(error) => return Poll::Ready(Some(Err(Failure::request_body(&error)))),
            }
            let most = state
                .body
                .remaining()
                .map_or(SMALL, |n| n.min(LARGE as u64) as usize);
            match poll_fill(io, &mut state.read, most.max(SMALL), cx) {
                Poll::Ready(Ok(0)) => state.ended = true,
                Poll::Ready(Ok(_)) => state.deadline.set(state.bounds.body_timeout),
                Poll::Ready(Err(_)) => return Poll::Ready(Some(Err(gone()))),
                Poll::Pending => {
                    ready!(state.deadline.poll(cx));
                    let limit = state.bounds.body_timeout;
                    return Poll::Ready(Some(Err(Failure::too_slow(format!(
                        "nothing of the request's body came for {limit:?}"
                    )))));
                }
            }
        }
    }

    /// Ready when the client has broken the connection. One that has only ended its side still
    /// reads; one that sends further requests ahead is not read beyond what is bounded.
    fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        let state = &mut *self.0.borrow_mut();
        let Some(io) = state.io.as_mut() else {
            return Poll::Ready(());
        };
        while state.body.is_done() && !state.ended && state.read.len() < SMALL {
            if ready!(io.poll_readable(cx)).is_err() {
                return Poll::Ready(());
            }
            match ready!(poll_fill(io, &mut state.read, SMALL, cx)) {
                Ok(0) => state.ended = true,
                Ok(_) => {}
                Err(_) => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    /// Passes an interim response on.
    pub(crate) async fn inform(&self, head: &ResponseHead) {
        {
            let state = &mut *self.0.borrow_mut();
            let wanted = head.status != 100 || std::mem::take(&mut state.owes_continue);
            // RFC 9110 15.2: not to HTTP/1.0.
            if !wanted || state.version != Version::HTTP_11 || !state.out.has_room() {
                return;
            }
            h1::encode_response(head, state.version, Length::None, true, state.out.text());
        }
        poll_fn(|cx| {
            let state = &mut *self.0.borrow_mut();
            match state.io.as_mut() {
                Some(io) => state.out.poll_flush(io, cx).map(drop),
                None => Poll::Ready(()),
            }
        })
        .await;
    }

    /// Writes a reply.
    async fn respond(&self, mut reply: Reply, method: &Method, keep: bool) -> Next {
        if matches!(reply.body, Outgoing::Reset) {
            return Next::Close;
        }
        let takeover = reply.takeover.take();
        let mut ended = takeover.is_some() || reply.body.is_end();
        let (chunked, keep) = {
            let state = &mut *self.0.borrow_mut();
            let length = match (reply.length_for(method), state.version) {
                _ if takeover.is_some() => Length::None,
                (Length::Chunked | Length::UntilClose, _) if ended => Length::Known(0),
                (Length::Chunked | Length::UntilClose, Version::HTTP_11) => Length::Chunked,
                (Length::Chunked | Length::UntilClose, _) => Length::UntilClose,
                (length, _) => length,
            };
            let keep = keep && length != Length::UntilClose && state.has_the_request();
            // RFC 9110 15.2: nothing interim comes after the final head has begun.
            state.owes_continue = false;
            state.deadline.clear();
            h1::encode_response(
                &reply.head,
                state.version,
                length,
                keep || takeover.is_some(),
                state.out.text(),
            );
            (length == Length::Chunked, keep)
        };
        spare::keep_response_head(reply.head);
        let body = &mut reply.body;
        let mut splice = None;
        let whole =
            poll_fn(|cx| self.poll_respond(body, chunked, &mut ended, &mut splice, cx)).await;
        match takeover {
            _ if !whole => Next::Close,
            Some(takeover) => Next::Takeover(takeover),
            None if keep && self.0.borrow_mut().skip_the_request() => Next::Request,
            None => Next::Linger,
        }
    }

    /// Writes what is left of a reply; `ended` says that its end is among what waits to be written.
    /// `false`: it could not be written whole.
    fn poll_respond(
        &self,
        body: &mut Outgoing,
        chunked: bool,
        ended: &mut bool,
        splice: &mut Option<Splice>,
        cx: &mut Context<'_>,
    ) -> Poll<bool> {
        loop {
            if !chunked && (splice.is_some() || body.may_be_spliced()) && self.may_splice() {
                if ready!(self.poll_splice(body, splice, cx)) {
                    continue;
                }
                return Poll::Ready(false);
            }
            let mut waits = false;
            if !*ended && self.0.borrow().out.has_room() {
                // Not while the state is borrowed: a body may be driven together with the request's.
                let frame = if body.is_end() {
                    Poll::Ready(None)
                } else {
                    body.poll_frame(cx)
                };
                let out = &mut self.0.borrow_mut().out;
                match frame {
                    Poll::Ready(Some(Ok(Frame::Data(data)))) => {
                        out.put(data, chunked);
                        continue;
                    }
                    Poll::Ready(Some(Err(_))) => return Poll::Ready(false),
                    Poll::Pending => waits = true,
                    Poll::Ready(end) => {
                        *ended = true;
                        if chunked {
                            let trailers = match &end {
                                Some(Ok(Frame::Trailers(fields))) => Some(fields),
                                _ => None,
                            };
                            h1::last_chunk(trailers, out.text());
                        }
                    }
                }
            }
            if !ready!(self.poll_out(cx)) {
                return Poll::Ready(false);
            }
            if *ended {
                return Poll::Ready(true);
            }
            if waits {
                return self.poll_gone(cx).map(|()| false);
            }
        }
    }

    /// Whether the socket is free to be spliced into.
    fn may_splice(&self) -> bool {
        let state = &*self.0.borrow();
        state.out.is_empty() && state.io.as_ref().is_some_and(|io| io.plain().is_some())
    }

    /// Lets the kernel move a piece of a body. `false`: the client is gone, or reads nothing.
    fn poll_splice(
        &self,
        body: &mut Outgoing,
        splice: &mut Option<Splice>,
        cx: &mut Context<'_>,
    ) -> Poll<bool> {
        let state = &mut *self.0.borrow_mut();
        let Some(to) = state.io.as_ref().and_then(|io| io.plain()) else {
            return Poll::Ready(false);
        };
        let before = splice.as_ref().map_or(0, Splice::moved);
        match body.poll_splice(to, splice, cx) {
            Poll::Ready(result) => {
                state.deadline.clear();
                Poll::Ready(result.is_ok())
            }
            Poll::Pending => {
                let moved = splice.as_ref().map_or(0, Splice::moved);
                if state.deadline.is_clear() || before != moved {
                    state.deadline.set(state.bounds.body_timeout);
                }
                state.deadline.poll(cx).map(|()| false)
            }
        }
    }

    /// Writes out what waits. `false`: the client is gone, or reads nothing.
    fn poll_out(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let state = &mut *self.0.borrow_mut();
        let Some(io) = state.io.as_mut() else {
            return Poll::Ready(false);
        };
        let before = state.out.moved();
        match state.out.poll_flush(io, cx) {
            Poll::Ready(result) => {
                state.deadline.clear();
                Poll::Ready(result.is_ok())
            }
            Poll::Pending => {
                if state.deadline.is_clear() || before != state.out.moved() {
                    state.deadline.set(state.bounds.body_timeout);
                }
                state.deadline.poll(cx).map(|()| false)
            }
        }
    }

    /// Lets go of memory before the next request is waited for.
    fn rest(&self) {
        let state = &mut *self.0.borrow_mut();
        state.out.rest();
        if state.read.is_empty() {
            spare::keep_buffer(std::mem::take(&mut state.read));
        }
    }

    /// For how long it counts as busy after a request.
    fn patience(&self) -> Duration {
        BUSY.min(self.0.borrow().bounds.idle_timeout)
    }

    /// Begins to wait for the next request, when it has been `silent` for so long already.
    fn settle(&self, silent: Duration) {
        let state = &mut *self.0.borrow_mut();
        let left = state.bounds.idle_timeout.saturating_sub(silent);
        state.deadline.set(left);
    }

    /// Ends our side and reads on for a moment: data that arrives at a closed socket would make the
    /// kernel take back what the client has not read yet.
    async fn linger(&self) {
        self.0.borrow_mut().deadline.set(LINGER);
        let mut taken = 0;
        let mut shut = false;
        poll_fn(|cx| {
            let state = &mut *self.0.borrow_mut();
            let Some(io) = state.io.as_mut() else {
                return Poll::Ready(());
            };
            if !shut {
                match Pin::new(&mut *io).poll_shutdown(cx) {
                    Poll::Ready(Ok(())) => shut = true,
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => return state.deadline.poll(cx),
                }
            }
            while taken < UNWANTED && !state.ended {
                state.read.clear();
                match poll_fill(io, &mut state.read, SMALL, cx) {
                    Poll::Ready(Ok(n)) if n > 0 => taken += n,
                    Poll::Ready(_) => break,
                    Poll::Pending => return state.deadline.poll(cx),
                }
            }
            Poll::Ready(())
        })
        .await;
    }

    /// Whether it is no more than TCP: over TLS a client asks for HTTP/2 as it begins (RFC 9113 3.2).
    fn is_clear(&self) -> bool {
        let state = &*self.0.borrow();
        state.io.as_ref().is_some_and(|io| io.plain().is_some())
    }

    fn take_io(&self) -> Option<Io> {
        let state = &mut *self.0.borrow_mut();
        let ahead = std::mem::take(&mut state.read).freeze();
        Some(state.io.take()?.with_ahead(ahead))
    }
}

impl State {
    fn begin_body(
        &mut self,
        head: &RequestHead,
        taken: usize,
        framing: RequestFraming,
    ) -> Result<RequestFraming, Failure> {
        self.read.advance(taken);
        self.version = head.version;
        self.body = Decoder::new(framing.length, &self.bounds.codec);
        self.taken = 0;
        self.owes_continue = framing.expect_continue && !self.body.is_done();
        if self.body.is_done() {
            self.deadline.clear();
        } else {
            self.deadline.set(self.bounds.body_timeout);
        }
        if let Length::Known(announced) = framing.length {
            self.bounds.check_length(announced)?;
        }
        Ok(framing)
    }

    /// Whether all of the request has arrived. Nothing is taken out: while it is being answered it
    /// may still be on its way to the endpoint.
    fn has_the_request(&self) -> bool {
        let (mut body, mut read) = (self.body.clone(), BytesMut::new());
        if !body.is_done() {
            read.extend_from_slice(&self.read);
        }
        while !body.is_done() {
            match body.decode(&mut read, self.ended) {
                Ok(Event::Data(_)) => {}
                Ok(Event::Trailers(_) | Event::End) => return true,
                Ok(Event::NeedMore) | Err(_) => return false,
            }
        }
        true
    }

    /// Skips what has arrived of the request. Whether nothing of it is left to read.
    fn skip_the_request(&mut self) -> bool {
        while !self.body.is_done() {
            match self.body.decode(&mut self.read, self.ended) {
                Ok(Event::Data(_)) => {}
                Ok(Event::Trailers(_) | Event::End) => return true,
                Ok(Event::NeedMore) | Err(_) => return false,
            }
        }
        true
    }
}

fn gone() -> Failure {
    Failure::new(
        Reason::ClientDisconnected,
        "before its request was complete",
    )
}

/// What a connection holds while nothing is asked of it, and what a request adds.
#[cfg(test)]
pub(crate) fn sizes<S: Service>(worker: &Rc<Worker>, io: Io, service: S) -> (usize, usize) {
    let conn = Rc::new(Conn::new(io, &worker.bounds()));
    let drain = pin!(std::future::pending());
    let under_way = size_of_val(&requests(worker, &conn, &service, drain, true));
    let io = conn.take_io().expect("not taken over");
    let at_rest = size_of_val(&serve(worker, io, &worker.bounds(), service)) + size_of::<State>();
    (at_rest, under_way)
}
