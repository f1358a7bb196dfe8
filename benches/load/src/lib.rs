//! What the tools of `make bench` share: their arguments, and numbers in order.
//!
//! Plain blocking threads, so that what is measured is the proxy and not a runtime of ours. How
//! figures are taken from them is in `benches/bench.py`.
#![forbid(unsafe_code)]

use std::str::FromStr;

/// Arguments of the form `--name value`.
#[derive(Debug)]
pub struct Arguments(Vec<String>);

impl Arguments {
    /// Those of this process.
    pub fn of_process() -> Self {
        Self(std::env::args().skip(1).collect())
    }

    /// The value after `--name`.
    pub fn text(&self, name: &str) -> Option<&str> {
        let at = self
            .0
            .iter()
            .position(|a| a.strip_prefix("--") == Some(name))?;
        self.0.get(at + 1).map(String::as_str)
    }

    /// The value after `--name`, or this one.
    pub fn number<T: FromStr>(&self, name: &str, default: T) -> T {
        self.text(name)
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    }
}

/// Random numbers that are the same in each run (xorshift; for schedules, not for secrets).
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Begins at a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Above 0, up to 1.
    pub fn unit(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) as f64 + 1.0) / (1u64 << 53) as f64
    }

    /// Seconds until the next event of a Poisson process with this rate.
    pub fn gap(&mut self, rate: f64) -> f64 {
        -self.unit().ln() / rate
    }
}

/// The value below which this share of the sorted values lies.
pub fn quantile(sorted: &[u64], share: f64) -> u64 {
    let at = (sorted.len() as f64 * share) as usize;
    let last = sorted.len().saturating_sub(1);
    sorted.get(at.min(last)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_gaps_are_what_they_should_be() {
        let values: Vec<u64> = (0..100).collect();
        assert_eq!((quantile(&values, 0.5), quantile(&values, 1.0)), (50, 99));
        assert_eq!(quantile(&[], 0.5), 0);
        let mut random = Random::new(42);
        let mean = (0..10_000).map(|_| random.gap(100.0)).sum::<f64>() / 10_000.0;
        assert!((mean - 0.01).abs() < 0.001, "{mean}");
    }
}
