//! Ejection in simulated time, and the bound on its share with real threads.

use super::*;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

fn settings(five: u32, gateway: u32, percent: u32) -> OutlierDetection {
    OutlierDetection {
        consecutive_5xx: five,
        consecutive_gateway_errors: gateway,
        base_ejection_time: 30 * SECOND,
        max_ejection_percent: percent,
        ..OutlierDetection::default()
    }
}

fn records(n: usize) -> (Arc<Group>, Vec<Record>) {
    let group = Group::new();
    let records = (0..n).map(|_| Record::new(group.clone())).collect();
    (group, records)
}

#[test]
fn statuses_tell_what_they_should() {
    for (status, want) in [
        (200, Verdict::Success),
        (404, Verdict::Success),
        (499, Verdict::Success),
        (500, Verdict::ServerError),
        (501, Verdict::ServerError),
        (502, Verdict::GatewayError),
        (503, Verdict::GatewayError),
        (504, Verdict::GatewayError),
        (505, Verdict::ServerError),
        (600, Verdict::Success),
    ] {
        assert_eq!(Verdict::of_status(status), want, "{status}");
    }
}

#[test]
fn failures_in_a_row_eject_and_a_success_breaks_the_row() {
    let (_group, records) = records(2);
    let settings = settings(3, 0, 50);
    let say = |v| records[0].record(v, SECOND, &settings);
    assert_eq!(say(Verdict::ServerError), None);
    assert_eq!(say(Verdict::GatewayError), None);
    assert_eq!(say(Verdict::Success), None);
    assert_eq!(say(Verdict::ServerError), None);
    assert_eq!(say(Verdict::ServerError), None);
    assert_eq!(say(Verdict::ServerError), Some(30 * SECOND));
    assert!(records[0].ejected(2 * SECOND));
    assert!(records[0].ejected(30 * SECOND));
    assert!(!records[0].ejected(31 * SECOND));
    assert!(!records[1].ejected(2 * SECOND));
}

#[test]
fn gateway_errors_have_a_limit_of_their_own() {
    let (_group, records) = records(2);
    let settings = settings(0, 2, 50);
    let say = |v| records[0].record(v, SECOND, &settings).is_some();
    assert!(!say(Verdict::ServerError) && !say(Verdict::ServerError));
    assert!(!say(Verdict::GatewayError));
    // A plain 500 proves that something answers.
    assert!(!say(Verdict::ServerError));
    assert!(!say(Verdict::GatewayError));
    assert!(say(Verdict::GatewayError));
}

#[test]
fn each_ejection_is_longer_until_good_conduct_forgives() {
    let (_group, records) = records(2);
    let settings = settings(1, 0, 50);
    let mut now = SECOND;
    for n in 1..=12 {
        let length = records[0].record(Verdict::ServerError, now, &settings);
        assert_eq!(length, Some((30 * n * SECOND).min(LONGEST)), "ejection {n}");
        now += length.unwrap_or_default();
    }
    // 12 ejections; 110 s of good conduct forgive 11 of them.
    now += 110 * SECOND;
    assert_eq!(
        records[0].record(Verdict::ServerError, now, &settings),
        Some(60 * SECOND)
    );
    now += 10_000 * SECOND;
    assert_eq!(
        records[0].record(Verdict::ServerError, now, &settings),
        Some(30 * SECOND)
    );
}

#[test]
fn failures_during_an_ejection_do_not_count_after_it() {
    let (_group, records) = records(2);
    let settings = settings(2, 0, 50);
    let say = |now| records[0].record(Verdict::ServerError, now, &settings);
    assert_eq!(say(SECOND), None);
    assert!(say(SECOND).is_some());
    for _ in 0..5 {
        assert_eq!(say(2 * SECOND), None);
    }
    assert!(!records[0].ejected(40 * SECOND));
    assert_eq!(say(40 * SECOND), None);
    assert!(say(41 * SECOND).is_some());
}

#[test]
fn the_share_is_kept_and_places_are_freed() {
    let (group, mut records) = records(4);
    let settings = settings(1, 0, 50);
    let fail = |r: &Record, now| r.record(Verdict::GatewayError, now, &settings).is_some();
    assert!(fail(&records[0], SECOND));
    assert!(fail(&records[1], 11 * SECOND));
    assert!(!fail(&records[2], 12 * SECOND), "half are ejected already");
    assert_eq!(group.ejected(), 2);

    // The first one's time is over; looking at it frees its place.
    assert!(!records[0].ejected(32 * SECOND));
    assert!(fail(&records[2], 32 * SECOND));

    // An ejected endpoint that goes away takes its place with it.
    drop(records.remove(1));
    assert_eq!((group.ejected(), group.members()), (1, 3));
    drop(records);
    assert_eq!((group.ejected(), group.members()), (0, 0));
}

#[test]
fn a_share_of_less_than_one_endpoint_ejects_none() {
    let (_group, records) = records(1);
    assert_eq!(
        records[0].record(Verdict::ServerError, SECOND, &settings(1, 0, 50)),
        None
    );
    let all = settings(1, 0, 100);
    assert!(
        records[0]
            .record(Verdict::ServerError, SECOND, &all)
            .is_some()
    );
}

