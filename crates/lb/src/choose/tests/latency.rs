//! One slow endpoint among several, in a simulation of discrete events: what each algorithm makes of
//! the latency that clients see.

use std::collections::BTreeMap;

use rand::Rng;

use super::*;
use crate::ewma::Peak;

const ENDPOINTS: usize = 10;
const REQUESTS: usize = 40_000;
/// A request takes so long, in microseconds; of the slow endpoint twenty times as long.
const TAKES: u64 = 5_000;
const SLOW: u64 = 20;

struct World {
    load: [u32; ENDPOINTS],
    latency: [Peak; ENDPOINTS],
    now: u64,
}

impl Candidates for World {
    fn len(&self) -> usize {
        ENDPOINTS
    }
    fn weight(&self, _: usize) -> u32 {
        1
    }
    fn load(&self, index: usize) -> u32 {
        self.load[index]
    }
    fn standing(&self, _: usize) -> Standing {
        Standing::Usable
    }
    fn cost(&self, index: usize) -> f64 {
        self.latency[index].cost(self.load[index], self.now())
    }
    fn now(&self) -> Duration {
        Duration::from_micros(self.now)
    }
}

/// What 50, 95 and 99 of 100 requests were done in, in milliseconds, and the share of the slow
/// endpoint in percent.
fn run(choice: Choice<'_>) -> ([f64; 3], f64) {
    let mut world = World {
        load: [0; ENDPOINTS],
        latency: std::array::from_fn(|_| Peak::new()),
        now: 0,
    };
    let mut rng = StdRng::seed_from_u64(11);
    let mut balancer = Balancer::new();
    // By when they end: which endpoint, and since when.
    let mut running: BTreeMap<(u64, usize), (usize, u64)> = BTreeMap::new();
    let (mut took, mut slow) = (Vec::new(), 0_u32);
    for n in 0..REQUESTS {
        // On average every 500 microseconds: ten are busy, one at each endpoint.
        world.now += rng.random_range(0..1_000);
        while let Some(first) = running.first_entry() {
            let (end, _) = *first.key();
            if end > world.now {
                break;
            }
            let (endpoint, begun) = first.remove();
            world.load[endpoint] -= 1;
            let spent = Duration::from_micros(end - begun);
            world.latency[endpoint].observe(spent, Duration::from_micros(end));
        }
        let endpoint = balancer
            .choose(choice, &world, &[], &mut rng)
            .expect("all are usable");
        world.load[endpoint] += 1;
        let usual = rng.random_range(TAKES / 2..TAKES * 3 / 2);
        let takes = if endpoint == 0 { usual * SLOW } else { usual };
        running.insert((world.now + takes, n), (endpoint, world.now));
        // The first tenth is for getting to know each other.
        if n > REQUESTS / 10 {
            took.push(takes);
            slow += u32::from(endpoint == 0);
        }
    }
    took.sort_unstable();
    let part = |percent: usize| took[took.len() * percent / 100] as f64 / 1e3;
    let share = f64::from(slow) * 100.0 / took.len() as f64;
    ([part(50), part(95), part(99)], share)
}

#[test]
fn a_slow_endpoint_is_avoided_by_those_who_look() {
    let (turns, turns_share) = run(Choice::RoundRobin);
    let (least, least_share) = run(Choice::LeastRequest);
    let (peak, peak_share) = run(Choice::PeakEwma);
    let all = format!(
        "p50, p95, p99 in ms, share of the slow one: round robin {turns:?} {turns_share:.1} %, \
         least request {least:?} {least_share:.1} %, peak EWMA {peak:?} {peak_share:.2} %"
    );
    // Round robin gives it its tenth, so that the slow tenth shows at p95.
    assert!((turns_share - 10.0).abs() < 0.5, "{all}");
    assert!(turns[1] > 50.0 && turns[2] > 50.0, "{all}");
    // Who counts requests gives it less and keeps p95; who looks at latency keeps p99 as well.
    assert!(least_share < 4.0 && least[1] < 10.0, "{all}");
    assert!(peak_share < 1.0 && peak[2] < 10.0, "{all}");
    assert!(peak_share < least_share, "{all}");
}
