//! How many connections to the endpoints of a destination there are, those of all workers, and how
//! many requests wait for one.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Connections to a destination, and who waits for one.
///
/// Whoever waits says so first and looks for room then; whoever makes room looks for those who wait
/// afterwards. So that one of them sees the other, both are in one order with everything (`SeqCst`).
#[derive(Default)]
pub(crate) struct Connections {
    open: AtomicU32,
    /// Of them, for HTTP/1: at rest in a pool.
    kept: AtomicU32,
    pending: AtomicU32,
    room: Notify,
}

impl Connections {
    /// Counts one more connection, if fewer than `limit` are in use, or whatever their number. Those
    /// at rest do not count: another worker's would be in the way of this one's requests.
    pub(crate) fn open(&self, limit: u32, whatever: bool) -> bool {
        let kept = self.kept.load(Ordering::SeqCst);
        let room = |open: u32| (whatever || open.saturating_sub(kept) < limit).then_some(open + 1);
        self.open
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, room)
            .is_ok()
    }

    /// A connection is closed.
    pub(crate) fn closed(&self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
        self.made_room();
    }

    /// A connection is at rest from now on.
    pub(crate) fn keep(&self) {
        self.kept.fetch_add(1, Ordering::SeqCst);
        self.made_room();
    }

    /// One that was is not any more.
    pub(crate) fn lend(&self) {
        self.kept.fetch_sub(1, Ordering::SeqCst);
    }

    /// Whether `limit` connections to the destination are open, or more.
    pub(crate) fn is_full(&self, limit: u32) -> bool {
        self.open.load(Ordering::Relaxed) >= limit
    }

    /// Whether there are more than `limit`.
    pub(crate) fn is_over(&self, limit: u32) -> bool {
        self.open.load(Ordering::Relaxed) > limit
    }

    /// Counts one more who waits, if fewer than `limit` do.
    pub(crate) fn wait(&self, limit: u32) -> Option<Waiting<'_>> {
        let more = |now: u32| (now < limit).then_some(now + 1);
        let pending = &self.pending;
        let counted = pending.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more);
        counted.is_ok().then(|| Waiting(self))
    }

    fn made_room(&self) {
        if self.pending.load(Ordering::SeqCst) > 0 {
            self.room.notify_one();
        }
    }
}

/// A request that waits for a connection.
pub(crate) struct Waiting<'a>(&'a Connections);

impl Waiting<'_> {
    /// Comes when there is room; that of before must be looked for once this is enabled.
    pub(crate) fn room(&self) -> Notified<'_> {
        self.0.room.notified()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::SeqCst);
    }
}
