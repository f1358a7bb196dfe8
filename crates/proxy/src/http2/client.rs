//! The client's side of HTTP/2: one connection for many requests.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, Method};
use model::Reason;
use wire::Scheme;
use wire::h1::Length;

use super::tap::Tapped;
use super::watch::{Heard, News, Settings, Watch};
use super::{Body, SEND_BUFFER, STREAM_WINDOW, Side, Sink, Tunnel};
use crate::error::{self, Failure, Replay};
use crate::http::body::{Frame, Incoming, RequestBody};
use crate::http::websocket;
use crate::http::{Informer, announced};
use crate::http1::client::{Order, Response, Unanswered};
use crate::io::Io;
use crate::pool::{Link, Slot};
use crate::spare;

/// A silence on a connection in use after which an endpoint is asked whether it is still there, and for
/// its answer.
const PING: Duration = Duration::from_secs(30);
const PONG: Duration = Duration::from_secs(10);
/// Streams that practically every peer allows.
const USUAL: usize = 32;
/// Streams on one connection, however many the peer would take; for more there is another one.
pub(crate) const MOST: usize = 100;
/// What a peer may send on a connection before it hears that some was taken: as much as all streams
/// may hold together, so that one that nobody reads from stops no other.
pub(crate) const WINDOW: u32 = MOST as u32 * STREAM_WINDOW;
/// Most bytes of a response's head.
const HEAD: u32 = 64 * 1024;

/// A connection, for as many requests as the peer takes at once.
#[derive(Clone)]
pub(crate) struct Handle {
    send: SendRequest<Bytes>,
    pub(crate) link: Rc<Link>,
    closed: Rc<Cell<bool>>,
    settings: Rc<Settings>,
    /// Streams on it, however many the peer would take.
    most: usize,
    /// Requests that it may still be used for.
    left: Rc<Cell<u32>>,
}

impl Handle {
    /// Whether a request may be sent on it: it is open and the peer allows one more stream.
    pub(crate) fn has_room(&self) -> bool {
        // Asking h2 takes a lock; few peers allow less than this.
        let streams = self.streams();
        !self.closed.get()
            && !self.is_spent()
            && streams <= self.most
            && (streams <= USUAL || streams <= self.send.current_max_send_streams())
    }

    /// The same connection, for so many requests altogether.
    pub(crate) fn for_requests(self, most: u32) -> Self {
        self.left.set(most);
        self
    }

    /// Whether it was used for as many requests as it may.
    pub(crate) fn is_spent(&self) -> bool {
        self.left.get() == 0
    }

