//! How even the tables are, and how little they change.

use proptest::prelude::*;

use super::*;

const RING: Algorithm = Algorithm::RingHash {
    minimum: Algorithm::MINIMUM_RING,
    maximum: Algorithm::MAXIMUM_RING,
};
const MAGLEV: Algorithm = Algorithm::Maglev {
    table: Algorithm::TABLE,
};

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("shop/cart-{n}")).collect()
}

fn build(algorithm: Algorithm, endpoints: &[(&str, u32)]) -> Table {
    Table::build(algorithm, endpoints).expect("there are endpoints")
}

fn even(names: &[String]) -> Vec<(&str, u32)> {
    names.iter().map(|name| (name.as_str(), 1)).collect()
}

fn keys() -> impl Iterator<Item = u64> {
    (0..20_000_u32).map(|n| hash(&n.to_le_bytes()))
}

/// The share of each endpoint, in percent.
fn shares(table: &Table, count: usize) -> Vec<f64> {
    let mut counts = vec![0_u32; count];
    for key in keys() {
        counts[table.find(key, |_| true).expect("all are allowed")] += 1;
    }
    counts.iter().map(|n| f64::from(*n) / 200.0).collect()
}

#[test]
fn maglev_is_even_to_a_hundredth_and_a_ring_to_a_third() {
    let names = names(20);
    let table = build(MAGLEV, &even(&names));
    assert_eq!(table.entries(), 65_537);
    let mut entries = [0_u32; 20];
    for owner in &table.owners {
        entries[*owner as usize] += 1;
    }
    // The paper's bound for its large tables; of equal weights none has two more than another.
    let (least, most) = (entries.iter().min(), entries.iter().max());
    assert!(
        most.zip(least).is_some_and(|(a, b)| a - b <= 1),
        "{entries:?}"
    );
    for share in shares(&table, 20) {
        // 5 %, by four standard deviations of 20,000 draws.
        assert!((share - 5.0).abs() < 0.62, "{share}");
    }
    let ring = build(RING, &even(&names));
    assert_eq!(ring.entries(), 1040);
    let all = shares(&ring, 20);
    // 52 entries each: a share varies by about 1 / sqrt(52) of itself.
    assert!(
        all.iter()
            .all(|s| (s - 5.0).abs() < 5.0 * 4.0 / 52.0_f64.sqrt()),
        "{all:?}"
    );
    let off = all.iter().map(|s| (s - 5.0).powi(2)).sum::<f64>() / 20.0;
    assert!(off.sqrt() < 5.0 / 3.0, "{all:?}");
}

#[test]
fn weights_count() {
    let names = names(4);
    let weights = [4, 2, 1, 1];
    let endpoints: Vec<_> = names.iter().map(String::as_str).zip(weights).collect();
    for (algorithm, bound) in [(MAGLEV, 1.0), (RING, 10.0)] {
        let got = shares(&build(algorithm, &endpoints), 4);
        for (share, weight) in got.iter().zip(weights) {
            let expected = f64::from(weight) * 12.5;
            assert!((share - expected).abs() < bound, "{algorithm:?} {got:?}");
        }
    }
    // So is the last resort, when none of the entries near a key is allowed.
    let table = build(MAGLEV, &endpoints);
    let mut counts = [0_u32; 4];
    for key in keys() {
        counts[table.highest(key, |_| true).expect("all are allowed")] += 1;
    }
    for (count, weight) in counts.iter().zip(weights) {
        let off = f64::from(*count) / 200.0 - f64::from(weight) * 12.5;
        assert!(off.abs() < 1.5, "{counts:?}");
    }
}

#[test]
fn who_leaves_takes_nobody_else_along() {
    let names = names(20);
    let (before, mut fewer) = (even(&names), even(&names));
    let gone = 7;
    fewer.remove(gone);
    // A ring of fewer endpoints has more entries of each (54 for 52), which take a little from others.
    for (algorithm, bound) in [(RING, 5.0), (MAGLEV, 3.0)] {
        let (whole, rest) = (build(algorithm, &before), build(algorithm, &fewer));
        let (mut moved, mut its) = (0_u32, 0_u32);
        for key in keys() {
            let was = whole.find(key, |_| true).expect("all are allowed");
            let is = fewer[rest.find(key, |_| true).expect("all are allowed")].0;
            if was == gone {
                its += 1;
            } else if before[was].0 != is {
                moved += 1;
            }
        }
        let percent = f64::from(moved) / 200.0;
        assert!(its > 500, "{its}");
        assert!(percent <= bound, "{algorithm:?}: {percent} %");
    }
}

