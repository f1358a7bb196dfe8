//! What is picked where endpoints stand in groups.

use super::*;
use crate::spread::Rule;

struct Groups {
    endpoints: Vec<Standing>,
    spread: Spread,
    /// Until when the ejected are.
    until: Duration,
    now: Duration,
    changes: u32,
}

impl Groups {
    /// For each group how many are usable, ejected and unhealthy.
    fn new(groups: &[[usize; 3]], rule: Rule, panic_threshold: Option<u32>) -> Self {
        let kinds = [Standing::Usable, Standing::Ejected, Standing::Unhealthy];
        let endpoints = groups.iter().flat_map(|group| {
            let each = group.iter().zip(kinds);
            each.flat_map(|(n, standing)| std::iter::repeat_n(standing, *n))
        });
        let sizes = groups.iter().map(|group| group.iter().sum());
        Self {
            endpoints: endpoints.collect(),
            spread: Spread::new(sizes, rule, panic_threshold),
            until: Duration::from_secs(30),
            now: Duration::ZERO,
            changes: 0,
        }
    }

    /// How often an endpoint of each group is picked, in percent, and how often one that is not usable.
    fn percents(&self, choice: Choice<'_>, tried: &[usize]) -> (Vec<u32>, u32) {
        let mut balancer = Balancer::new();
        let mut rng = StdRng::seed_from_u64(5);
        let (mut groups, mut bad) = (vec![0; self.spread.groups()], 0);
        for n in 0..20_000_u64 {
            let key = crate::hash::hash(&n.to_le_bytes());
            let lookup = match choice {
                Choice::Hashed(lookup) => Some(Lookup {
                    hash: key,
                    ..*lookup
                }),
                _ => None,
            };
            let choice = lookup.as_ref().map_or(choice, Choice::Hashed);
            let Some(i) = balancer.choose(choice, self, tried, &mut rng) else {
                continue;
            };
            let group = (0..groups.len()).find(|g| self.spread.range(*g).contains(&i));
            groups[group.expect("in a group")] += 1;
            bad += u32::from(self.standing(i) != Standing::Usable);
        }
        let percent = |n: u32| (f64::from(n) / 200.0).round() as u32;
        (groups.into_iter().map(percent).collect(), percent(bad))
    }
}

impl Candidates for Groups {
    fn len(&self) -> usize {
        self.endpoints.len()
    }
    fn weight(&self, _: usize) -> u32 {
        1
    }
    fn load(&self, _: usize) -> u32 {
        0
    }
    fn standing(&self, index: usize) -> Standing {
        match self.endpoints[index] {
            Standing::Ejected if self.now >= self.until => Standing::Usable,
            standing => standing,
        }
    }
    fn spread(&self) -> Option<&Spread> {
        Some(&self.spread)
    }
    fn stamp(&self) -> (u64, u32) {
        (1, self.changes)
    }
    fn back(&self, _: usize) -> Option<Duration> {
        Some(self.until)
    }
    fn now(&self) -> Duration {
        self.now
    }
}

#[track_caller]
fn assert_near((got, bad): (Vec<u32>, u32), expected: &[u32], expected_bad: u32) {
    let near = |a: u32, b: u32| a.abs_diff(b) <= 1;
    let groups = got.len() == expected.len() && got.iter().zip(expected).all(|(a, b)| near(*a, *b));
    assert!(
        groups && near(bad, expected_bad),
        "{got:?} {bad}, expected {expected:?} {expected_bad}"
    );
}

#[test]
fn levels_get_what_their_health_allows_with_every_algorithm() {
    // Half of the first is usable: 70 %, the rest goes on.
    let groups = Groups::new(&[[5, 5, 0], [4, 0, 0]], Rule::Failover, None);
    let names: Vec<String> = (0..groups.len()).map(|n| format!("shop/e{n}")).collect();
    let members: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
    let maglev = Table::build(Algorithm::Maglev { table: 65_537 }, &members);
    let maglev = maglev.expect("there are endpoints");
    let lookup = Lookup {
        table: &maglev,
        hash: 0,
    };
    for choice in ALL.into_iter().chain([Choice::Hashed(&lookup)]) {
        assert_near(groups.percents(choice, &[]), &[70, 30], 0);
    }
}

