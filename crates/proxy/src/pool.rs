//! Connections to endpoints, kept for the next request. One pool per worker: no locks.
//!
//! Keyed by endpoint, port and wire form. HTTP/1 connections are handed out one request at a time,
//! the most recently used first, so that surplus ones grow old and are closed; an HTTP/2
//! connection is shared by as many streams as its peer allows, and while one is being made those who
//! need one wait for it together.
//!
//! Connections that are made on somebody's behalf ([`Behalf`]) are kept apart, and go with that
//! client's own connection or that certificate.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::future::{FutureExt, LocalBoxFuture, Shared, WeakShared};

use crate::behalf::{Behalf, Client};
use crate::destination::{Endpoint, EndpointLive};
use crate::error::Failure;
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
pub(crate) struct Pool {
    entries: RefCell<Map<Key, Entry>>,
    apart: RefCell<BTreeMap<Whose, Apart>>,
    /// How many are open, by the endpoint's id, those lent out and those of others' keeping included.
    open: RefCell<Map<u64, u32>>,
}

/// A connection that counts towards its destination's limit for as long as it is open.
pub(crate) struct Slot {
    pool: Rc<Pool>,
    endpoint: u64,
    live: Arc<EndpointLive>,
    limit: u32,
}

impl Slot {
    /// Whether there are more connections than the limit allows, and this one is not its worker's only
    /// one to the endpoint.
    fn is_surplus(&self) -> bool {
        self.live.connections.is_over(self.limit) && self.pool.open_to(self.endpoint) > 1
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.live.connections.closed();
        let mut open = self.pool.open.borrow_mut();
        if let Some(count) = open.get_mut(&self.endpoint) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.endpoint);
            }
        }
    }
}

/// An HTTP/1 connection at rest.
struct Kept {
    /// Until it is lent out.
    conn: Option<Box<Conn>>,
    /// Since when it is known to be at rest.
    since: Option<Instant>,
}

impl Kept {
    fn new(conn: Box<Conn>) -> Self {
        conn.slot.live.connections.keep();
        Self {
            conn: Some(conn),
            since: None,
        }
    }

    /// The connection, if the endpoint has not closed it.
    fn lend(mut self) -> Option<Box<Conn>> {
        let mut conn = self.conn.take()?;
        conn.slot.live.connections.lend();
        conn.is_quiet().then_some(conn)
    }

    /// Whether it may stay: the endpoint has not closed it, and there is room for it.
    fn may_stay(&mut self) -> bool {
        let conn = self.conn.as_mut();
        conn.is_some_and(|conn| conn.is_quiet() && !conn.slot.is_surplus())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(conn) = &self.conn {
            conn.slot.live.connections.lend();
        }
    }
}

/// Whose connections are kept apart: a client's, a certificate's by its id, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Whose {
    client: Option<Client>,
    /// As another version's header is another.
    version: u8,
    shown: u64,
}

struct Apart {
    /// Held by each HTTP/1 connection as well, also while it is lent out.
    behalf: Rc<Behalf>,
    entries: Map<Key, Entry>,
}

struct Entry {
    /// Gone when the endpoint has left every configuration: its connections then go too.
    endpoint: Weak<Endpoint>,
    idle_timeout: Option<Duration>,
    h1: Vec<Kept>,
    h2: Vec<Open>,
    /// On their way; gone when nobody waits any more.
    opening: Vec<WeakShared<Connecting>>,
}

type Connecting = LocalBoxFuture<'static, Result<Handle, Failure>>;
/// A connection on its way, for one of those who wait for it.
pub(crate) type Opening = Shared<Connecting>;

struct Open {
    handle: Handle,
    /// As with HTTP/1 connections.
    since: Option<Instant>,
}

/// What is known of a connection for the log.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) address: std::net::SocketAddr,
    pub(crate) mtls: bool,
    pub(crate) group: &'static str,
}

impl Link {
    /// In plain text.
    pub(crate) fn plain(address: std::net::SocketAddr) -> Self {
        Self {
            address,
            mtls: false,
            group: "",
        }
    }
}

/// Where a connection is given back.
#[derive(Clone)]
pub(crate) struct Home {
    pool: Rc<Pool>,
    key: Key,
    behalf: Option<Rc<Behalf>>,
}

