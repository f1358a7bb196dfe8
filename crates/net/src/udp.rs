//! Datagrams between clients and upstreams, as sessions.
//!
//! UDP has no connections, so one is made up: all datagrams of a client's address go to the
//! upstream that was picked at the first, and what comes back from there goes to that client. A
//! session ends when nothing moved for a while, sooner while the upstream has never answered: a
//! spoofed address costs little for long. The table is bounded, and who comes when it is full is
//! refused rather than given another's place. Datagrams that a full socket does not take are lost,
//! as everywhere on their way.
//!
//! Where datagrams are to be carried on a stream, which keeps them in order and secret, the upstream
//! is one end of a pair of local sockets, and [`carry`] stands at the other.
//!
//! Nothing is known here of endpoints or metrics: [`Handler`] and [`Session`] stand for those.

mod carried;
mod socket;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use tokio::net::UnixDatagram;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

pub use carried::{CarryError, Moved, carry};
pub use socket::{Listener, Received, Socket};

/// The largest payload of a datagram, rounded up.
const LARGEST: usize = 64 * 1024;
/// Answers passed on in one turn of a session.
const TURN: usize = 32;

/// Bounds of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Sessions at one time.
    pub sessions: usize,
    /// Without a datagram in either direction.
    pub idle: Duration,
    /// The same, as long as the upstream has not answered at all.
    pub unanswered: Duration,
    /// `SO_MARK` of the sockets to upstreams.
    pub mark: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            sessions: 4096,
            idle: Duration::from_mins(1),
            unanswered: Duration::from_secs(20),
            mark: None,
        }
    }
}

/// Why a session ended.
#[derive(Debug)]
pub enum End {
    /// Nothing moved for the time allowed; the ordinary end.
    Idle,
    /// The upstream cannot be sent to: no route, or nothing listens there (ICMP told).
    Failed(io::Error),
}

/// Decides about new sessions.
pub trait Handler {
    /// What is kept of a session.
    type Session: Session + 'static;

    /// A datagram came from an address without a session. `None`: it is dropped.
    fn open(&self, client: SocketAddr) -> Option<Self::Session>;

    /// A datagram was dropped, since as many sessions as may be are there.
    fn full(&self, client: SocketAddr);
}

/// Where the datagrams of a session go.
#[derive(Debug)]
pub enum Upstream {
    /// To this address.
    Address(SocketAddr),
    /// To whoever holds the other end.
    Pair(UnixDatagram),
}

/// One session. It is dropped at its end; without [`Session::ended`] before, the relay was.
pub trait Session {
    /// Where the client's datagrams go; asked once.
    fn upstream(&self) -> io::Result<Upstream>;

    /// Completes when whoever holds the other end of a pair has ended the session; the kernel would
    /// not tell before something is sent.
    fn broken(&self) -> impl Future<Output = io::Error> {
        std::future::pending()
    }

    /// A datagram of so many bytes went to the upstream.
    fn sent(&self, bytes: usize);

    /// A datagram of so many bytes came from the upstream and was given to the client.
    fn received(&self, bytes: usize);

    /// A datagram was lost here, since a socket was full or it was too large.
    fn dropped(&self);

    /// It is over.
    fn ended(&self, end: &End);
}

/// Relays until the future is dropped. Must run where `spawn_local` works.
pub async fn relay<H: Handler>(listener: Listener, options: Options, handler: H) {
    let mut relay = Relay {
        listener: Rc::new(listener),
        options,
        handler,
        sessions: HashMap::new(),
        tasks: JoinSet::new(),
        scratch: Rc::new(RefCell::new(vec![0; LARGEST].into_boxed_slice())),
    };
    let mut datagram = vec![0; LARGEST].into_boxed_slice();
    loop {
        tokio::select! {
            received = relay.listener.receive(&mut datagram) => match received {
                Ok(from) => relay.deliver(&datagram[..from.length], from.client, from.local),
                // It is about one datagram, or the moment's memory: the next may be better.
                Err(_) => tokio::task::yield_now().await,
            },
            Some(ended) = relay.tasks.join_next() => {
                if let Ok(ended) = ended {
                    relay.forget(&ended);
                }
            }
        }
    }
}

struct Relay<H: Handler> {
    listener: Rc<Listener>,
    options: Options,
    handler: H,
    sessions: HashMap<SocketAddr, Running<H::Session>>,
    tasks: JoinSet<Rc<Entry<H::Session>>>,
    /// For answers, by all sessions in turn.
    scratch: Rc<RefCell<Box<[u8]>>>,
}

/// A session and the task that passes its answers on.
struct Running<S> {
    entry: Rc<Entry<S>>,
    task: AbortHandle,
}

