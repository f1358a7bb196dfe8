//! Distributions by simulation with a fixed seed, and what must hold whatever is drawn.

mod groups;
mod latency;

use super::*;
use model::balancing::Algorithm;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

const ALL: [Choice<'_>; 4] = [
    Choice::LeastRequest,
    Choice::RoundRobin,
    Choice::Random,
    Choice::PeakEwma,
];

#[derive(Debug, Clone)]
struct Endpoints(Vec<(u32, u32, Standing)>);

impl Endpoints {
    fn weighted(weights: &[u32]) -> Self {
        Self(weights.iter().map(|&w| (w, 0, Standing::Usable)).collect())
    }
}

impl Candidates for Endpoints {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn weight(&self, index: usize) -> u32 {
        self.0[index].0
    }
    fn load(&self, index: usize) -> u32 {
        self.0[index].1
    }
    fn standing(&self, index: usize) -> Standing {
        self.0[index].2
    }
}

fn counts(choice: Choice<'_>, endpoints: &Endpoints, picks: u32) -> Vec<u32> {
    let mut balancer = Balancer::new();
    let mut rng = StdRng::seed_from_u64(7);
    let mut counts = vec![0; endpoints.len()];
    for _ in 0..picks {
        let i = balancer
            .choose(choice, endpoints, &[], &mut rng)
            .expect("all are usable");
        counts[i] += 1;
    }
    counts
}

/// Whether each count is within four standard deviations of its share.
fn assert_shares(counts: &[u32], weights: &[u32], what: &str) {
    let picks = f64::from(counts.iter().sum::<u32>());
    let total = f64::from(weights.iter().sum::<u32>());
    for (&count, &weight) in counts.iter().zip(weights) {
        let share = f64::from(weight) / total;
        let bound = 4.0 * (picks * share * (1.0 - share)).sqrt();
        let off = (f64::from(count) - picks * share).abs();
        assert!(off <= bound, "{what}: {counts:?} for weights {weights:?}");
    }
}

#[test]
fn idle_endpoints_share_by_weight() {
    for weights in [
        &[1, 1, 1, 1][..],
        &[9, 1],
        &[5, 3, 1, 1],
        &[1000, 1, 1, 1, 1],
    ] {
        let endpoints = Endpoints::weighted(weights);
        for choice in ALL {
            let counts = counts(choice, &endpoints, 20_000);
            assert_shares(&counts, weights, &format!("{choice:?}"));
        }
    }
}

#[test]
fn round_robin_takes_turns_and_is_smooth() {
    assert_eq!(
        counts(Choice::RoundRobin, &Endpoints::weighted(&[1; 3]), 9),
        [3, 3, 3]
    );

    let endpoints = Endpoints::weighted(&[5, 1, 1]);
    let mut balancer = Balancer::new();
    let mut rng = StdRng::seed_from_u64(0);
    let turns: Vec<usize> = (0..7)
        .filter_map(|_| balancer.choose(Choice::RoundRobin, &endpoints, &[], &mut rng))
        .collect();
    assert_eq!(turns.iter().filter(|&&i| i == 0).count(), 5);
    // Never all five in a row.
    assert!(
        turns.windows(5).all(|w| w.iter().any(|&i| i != 0)),
        "{turns:?}"
    );
}

#[test]
fn least_request_evens_out_the_load() {
    // Requests never end here: the loads themselves must follow the weights.
    let mut endpoints = Endpoints::weighted(&[4, 2, 1, 1]);
    let mut balancer = Balancer::new();
    let mut rng = StdRng::seed_from_u64(3);
    for _ in 0..8_000 {
        let i = balancer
            .choose(Choice::LeastRequest, &endpoints, &[], &mut rng)
            .expect("all are usable");
        endpoints.0[i].1 += 1;
    }
    for (weight, load, _) in &endpoints.0 {
        let want = 1000 * weight;
        assert!(load.abs_diff(want) < want / 20, "{endpoints:?}");
    }
}

#[test]
fn a_slow_endpoint_gets_less() {
    let mut endpoints = Endpoints::weighted(&[1; 4]);
    endpoints.0[2].1 = 50;
    let counts = counts(Choice::LeastRequest, &endpoints, 4_000);
    // It is picked only if both draws were it, which cannot be.
    assert_eq!(counts[2], 0, "{counts:?}");
}

#[test]
fn one_usable_endpoint_among_many_is_found() {
    let mut endpoints = Endpoints(vec![(1, 0, Standing::Excluded); 5_000]);
    endpoints.0[4_321].2 = Standing::Usable;
    let mut rng = StdRng::seed_from_u64(1);
    for choice in ALL {
        let picked = Balancer::new().choose(choice, &endpoints, &[], &mut rng);
        assert_eq!(picked, Some(4_321), "{choice:?}");
    }
}

#[test]
fn a_change_of_the_endpoints_starts_round_robin_anew() {
    let mut balancer = Balancer::new();
    let mut rng = StdRng::seed_from_u64(0);
    for n in [3, 1, 0, 5, 2] {
        let endpoints = Endpoints::weighted(&vec![1; n]);
        for _ in 0..n {
            let i = balancer.choose(Choice::RoundRobin, &endpoints, &[], &mut rng);
            assert!(i.is_some_and(|i| i < n));
        }
    }
    let none = Endpoints(Vec::new());
    assert_eq!(
        balancer.choose(Choice::RoundRobin, &none, &[], &mut rng),
        None
    );
}

fn endpoint() -> impl Strategy<Value = (u32, u32, Standing)> {
    let standing = prop_oneof![
        Just(Standing::Usable),
        Just(Standing::Ejected),
        Just(Standing::Unhealthy),
        Just(Standing::Excluded)
    ];
    let weight = prop_oneof![0u32..4, Just(u32::MAX)];
    (weight, 0u32..5, standing)
}

proptest! {
    #[test]
    fn the_best_standing_left_is_picked(
        endpoints in prop::collection::vec(endpoint(), 0..7),
        tried in prop::collection::vec(0usize..7, 0..7),
        seed: u64,
    ) {
        let endpoints = Endpoints(endpoints);
        let mut rng = StdRng::seed_from_u64(seed);
        // The order in which the module promises to look.
        let class = |i: usize| match (endpoints.0[i].2, tried.contains(&i)) {
            (Standing::Usable, false) => 0,
            (Standing::Usable, true) => 1,
            (Standing::Ejected, false) => 2,
            (Standing::Ejected, true) => 3,
            (Standing::Unhealthy | Standing::Excluded, _) => 4,
        };
        let best = (0..endpoints.len()).map(class).filter(|&c| c < 4).min();
        let names: Vec<String> = (0..endpoints.len()).map(|n| n.to_string()).collect();
        let members: Vec<_> = names.iter().map(String::as_str).zip(endpoints.0.iter().map(|e| e.0)).collect();
        let ring = Table::build(Algorithm::RingHash { minimum: 64, maximum: 256 }, &members);
        let maglev = Table::build(Algorithm::Maglev { table: 251 }, &members);
        let lookups: Vec<_> = ring.iter().chain(&maglev).map(|table| Lookup { table, hash: seed }).collect();
        let hashed = lookups.iter().map(Choice::Hashed);
        for choice in ALL.into_iter().chain(hashed) {
            let mut balancer = Balancer::new();
            for _ in 0..4 {
                let picked = balancer.choose(choice, &endpoints, &tried, &mut rng);
                prop_assert_eq!(picked.map(class), best, "{:?}", choice);
            }
        }
    }
}
