//! Envoy's own tables.

use super::*;

/// Groups of a hundred, so many of which are usable.
fn shares(usable: &[u32], threshold: Option<u32>) -> (Vec<u64>, Vec<bool>) {
    let spread = Spread::new(usable.iter().map(|_| 100), Rule::Failover, threshold);
    let count = |usable: &u32| Count {
        all: 100,
        usable: *usable,
    };
    let counts: Vec<_> = usable.iter().map(count).collect();
    let shares = Shares::of(&spread, &counts);
    (shares.shares().to_vec(), shares.panicking().to_vec())
}

/// <https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/priority>
#[test]
fn levels_spill_over_as_in_envoys_documentation() {
    for (usable, expected) in [
        (&[100, 100][..], &[100, 0][..]),
        (&[72, 100], &[100, 0]),
        (&[71, 100], &[99, 1]),
        (&[50, 100], &[70, 30]),
        (&[25, 100], &[35, 65]),
        (&[0, 100], &[0, 100]),
        (&[72, 72], &[100, 0]),
        (&[71, 71], &[99, 1]),
        (&[50, 50], &[70, 30]),
        (&[25, 25], &[50, 50]),
        (&[72, 72, 100], &[100, 0, 0]),
        (&[71, 71, 100], &[99, 1, 0]),
        (&[50, 50, 100], &[70, 30, 0]),
        (&[25, 100, 100], &[35, 65, 0]),
        (&[25, 25, 100], &[35, 35, 30]),
        // Envoy's page has 36, 36 and 28: by its own pseudocode what rounding loses (35 * 100 / 98 is
        // 35.7) is the first level's, as it is in its code.
        (&[25, 25, 20], &[37, 35, 28]),
        // None at all: nobody gets anything.
        (&[0, 0], &[0, 0]),
    ] {
        assert_eq!(shares(usable, None).0, expected, "{usable:?}");
    }
}

/// <https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/panic_threshold>
#[test]
fn levels_panic_as_in_envoys_documentation() {
    for (usable, panics) in [
        (&[72, 100][..], &[false, false][..]),
        (&[25, 100], &[false, false]),
        (&[0, 100], &[false, false]),
        (&[71, 71], &[false, false]),
        (&[50, 60], &[false, false]),
        (&[25, 25], &[true, true]),
        (&[5, 65], &[true, false]),
    ] {
        assert_eq!(shares(usable, Some(50)).1, panics, "{usable:?}");
    }
    // In panic all over there is no difference left.
    assert_eq!(shares(&[25, 25], Some(50)).0, [50, 50]);
    assert_eq!(shares(&[5, 0], Some(50)).0, [50, 50]);
    // 7 and 91 of 98.
    assert_eq!(shares(&[5, 65], Some(50)).0, [8, 92]);
    assert_eq!(shares(&[0, 0], Some(0)), (vec![0, 0], vec![false, false]));
}

#[test]
fn of_one_group_the_threshold_counts_as_it_is_written() {
    assert_eq!(shares(&[75], Some(80)), (vec![100], vec![true]));
    assert_eq!(shares(&[80], Some(80)), (vec![100], vec![false]));
    // With another to go to, it is not looked at while there is enough of both.
    assert_eq!(shares(&[75, 75], Some(80)).1, [false, false]);
}

#[test]
fn an_empty_level_is_passed_over() {
    let spread = Spread::new([0, 10, 10], Rule::Failover, Some(50));
    let count = |all, usable| Count { all, usable };
    let counts = [count(0, 0), count(10, 5), count(10, 10)];
    let shares = Shares::of(&spread, &counts);
    assert_eq!(shares.shares(), [0, 70, 30]);
    let alone = Shares::of(&spread, &[count(0, 0), count(10, 4), count(0, 0)]);
    assert_eq!((alone.shares(), alone.panics(1)), (&[0, 100, 0][..], true));
}