#[test]
fn a_try_elsewhere_stays_near_while_it_can() {
    let groups = Groups::new(&[[2, 0, 0], [2, 0, 0]], Rule::Failover, None);
    assert_near(groups.percents(Choice::LeastRequest, &[0]), &[100, 0], 0);
    assert_near(groups.percents(Choice::LeastRequest, &[0, 1]), &[0, 100], 0);
    // All were tried: near ones again.
    let all = [0, 1, 2, 3];
    assert_near(groups.percents(Choice::LeastRequest, &all), &[100, 0], 0);
}

#[test]
fn without_a_threshold_the_ejected_are_used_when_none_is_left_and_the_unhealthy_never() {
    let groups = Groups::new(&[[0, 1, 1], [0, 0, 2]], Rule::Failover, None);
    assert_near(groups.percents(Choice::Random, &[]), &[100, 0], 100);
    let groups = Groups::new(&[[0, 0, 2], [0, 0, 2]], Rule::Failover, None);
    assert_near(groups.percents(Choice::Random, &[]), &[0, 0], 0);
}

#[test]
fn below_the_threshold_all_are_used_and_with_0_never() {
    // One of four is usable.
    let groups = |threshold| Groups::new(&[[1, 2, 1]], Rule::Failover, Some(threshold));
    assert_near(groups(26).percents(Choice::Random, &[]), &[100], 75);
    assert_near(groups(25).percents(Choice::Random, &[]), &[100], 0);
    let none = Groups::new(&[[0, 3, 1]], Rule::Failover, Some(0));
    assert_near(none.percents(Choice::Random, &[]), &[0], 0);
    let all = Groups::new(&[[0, 3, 1]], Rule::Failover, Some(1));
    assert_near(all.percents(Choice::RoundRobin, &[]), &[100], 100);
}

#[test]
fn localities_get_their_weight_while_they_are_healthy() {
    let weighted = |groups: &[[usize; 3]], weights: &[u32], threshold| {
        Groups::new(groups, Rule::Weighted(weights.to_vec()), threshold)
    };
    let even = weighted(&[[1, 0, 0], [9, 0, 0]], &[80, 20], None);
    assert_near(even.percents(Choice::RoundRobin, &[]), &[80, 20], 0);
    // A half of the first: 80 * 0.7 against 20.
    let half = weighted(&[[2, 2, 0], [9, 0, 0]], &[80, 20], None);
    assert_near(half.percents(Choice::Random, &[]), &[74, 26], 0);
    // Those without a weight serve when nobody else is there.
    let last = weighted(&[[0, 0, 2], [2, 0, 0]], &[100, 0], None);
    assert_near(last.percents(Choice::Random, &[]), &[0, 100], 0);
    let panic = weighted(&[[0, 2, 0], [1, 1, 0]], &[80, 20], Some(50));
    assert_near(panic.percents(Choice::Random, &[]), &[80, 20], 90);
}

#[test]
fn shares_follow_ejections_and_their_ends() {
    let mut groups = Groups::new(&[[0, 2, 0], [2, 0, 0]], Rule::Failover, None);
    let mut balancer = Balancer::new();
    let mut rng = StdRng::seed_from_u64(0);
    let mut near = |groups: &Groups| {
        let picked = balancer.choose(Choice::Random, groups, &[], &mut rng);
        picked.expect("some are usable") < 2
    };
    assert!(!near(&groups));
    // Nobody says that the ejection is over: time does.
    groups.now = Duration::from_secs(30);
    assert!(near(&groups));
    // The first is ejected again, which is told.
    groups.until = Duration::from_mins(1);
    groups.changes += 1;
    assert!(!near(&groups));
}
