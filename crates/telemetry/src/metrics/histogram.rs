//! Counters and histograms with a single writer.

use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds of duration buckets, in seconds; about Envoy's, which Istio keeps.
pub const DURATION_BOUNDS: [f64; 16] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];

/// Upper bounds of size buckets, in bytes.
pub const BYTES_BOUNDS: [f64; 7] = [100.0, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8];

const DURATION_NANOS: [u64; 16] = [
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
];

const BYTES: [u64; 7] = [
    100,
    1_000,
    10_000,
    100_000,
    1_000_000,
    10_000_000,
    100_000_000,
];

/// A counter that one thread writes and any may read: no locked instruction.
#[derive(Debug, Default)]
pub(super) struct Single(AtomicU64);

impl Single {
    pub(super) fn add(&self, n: u64) {
        // Only one thread stores, so nothing is lost between the load and the store.
        let sum = self.0.load(Ordering::Relaxed).wrapping_add(n);
        self.0.store(sum, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Request durations, in nanoseconds. The sum beside the small buckets: most requests touch both.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Durations {
    sum: Single,
    buckets: [Single; 17],
}

/// Body sizes, in bytes; likewise.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Sizes {
    sum: Single,
    buckets: [Single; 8],
}

impl Durations {
    pub(super) fn observe(&self, nanos: u64) {
        let i = DURATION_NANOS.partition_point(|bound| *bound < nanos);
        self.buckets[i].add(1);
        self.sum.add(nanos);
    }

    pub(super) fn add_to(&self, sum: &mut Sum) {
        sum.add(&self.buckets, self.sum.read());
    }
}

impl Sizes {
    pub(super) fn observe(&self, bytes: u64) {
        let i = BYTES.partition_point(|bound| *bound < bytes);
        self.buckets[i].add(1);
        self.sum.add(bytes);
    }

    pub(super) fn add_to(&self, sum: &mut Sum) {
        sum.add(&self.buckets, self.sum.read());
    }
}

/// A histogram summed over shards; buckets not cumulative.
#[derive(Debug, Default, Clone)]
pub(super) struct Sum {
    pub(super) buckets: Vec<u64>,
    pub(super) sum: u64,
}

impl Sum {
    fn add(&mut self, buckets: &[Single], sum: u64) {
        self.buckets.resize(buckets.len(), 0);
        for (mine, theirs) in self.buckets.iter_mut().zip(buckets) {
            *mine = mine.wrapping_add(theirs.read());
        }
        self.sum = self.sum.wrapping_add(sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_in_seconds_and_nanoseconds_agree() {
        for (seconds, nanos) in DURATION_BOUNDS.iter().zip(DURATION_NANOS) {
            assert!((seconds * 1e9 - nanos as f64).abs() < 1.0, "{seconds}");
        }
        for (a, b) in BYTES_BOUNDS.iter().zip(BYTES) {
            assert!((a - b as f64).abs() < 1e-9, "{a}");
        }
    }

    #[test]
    fn a_value_on_a_bound_belongs_below_it() {
        let sizes = Sizes::default();
        for n in [0, 100, 101, 100_000_000, u64::MAX] {
            sizes.observe(n);
        }
        let mut sum = Sum::default();
        sizes.add_to(&mut sum);
        assert_eq!(sum.buckets, [2, 1, 0, 0, 0, 0, 1, 1]);
    }
}
