use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);

/// A service that works on `at_once` requests for `each`; others queue. As many clients as may be ask
/// it, each again as soon as it is answered, for `long`. What the limit was after each interval.
fn serve(
    gradient: &Gradient,
    from: Duration,
    at_once: u32,
    each: Duration,
    long: Duration,
) -> Vec<u32> {
    let settings = AdaptiveConcurrency::default();
    // When each place of the service is free again, and when requests under way are answered.
    let mut places = vec![from; at_once as usize];
    let mut under_way: Vec<(Duration, Duration)> = Vec::new();
    let (mut now, mut limits) = (from, Vec::new());
    while now < from + long {
        while (under_way.len() as u32) < gradient.limit().min(400) {
            let place = places.iter_mut().min().expect("one at least");
            *place = (*place).max(now) + each;
            under_way.push((*place, now));
        }
        under_way.sort();
        let (answered, sent) = under_way.remove(0);
        now = now.max(answered);
        gradient.observe(sent, now, &settings, 0.5);
        limits.push(gradient.limit());
    }
    limits
}

fn tail(limits: &[u32]) -> Vec<u32> {
    let mut tail: Vec<u32> = limits[limits.len() * 3 / 4..].to_vec();
    tail.sort_unstable();
    tail
}

#[test]
fn the_limit_finds_how_much_the_service_can_do_at_once() {
    let settings = AdaptiveConcurrency::default();
    let start = Duration::from_secs(100);
    for (at_once, each) in [(10, 20), (40, 10), (100, 50)] {
        let gradient = Gradient::new(&settings, start);
        assert_eq!(gradient.limit(), settings.min_concurrency);
        let limits = serve(&gradient, start, at_once, MS * each, MS * 30_000);
        let ideal = gradient.min_rtt().expect("measured");
        let off = ideal.as_secs_f64() / (MS * each).as_secs_f64();
        assert!((0.94..1.07).contains(&off), "{ideal:?} of {each} ms");
        let tail = tail(&limits);
        let (low, high) = (tail[tail.len() / 10], tail[tail.len() * 9 / 10]);
        // The buffer lets a quarter queue, the square root some more, and it is told late.
        assert!(
            low >= at_once * 3 / 4 && high <= at_once * 5 / 2,
            "{at_once}: {low} to {high}"
        );
    }
}

#[test]
fn when_the_service_becomes_slower_the_limit_follows_and_comes_back() {
    let settings = AdaptiveConcurrency::default();
    let start = Duration::from_secs(1);
    let gradient = Gradient::new(&settings, start);
    let quick = serve(&gradient, start, 50, MS * 10, MS * 10_000);
    let weak = serve(&gradient, start + MS * 10_000, 10, MS * 10, MS * 10_000);
    let again = serve(&gradient, start + MS * 20_000, 50, MS * 10, MS * 10_000);
    let median = |limits: &[u32]| {
        let tail = tail(limits);
        tail[tail.len() / 2]
    };
    let (quick, weak, again) = (median(&quick), median(&weak), median(&again));
    assert!(
        weak * 2 < quick && again * 10 > quick * 9,
        "{quick}, {weak}, {again}"
    );
}

#[test]
fn the_ideal_is_measured_again_after_its_interval_with_few_requests() {
    let settings = AdaptiveConcurrency::default();
    let start = Duration::from_secs(1);
    let gradient = Gradient::new(&settings, start);
    let limits = serve(&gradient, start, 40, MS * 10, MS * 90_000);
    // At first, and once more after 60 s and half of 15 % of them.
    let mut dips = 0;
    for pair in limits.windows(2) {
        dips += u32::from(pair[0] > 20 && pair[1] == settings.min_concurrency);
    }
    assert_eq!(dips, 1);
    assert!(*limits.last().expect("some") >= 40);
}

#[test]
fn times_of_requests_sent_before_do_not_count_for_the_ideal() {
    let settings = AdaptiveConcurrency::default();
    let start = Duration::from_secs(10);
    let gradient = Gradient::new(&settings, start);
    for _ in 0..1000 {
        gradient.observe(start.saturating_sub(MS), start + MS, &settings, 0.0);
    }
    assert_eq!(gradient.min_rtt(), None);
    for _ in 0..settings.min_rtt.request_count {
        gradient.observe(start, start + MS, &settings, 0.0);
    }
    assert!(gradient.min_rtt().is_some());
}

#[test]
fn a_service_that_is_slower_for_good_is_not_kept_at_the_lowest() {
    let settings = AdaptiveConcurrency::default();
    let start = Duration::from_secs(1);
    let gradient = Gradient::new(&settings, start);
    serve(&gradient, start, 40, MS * 10, MS * 5_000);
    let limits = serve(&gradient, start + MS * 5_000, 40, MS * 40, MS * 20_000);
    let ideal = gradient.min_rtt().expect("measured");
    assert!(ideal > MS * 30, "{ideal:?}");
    assert!(tail(&limits)[0] >= 40);
}

proptest! {
    #[test]
    fn a_bucket_holds_times_that_differ_by_a_sixteenth(micros in 1..(1_u64 << 31)) {
        let index = bucket(micros);
        let off = middle(index) as f64 / micros as f64;
        prop_assert!((0.93..1.07).contains(&off) || micros < 16, "{micros}: {}", middle(index));
        prop_assert!(bucket(micros + micros / 8 + 1) > index);
    }

    #[test]
    fn the_limit_stays_within_its_bounds(times in proptest::collection::vec((0..5_000_u64, 0..400_u64), 1..400)) {
        let settings = AdaptiveConcurrency { max_concurrency: 50, ..AdaptiveConcurrency::default() };
        let mut now = Duration::from_secs(5);
        let gradient = Gradient::new(&settings, now);
        for (took, pause) in times {
            now += MS * pause as u32;
            gradient.observe(now.saturating_sub(MS * took as u32), now, &settings, 0.3);
            prop_assert!((3..=50).contains(&gradient.limit()));
        }
    }
}