    /// Set, it lets no further request on the connection, whoever has a handle.
    pub(crate) fn closed(&self) -> Rc<Cell<bool>> {
        Rc::clone(&self.closed)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// How many requests are on it: each holds the link, and so does the pool.
    pub(crate) fn streams(&self) -> usize {
        Rc::strong_count(&self.link)
    }

    pub(crate) fn is_used(&self) -> bool {
        self.streams() > 1
    }
}

/// Begins a connection for `most` streams; its driver runs on the current thread until it closes.
pub(crate) async fn handshake(
    io: Io,
    link: Link,
    slot: Option<Slot>,
    most: usize,
) -> Result<Handle, Failure> {
    let (tap, heard) = Heard::new();
    let handshake = h2::client::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_header_list_size(HEAD)
        .max_send_buffer_size(SEND_BUFFER)
        .enable_push(false)
        .handshake::<_, Bytes>(Tapped::new(io, tap));
    let (send, mut connection) = handshake
        .await
        .map_err(|error| failure(&error, &link).replay(Replay::Safe))?;
    let closed = Rc::new(Cell::new(false));
    let (flag, link) = (Rc::clone(&closed), Rc::new(link));
    let settings = Rc::new(Settings::default());
    let pinged = Rc::clone(&settings);
    let watched = Rc::downgrade(&link);
    tokio::task::spawn_local(async move {
        let _slot = slot;
        // Only while somebody waits for something.
        let wanted = || watched.strong_count() > 1;
        let known = Rc::clone(&pinged);
        let mut watch = Watch::new(heard, PING, PONG, wanted, Some(known));
        loop {
            tokio::select! {
                biased;
                result = &mut connection => {
                    if let Err(error) = result {
                        tracing::debug!(%error, "connection to an endpoint ended");
                    }
                    break;
                }
                news = watch.news() => if let (News::Unable, Some(pings)) = (news, connection.ping_pong()) { watch.give(pings) } else {
                    tracing::debug!("an endpoint does not answer pings");
                    break;
                },
            }
        }
        flag.set(true);
        // Whoever still waits finds the connection closed.
        pinged.have_come();
    });
    Ok(Handle {
        send,
        link,
        closed,
        settings,
        most,
        left: Rc::new(Cell::new(u32::MAX)),
    })
}

/// A request's body on its way out.
pub(crate) struct Upload {
    sink: Sink,
    body: RequestBody,
}

/// Why a body could not be sent on.
pub(crate) enum UploadError {
    /// The client's doing.
    Client(Failure),
    /// The endpoint takes no more; it may have answered all the same.
    Endpoint,
}

impl Upload {
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UploadError>> {
        loop {
            let last = self.body.is_end();
            if !self.sink.left.is_empty() {
                ready!(self.sink.poll_send(last, cx)).map_err(|_| UploadError::Endpoint)?;
                if last {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            let frame = if last {
                None
            } else {
                ready!(self.body.poll_frame(cx))
            };
            match frame {
                Some(Ok(Frame::Data(data))) => self.sink.offer(data),
                Some(Ok(Frame::Trailers(fields))) => {
                    let map = wire::map::map_from_trailers(fields);
                    let sent = self.sink.outlet.stream.send_trailers(map);
                    return Poll::Ready(sent.map_err(|_| UploadError::Endpoint));
                }
                Some(Err(failure)) => {
                    self.sink.outlet.stream.send_reset(h2::Reason::CANCEL);
                    return Poll::Ready(Err(UploadError::Client(failure)));
                }
                None => {
                    let sent = self.sink.outlet.stream.send_data(Bytes::new(), true);
                    return Poll::Ready(sent.map_err(|_| UploadError::Endpoint));
                }
            }
        }
    }
}

/// Sends a request, its fields in `map`, and reads the head of its response.
pub(crate) async fn send(
    handle: Handle,
    order: &Order<'_>,
    map: HeaderMap,
    body: RequestBody,
    informer: &Informer,
) -> Result<Response, Unanswered> {
    let Handle {
        mut send,
        link,
        closed,
        settings,
        left,
        ..
    } = handle;
    left.set(left.get().saturating_sub(1));
    drop(left);
    let asked = order.upgrade.then(|| websocket::Asked::of(order.head));
    let websocket = asked.flatten();
    if websocket.is_some() {
        settings.known().await;
        if !closed.get() && !send.is_extended_connect_protocol_enabled() {
            return Err(Unanswered {
                failure: no_websocket(&link),
                body: Some(body),
            });
        }
    }
    let tunnel = websocket.is_some() || order.head.method == Method::CONNECT;
    let ended = !tunnel && body.is_end();
    let begun = begin(&mut send, order, map, websocket.is_some(), ended, &link);
    let (mut response, stream) = match begun {
        Ok(begun) => begun,
        Err(failure) => {
            return Err(Unanswered {
                body: (failure.replay == Replay::Safe).then_some(body),
                failure,
            });
        }
    };
    if tunnel {
        let mut response = connect(response, stream, link).await?;
        if let Some(websocket) = websocket {
            websocket.read(&mut response);
        }
        return Ok(response);
    }
    let mut upload = (!ended).then(|| {
        Box::new(Upload {
            sink: Sink::new(stream),
            body,
        })
    });
    // Nothing can have come before the first look: to ask for interim responses costs as much as to ask
    // for the final one.
    let mut fresh = true;
    let answered = loop {
        let look = |cx: &mut Context<'_>| {
            let fresh = std::mem::take(&mut fresh);
            poll_head(&mut upload, &mut response, fresh, cx)
        };
        match poll_fn(look).await {
            Ok(Progress::Interim(mut parts)) => {
                let mut head = spare::response_head();
                if wire::map::response_from_parts(&mut parts, &mut head).is_ok() {
                    informer.inform(&head).await;
                }
            }
            Ok(Progress::Final(answered)) => break answered,
            Err(HeadFailure::Client(failure)) => {
                return Err(Unanswered {
                    failure,
                    body: None,
                });
            }
            Err(HeadFailure::Endpoint(error)) => {
                return Err(Unanswered {
                    failure: failure(&error, &link),
                    body: None,
                });
            }
        }
    };
    let (mut parts, recv) = answered.into_parts();
    let mut head = spare::response_head();
    let read = wire::map::response_from_parts(&mut parts, &mut head);
    spare::keep_header_map(parts.headers);
    if let Err(error) = read {
        let details = format!("{} sent what is no HTTP response: {error}", link.address);
        return Err(Unanswered {
            failure: Failure::new(Reason::UpstreamReset, details),
            body: None,
        });
    }
    let ended = recv.is_end_stream();
    let length = match announced(&head.fields) {
        Some(n) => Length::Known(n),
        None if ended => Length::Known(0),
        None => Length::Chunked,
    };
    let body = if ended && upload.is_none() {
        Incoming::Empty
    } else {
        let mut body = Body::new(recv, Side::Response { upload, link });
        body.ended = ended;
        Incoming::Stream(Box::new(body))
    };
    Ok(Response {
        head,
        body,
        length,
        switched: None,
    })
}

/// Sends a request's head.
fn begin(
    send: &mut SendRequest<Bytes>,
    order: &Order<'_>,
    map: HeaderMap,
    websocket: bool,
    ended: bool,
    link: &Link,
) -> Result<(ResponseFuture, SendStream<Bytes>), Failure> {
    let mut request = wire::map::request_to_http(order.head, &order.target, Scheme::Http, map)
        .map_err(|error| {
            let details = format!("the request cannot be sent over HTTP/2: {error}");
            Failure::new(Reason::BadRequest, details)
        })?;
    if order.trailers {
        let trailers = http::HeaderValue::from_static("trailers");
        request.headers_mut().insert(http::header::TE, trailers);
    }
    if websocket {
        websocket::Asked::write(&mut request);
    }
    send.send_request(request, ended)
        .map_err(|error| failure(&error, link).replay(Replay::Safe))
}

/// CONNECT: with a 2xx the stream carries bytes from then on.
async fn connect(
    response: ResponseFuture,
    stream: SendStream<Bytes>,
    link: Rc<Link>,
) -> Result<Response, Unanswered> {
    let unanswered = |failure| Unanswered {
        failure,
        body: None,
    };
    let answered = response
        .await
        .map_err(|error| unanswered(failure(&error, &link)))?;
    let (mut parts, recv) = answered.into_parts();
    let mut head = spare::response_head();
    wire::map::response_from_parts(&mut parts, &mut head).map_err(|error| {
        let details = format!("{} sent what is no HTTP response: {error}", link.address);
        unanswered(Failure::new(Reason::UpstreamReset, details))
    })?;
    if parts.status.is_success() {
        return Ok(Response {
            head,
            body: Incoming::Empty,
            length: Length::None,
            switched: Some(Tunnel::new(recv, stream, Some(link)).into()),
        });
    }
    Ok(Response {
        head,
        body: Incoming::Stream(Box::new(Body::new(
            recv,
            Side::Response { upload: None, link },
        ))),
        length: Length::Chunked,
        switched: None,
    })
}

enum Progress {
    Interim(http::response::Parts),
    Final(http::Response<h2::RecvStream>),
}

enum HeadFailure {
    Client(Failure),
    Endpoint(h2::Error),
}

fn poll_head(
    upload: &mut Option<Box<Upload>>,
    response: &mut ResponseFuture,
    fresh: bool,
    cx: &mut Context<'_>,
) -> Poll<Result<Progress, HeadFailure>> {
    if let Some(sending) = upload {
        match sending.poll(cx) {
            Poll::Ready(Err(UploadError::Client(failure))) => {
                return Poll::Ready(Err(HeadFailure::Client(failure)));
            }
            // What it has to say may be on its way.
            Poll::Ready(_) => *upload = None,
            Poll::Pending => {}
        }
    }
    if !fresh && let Poll::Ready(Some(Ok(interim))) = response.poll_informational(cx) {
        return Poll::Ready(Ok(Progress::Interim(interim.into_parts().0)));
    }
    match ready!(Pin::new(response).poll(cx)) {
        Ok(answered) => Poll::Ready(Ok(Progress::Final(answered))),
        Err(error) => Poll::Ready(Err(HeadFailure::Endpoint(error))),
    }
}

/// RFC 8441 3: extended CONNECT is for those who announce it.
fn no_websocket(link: &Link) -> Failure {
    let details = format!(
        "{} speaks HTTP/2 and does not announce extended CONNECT (RFC 8441), so it takes no WebSocket; if it takes them over HTTP/1.1, declare its port with appProtocol http",
        link.address
    );
    Failure {
        own_status: Some(502),
        // Whoever asks often must not have the endpoint ejected.
        side: error::Side::Internal,
        ..Failure::new(Reason::ConnectRefused, details)
    }
}

/// What went wrong before the response's head was there.
fn failure(error: &h2::Error, link: &Link) -> Failure {
    // RFC 9113 8.7: a stream refused, or beyond the last one that a GOAWAY names, was not processed.
    let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM)
        || (error.is_go_away()
            && error.is_remote()
            && error.reason() == Some(h2::Reason::NO_ERROR));
    let replay = if refused { Replay::Safe } else { Replay::No };
    let details = format!("{}: {}", link.address, crate::error::chain(error));
    Failure::new(Reason::UpstreamReset, details).replay(replay)
}
