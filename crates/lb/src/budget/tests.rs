//! The budget in simulated time, and its bound with real threads.

use super::*;
use proptest::prelude::*;
use std::sync::atomic::AtomicU32;

fn limits(percent: u32, min_per_second: u32) -> Limits {
    Limits {
        percent,
        min_per_second,
    }
}

fn at(second: u64) -> Duration {
    Duration::from_secs(second)
}

#[test]
fn a_share_of_the_recent_requests_may_be_retried() {
    let budget = Budget::new();
    for _ in 0..100 {
        budget.started(at(0));
        budget.finished();
    }
    let limits = limits(20, 0);
    let allowed = (0..100).filter(|_| budget.allow(at(1), &limits)).count();
    assert_eq!(allowed, 20);
    // Requests and retries leave the window together, and nothing is saved up.
    assert!(!budget.allow(at(15), &limits));
}

#[test]
fn requests_in_flight_count_even_if_they_began_long_ago() {
    let budget = Budget::new();
    for _ in 0..50 {
        budget.started(at(0));
    }
    let limits = limits(10, 0);
    let allowed = (0..50).filter(|_| budget.allow(at(60), &limits)).count();
    assert_eq!(allowed, 5);
    for _ in 0..60 {
        budget.finished();
    }
    assert!(!budget.allow(at(90), &limits));
}

#[test]
fn a_quiet_destination_has_its_minimum_each_second() {
    let budget = Budget::new();
    let limits = limits(0, 3);
    for second in 0..5 {
        let allowed = (0..10)
            .filter(|_| budget.allow(at(second), &limits))
            .count();
        assert_eq!(allowed, 3, "second {second}");
    }
}

#[test]
fn a_clock_that_is_behind_by_the_window_is_refused() {
    let budget = Budget::new();
    assert!(budget.allow(at(20), &limits(0, 1)));
    assert!(!budget.allow(at(10), &limits(100, 100)));
}

#[test]
fn no_interleaving_exceeds_the_bound() {
    let budget = Budget::new();
    for _ in 0..1_000 {
        budget.started(at(0));
        budget.finished();
    }
    let limits = limits(20, 10);
    let allowed = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1_000 {
                    if budget.allow(at(0), &limits) {
                        allowed.fetch_add(1, Relaxed);
                    }
                }
            });
        }
    });
    let allowed = allowed.into_inner();
    assert!((10..=200).contains(&allowed), "{allowed}");
}

proptest! {
    #[test]
    fn retries_stay_within_share_and_minimum(
        percent in 0u32..60,
        minimum in 0u32..5,
        steps in prop::collection::vec((0u32..20, 0u32..30, 0u64..4), 1..60),
    ) {
        let budget = Budget::new();
        let limits = limits(percent, minimum);
        let mut second = 0;
        let mut log: Vec<(u64, u64, u64)> = Vec::new();
        for (requests, wanted, later) in steps {
            second += later;
            for _ in 0..requests {
                budget.started(at(second));
                budget.finished();
            }
            let retries = (0..wanted).filter(|_| budget.allow(at(second), &limits)).count();
            log.push((second, u64::from(requests), retries as u64));
            let recent = log.iter().filter(|(s, ..)| s + WINDOW > second);
            let (requests, retries) = recent.fold((0, 0), |(r, t), (_, a, b)| (r + a, t + b));
            // A retry that was allowed by the share may have been so when more requests were
            // recent: those are at most the ones of one window before.
            let before: u64 = log
                .iter()
                .filter(|(s, ..)| s + 2 * WINDOW > second && s + WINDOW <= second)
                .map(|(_, r, _)| r)
                .sum();
            let bound = (requests + before) * u64::from(percent) / 100 + u64::from(minimum) * WINDOW;
            prop_assert!(retries <= bound, "{} retries, bound {}", retries, bound);
        }
    }
}
