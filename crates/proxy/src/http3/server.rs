//! The server's side of HTTP/3: each stream is a task, the connection another.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h3::error::{Code, StreamError};
use h3::server::{RequestResolver, RequestStream};
use model::Reason;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use wire::h1::{HeadError, Length, Part};
use wire::{Method, RequestHead};

use super::body::Body;
use super::endpoint;
use super::interim::Interims;
use super::transport::{Beside, Connection, SendStream, Shared, Stopped};
use crate::error::Failure;
use crate::http::body::{Frame, Incoming};
use crate::http::{
    Bounds, Informer, Outgoing, Reply, Request, Service, announced, expects_continue,
};
use crate::reply;
use crate::spare;
use crate::worker::Worker;

/// For a client without open streams to close a connection after it was told to.
const FAREWELL: Duration = Duration::from_secs(2);
/// Data written at once: a client that takes less than this in the time that a body may rest has
/// stopped reading.
const PIECE: usize = 16 * 1024;

type Responder = RequestStream<SendStream, Bytes>;

/// Serves a connection until its client is done, `gone` says that its listener is, or the proxy
/// drains.
pub(crate) async fn serve<S: Service, T>(
    worker: &Rc<Worker>,
    connection: endpoint::Connection<T>,
    bounds: &Rc<Bounds>,
    service: S,
    gone: &CancellationToken,
) {
    let shared = Rc::<Shared>::default();
    // What is encoded is seldom longer than what it says. A head within this bound that says too much
    // is answered with 431 by the engine.
    let limit = bounds.codec.head.saturating_mul(2);
    let quic = Connection::new(connection.quic, &shared, limit);
    let mut builder = h3::server::builder();
    builder
        .max_field_section_size(bounds.codec.head as u64)
        .send_grease(false);
    let built = timeout(bounds.head_timeout, builder.build(quic));
    let Ok(Ok(mut connection)) = built.await else {
        return;
    };
    let service = Rc::new(service);
    // Their responses end with the connection.
    let mut streams = JoinSet::new();
    let mut drain = pin!(worker.shared.drain.begun());
    // Whether the client knows that no more requests are taken.
    let mut told = false;
    let mut idle = pin!(tokio::time::sleep(bounds.idle_timeout));
    loop {
        let farewell = tokio::select! {
            biased;
            accepted = connection.accept() => match accepted {
                Ok(Some(resolver)) => {
                    let Some(beside) = shared.beside() else { return };
                    let (service, bounds) = (Rc::clone(&service), Rc::clone(bounds));
                    streams.spawn_local(async move {
                        stream(&*service, &bounds, resolver, beside).await;
                    });
                    false
                }
                Ok(None) => return farewell(connection).await,
                Err(error) => {
                    tracing::debug!(%error, "an HTTP/3 connection ended");
                    return;
                }
            },
            Some(_) = streams.join_next() => {
                let rest = if told { FAREWELL } else { bounds.idle_timeout };
                idle.as_mut().reset(Instant::now() + rest);
                false
            }
            () = drain.as_mut(), if !told => true,
            () = gone.cancelled(), if !told => true,
            () = idle.as_mut() => {
                if streams.is_empty() && told {
                    return farewell(connection).await;
                }
                idle.as_mut().reset(Instant::now() + bounds.idle_timeout);
                streams.is_empty()
            }
        };
        if farewell {
            told = true;
            // RFC 9114 5.2: the first stream that will not be served.
            let served = usize::from(shared.close() > 0);
            if connection.shutdown(served).await.is_err() {
                return;
            }
            idle.as_mut().reset(Instant::now() + FAREWELL);
        }
    }
}

/// Closes a connection, and has that written before the proxy perhaps ends.
async fn farewell<C>(connection: C) {
    drop(connection);
    for _ in 0..2 {
        tokio::task::yield_now().await;
    }
}

