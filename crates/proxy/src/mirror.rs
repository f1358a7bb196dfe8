//! Copies of requests for others to see (`RequestMirror`).
//!
//! A copy is a request of its own: it picks an endpoint, is counted and logged, and its span is a
//! child of the one that it was copied from. Nobody waits for it, and its response is read and thrown
//! away. Its body comes as the original's is read; where its endpoint is too slow for that, the copy
//! breaks off, never the original.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use model::route::{Rule, Target};
use model::{Reason, ServiceName, retry};

use crate::error::Failure;
use crate::forward;
use crate::http::body::{Frame, Incoming};
use crate::http::{Informer, Request};
use crate::outbound::{self, Served, Way};
use crate::record::Exchange;
use crate::worker::Worker;

/// Copies under way in one worker; requests beyond have none.
const AT_ONCE: usize = 1024;
/// Bytes of a body that wait for a copy's endpoint.
const WAITING: usize = 256 * 1024;
/// For a copy from its begin to the end of its response.
const PATIENCE: Duration = Duration::from_mins(1);

/// Sends copies of a request where the rules that took it say. What asks for another protocol is not
/// copied.
pub(crate) fn start(
    worker: &Rc<Worker>,
    exchange: &Exchange,
    request: &mut Request,
    way: &Way<'_>,
) {
    if request.upgrade {
        return;
    }
    let mut feeds = Vec::new();
    for mirror in &way.mirrors {
        // A reference that leads nowhere stands in the status of its route.
        let Target::Service { name, port } = &mirror.target else {
            continue;
        };
        let place = Rc::clone(&worker.copies);
        if Rc::strong_count(&place) > AT_ONCE + 1 {
            worker.shared.copies_dropped.inc();
            continue;
        }
        let body = if request.body.is_end() {
            Incoming::Empty
        } else {
            let feed = Feed::default();
            feeds.push(feed.clone());
            Incoming::Copy(Box::new(Copy(feed)))
        };
        let copy = Order {
            exchange: exchange.copy(),
            request: Request {
                body,
                length: request.length,
                upgrade: false,
                trailers: request.trailers,
                expects: false,
                informer: Informer::Nobody,
            },
            name: name.clone(),
            port: *port,
            authority: way.authority.clone(),
            path: way.path.clone(),
            rule: bounds(way.rule),
        };
        let worker = Rc::clone(worker);
        tokio::task::spawn_local(async move {
            // Dropped unfinished, it is recorded as what it is.
            drop(tokio::time::timeout(PATIENCE, Box::pin(copy.send(&worker))).await);
            drop(place);
        });
    }
    if !feeds.is_empty() {
        let incoming = std::mem::replace(&mut request.body, Incoming::Empty);
        request.body = Incoming::Copied(Box::new(Copied { incoming, feeds }));
    }
}

/// A copy to be sent.
struct Order {
    exchange: Exchange,
    request: Request,
    name: ServiceName,
    port: u16,
    authority: Option<String>,
    path: Option<String>,
    rule: Rule,
}

/// A rule for copies: the time that the original's allows, and no further try.
fn bounds(of: Option<&Rule>) -> Rule {
    Rule {
        name: None,
        matches: Vec::new(),
        filters: Vec::new(),
        backends: Vec::new(),
        timeouts: of.map(|rule| rule.timeouts).unwrap_or_default(),
        retry: Some(retry::Policy {
            attempts: 0,
            ..retry::Policy::default()
        }),
        session: None,
    }
}

impl Order {
    async fn send(mut self, worker: &Rc<Worker>) {
        let way = Way::under(&self.rule, self.authority.take(), self.path.take());
        let sent = async {
            let backend = outbound::service(worker, &self.name).await?;
            let exchange = &mut self.exchange;
            exchange.set_destination(&backend.host);
            outbound::send(worker, exchange, self.request, way, &backend, self.port).await
        };
        let mut body = match sent.await {
            Ok(Served::Answer(answer)) => forward::deliver(self.exchange, answer).body,
            Ok(Served::Reply(reply)) => reply.body,
            Err(failure) => return self.exchange.fail(&failure),
        };
        while let Some(Ok(_)) = poll_fn(|cx| body.poll_frame(cx)).await {}
    }
}