#[test]
fn no_interleaving_exceeds_the_share() {
    const MEMBERS: usize = 10;
    for round in 0..50 {
        let (group, records) = records(MEMBERS);
        let settings = settings(1, 1, 30);
        let start = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let (group, records, start) = (&group, &records, &start);
                scope.spawn(move || {
                    start.wait();
                    for step in 0..400usize {
                        let record = &records[(step * 7 + worker * 3 + round) % MEMBERS];
                        // Time runs, so that ejections end and begin all the while.
                        let now = Duration::from_secs(step as u64 * 5);
                        record.record(Verdict::GatewayError, now, &settings);
                        assert!(group.ejected() <= 3);
                        record.ejected(now);
                    }
                });
            }
        });
        let late = Duration::from_secs(100_000);
        assert!(records.iter().all(|r| !r.ejected(late)));
        assert_eq!(group.ejected(), 0, "every place is given back once");
    }
}

proptest! {
    #[test]
    fn places_taken_are_those_of_ejected_endpoints(
        percent in 0u32..=100,
        steps in prop::collection::vec((0usize..5, 0u8..4, 0u64..40_000), 0..200),
    ) {
        let (group, records) = records(5);
        let settings = settings(2, 1, percent);
        let mut now = Duration::ZERO;
        for (at, what, later) in steps {
            now += Duration::from_millis(later);
            match what {
                0 => { records[at].record(Verdict::Success, now, &settings); }
                1 => { records[at].record(Verdict::ServerError, now, &settings); }
                2 => { records[at].record(Verdict::GatewayError, now, &settings); }
                _ => { records[at].ejected(now); }
            }
            let ejected = records.iter().filter(|r| r.ejected(now)).count() as u32;
            prop_assert_eq!(ejected, group.ejected());
            prop_assert!(ejected * 100 <= 5 * percent);
        }
    }
}

#[test]
fn failures_without_an_answer_can_be_told_apart() {
    let (_group, records) = records(4);
    let mixed = settings(0, 2, 50);
    assert_eq!(records[0].record(Verdict::NoAnswer, SECOND, &mixed), None);
    let ejected = records[0].record(Verdict::GatewayError, SECOND, &mixed);
    assert_eq!(ejected, Some(30 * SECOND), "they count as one kind");

    let apart = OutlierDetection {
        consecutive_local_origin_failures: Some(3),
        ..settings(2, 2, 50)
    };
    let say = |verdict| records[1].record(verdict, 100 * SECOND, &apart);
    assert_eq!(say(Verdict::NoAnswer), None);
    assert_eq!(say(Verdict::NoAnswer), None);
    assert_eq!(say(Verdict::ServerError), None, "an answer ends the row");
    assert_eq!(say(Verdict::NoAnswer), None);
    assert_eq!(say(Verdict::NoAnswer), None);
    assert_eq!(say(Verdict::NoAnswer), Some(30 * SECOND));
}

/// Records of endpoints that answered so many of 100 requests well.
fn with_rates(successes: &[u32], settings: &OutlierDetection) -> (Arc<Group>, Vec<Record>) {
    let (group, records) = records(successes.len());
    for (record, good) in records.iter().zip(successes) {
        for n in 0..100 {
            // Well mixed, so that no row of failures is long.
            let verdict = if (n * 37) % 100 < *good {
                Verdict::Success
            } else {
                Verdict::ServerError
            };
            record.record(verdict, SECOND, settings);
        }
    }
    (group, records)
}

#[test]
fn who_succeeds_far_less_often_than_the_others_is_ejected() {
    let by = OutlierDetection {
        success_rate: Some(SuccessRate::default()),
        ..settings(0, 0, 50)
    };
    let outliers = |successes: &[u32]| {
        let (_group, records) = with_rates(successes, &by);
        let found = compare(records.iter(), 2 * SECOND, &by);
        found
            .into_iter()
            .map(|(index, _)| index)
            .collect::<Vec<_>>()
    };
    // Mean 85, deviation 22.1: below 43.
    assert_eq!(outliers(&[96, 96, 96, 96, 96, 95, 20]), [6]);
    assert!(outliers(&[60, 61, 62, 61, 60, 59]).is_empty(), "all alike");
    assert!(outliers(&[99, 99, 99, 10]).is_empty(), "too few endpoints");
}

#[test]
fn who_fails_more_often_than_is_allowed_is_ejected() {
    let by = OutlierDetection {
        failure_percentage: Some(FailurePercentage {
            threshold: 40,
            minimum_hosts: 2,
            minimum_requests: 100,
        }),
        ..settings(0, 0, 50)
    };
    let (_group, records) = with_rates(&[61, 60, 100, 100], &by);
    let found = compare(records.iter(), 2 * SECOND, &by);
    assert_eq!(found, [(1, 30 * SECOND)]);
    assert!(records[1].ejected(3 * SECOND));
    let again = compare(records.iter(), 3 * SECOND, &by);
    assert!(again.is_empty(), "another interval has begun: {again:?}");
}

#[test]
fn an_interval_ends_once() {
    let group = Group::new();
    assert!(group.is_due(10 * SECOND, 10 * SECOND));
    assert!(!group.is_due(10 * SECOND, 10 * SECOND));
    assert!(!group.is_due(19 * SECOND, 10 * SECOND));
    assert!(group.is_due(20 * SECOND, 10 * SECOND));
}
