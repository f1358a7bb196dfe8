//! Waiting for a condition, never for a time.

use std::thread;
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(10);

/// Waits until `condition` gives something; `None` when the limit is reached first.
pub fn try_wait_for<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = condition() {
            return Some(found);
        }
        let left = end.checked_duration_since(Instant::now())?;
        thread::sleep(left.min(INTERVAL));
    }
}

/// Waits until `condition` gives something, and fails the test with `what` when it never does.
///
/// ```
/// use std::time::Duration;
/// let mut n = 0;
/// let seen = testkit::wait_for("n to pass 3", Duration::from_secs(5), || {
///     n += 1;
///     (n > 3).then_some(n)
/// });
/// assert_eq!(seen, 4);
/// ```
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, condition: impl FnMut() -> Option<T>) -> T {
    match try_wait_for(limit, condition) {
        Some(found) => found,
        None => panic!("waited {limit:?} in vain for {what}"),
    }
}
