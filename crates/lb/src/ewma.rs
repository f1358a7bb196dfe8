//! How soon an endpoint is likely to answer: a peak-sensitive moving average of its latency.
//!
//! Finagle's `PeakEwma` (Twitter, `com.twitter.finagle.loadbalancer.p2c`), which Linkerd uses too: a
//! latency above the average replaces it at once, one below it draws it down with the time that has
//! passed (by a factor of e in [`DECAY`]), and with time alone it decays as well, so that an endpoint
//! that was slow is tried again. The cost of a request is the average times the requests that
//! would then be in flight. An endpoint of which nothing is known costs nothing, until a request is
//! on its way there: then more than any other, until that is answered.
//!
//! All workers share the state: one atomic word, decided on by compare-and-swap.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// In which what was seen loses all but 1/e of its weight.
pub const DECAY: Duration = Duration::from_secs(10);
/// What it costs to send more than one request to an endpoint of which nothing is known.
const UNKNOWN: f64 = 1e12;
/// The least latency, in microseconds: 0 stands for none.
const LEAST: f64 = 1e-3;

/// The average of one endpoint.
#[derive(Debug, Default)]
pub struct Peak(AtomicU64);

/// When it was last changed, in milliseconds (they start over after 49 days), and the average then in
/// microseconds.
#[derive(Clone, Copy)]
struct Seen {
    at: u32,
    average: f32,
}

impl Peak {
    /// An endpoint of which nothing is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// A request took so long, until `now` (since the start that all times count from).
    pub fn observe(&self, took: Duration, now: Duration) {
        let took = (took.as_secs_f64() * 1e6).max(LEAST);
        let change = |word| {
            let seen = Seen::unpack(word);
            let weight = seen.weight(now);
            let average = f64::from(seen.average);
            let average = if took > average {
                took
            } else {
                took * (1.0 - weight) + average * weight
            };
            // The time of one who saw more does not go back.
            let at = if seen.age(now) == 0 && word != 0 {
                seen.at
            } else {
                millis(now)
            };
            Some(
                Seen {
                    at,
                    average: average as f32,
                }
                .pack(),
            )
        };
        // The function always says what to store.
        let _ = self.0.fetch_update(Relaxed, Relaxed, change);
    }

    /// What one more request costs, with so many in flight.
    pub fn cost(&self, in_flight: u32, now: Duration) -> f64 {
        let seen = Seen::unpack(self.0.load(Relaxed));
        let in_flight = f64::from(in_flight);
        if seen.average == 0.0 {
            return if in_flight > 0.0 {
                UNKNOWN + in_flight
            } else {
                0.0
            };
        }
        f64::from(seen.average) * seen.weight(now) * (in_flight + 1.0)
    }
}

impl Seen {
    fn unpack(word: u64) -> Self {
        Self {
            at: (word >> 32) as u32,
            average: f32::from_bits(word as u32),
        }
    }

    fn pack(self) -> u64 {
        u64::from(self.at) << 32 | u64::from(self.average.to_bits())
    }

    /// Milliseconds since the last change; none where another worker's clock was ahead.
    fn age(self, now: Duration) -> u32 {
        let age = millis(now).wrapping_sub(self.at);
        if age > u32::MAX / 2 { 0 } else { age }
    }

    /// What the average still weighs.
    fn weight(self, now: Duration) -> f64 {
        (-f64::from(self.age(now)) / (DECAY.as_secs_f64() * 1e3)).exp()
    }
}

fn millis(time: Duration) -> u32 {
    time.as_millis() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_peak_counts_at_once_and_is_forgotten_slowly() {
        let peak = Peak::new();
        peak.observe(ms(10), ms(1000));
        assert!((peak.cost(0, ms(1000)) - 10_000.0).abs() < 1.0);
        // Ten times as slow: at once.
        peak.observe(ms(100), ms(1001));
        assert!((peak.cost(0, ms(1001)) - 100_000.0).abs() < 1.0);
        // One fast answer after the decay time: 10 * (1 - 1/e) + 100 / e.
        peak.observe(ms(10), ms(11_001));
        let expected = 10_000.0 * (1.0 - (-1.0_f64).exp()) + 100_000.0 * (-1.0_f64).exp();
        let cost = peak.cost(0, ms(11_001));
        assert!((cost - expected).abs() < 1.0, "{cost} {expected}");
        // Without any, by e in ten seconds.
        let later = peak.cost(0, ms(21_001));
        assert!((later - expected * (-1.0_f64).exp()).abs() < 1.0, "{later}");
    }

    #[test]
    fn many_quick_answers_draw_it_down_as_few_do() {
        let (often, seldom) = (Peak::new(), Peak::new());
        for peak in [&often, &seldom] {
            peak.observe(ms(100), ms(0));
        }
        for n in 1..=10_000 {
            often.observe(ms(10), ms(n));
        }
        seldom.observe(ms(10), ms(10_000));
        let (often, seldom) = (often.cost(0, ms(10_000)), seldom.cost(0, ms(10_000)));
        assert!((often / seldom - 1.0).abs() < 0.01, "{often} {seldom}");
    }

    #[test]
    fn the_unknown_is_tried_by_one_request_at_a_time() {
        let (unknown, known) = (Peak::new(), Peak::new());
        known.observe(Duration::from_mins(1), ms(0));
        assert!(unknown.cost(0, ms(0)) < known.cost(0, ms(0)));
        assert!(unknown.cost(1, ms(0)) > known.cost(1000, ms(0)));
    }

    #[test]
    fn a_clock_that_is_behind_forgets_nothing() {
        let peak = Peak::new();
        peak.observe(ms(100), ms(5_000));
        peak.observe(ms(10), ms(4_000));
        assert!((peak.cost(0, ms(4_000)) - 100_000.0).abs() < 1.0);
        assert!((peak.cost(0, ms(5_000)) - 100_000.0).abs() < 1.0);
    }
}
