//! Whether a peer is still there. One that vanished without a word (its host is gone, a cable was
//! pulled) is found out by a ping (RFC 9113 6.7) that it does not answer.
//!
//! A ping is sent only after a silence: of a peer that has just been heard it is known that it is
//! there, and a connection that can ping at all costs a little more with each of its frames.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

use super::tap::Tap;

/// Notes whenever the peer says something.
pub(super) struct Heard(Rc<Cell<bool>>);

impl Heard {
    /// The tap, and what it sets.
    pub(super) fn new() -> (Self, Rc<Cell<bool>>) {
        let heard = Rc::new(Cell::new(false));
        (Self(Rc::clone(&heard)), heard)
    }
}

impl Tap for Heard {
    fn passed(&mut self, _: &[u8]) {
        self.0.set(true);
    }
}

/// Watches over one peer.
pub(super) struct Watch<W> {
    heard: Rc<Cell<bool>>,
    /// How long a silence is borne, and how long an answer may take.
    bounds: (Duration, Duration),
    wanted: W,
    settings: Option<Rc<Settings>>,
    pings: Option<PingPong>,
    asked: bool,
    sleep: Pin<Box<Sleep>>,
}

/// What a [`Watch`] has to say.
pub(super) enum News {
    /// It wants to ping and has not been given the means: [`Watch::give`].
    Unable,
    /// The peer does not answer.
    Vanished,
}

impl<W: Fn() -> bool> Watch<W> {
    /// Asks after a silence of `every`, while `wanted`, and at once for who waits for its `settings`;
    /// the peer has so much `patience` to answer.
    pub(super) fn new(
        heard: Rc<Cell<bool>>,
        every: Duration,
        patience: Duration,
        wanted: W,
        settings: Option<Rc<Settings>>,
    ) -> Self {
        Self {
            heard,
            bounds: (every, patience),
            wanted,
            settings,
            pings: None,
            asked: false,
            sleep: Box::pin(tokio::time::sleep(every)),
        }
    }

    /// The means to ping.
    pub(super) fn give(&mut self, pings: PingPong) {
        self.pings = Some(pings);
    }

    /// Waits for news; nothing is lost when that is given up.
    pub(super) async fn news(&mut self) -> News {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<News> {
        let (every, patience) = self.bounds;
        loop {
            if self.asked {
                let answered = self.pings.as_mut().map(|pings| pings.poll_pong(cx));
                match answered {
                    Some(Poll::Ready(Ok(_))) => {
                        self.asked = false;
                        self.sleep.as_mut().reset(Instant::now() + every);
                        if let Some(settings) = &self.settings {
                            settings.have_come();
                        }
                        continue;
                    }
                    Some(Poll::Ready(Err(_))) => return Poll::Ready(News::Vanished),
                    Some(Poll::Pending) | None => {}
                }
                ready!(self.sleep.as_mut().poll(cx));
                return Poll::Ready(News::Vanished);
            }
            let at_once = self.settings.as_ref().is_some_and(|s| s.is_asked_for(cx));
            if !at_once {
                ready!(self.sleep.as_mut().poll(cx));
                if self.heard.take() || !(self.wanted)() {
                    self.sleep.as_mut().reset(Instant::now() + every);
                    continue;
                }
            }
            let Some(pings) = &mut self.pings else {
                return Poll::Ready(News::Unable);
            };
            // Fails only where the connection is over, which its driver finds out too.
            if pings.send_ping(Ping::opaque()).is_err() {
                return Poll::Ready(News::Vanished);
            }
            self.asked = true;
            self.sleep.as_mut().reset(Instant::now() + patience);
        }
    }
}

/// Whether a server's first SETTINGS have come, which `h2` does not say: they come before the answer
/// to any ping (RFC 9113 3.4).
#[derive(Default)]
pub(super) struct Settings {
    wanted: Cell<bool>,
    known: Cell<bool>,
    came: Notify,
    watch: RefCell<Option<Waker>>,
}

impl Settings {
    pub(super) async fn known(&self) {
        if !self.known.get() {
            self.wanted.set(true);
            if let Some(watch) = &*self.watch.borrow() {
                watch.wake_by_ref();
            }
            self.came.notified().await;
        }
    }