/// One request and its response.
async fn stream<S: Service>(
    service: &S,
    bounds: &Bounds,
    resolver: RequestResolver<Connection, Bytes>,
    beside: Beside,
) {
    let mut resolving = Box::pin(resolver.resolve_request());
    let resolved = timeout(bounds.head_timeout, &mut resolving).await;
    let (request, stream) = match resolved {
        Ok(Ok(resolved)) => resolved,
        Ok(Err(StreamError::HeaderTooBig { .. })) => {
            // The engine has answered.
            let failure = Failure::head(&HeadError::TooLarge(Part::Fields));
            service.begin(spare::request_head()).fail(&failure);
            return;
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "an HTTP/3 request cannot be read");
            return;
        }
        Err(_) => {
            beside.breaks.set(true);
            return;
        }
    };
    drop(resolving);
    beside.breaks.set(true);
    let (mut send, recv) = stream.split();
    let (mut parts, ()) = request.into_parts();
    let mut body = Body::new(recv, bounds);
    let mut head = spare::request_head();
    let read = wire::map::request_from_parts(&mut parts, &mut head)
        .map_err(|error| Failure::head(&error))
        .and_then(|()| within(&head, bounds));
    let read = match read {
        Ok(()) => length(&head, &mut body, bounds).await,
        Err(failure) => Err(failure),
    };
    let method = parts.method;
    let mut stopped = beside.stopped;
    let length = match read {
        Ok(length) => length,
        Err(failure) => {
            let mut exchange = service.begin(head);
            exchange.fail(&failure);
            let reply = reply::failure(&failure, exchange.is_grpc());
            drop(body);
            deliver(&mut send, &mut stopped, reply, &method, bounds).await;
            return;
        }
    };
    let interims = Rc::<Interims>::default();
    let expects = expects_continue(&head.fields, length);
    if expects {
        body.expect(&interims);
    }
    let request = Request {
        body: match length {
            Length::None => Incoming::Empty,
            _ => Incoming::Http3(Box::new(body)),
        },
        length,
        upgrade: false,
        trailers: head.fields.contains("te"),
        expects,
        informer: Informer::Http3(Rc::clone(&interims)),
    };
    let exchange = service.begin(head);
    let mut call = pin!(service.call(exchange, request));
    let reply = loop {
        let event = poll_fn(|cx| {
            if let Some(interim) = interims.take(cx) {
                return Poll::Ready(Some(Event::Interim(interim)));
            }
            match call.as_mut().poll(cx) {
                Poll::Ready(reply) => Poll::Ready(Some(Event::Reply(Box::new(reply)))),
                // The client takes its request back.
                Poll::Pending => stopped.as_mut().poll(cx).map(|()| None),
            }
        });
        match event.await {
            Some(Event::Reply(reply)) => break *reply,
            Some(Event::Interim(head)) => {
                if send.send_response(head).await.is_err() {
                    return;
                }
            }
            None => return,
        }
    };
    // Those that came together with the reply.
    while let Some(head) = interims.pop() {
        if send.send_response(head).await.is_err() {
            return;
        }
    }
    deliver(&mut send, &mut stopped, reply, &method, bounds).await;
}

/// What comes of a request that is being answered.
enum Event {
    Interim(http::Response<()>),
    Reply(Box<Reply>),
}

/// What cannot be served.
fn within(head: &RequestHead, bounds: &Bounds) -> Result<(), Failure> {
    bounds.check_head(head)?;
    if head.method == Method::CONNECT {
        let text = "CONNECT is not served over HTTP/3; use HTTP/2 or HTTP/1.1";
        return Err(Failure {
            own_status: Some(501),
            ..Failure::new(Reason::BadRequest, text)
        });
    }
    Ok(())
}

/// What is known of a body's length.
///
/// Whether there is a body at all is said by the end of the stream alone, which may come after the
/// head. Towards HTTP/1 that is the difference between a request with and one without a body, so with
/// methods that seldom have one the proxy waits to see; others may be long in coming (gRPC).
async fn length(head: &RequestHead, body: &mut Body, bounds: &Bounds) -> Result<Length, Failure> {
    if let Some(announced) = announced(&head.fields) {
        body.announce(announced);
        bounds.check_length(announced)?;
        return Ok(Length::Known(announced));
    }
    let bare = matches!(
        head.method,
        Method::GET | Method::HEAD | Method::DELETE | Method::OPTIONS | Method::TRACE
    );
    match timeout(bounds.head_timeout, body.is_none(bare)).await {
        Ok(true) => Ok(Length::None),
        Ok(false) => Ok(Length::Chunked),
        Err(_) => Err(Failure::too_slow(
            "the request's stream was neither continued nor ended".to_owned(),
        )),
    }
}

/// Writes a reply.
async fn deliver(
    send: &mut Responder,
    stopped: &mut Stopped,
    mut reply: Reply,
    method: &Method,
    bounds: &Bounds,
) {
    if matches!(reply.body, Outgoing::Reset) {
        send.stop_stream(Code::H3_INTERNAL_ERROR);
        return;
    }
    let bodiless = reply.length_for(method) == Length::None || reply.body.is_end();
    let map = spare::header_map(&mut reply.head.fields);
    let Ok(response) = wire::map::response_to_http(&reply.head, map) else {
        return;
    };
    spare::keep_response_head(reply.head);
    // What is dropped unfinished is reset; that a client is gone changes nothing else.
    if let Err(error) = send.send_response(response).await {
        tracing::debug!(%error, "an HTTP/3 response cannot be sent");
        return;
    }
    if bodiless || send_body(send, stopped, &mut reply.body, bounds).await {
        drop(send.finish().await);
    }
}

/// Sends a reply's body; whether all of it was.
async fn send_body(
    send: &mut Responder,
    stopped: &mut Stopped,
    body: &mut Outgoing,
    bounds: &Bounds,
) -> bool {
    loop {
        let next = poll_fn(|cx| match body.poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(Some(frame)),
            Poll::Pending => stopped.as_mut().poll(cx).map(|()| None),
        });
        match next.await {
            Some(Some(Ok(Frame::Data(mut data)))) => {
                while !data.is_empty() {
                    let piece = data.split_to(data.len().min(PIECE));
                    let sent = timeout(bounds.body_timeout, send.send_data(piece));
                    match sent.await {
                        Ok(Ok(())) => {}
                        Ok(Err(_)) => return false,
                        Err(_) => {
                            send.stop_stream(Code::H3_REQUEST_CANCELLED);
                            return false;
                        }
                    }
                }
            }
            Some(Some(Ok(Frame::Trailers(fields)))) => {
                let trailers = wire::map::map_from_trailers(fields);
                return send.send_trailers(trailers).await.is_ok();
            }
            Some(None) => return true,
            Some(Some(Err(_))) | None => return false,
        }
    }
}
