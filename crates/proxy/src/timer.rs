//! Timers that are moved with each request and seldom fire: what moves them costs next to nothing.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// A deadline that is moved often and met seldom: moving it later costs nothing, the timer itself is
/// only set anew when it fires too early.
pub(crate) struct Deadline {
    due: Option<Instant>,
    sleep: Pin<Box<Sleep>>,
}

impl Deadline {
    pub(crate) fn after(limit: Duration) -> Self {
        let due = Instant::now() + limit;
        Self {
            due: Some(due),
            sleep: Box::pin(tokio::time::sleep_until(due)),
        }
    }

    pub(crate) fn set(&mut self, limit: Duration) {
        let due = Instant::now() + limit;
        self.due = Some(due);
        if due < self.sleep.deadline() {
            self.sleep.as_mut().reset(due);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.due = None;
    }

    pub(crate) fn is_clear(&self) -> bool {
        self.due.is_none()
    }

    /// Ready when the time has come.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(due) = self.due else {
            return Poll::Pending;
        };
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            if Instant::now() >= due {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(due);
        }
    }
}

/// Tells when nothing was done for one to two periods. Doing something costs no look at the clock.
pub(crate) struct Lull {
    period: Duration,
    sleep: Pin<Box<Sleep>>,
    /// Whether something was done since the timer was set.
    busy: bool,
}

impl Lull {
    pub(crate) fn of(period: Duration) -> Self {
        Self {
            period,
            sleep: Box::pin(tokio::time::sleep(period)),
            busy: false,
        }
    }

    /// Something is done.
    pub(crate) fn busy(&mut self) {
        self.busy = true;
    }

    /// Ready when nothing is.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            if !std::mem::take(&mut self.busy) {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(Instant::now() + self.period);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lull_begins_one_to_two_periods_after_the_last_thing_done() {
        let period = Duration::from_secs(1);
        let mut lull = Lull::of(period);
        let begun = Instant::now();
        for _ in 0..7 {
            tokio::time::advance(period / 2).await;
            assert!(poll_fn(|cx| Poll::Ready(lull.poll(cx).is_pending())).await);
            lull.busy();
        }
        let last = begun.elapsed();
        poll_fn(|cx| lull.poll(cx)).await;
        let silent = begun.elapsed().checked_sub(last).expect("later");
        assert!(silent >= period && silent <= 2 * period, "{silent:?}");
    }
}
