//! How many requests a service gets at once, and which of them go first when that is too few.

use std::time::Duration;

use http::HeaderName;

/// A limit on requests at once that follows how soon they are answered: Envoy's gradient controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdaptiveConcurrency {
    /// The limit is never more.
    pub max_concurrency: u32,
    /// And never less, which it is while the ideal is measured.
    pub min_concurrency: u32,
    /// How often it is set anew.
    pub update_interval: Duration,
    /// Which of the times in an interval counts, in percent: 50 for the median.
    pub sample_percentile: u32,
    /// How the ideal is measured.
    pub min_rtt: MinRtt,
}

/// How it is measured in what time requests are answered when there are few of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinRtt {
    /// How often.
    pub interval: Duration,
    /// By how many requests.
    pub request_count: u32,
    /// At random, so much of the interval later, in percent: proxies should not measure together.
    pub jitter_percent: u32,
    /// What may be added to the time before the limit shrinks, in percent.
    pub buffer_percent: u32,
}

impl Default for AdaptiveConcurrency {
    fn default() -> Self {
        Self {
            max_concurrency: 1000,
            min_concurrency: 3,
            update_interval: Duration::from_millis(100),
            sample_percentile: 50,
            min_rtt: MinRtt::default(),
        }
    }
}

impl Default for MinRtt {
    fn default() -> Self {
        Self {
            interval: Duration::from_mins(1),
            request_count: 50,
            jitter_percent: 15,
            buffer_percent: 25,
        }
    }
}

/// How much of the limit on requests those of each criticality may use up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadShedding {
    /// The header that says how critical a request is.
    pub header: HeaderName,
    /// What one is that does not say.
    pub unsaid: Criticality,
    /// In percent of the limit, in the order of [`Criticality::ALL`].
    pub shares: [u32; 4],
}

impl LoadShedding {
    /// The header, where nobody said otherwise.
    pub const HEADER: HeaderName = HeaderName::from_static("x-request-criticality");
    /// The shares, where nobody said otherwise.
    pub const SHARES: [u32; 4] = [100, 90, 75, 50];

    /// What part of `limit` those of a criticality may use up; at least 1.
    pub fn share(&self, criticality: Criticality, limit: u32) -> u32 {
        let percent = u64::from(self.shares[criticality as usize]);
        let share = u64::from(limit) * percent / 100;
        u32::try_from(share).unwrap_or(limit).max(1)
    }
}

/// How much is lost when a request is refused (Beyer and others, Site Reliability Engineering,
/// chapter 21).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Criticality {
    /// Users see a serious failure.
    CriticalPlus,
    /// Users see a failure.
    Critical,
    /// Some unavailability is expected: batch jobs that try again.
    SheddablePlus,
    /// Unavailability is frequent.
    Sheddable,
}

impl Criticality {
    /// All, the most critical first.
    pub const ALL: [Self; 4] = [
        Self::CriticalPlus,
        Self::Critical,
        Self::SheddablePlus,
        Self::Sheddable,
    ];

    /// Its name in headers and in configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CriticalPlus => "critical-plus",
            Self::Critical => "critical",
            Self::SheddablePlus => "sheddable-plus",
            Self::Sheddable => "sheddable",
        }
    }

    /// The one of a name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_of_the_limit_and_never_nothing() {
        let shedding = LoadShedding {
            header: LoadShedding::HEADER,
            unsaid: Criticality::Critical,
            shares: LoadShedding::SHARES,
        };
        for (limit, shares) in [
            (100, [100, 90, 75, 50]),
            (3, [3, 2, 2, 1]),
            (1, [1; 4]),
            (
                u32::MAX,
                [4_294_967_295, 3_865_470_565, 3_221_225_471, 2_147_483_647],
            ),
        ] {
            let found = Criticality::ALL.map(|one| shedding.share(one, limit));
            assert_eq!(found, shares, "of {limit}");
        }
        for one in Criticality::ALL {
            assert_eq!(Criticality::of(one.as_str()), Some(one));
        }
        assert_eq!(Criticality::of("Critical"), None);
    }
}
