//! Stopping without cutting anybody off: connections are told to finish, then waited for.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::TaskTracker;

/// Shared by all that must finish before the process ends. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    begun: CancellationToken,
    cut: CancellationToken,
    tracker: TaskTracker,
}

impl Drain {
    /// Nothing drains yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everybody to finish what they have and begin nothing new.
    pub fn begin(&self) {
        self.begun.cancel();
    }

    /// Whether [`Drain::begin`] was called.
    pub fn has_begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// Completes when the drain begins.
    pub fn begun(&self) -> WaitForCancellationFuture<'_> {
        self.begun.cancelled()
    }

    /// Completes when the time for finishing is over.
    pub fn cut(&self) -> WaitForCancellationFuture<'_> {
        self.cut.cancelled()
    }

    /// A future that the drain waits for.
    pub fn track<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        self.tracker.track_future(future)
    }

    /// How many tracked futures are alive.
    pub fn active(&self) -> usize {
        self.tracker.len()
    }

    /// Begins the drain and waits until all is finished or `limit` has passed; then what is left
    /// is cut. Returns how many were cut.
    pub async fn finish(&self, limit: Duration) -> usize {
        self.begin();
        self.tracker.close();
        let cut = match tokio::time::timeout(limit, self.tracker.wait()).await {
            Ok(()) => 0,
            Err(_) => self.tracker.len(),
        };
        self.cut.cancel();
        cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_does_not_finish_in_time_is_cut() {
        let drain = Drain::new();
        let quick = drain.clone();
        tokio::spawn(drain.track(async move { quick.begun().await }));
        let slow = drain.clone();
        let task = tokio::spawn(drain.track(async move { slow.cut().await }));
        assert_eq!(drain.finish(Duration::from_secs(5)).await, 1);
        task.await.expect("cut");
    }
}