impl From<&Behalf> for Whose {
    fn from(behalf: &Behalf) -> Self {
        Self {
            client: behalf.client.map(|(_, client)| client),
            version: behalf.client.map_or(0, |(version, _)| 1 + version as u8),
            shown: behalf.shown.as_ref().map_or(0, |shown| shown.id()),
        }
    }
}

impl Entry {
    fn new(endpoint: &Arc<Endpoint>) -> Self {
        Self {
            endpoint: Arc::downgrade(endpoint),
            idle_timeout: None,
            h1: Vec::new(),
            h2: Vec::new(),
            opening: Vec::new(),
        }
    }

    /// Closes what is closed or was unused for too long; whether the endpoint is still there.
    fn sweep(&mut self, now: Instant) -> bool {
        if self.endpoint.strong_count() == 0 {
            return false;
        }
        let limit = self.idle_timeout;
        // Its time begins when it is first seen at rest: none looks at the clock for it.
        let fresh = |since: &mut Option<Instant>| {
            let since = *since.get_or_insert(now);
            limit.is_none_or(|limit| now.duration_since(since) < limit)
        };
        // The oldest first, so that those go which make room.
        self.h1
            .retain_mut(|kept| fresh(&mut kept.since) && kept.may_stay());
        self.h2.retain_mut(|open| {
            // With a stream open the link is held by its body as well.
            let usable = !open.handle.is_closed() && !open.handle.is_spent();
            usable && (open.handle.is_used() || fresh(&mut open.since))
        });
        self.opening.retain(|one| one.upgrade().is_some());
        true
    }
}

impl Pool {
    /// Where connections to a port of an endpoint are kept.
    pub(crate) fn home(
        self: &Rc<Self>,
        endpoint: &Arc<Endpoint>,
        port: u16,
        idle_timeout: Option<Duration>,
        behalf: Option<Behalf>,
    ) -> Home {
        let key = Key {
            endpoint: endpoint.id,
            port,
        };
        let fill = |entries: &mut Map<Key, Entry>| {
            let entry = entries.entry(key).or_insert_with(|| Entry::new(endpoint));
            entry.idle_timeout = idle_timeout;
        };
        let behalf = behalf.map(|behalf| {
            let mut all = self.apart.borrow_mut();
            let apart = all.entry((&behalf).into()).or_insert_with(|| Apart {
                behalf: Rc::new(behalf),
                entries: Map::default(),
            });
            fill(&mut apart.entries);
            Rc::clone(&apart.behalf)
        });
        if behalf.is_none() {
            fill(&mut self.entries.borrow_mut());
        }
        Home {
            pool: Rc::clone(self),
            key,
            behalf,
        }
    }

    /// Closes what was kept for a client that has left.
    pub(crate) fn forget(&self, client: Client) {
        let mut all = self.apart.borrow_mut();
        if all.is_empty() {
            return;
        }
        let whose = |version, shown| Whose {
            client: Some(client),
            version,
            shown,
        };
        let range = whose(0, 0)..=whose(u8::MAX, u64::MAX);
        let left: Vec<Whose> = all.range(range).map(|(whose, _)| *whose).collect();
        for whose in left {
            all.remove(&whose);
        }
    }

    /// A place among the `limit` connections that are allowed to the endpoint's destination; where all
    /// are taken, kept connections which nobody uses make room. This worker's first to the endpoint
    /// always gets a place, and then only surplus ones of other endpoints go: with more endpoints
    /// than the limit each request would close what the next one needs.
    pub(crate) fn reserve(self: &Rc<Self>, endpoint: &Endpoint, limit: u32) -> Option<Slot> {
        let live = &endpoint.live;
        let first = self.open_to(endpoint.id) == 0;
        while live.connections.is_full(limit) && self.give_up_one(endpoint, first) {}
        if !live.connections.open(limit, first) {
            return None;
        }
        *self.open.borrow_mut().entry(endpoint.id).or_default() += 1;
        Some(Slot {
            pool: Rc::clone(self),
            endpoint: endpoint.id,
            live: Arc::clone(live),
            limit,
        })
    }

    fn open_to(&self, endpoint: u64) -> u32 {
        self.open.borrow().get(&endpoint).copied().unwrap_or(0)
    }

