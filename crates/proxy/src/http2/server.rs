//! The server's side of HTTP/2: each stream is a task, the connection another.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::HeaderMap;
use model::Reason;
use tokio::time::Instant;
use wire::h1::Length;
use wire::{Method, RequestHead, ResponseHead};

use super::calm::{Calm, Counted};
use super::crew::{Crew, Member};
use super::tap::Tapped;
use super::watch::{Heard, News, Watch};
use super::{Body, Responder, SEND_BUFFER, STREAM_WINDOW, Side, Sink, Tunnel};
use crate::error::Failure;
use crate::http::body::{Allowance, Frame, Incoming};
use crate::http::{
    Bounds, Informer, Outgoing, Reply, Request, Service, announced, expects_continue,
};
use crate::io::Io;
use crate::record::Exchange;
use crate::reply;
use crate::spare;
use crate::worker::Worker;

/// A silence after which a client is asked whether it is still there.
const PING: Duration = Duration::from_mins(1);
/// For the answer to one.
const PONG: Duration = Duration::from_secs(20);

/// What a client may usually send on all streams together before it hears that some was taken.
pub(crate) const WINDOW: u32 = 1024 * 1024;
/// For a client without open streams to close a connection after it was told to.
const FAREWELL: Duration = Duration::from_secs(2);

/// Serves a connection until its client is done or the proxy drains.
pub(crate) async fn serve<S: Service>(
    worker: &Rc<Worker>,
    io: Io,
    bounds: &Rc<Bounds>,
    service: S,
) {
    let calm = Calm::new(bounds.pings);
    let (tap, heard) = Heard::new();
    let handshake = h2::server::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(bounds.window)
        .max_concurrent_streams(bounds.streams)
        .max_header_list_size(bounds.codec.head as u32)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(bounds.resets)
        .max_pending_accept_reset_streams(bounds.resets)
        .max_local_error_reset_streams(Some(bounds.resets))
        .enable_connect_protocol()
        .handshake::<_, Bytes>(Tapped::new(io, Counted::new(tap, &calm)));
    let mut connection = match tokio::time::timeout(bounds.head_timeout, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            tracing::debug!(%error, "an HTTP/2 connection did not begin");
            return;
        }
        Err(_) => return,
    };
    let service = Rc::new(service);
    let crew = Crew::default();
    let mut watch = Watch::new(heard, PING, PONG, || true, None);
    let mut drain = pin!(worker.shared.drain.begun());
    let mut draining = false;
    // Whether the client knows that no more requests are taken.
    let mut told = false;
    let mut idle = pin!(tokio::time::sleep(bounds.idle_timeout));
    // Whether there was a stream since the timer was set: nothing is done for it with each request,
    // so a silent connection may stay for twice the time.
    let mut busy = false;
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = connection.accept() => accepted,
            () = drain.as_mut(), if !draining => {
                draining = true;
                told = true;
                connection.graceful_shutdown();
                idle.as_mut().reset(Instant::now() + FAREWELL);
                continue;
            }
            () = calm.exceeded() => {
                // As a request that was never made: there is no other record of it.
                service.begin(RequestHead::new()).fail(&too_many(bounds.pings));
                connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
                let told = poll_fn(|cx| connection.poll_closed(cx));
                // Whether it takes that in is up to the client.
                drop(tokio::time::timeout(FAREWELL, told).await);
                return;
            }
            news = watch.news() => match (news, connection.ping_pong()) {
                (News::Unable, Some(pings)) => {
                    watch.give(pings);
                    continue;
                }
                _ => return,
            },
            () = idle.as_mut() => {
                let was_busy = std::mem::replace(&mut busy, connection.has_streams());
                let wait = if (was_busy && !told) || busy {
                    bounds.idle_timeout
                } else if told {
                    return;
                } else {
                    told = true;
                    connection.graceful_shutdown();
                    FAREWELL
                };
                idle.as_mut().reset(Instant::now() + wait);
                continue;
            }
        };
        match accepted {
            Some(Ok((request, respond))) => {
                busy = true;
                // In a box: a task is moved several times before it runs, and these are large.
                match begin(&*service, bounds, request, respond) {
                    Ok(stream) => {
                        if let Some(stream) = crew.offer(stream) {
                            let serving = serve_streams(Rc::clone(&service), crew.join(), stream);
                            tokio::task::spawn_local(Box::pin(serving));
                        }
                    }
                    Err(refused) => {
                        tokio::task::spawn_local(Box::pin(refused.tell()));
                    }
                }
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "an HTTP/2 connection ended");
                return;
            }
            None => return,
        }
    }
}

fn too_many(pings: u32) -> Failure {
    let details = format!(
        "more than {pings} PING and SETTINGS frames in a minute came on one connection; \
         maxPingsPerMinute of MeshConfig or ListenerPolicy says how many may"
    );
    Failure::new(Reason::RateLimited, details)
}

/// A request that has come, and where its response goes.
struct Stream {
    exchange: Exchange,
    request: Request,
    method: Method,
    respond: Responder,
    /// The stream's other half, for what takes it over.
    recv: Option<RecvStream>,
}

/// A request that is answered before it is served.
struct Refused {
    reply: Reply,
    method: Method,
    respond: Responder,
}

impl Refused {
    async fn tell(self: Box<Self>) {
        deliver(&self.respond, self.reply, &self.method, None).await;
    }
}