/// A request's body as it is read, and those who get a copy of each piece.
pub(crate) struct Copied {
    incoming: Incoming,
    feeds: Vec<Feed>,
}

impl Copied {
    pub(crate) fn is_end(&self) -> bool {
        self.incoming.is_end()
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, Failure>>> {
        let polled = self.incoming.poll_frame(cx);
        if let Poll::Ready(frame) = &polled {
            for feed in &self.feeds {
                feed.push(frame.as_ref());
            }
            if self.incoming.is_end() {
                self.feeds.iter().for_each(|feed| feed.push(None));
            }
        }
        polled
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        // Without effect where the body has ended.
        for feed in &self.feeds {
            feed.close(End::Broken("was not read to its end"));
        }
    }
}

/// The body of a copy.
pub(crate) struct Copy(Feed);

impl Copy {
    pub(crate) fn is_end(&self) -> bool {
        let feed = self.0.0.borrow();
        feed.frames.is_empty() && matches!(feed.end, Some(End::Whole))
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, Failure>>> {
        let mut feed = self.0.0.borrow_mut();
        if let Some(frame) = feed.frames.pop_front() {
            if let Frame::Data(data) = &frame {
                feed.bytes -= data.len();
            }
            return Poll::Ready(Some(Ok(frame)));
        }
        let failure = match feed.end {
            Some(End::Whole) => return Poll::Ready(None),
            Some(End::Broken(how)) => {
                let details = format!("the request that it was copied from {how}");
                Failure::new(Reason::ClientDisconnected, details)
            }
            Some(End::TooSlow) => {
                let details = "a copy of a request: its endpoint takes the body too slowly";
                Failure::new(Reason::Overloaded, details)
            }
            None => {
                feed.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
        };
        Poll::Ready(Some(Err(failure)))
    }
}

/// What a copy has still to read.
#[derive(Clone, Default)]
struct Feed(Rc<RefCell<Waiting>>);

#[derive(Default)]
struct Waiting {
    frames: VecDeque<Frame>,
    bytes: usize,
    /// Nothing more comes.
    end: Option<End>,
    reader: Option<Waker>,
}

#[derive(Clone, Copy)]
enum End {
    Whole,
    /// The original did not come to its end.
    Broken(&'static str),
    /// More waits than may.
    TooSlow,
}

impl Feed {
    /// What the original's body said.
    fn push(&self, frame: Option<&Result<Frame, Failure>>) {
        match frame {
            Some(Ok(frame)) => self.add(frame),
            Some(Err(_)) => self.close(End::Broken("broke off")),
            None => self.close(End::Whole),
        }
    }

    fn add(&self, frame: &Frame) {
        let mut feed = self.0.borrow_mut();
        if feed.end.is_some() {
            return;
        }
        let copy = match frame {
            Frame::Data(data) => {
                feed.bytes += data.len();
                Frame::Data(data.clone())
            }
            Frame::Trailers(fields) => Frame::Trailers(fields.clone()),
        };
        if feed.bytes > WAITING {
            feed.frames.clear();
            drop(feed);
            return self.close(End::TooSlow);
        }
        feed.frames.push_back(copy);
        let last = matches!(frame, Frame::Trailers(_));
        feed.end = last.then_some(End::Whole);
        wake(&mut feed);
    }

    fn close(&self, end: End) {
        let mut feed = self.0.borrow_mut();
        if feed.end.is_none() {
            feed.end = Some(end);
            wake(&mut feed);
        }
    }
}

fn wake(feed: &mut Waiting) {
    if let Some(reader) = feed.reader.take() {
        reader.wake();
    }
}