    /// They have come, or the connection is over.
    pub(super) fn have_come(&self) {
        self.known.set(true);
        self.came.notify_waiters();
    }

    /// Whether somebody waits; otherwise the watch is woken when somebody does.
    fn is_asked_for(&self, cx: &Context<'_>) -> bool {
        if self.known.get() {
            return false;
        }
        let mut watch = self.watch.borrow_mut();
        match &mut *watch {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *watch = Some(cx.waker().clone()),
        }
        self.wanted.get()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use h2::client::SendRequest;
    use tokio::io::DuplexStream;
    use tokio::time::timeout;

    use super::*;

    const EVERY: Duration = Duration::from_secs(30);
    const PATIENCE: Duration = Duration::from_secs(10);

    fn watch<W: Fn() -> bool>(wanted: W) -> (Watch<W>, Rc<Cell<bool>>) {
        let heard = Rc::new(Cell::new(false));
        let watch = Watch::new(Rc::clone(&heard), EVERY, PATIENCE, wanted, None);
        (watch, heard)
    }

    /// The means to ping whoever has the other end, and what keeps the connection open.
    async fn pings(io: DuplexStream) -> (PingPong, SendRequest<Bytes>) {
        let handshake = h2::client::Builder::new().handshake::<_, Bytes>(io);
        let (open, mut connection) = handshake.await.expect("a connection");
        let pings = connection.ping_pong().expect("the first time");
        tokio::spawn(connection);
        (pings, open)
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_is_silent_and_answers_no_ping_has_vanished() {
        let (near, _far) = tokio::io::duplex(4096);
        let (mut watch, _) = watch(|| true);
        let begun = Instant::now();
        assert!(matches!(watch.news().await, News::Unable));
        assert_eq!(begun.elapsed(), EVERY);
        let (pings, _open) = pings(near).await;
        watch.give(pings);
        assert!(matches!(watch.news().await, News::Vanished));
        assert_eq!(begun.elapsed(), EVERY + PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_answers_is_asked_again_and_again() {
        let (near, far) = tokio::io::duplex(4096);
        let server = tokio::spawn(async move {
            let mut connection = h2::server::handshake(far).await.expect("a connection");
            connection.accept().await.is_none()
        });
        let (mut watch, _) = watch(|| true);
        let (pings, _open) = pings(near).await;
        watch.give(pings);
        assert!(timeout(EVERY * 10, watch.news()).await.is_err());
        server.abort();
        let _ = server.await;
        assert!(matches!(watch.news().await, News::Vanished));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_is_heard_or_not_wanted_is_not_asked() {
        let (mut watch, heard) = watch(|| true);
        for _ in 0..20 {
            heard.set(true);
            assert!(timeout(EVERY / 2, watch.news()).await.is_err());
        }
        let (mut watch, _) = self::watch(|| false);
        assert!(timeout(EVERY * 10, watch.news()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn settings_that_somebody_waits_for_are_asked_for_at_once() {
        let (near, far) = tokio::io::duplex(4096);
        tokio::spawn(async move {
            let mut connection = h2::server::handshake(far).await.expect("a connection");
            connection.accept().await.is_none()
        });
        let settings = Rc::new(Settings::default());
        let heard = Rc::new(Cell::new(true));
        let known = Some(Rc::clone(&settings));
        let mut watch = Watch::new(heard, EVERY, PATIENCE, || false, known);
        let (pings, _open) = pings(near).await;
        watch.give(pings);
        let begun = Instant::now();
        tokio::select! {
            () = settings.known() => {}
            _ = watch.news() => panic!("it answers"),
        }
        assert!(begun.elapsed() < PATIENCE);
        settings.known().await;
    }
}
