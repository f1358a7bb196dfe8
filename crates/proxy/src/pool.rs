//! Connections to endpoints, kept for the next request. One pool per worker: no locks.
//!
//! Keyed by endpoint, port and wire form. HTTP/1 connections are handed out one request at a time,
//! the most recently used first, so that surplus ones grow old and are closed; an HTTP/2
//! connection is shared by as many streams as its peer allows.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::destination::Endpoint;
use crate::http1::client::Conn;
use crate::http2::client::Handle;
use crate::worker::Map;

/// HTTP/1 connections kept for one endpoint, whatever happened before.
const IDLE_LIMIT: usize = 256;

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
}

/// The connections of one worker.
#[derive(Default)]
pub(crate) struct Pool(RefCell<Map<Key, Entry>>);

struct Entry {
    /// Gone when the endpoint has left every configuration: its connections then go too.
    endpoint: Weak<Endpoint>,
    idle_timeout: Option<Duration>,
    #[expect(
        clippy::vec_box,
        reason = "lent out and given back: a box moves as a pointer"
    )]
    h1: Vec<Box<Conn>>,
    h2: Vec<Shared>,
}

struct Shared {
    handle: Handle,
    used: Instant,
}

/// What is known of a connection for the log.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) address: std::net::SocketAddr,
    pub(crate) mtls: bool,
    pub(crate) group: &'static str,
}

/// Where a connection is given back.
#[derive(Clone)]
pub(crate) struct Home {
    pool: Rc<Pool>,
    key: Key,
}

impl Pool {
    /// Where connections to a port of an endpoint are kept.
    pub(crate) fn home(
        self: &Rc<Self>,
        endpoint: &Arc<Endpoint>,
        port: u16,
        idle_timeout: Option<Duration>,
    ) -> Home {
        let key = Key {
            endpoint: endpoint.id,
            port,
        };
        let mut entries = self.0.borrow_mut();
        let entry = entries.entry(key).or_insert_with(|| Entry {
            endpoint: Arc::downgrade(endpoint),
            idle_timeout,
            h1: Vec::new(),
            h2: Vec::new(),
        });
        entry.idle_timeout = idle_timeout;
        Home {
            pool: Rc::clone(self),
            key,
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
            entry.h1.retain_mut(|c| fresh(c.since) && c.is_quiet());
            entry.h2.retain(|shared| {
                // With a stream open the link is held by its body as well.
                !shared.handle.is_closed() && (shared.handle.is_used() || fresh(shared.used))
            });
            true
        });
    }
}

impl Home {
    /// An HTTP/1 connection that is ready now, if there is one.
    pub(crate) fn http1(&self) -> Option<Box<Conn>> {
        let mut entries = self.pool.0.borrow_mut();
        let kept = &mut entries.get_mut(&self.key)?.h1;
        loop {
            let mut conn = kept.pop()?;
            if conn.is_quiet() {
                conn.reused = true;
                return Some(conn);
            }
        }
    }

    /// An HTTP/2 connection with room for a stream, if there is one.
    pub(crate) fn http2(&self) -> Option<Handle> {
        let mut entries = self.pool.0.borrow_mut();
        let kept = &mut entries.get_mut(&self.key)?.h2;
        kept.retain(|shared| !shared.handle.is_closed());
        let shared = kept
            .iter_mut()
            .filter(|shared| shared.handle.has_room())
            .min_by_key(|shared| shared.handle.streams())?;
        shared.used = Instant::now();
        Some(shared.handle.clone())
    }

    /// Keeps an HTTP/2 connection for others too.
    pub(crate) fn share(&self, handle: &Handle) {
        if let Some(entry) = self.pool.0.borrow_mut().get_mut(&self.key) {
            entry.h2.push(Shared {
                handle: handle.clone(),
                used: Instant::now(),
            });
        }
    }

    /// Gives a connection back after an exchange that ended in order.
    pub(crate) fn give_back(mut conn: Box<Conn>) {
        let home = conn.home();
        // No entry: the endpoint is gone, and so shall this connection be.
        if let Some(entry) = home.pool.0.borrow_mut().get_mut(&home.key)
            && entry.h1.len() < IDLE_LIMIT
        {
            conn.since = Instant::now();
            entry.h1.push(conn);
        }
    }
}
