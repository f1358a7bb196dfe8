//! How many retries a destination can bear.
//!
//! A retry is allowed when, over the last ten seconds, retries stay below a percentage of requests
//! (those begun in that time, or those in flight if they are more), or when fewer than a minimum
//! were made in the current second. So a destination that fails altogether sees at most that share
//! of its usual load on top, and a quiet one may still be retried. Envoy's `retry_budget` with
//! Finagle's window; Envoy's minimum is a concurrency, ours a rate.
//!
//! Shared by all workers without a lock: a retry is counted first and taken back if it is refused,
//! so the bound holds whatever the interleaving. Counts of one second live in one word with that
//! second, so a slot is never read half replaced.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use model::retry::Budget as Limits;

/// Seconds that count as recent.
pub const WINDOW: u64 = 10;

/// What a destination's requests and retries of late were.
#[derive(Debug, Default)]
pub struct Budget {
    requests: Window,
    retries: Window,
    active: AtomicU32,
}

impl Budget {
    /// A budget without a past.
    pub fn new() -> Self {
        Self::default()
    }

    /// A request began (not a retry). Each call is followed by one of [`Self::finished`].
    pub fn started(&self, now: Duration) {
        self.active.fetch_add(1, Relaxed);
        self.requests.add(now.as_secs());
    }

    /// A request ended, its retries included.
    pub fn finished(&self) {
        // Never below zero, whatever the caller does.
        let _ = self
            .active
            .fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1));
    }

    /// Whether a retry may be made at `now` (since the start that all times count from); counts it
    /// if so.
    pub fn allow(&self, now: Duration, limits: &Limits) -> bool {
        let second = now.as_secs();
        let Some(this_second) = self.retries.add(second) else {
            return false;
        };
        if this_second <= limits.min_per_second {
            return true;
        }
        let requests = self
            .requests
            .sum(second)
            .max(u64::from(self.active.load(Relaxed)));
        let retries = self.retries.sum(second);
        if retries * 100 <= requests * u64::from(limits.percent) {
            return true;
        }
        self.retries.take_back(second);
        false
    }
}

/// Counts by second, of the last [`WINDOW`] seconds.
#[derive(Debug, Default)]
struct Window {
    /// The second in the upper half, its count in the lower.
    slots: [AtomicU64; WINDOW as usize],
}

impl Window {
    /// Adds one and returns the second's count; `None` when that second is so long ago that its
    /// slot serves another.
    fn add(&self, second: u64) -> Option<u32> {
        let mut added = None;
        let _ = self.slot(second).fetch_update(Relaxed, Relaxed, |slot| {
            let (of, count) = unpack(slot);
            let count = match of.cmp(&stamp(second)) {
                std::cmp::Ordering::Less => 1,
                std::cmp::Ordering::Equal => count.saturating_add(1),
                std::cmp::Ordering::Greater => {
                    added = None;
                    return None;
                }
            };
            added = Some(count);
            Some(pack(stamp(second), count))
        });
        added
    }

    fn take_back(&self, second: u64) {
        let _ = self.slot(second).fetch_update(Relaxed, Relaxed, |slot| {
            let (of, count) = unpack(slot);
            (of == stamp(second)).then(|| pack(of, count.saturating_sub(1)))
        });
    }

    fn sum(&self, now: u64) -> u64 {
        let oldest = stamp(now).saturating_sub(WINDOW as u32 - 1);
        self.slots
            .iter()
            .map(|slot| unpack(slot.load(Relaxed)))
            .filter(|(of, _)| *of >= oldest)
            .map(|(_, count)| u64::from(count))
            .sum()
    }

    fn slot(&self, second: u64) -> &AtomicU64 {
        &self.slots[(second % WINDOW) as usize]
    }
}

/// The second as it is kept: one more, so that an empty slot is older than all. Good for 136 years.
fn stamp(second: u64) -> u32 {
    u32::try_from(second.saturating_add(1)).unwrap_or(u32::MAX)
}

fn pack(second: u32, count: u32) -> u64 {
    u64::from(second) << 32 | u64::from(count)
}

fn unpack(slot: u64) -> (u32, u32) {
    ((slot >> 32) as u32, slot as u32)
}

#[cfg(test)]
mod tests;