    /// Closes a connection of the same destination that nobody uses, if there is one: of an endpoint
    /// that has several, else, unless only surplus ones may go, the one that was kept for longest.
    fn give_up_one(&self, of: &Endpoint, surplus: bool) -> bool {
        let (mut shared, mut apart) = (self.entries.borrow_mut(), self.apart.borrow_mut());
        let apart = apart.values_mut().flat_map(|a| a.entries.values_mut());
        let siblings = shared.values_mut().chain(apart).filter(|entry| {
            let endpoint = entry.endpoint.upgrade();
            entry.h1.len() > usize::from(surplus)
                && endpoint.is_some_and(|e| e.live.is_sibling(&of.live))
        });
        // The most recently used is the last.
        let now = Instant::now();
        let rank = |entry: &&mut Entry| (entry.h1.len() < 2, entry.h1[0].since.unwrap_or(now));
        let found = siblings.min_by_key(rank);
        found.map(|entry| entry.h1.remove(0)).is_some()
    }

    /// Closes what is closed, unused for too long, or leads to an endpoint that is gone.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        let mut entries = self.entries.borrow_mut();
        entries.retain(|_, entry| entry.sweep(now));
        self.apart.borrow_mut().retain(|_, apart| {
            apart.entries.retain(|_, entry| entry.sweep(now));
            Rc::strong_count(&apart.behalf) > 1 || apart.entries.values().any(|e| !e.h2.is_empty())
        });
    }
}

impl Home {
    /// An HTTP/1 connection that is ready now, if there is one.
    pub(crate) fn http1(&self) -> Option<Box<Conn>> {
        self.with(|entry| {
            loop {
                if let Some(mut conn) = entry.h1.pop()?.lend() {
                    conn.reused = true;
                    return Some(conn);
                }
            }
        })?
    }

    /// An HTTP/2 connection with room for a stream, if there is one: always the first, since the more
    /// streams share a connection the fewer system calls each costs; surplus ones grow old.
    pub(crate) fn http2(&self) -> Option<Handle> {
        self.with(|entry| {
            // One that is spent goes when its last stream has ended.
            entry
                .h2
                .retain(|open| !open.handle.is_closed() && !open.handle.is_spent());
            let open = entry.h2.iter_mut().find(|open| open.handle.has_room())?;
            open.since = None;
            Some(open.handle.clone())
        })?
    }

    /// An HTTP/2 connection for `most` streams that others wait for already, if it will have room for
    /// one more.
    pub(crate) fn opening(&self, most: usize) -> Option<Opening> {
        self.with(|entry| {
            let waited_for =
                |one: &WeakShared<_>| one.upgrade().is_some_and(|one| one.peek().is_none());
            entry.opening.retain(waited_for);
            let mut opening = entry.opening.iter().filter_map(WeakShared::upgrade);
            // This one is counted already.
            opening.find(|one| one.strong_count().is_some_and(|waiting| waiting <= most))
        })?
    }

    /// Makes an HTTP/2 connection that all will share. It is given up when the last of those who wait
    /// has gone.
    pub(crate) fn open(
        &self,
        connecting: impl Future<Output = Result<Handle, Failure>> + 'static,
    ) -> Opening {
        let home = self.clone();
        let opening = async move {
            let handle = connecting.await?;
            home.share(&handle);
            Ok(handle)
        };
        let opening = opening.boxed_local().shared();
        self.with(|entry| entry.opening.extend(opening.downgrade()));
        opening
    }

    fn share(&self, handle: &Handle) {
        self.with(|entry| {
            entry.h2.push(Open {
                handle: handle.clone(),
                since: None,
            });
        });
    }

    /// Gives a connection back after an exchange that ended in order.
    pub(crate) fn give_back(conn: Box<Conn>) {
        let home = conn.home();
        home.with(|entry| {
            if entry.h1.len() < IDLE_LIMIT && !conn.is_spent() && !conn.slot.is_surplus() {
                entry.h1.push(Kept::new(conn));
            }
        });
    }

    /// For whom its connections are made.
    pub(crate) fn behalf(&self) -> Option<&Behalf> {
        self.behalf.as_deref()
    }

    /// No entry: the endpoint is gone, or the client, and so shall the connection be.
    fn with<T>(&self, act: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        match self.behalf() {
            None => self.pool.entries.borrow_mut().get_mut(&self.key).map(act),
            Some(behalf) => {
                let mut all = self.pool.apart.borrow_mut();
                let apart = all.get_mut(&behalf.into())?;
                apart.entries.get_mut(&self.key).map(act)
            }
        }
    }
}

#[cfg(test)]
mod tests;
