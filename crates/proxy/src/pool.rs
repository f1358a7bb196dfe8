//! Connections to endpoints, kept for the next request. One pool per worker: no locks.
//!
//! Keyed by endpoint, port and wire form. HTTP/1 connections are handed out one request at a time,
//! the most recently used first, so that surplus ones grow old and are closed; an HTTP/2
//! connection is shared by as many streams as its peer allows.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use hyper::client::conn::{http1, http2};

use crate::body::RequestBody;
use crate::destination::Endpoint;

/// HTTP/1 connections kept for one endpoint, whatever happened before.
const IDLE_LIMIT: usize = 256;
/// Streams on one HTTP/2 connection before another is opened: hyper's default of what a peer
/// allows before its SETTINGS arrive.
const STREAMS: usize = 100;

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Wire {
    Http1,
    Http2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    endpoint: u64,
    port: u16,
    wire: Wire,
}

/// The connections of one worker.
#[derive(Default)]
pub(crate) struct Pool(RefCell<HashMap<Key, Entry>>);

struct Entry {
    /// Gone when the endpoint has left every configuration: its connections then go too.
    endpoint: Weak<Endpoint>,
    idle_timeout: Option<Duration>,
    h1: Vec<Idle>,
    h2: Vec<Shared>,
}

struct Idle {
    sender: http1::SendRequest<RequestBody>,
    link: Rc<Link>,
    since: Instant,
}

struct Shared {
    sender: http2::SendRequest<RequestBody>,
    link: Rc<Link>,
    used: Instant,
}

/// What is known of a connection for the log.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) address: std::net::SocketAddr,
    pub(crate) mtls: bool,
    pub(crate) group: &'static str,
}

/// A connection lent to one request.
pub(crate) struct Lease {
    pub(crate) sender: Sender,
    pub(crate) link: Rc<Link>,
    /// Whether it served a request before: it may have been closed by the peer meanwhile.
    pub(crate) reused: bool,
    key: Key,
    pool: Rc<Pool>,
}

pub(crate) enum Sender {
    Http1(http1::SendRequest<RequestBody>),
    Http2(http2::SendRequest<RequestBody>),
}

impl Pool {
    /// A connection that is ready now, if there is one.
    pub(crate) fn checkout(
        self: &Rc<Self>,
        endpoint: &Arc<Endpoint>,
        port: u16,
        wire: Wire,
    ) -> Option<Lease> {
        let key = Key {
            endpoint: endpoint.id,
            port,
            wire,
        };
        let mut entries = self.0.borrow_mut();
        let entry = entries.get_mut(&key)?;
        let (sender, link) = match wire {
            Wire::Http1 => entry.take_h1()?,
            Wire::Http2 => entry.share_h2()?,
        };
        Some(Lease {
            sender,
            link,
            reused: true,
            key,
            pool: Rc::clone(self),
        })
    }

    /// Takes in a new connection and lends it out.
    pub(crate) fn admit(
        self: &Rc<Self>,
        endpoint: &Arc<Endpoint>,
        port: u16,
        sender: Sender,
        link: Link,
        idle_timeout: Option<Duration>,
    ) -> Lease {
        let wire = match sender {
            Sender::Http1(_) => Wire::Http1,
            Sender::Http2(_) => Wire::Http2,
        };
        let key = Key {
            endpoint: endpoint.id,
            port,
            wire,
        };
        let link = Rc::new(link);
        let mut entries = self.0.borrow_mut();
        let entry = entries.entry(key).or_insert_with(|| Entry {
            endpoint: Arc::downgrade(endpoint),
            idle_timeout,
            h1: Vec::new(),
            h2: Vec::new(),
        });
        entry.idle_timeout = idle_timeout;
        if let Sender::Http2(sender) = &sender {
            entry.h2.push(Shared {
                sender: sender.clone(),
                link: Rc::clone(&link),
                used: Instant::now(),
            });
        }
        drop(entries);
        Lease {
            sender,
            link,
            reused: false,
            key,
            pool: Rc::clone(self),
        }
    }

    /// Closes what is closed, unused for too long, or leads to an endpoint that is gone.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        self.0.borrow_mut().retain(|_, entry| {
            if entry.endpoint.strong_count() == 0 {
                return false;
            }
            let fresh = |since: Instant| {
                entry
                    .idle_timeout
                    .is_none_or(|limit| now.duration_since(since) < limit)
            };
            entry
                .h1
                .retain(|idle| !idle.sender.is_closed() && fresh(idle.since));
            entry.h2.retain(|shared| {
                // With a stream open the link is held by its lease as well.
                !shared.sender.is_closed()
                    && (Rc::strong_count(&shared.link) > 1 || fresh(shared.used))
            });
            true
        });
    }
}

impl Entry {
    fn take_h1(&mut self) -> Option<(Sender, Rc<Link>)> {
        let mut busy = None;
        let found = loop {
            let Some(idle) = self.h1.pop() else {
                break None;
            };
            if idle.sender.is_ready() {
                break Some((Sender::Http1(idle.sender), idle.link));
            }
            // Neither ready nor closed: the connection's task has yet to see the response's end.
            if !idle.sender.is_closed() && busy.is_none() {
                busy = Some(idle);
            }
        };
        self.h1.extend(busy);
        found
    }

    fn share_h2(&mut self) -> Option<(Sender, Rc<Link>)> {
        self.h2.retain(|shared| !shared.sender.is_closed());
        let shared = self
            .h2
            .iter_mut()
            .filter(|s| s.sender.is_ready() && Rc::strong_count(&s.link) <= STREAMS)
            .min_by_key(|s| Rc::strong_count(&s.link))?;
        shared.used = Instant::now();
        Some((
            Sender::Http2(shared.sender.clone()),
            Rc::clone(&shared.link),
        ))
    }
}

impl Lease {
    /// Gives the connection back after an exchange that ended in order.
    pub(crate) fn give_back(self) {
        let Sender::Http1(sender) = self.sender else {
            return;
        };
        if sender.is_closed() {
            return;
        }
        // No entry: the endpoint is gone, and so shall this connection be.
        if let Some(entry) = self.pool.0.borrow_mut().get_mut(&self.key)
            && entry.h1.len() < IDLE_LIMIT
        {
            entry.h1.push(Idle {
                sender,
                link: self.link,
                since: Instant::now(),
            });
        }
    }
}