struct Entry<S> {
    client: SocketAddr,
    /// The address that the client sent to, and wants answers from.
    local: Option<IpAddr>,
    upstream: Socket,
    session: S,
    last: Cell<Instant>,
    answered: Cell<bool>,
}

impl<H: Handler> Relay<H> {
    fn deliver(&mut self, datagram: &[u8], client: SocketAddr, local: Option<IpAddr>) {
        // Twice: an upstream that went away is noticed by the first datagram that it refuses.
        for _ in 0..2 {
            let Some(entry) = self.session(client, local) else {
                return;
            };
            match entry.upstream.send(datagram) {
                Ok(n) => {
                    entry.last.set(Instant::now());
                    entry.session.sent(n);
                    return;
                }
                Err(e) if socket::is_about_datagram(&e) => return entry.session.dropped(),
                Err(e) => {
                    entry.session.ended(&End::Failed(e));
                    if let Some(running) = self.sessions.remove(&client) {
                        running.task.abort();
                    }
                }
            }
        }
    }

    /// The session of a client, a new one if need be.
    fn session(
        &mut self,
        client: SocketAddr,
        local: Option<IpAddr>,
    ) -> Option<Rc<Entry<H::Session>>> {
        if let Some(running) = self.sessions.get(&client) {
            return Some(Rc::clone(&running.entry));
        }
        if self.sessions.len() >= self.options.sessions {
            self.handler.full(client);
            return None;
        }
        let session = self.handler.open(client)?;
        let mark = self.options.mark;
        let upstream = match session.upstream().and_then(|to| Socket::to(to, mark)) {
            Ok(upstream) => upstream,
            Err(error) => {
                session.ended(&End::Failed(error));
                return None;
            }
        };
        let entry = Rc::new(Entry {
            client,
            local,
            upstream,
            session,
            last: Cell::new(Instant::now()),
            answered: Cell::new(false),
        });
        let task = self.tasks.spawn_local(answers(
            Rc::clone(&entry),
            Rc::clone(&self.listener),
            Rc::clone(&self.scratch),
            self.options,
        ));
        let running = Running {
            entry: Rc::clone(&entry),
            task,
        };
        self.sessions.insert(client, running);
        Some(entry)
    }

    fn forget(&mut self, ended: &Rc<Entry<H::Session>>) {
        // The client may have another by now.
        let same = |running: &Running<_>| Rc::ptr_eq(&running.entry, ended);
        if self.sessions.get(&ended.client).is_some_and(same) {
            self.sessions.remove(&ended.client);
        }
    }
}

/// Passes answers on until the session ends; gives it back then.
async fn answers<S: Session>(
    entry: Rc<Entry<S>>,
    listener: Rc<Listener>,
    scratch: Rc<RefCell<Box<[u8]>>>,
    options: Options,
) -> Rc<Entry<S>> {
    let deadline = |entry: &Entry<S>| {
        let limit = if entry.answered.get() {
            options.idle
        } else {
            options.unanswered.min(options.idle)
        };
        entry.last.get() + limit
    };
    let mut sleep = std::pin::pin!(sleep_until(deadline(&entry)));
    loop {
        tokio::select! {
            ready = entry.upstream.readable() => {
                let passed = ready.and_then(|()| {
                    pass(&entry, &listener, &mut scratch.borrow_mut())
                });
                match passed {
                    Ok(true) => tokio::task::yield_now().await,
                    Ok(false) => {}
                    Err(error) => {
                        entry.session.ended(&End::Failed(error));
                        return entry;
                    }
                }
            }
            error = entry.session.broken() => {
                entry.session.ended(&End::Failed(error));
                return entry;
            }
            () = &mut sleep => {
                // Moved only when it fires, not at each datagram.
                let deadline = deadline(&entry);
                if deadline <= Instant::now() {
                    entry.session.ended(&End::Idle);
                    return entry;
                }
                sleep.as_mut().reset(deadline);
            }
        }
    }
}

/// Passes on what is there; whether there may be more.
fn pass<S: Session>(entry: &Entry<S>, listener: &Listener, scratch: &mut [u8]) -> io::Result<bool> {
    for _ in 0..TURN {
        let length = match entry.upstream.try_recv(scratch) {
            Ok(length) => length,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(e) => return Err(e),
        };
        entry.last.set(Instant::now());
        entry.answered.set(true);
        match listener.send(&scratch[..length], entry.client, entry.local) {
            Ok(_) => entry.session.received(length),
            // The client is not worth the session of the upstream: it may be back.
            Err(_) => entry.session.dropped(),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