#[test]
fn an_endpoint_that_is_away_moves_only_its_own_and_all_over_the_rest() {
    let names = names(10);
    for algorithm in [RING, MAGLEV] {
        let table = build(algorithm, &even(&names));
        let mut heirs = [0_u32; 10];
        for key in keys() {
            let was = table.find(key, |_| true).expect("all are allowed");
            let is = table.find(key, |i| i != 3).expect("nine are allowed");
            assert!(was == is || was == 3);
            if was == 3 {
                heirs[is] += 1;
            }
        }
        // None of the nine is left out, none gets a half of it.
        let all: u32 = heirs.iter().sum();
        let others = heirs.iter().enumerate().filter(|(i, _)| *i != 3);
        assert!(
            others.clone().all(|(_, n)| *n > all / 50 && *n < all / 2),
            "{heirs:?}"
        );
    }
}

#[test]
fn the_last_that_is_allowed_is_found_among_thousands() {
    let names = names(5000);
    for algorithm in [RING, MAGLEV] {
        let table = build(algorithm, &even(&names));
        for key in keys().take(20) {
            assert_eq!(table.find(key, |i| i == 4321), Some(4321));
            assert_eq!(table.find(key, |_| false), None);
        }
    }
}

#[test]
fn a_ring_has_envoys_sizes() {
    for (weights, minimum, maximum, entries) in [
        (&[1, 1][..], 1024, 8 << 20, 1024),
        (&[1, 1, 1], 1024, 8 << 20, 1026),
        // The lightest has one entry, the others theirs in proportion.
        (&[1, 99_999], 1024, 8 << 20, 100_000),
        (&[1, 99_999], 1024, 4096, 4096),
        (&[1, 1, 1, 1], 1, 8, 4),
    ] {
        let names = names(weights.len());
        let weights_of = weights.iter().copied();
        let members: Vec<_> = names.iter().map(String::as_str).zip(weights_of).collect();
        let table = build(Algorithm::RingHash { minimum, maximum }, &members);
        assert!(
            table.entries().abs_diff(entries) <= 1,
            "{weights:?} {}",
            table.entries()
        );
    }
}

#[test]
fn a_size_that_is_no_prime_still_gives_a_whole_table() {
    let names = names(3);
    let table = build(Algorithm::Maglev { table: 64 }, &even(&names));
    assert!(table.owners.iter().all(|owner| *owner < 3));
}

proptest! {
    /// So that all proxies agree, wherever they are and in whatever order they came to know of the
    /// endpoints.
    #[test]
    fn the_order_of_the_endpoints_does_not_matter(
        weights in prop::collection::vec(1_u32..5, 1..12),
        turn in 0_usize..12,
        key: u64,
    ) {
        let names = names(weights.len());
        let given: Vec<_> = names.iter().map(String::as_str).zip(weights.iter().copied()).collect();
        let mut turned = given.clone();
        turned.rotate_left(turn % weights.len());
        for algorithm in [RING, Algorithm::Maglev { table: 251 }] {
            let (a, b) = (build(algorithm, &given), build(algorithm, &turned));
            let at = |table: &Table, endpoints: &[(&str, u32)], allowed: &dyn Fn(&str) -> bool| {
                table
                    .find(key, |i| allowed(endpoints[i].0))
                    .map(|i| endpoints[i].0.to_owned())
            };
            for allowed in [&(|_: &str| true) as &dyn Fn(&str) -> bool, &|name| name.ends_with('1')] {
                prop_assert_eq!(at(&a, &given, allowed), at(&b, &turned, allowed));
            }
            prop_assert!(a.is_of(algorithm, &given));
            prop_assert!(!a.is_of(MAGLEV, &given) && !a.is_of(algorithm, &given[1..]));
        }
    }
}