/// Reads what a request begins with.
fn begin<S: Service>(
    service: &S,
    bounds: &Bounds,
    request: http::Request<RecvStream>,
    respond: SendResponse<Bytes>,
) -> Result<Stream, Box<Refused>> {
    let (mut parts, recv) = request.into_parts();
    let mut head = spare::request_head();
    let respond: Responder = Rc::new(RefCell::new(respond));
    let read = wire::map::request_from_parts(&mut parts, &mut head)
        .map_err(|error| Failure::head(&error))
        .and_then(|()| bounds.check_head(&head))
        .and_then(|()| length(&head, &recv, bounds));
    // RFC 8441 4.
    head.protocol = parts
        .extensions
        .get::<h2::ext::Protocol>()
        .map(|protocol| protocol.as_str().to_owned());
    spare::keep_header_map(parts.headers);
    let method = parts.method;
    let length = match read {
        Ok(length) => length,
        Err(failure) => {
            let mut exchange = service.begin(head);
            exchange.fail(&failure);
            return Err(Box::new(Refused {
                reply: reply::failure(&failure, exchange.is_grpc()),
                method,
                respond,
            }));
        }
    };
    let connect = method == Method::CONNECT;
    let expects = expects_continue(&head.fields, length);
    let (body, recv) = if connect {
        (Incoming::Empty, Some(recv))
    } else if length == Length::None {
        (Incoming::Empty, None)
    } else {
        let side = Side::Request {
            waiting: expects.then(|| Rc::clone(&respond)),
            allowance: Allowance::of(bounds),
        };
        (Incoming::Stream(Box::new(Body::new(recv, side))), None)
    };
    let request = Request {
        body,
        length,
        upgrade: connect,
        trailers: head.fields.contains("te"),
        expects,
        informer: Informer::Http2(Rc::clone(&respond)),
    };
    Ok(Stream {
        exchange: service.begin(head),
        request,
        method,
        respond,
        recv,
    })
}

/// Streams one after another: to make a task for each costs more than to wake one.
async fn serve_streams<S: Service>(service: Rc<S>, mut member: Member<Stream>, first: Stream) {
    let mut next = Some(first);
    while let Some(stream) = next {
        serve_stream(&*service, stream).await;
        next = member.next().await;
    }
}

/// One request and its response.
async fn serve_stream<S: Service>(service: &S, stream: Stream) {
    let Stream {
        exchange,
        request,
        method,
        respond,
        recv,
    } = stream;
    let mut call = pin!(service.call(exchange, request));
    let reply = poll_fn(|cx| match call.as_mut().poll(cx) {
        Poll::Ready(reply) => Poll::Ready(Some(reply)),
        // The client takes its request back.
        Poll::Pending => respond.borrow_mut().poll_reset(cx).map(|_| None),
    });
    if let Some(reply) = reply.await {
        deliver(&respond, reply, &method, recv).await;
    }
}

/// Passes an interim response on.
pub(crate) fn inform(respond: &Responder, head: &ResponseHead) {
    // `100` answers an expectation, which the body's first read does by itself.
    if head.status != 100
        && let Ok(response) = wire::map::response_to_http(head, HeaderMap::new())
    {
        drop(respond.borrow_mut().send_informational(response));
    }
}

fn length(head: &RequestHead, recv: &RecvStream, bounds: &Bounds) -> Result<Length, Failure> {
    if recv.is_end_stream() {
        return Ok(Length::None);
    }
    // h2 holds the data to what is announced (RFC 9113 8.1.1).
    let Some(announced) = announced(&head.fields) else {
        return Ok(Length::Chunked);
    };
    bounds.check_length(announced)?;
    Ok(Length::Known(announced))
}

/// Writes a reply; `recv` is the stream's other half, for what takes it over.
async fn deliver(respond: &Responder, mut reply: Reply, method: &Method, recv: Option<RecvStream>) {
    if matches!(reply.body, Outgoing::Reset) {
        respond.borrow_mut().send_reset(h2::Reason::INTERNAL_ERROR);
        return;
    }
    let takeover = reply.takeover.take();
    let bodiless = reply.length_for(method) == Length::None || reply.body.is_end();
    let ended = takeover.is_none() && bodiless;
    let map = spare::header_map(&mut reply.head.fields);
    let Ok(response) = wire::map::response_to_http(&reply.head, map) else {
        respond.borrow_mut().send_reset(h2::Reason::INTERNAL_ERROR);
        return;
    };
    spare::keep_response_head(reply.head);
    let sent = respond.borrow_mut().send_response(response, ended);
    let Ok(stream) = sent else { return };
    if let (Some(takeover), Some(recv)) = (takeover, recv) {
        return takeover(Io::from(Tunnel::new(recv, stream, None))).await;
    }
    if ended {
        return;
    }
    let mut sink = Sink::new(stream);
    poll_fn(|cx| poll_body(&mut reply.body, &mut sink, cx)).await;
}

/// Sends what is left of a reply's body.
fn poll_body(body: &mut Outgoing, sink: &mut Sink, cx: &mut Context<'_>) -> Poll<()> {
    loop {
        let last = body.is_end();
        if !sink.left.is_empty() {
            if ready!(sink.poll_send(last, cx)).is_err() || last {
                return Poll::Ready(());
            }
            continue;
        }
        // What it returns when the stream is gone already changes nothing.
        match body.poll_frame(cx) {
            Poll::Ready(Some(Ok(Frame::Data(data)))) => sink.offer(data),
            Poll::Ready(Some(Ok(Frame::Trailers(fields)))) => {
                let map = wire::map::map_from_trailers(fields);
                drop(sink.outlet.stream.send_trailers(map));
                return Poll::Ready(());
            }
            Poll::Ready(Some(Err(_))) => {
                sink.outlet.stream.send_reset(h2::Reason::INTERNAL_ERROR);
                return Poll::Ready(());
            }
            Poll::Ready(None) => {
                drop(sink.outlet.stream.send_data(Bytes::new(), true));
                return Poll::Ready(());
            }
            Poll::Pending => return sink.outlet.stream.poll_reset(cx).map(drop),
        }
    }
}
