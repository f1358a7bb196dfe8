//! Token buckets by caller: who asks too often is told so, the others notice nothing.
//!
//! The number of callers remembered is bounded; when it is reached, those with a full bucket are
//! forgotten first (forgetting them changes nothing), then all.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Callers remembered at once.
const CALLERS: usize = 8192;

/// A limit for each caller.
#[derive(Debug)]
pub(crate) struct Limiter<K> {
    burst: f64,
    per_second: f64,
    buckets: Mutex<HashMap<K, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl<K: Hash + Eq> Limiter<K> {
    /// `burst` at once, then `per_second` on average.
    pub(crate) fn new(burst: u32, per_second: f64) -> Self {
        Self {
            burst: f64::from(burst),
            per_second,
            buckets: Mutex::new(HashMap::new()),
        }
    }

    /// Takes one; otherwise says how long to wait.
    pub(crate) fn take(&self, caller: K) -> Result<(), Duration> {
        let now = Instant::now();
        // Every operation leaves the map whole.
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= CALLERS && !buckets.contains_key(&caller) {
            buckets.retain(|_, b| self.filled(*b, now) < self.burst);
            if buckets.len() >= CALLERS {
                buckets.clear();
            }
        }
        let bucket = buckets.entry(caller).or_insert(Bucket {
            left: self.burst,
            at: now,
        });
        bucket.left = self.filled(*bucket, now);
        bucket.at = now;
        if bucket.left >= 1.0 {
            bucket.left -= 1.0;
            Ok(())
        } else {
            Err(Duration::from_secs_f64(
                (1.0 - bucket.left) / self.per_second,
            ))
        }
    }

    fn filled(&self, bucket: Bucket, now: Instant) -> f64 {
        let since = now.saturating_duration_since(bucket.at).as_secs_f64();
        since.mul_add(self.per_second, bucket.left).min(self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_caller_waits_and_the_other_does_not() {
        let limiter = Limiter::new(2, 0.5);
        assert!(limiter.take("a").is_ok() && limiter.take("a").is_ok());
        let wait = limiter.take("a").expect_err("empty");
        assert_eq!(wait.as_secs(), 2);
        assert!(limiter.take("b").is_ok());
        tokio::time::advance(wait).await;
        assert!(limiter.take("a").is_ok());
        assert!(limiter.take("a").is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn callers_without_number_do_not_fill_memory() {
        let limiter = Limiter::new(1, 1.0);
        for n in 0..CALLERS * 3 {
            assert!(limiter.take(n).is_ok());
        }
        assert!(limiter.buckets.lock().expect("whole").len() <= CALLERS);
    }
}
