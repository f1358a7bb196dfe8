//! A limit, and the windows in which it is counted.

use std::time::Duration;

use xds::proto::envoy::r#type::v3::RateLimitUnit;
use xds::proto::ratelimit::rate_limit_response::RateLimit;
use xds::proto::ratelimit::rate_limit_response::rate_limit::Unit as WireUnit;

/// How many requests there may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// What clients and logs see; may be empty.
    pub name: String,
    /// So many, `None` for any number.
    pub requests: Option<u32>,
    /// In so much time.
    pub unit: Unit,
    /// It is counted, and never reached.
    pub shadow: bool,
    /// Limits of these names do not count for a request that this one is for.
    pub replaces: Vec<String>,
}

/// A window of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the time of its name")]
pub enum Unit {
    Second,
    Minute,
    Hour,
    Day,
    /// 30 days.
    Month,
    /// 365 days.
    Year,
}

impl Unit {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Second,
        Self::Minute,
        Self::Hour,
        Self::Day,
        Self::Month,
        Self::Year,
    ];

    /// As files have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
            Self::Year => "year",
        }
    }

    /// Its length.
    pub fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 60 * 60,
            Self::Day => 24 * 60 * 60,
            Self::Month => 30 * 24 * 60 * 60,
            Self::Year => 365 * 24 * 60 * 60,
        }
    }

    /// The window that a moment, since 1970, is in.
    pub(crate) fn window(self, now: Duration) -> Window {
        let seconds = self.seconds();
        let start = now.as_secs() / seconds * seconds;
        Window {
            start,
            end: start + seconds,
        }
    }

    pub(crate) fn of_message(unit: RateLimitUnit) -> Option<Self> {
        Some(match unit {
            RateLimitUnit::Unknown => return None,
            RateLimitUnit::Second => Self::Second,
            RateLimitUnit::Minute => Self::Minute,
            RateLimitUnit::Hour => Self::Hour,
            RateLimitUnit::Day => Self::Day,
            RateLimitUnit::Month => Self::Month,
            RateLimitUnit::Year => Self::Year,
        })
    }
}

impl Limit {
    pub(crate) fn to_message(&self) -> RateLimit {
        let unit = match self.unit {
            Unit::Second => WireUnit::Second,
            Unit::Minute => WireUnit::Minute,
            Unit::Hour => WireUnit::Hour,
            Unit::Day => WireUnit::Day,
            Unit::Month => WireUnit::Month,
            Unit::Year => WireUnit::Year,
        };
        RateLimit {
            name: self.name.clone(),
            requests_per_unit: self.requests.unwrap_or(u32::MAX),
            unit: unit.into(),
        }
    }
}

/// A window, in seconds since 1970; its end belongs to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl Window {
    /// Until it ends.
    pub(crate) fn left(self, now: Duration) -> Duration {
        Duration::from_secs(self.end).saturating_sub(now)
    }
}
