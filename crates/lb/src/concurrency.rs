//! How many requests there may be at once: a limit that follows how soon they are answered.
//!
//! Envoy's gradient controller (`adaptive_concurrency`, after Netflix's `concurrency-limits`). From
//! time to time the limit is at its lowest until some requests have shown in what time they are
//! answered when nothing queues: `minRTT`. Else it is set anew after each interval, by the time that
//! requests of the interval took:
//!
//! ```text
//! gradient = clamp(minRTT * (1 + buffer) / sampleRTT, 0.5, 2)
//! limit    = clamp(gradient * limit + sqrt(gradient * limit), lowest, highest)
//! ```
//!
//! The square root is what it may grow by while nothing queues. A limit that was the lowest for five
//! intervals measures `minRTT` anew: the service may have become slower for good.
//!
//! Differs from Envoy: nothing runs by a timer, whoever brings a time in after the end of an interval
//! closes it; and times are kept in buckets whose width is a sixteenth of what they hold, well below
//! the buffer.
//!
//! All workers share it without a lock: times are counted with atomics, and of those who could close
//! an interval one does while the others go on.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use model::overload::AdaptiveConcurrency;

/// Intervals in a row at the lowest limit after which the ideal is measured anew.
const STUCK: u32 = 5;
/// Parts of a doubling.
const PARTS: usize = 16;
/// Doublings of a microsecond: more than an hour.
const DOUBLINGS: usize = 32;

/// A limit that finds itself.
#[derive(Debug)]
pub struct Gradient {
    limit: AtomicU32,
    /// What the limit was before the ideal began to be measured; 0 while it is not.
    deferred: AtomicU32,
    /// Microseconds; 0 until it was measured.
    min_rtt: AtomicU64,
    /// Microseconds at which the interval, or the measuring, began.
    begun: AtomicU64,
    /// Microseconds at which the ideal is to be measured again.
    again: AtomicU64,
    stuck: AtomicU32,
    /// Set by who closes an interval.
    closing: AtomicBool,
    times: Times,
}

impl Gradient {
    /// A limit about which nothing is known yet: the ideal is to be measured first.
    pub fn new(settings: &AdaptiveConcurrency, now: Duration) -> Self {
        Self {
            limit: AtomicU32::new(settings.min_concurrency),
            deferred: AtomicU32::new(settings.min_concurrency),
            min_rtt: AtomicU64::new(0),
            begun: AtomicU64::new(micros(now)),
            again: AtomicU64::new(u64::MAX),
            stuck: AtomicU32::new(0),
            closing: AtomicBool::new(false),
            times: Times::new(),
        }
    }

    /// Requests that there may be at once.
    pub fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    /// In what time requests are answered when nothing queues, once that is known.
    pub fn min_rtt(&self) -> Option<Duration> {
        let micros = self.min_rtt.load(Ordering::Relaxed);
        (micros > 0).then(|| Duration::from_micros(micros))
    }

    /// Takes in that a request sent at `sent` was answered at `now`. `chance` is a random number from 0
    /// to 1.
    pub fn observe(
        &self,
        sent: Duration,
        now: Duration,
        settings: &AdaptiveConcurrency,
        chance: f64,
    ) {
        let measures = self.deferred.load(Ordering::Relaxed) > 0;
        let begun = self.begun.load(Ordering::Relaxed);
        // One that was sent before waited in a queue of before.
        if measures && micros(sent) < begun {
            return;
        }
        let count = self.times.add(now.saturating_sub(sent));
        let is_over = if measures {
            count >= settings.min_rtt.request_count
        } else {
            micros(now).saturating_sub(begun) >= micros(settings.update_interval)
        };
        if !is_over || self.closing.swap(true, Ordering::Acquire) {
            return;
        }
        // It may have been closed since it was looked at.
        if self.begun.load(Ordering::Relaxed) == begun {
            if measures {
                self.measured(now, settings, chance);
            } else {
                self.update(now, settings);
            }
        }
        self.closing.store(false, Ordering::Release);
    }

    /// The ideal is known: all goes on where it was.
    fn measured(&self, now: Duration, settings: &AdaptiveConcurrency, chance: f64) {
        if let Some(time) = self.times.take(settings.sample_percentile) {
            self.min_rtt.store(time, Ordering::Relaxed);
        }
        let before = self.deferred.load(Ordering::Relaxed);
        self.set(before, settings);
        let jitter = f64::from(settings.min_rtt.jitter_percent) / 100.0;
        let pause = settings.min_rtt.interval.mul_f64(1.0 + jitter * chance);
        self.again.store(micros(now + pause), Ordering::Relaxed);
        self.stuck.store(0, Ordering::Relaxed);
        self.begun.store(micros(now), Ordering::Relaxed);
        self.deferred.store(0, Ordering::Relaxed);
    }

    /// An interval is over.
    fn update(&self, now: Duration, settings: &AdaptiveConcurrency) {
        let before = self.limit();
        let ideal = self.min_rtt.load(Ordering::Relaxed);
        if let Some(time) = self.times.take(settings.sample_percentile) {
            let buffer = 1.0 + f64::from(settings.min_rtt.buffer_percent) / 100.0;
            let gradient = (ideal as f64 * buffer / time.max(1) as f64).clamp(0.5, 2.0);
            let limit = f64::from(before) * gradient;
            self.set((limit + limit.sqrt()) as u32, settings);
        }
        let lowest = self.limit() == settings.min_concurrency && before == self.limit();
        let stuck = if lowest {
            self.stuck.load(Ordering::Relaxed) + 1
        } else {
            0
        };
        self.stuck.store(stuck, Ordering::Relaxed);
        if stuck >= STUCK || micros(now) >= self.again.load(Ordering::Relaxed) {
            self.deferred.store(self.limit().max(1), Ordering::Relaxed);
            self.set(settings.min_concurrency, settings);
        }
        self.begun.store(micros(now), Ordering::Relaxed);
    }

    fn set(&self, limit: u32, settings: &AdaptiveConcurrency) {
        let highest = settings.max_concurrency.max(settings.min_concurrency);
        let limit = limit.clamp(settings.min_concurrency, highest);
        self.limit.store(limit, Ordering::Relaxed);
    }
}

/// Times, counted by how long they are.
#[derive(Debug)]
struct Times {
    buckets: Box<[AtomicU32]>,
    count: AtomicU32,
}

impl Times {
    fn new() -> Self {
        Self {
            buckets: (0..PARTS * DOUBLINGS).map(|_| AtomicU32::new(0)).collect(),
            count: AtomicU32::new(0),
        }
    }

    /// Counts one; how many there are now.
    fn add(&self, time: Duration) -> u32 {
        self.buckets[bucket(micros(time))].fetch_add(1, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// Forgets all, and says which time so many percent of them did not exceed, in microseconds.
    fn take(&self, percentile: u32) -> Option<u64> {
        let counts: Vec<u64> = self
            .buckets
            .iter()
            .map(|bucket| u64::from(bucket.swap(0, Ordering::Relaxed)))
            .collect();
        self.count.store(0, Ordering::Relaxed);
        let total: u64 = counts.iter().sum();
        let rank = (total * u64::from(percentile)).div_ceil(100).max(1);
        let mut seen = 0;
        let index = counts.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        Some(middle(index))
    }
}

/// The bucket of a time in microseconds.
fn bucket(micros: u64) -> usize {
    let micros = micros.max(1);
    let doubling = micros.ilog2() as usize;
    // What is left of the doubling, in parts of it.
    let part = ((u128::from(micros - (1 << doubling)) * PARTS as u128) >> doubling) as usize;
    (doubling * PARTS + part).min(PARTS * DOUBLINGS - 1)
}

/// A time of the middle of a bucket.
fn middle(index: usize) -> u64 {
    let (doubling, part) = (index / PARTS, index % PARTS);
    let whole = 1_u128 << doubling;
    let low = whole + whole * part as u128 / PARTS as u128;
    (low + whole / (2 * PARTS as u128)) as u64
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
