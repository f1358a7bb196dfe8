//! `spec.adaptiveConcurrency` and `spec.loadShedding` of a `TrafficPolicy`: how many requests there
//! may be at once, and which of them go first.

use model::overload::{self, Criticality};
use serde::{Deserialize, Serialize};

use crate::check::Check;
use crate::duration::Span;
use crate::kind::filter::header_name;
use crate::reference::shorten;
use crate::suggest;

/// A limit on requests at once that follows how soon they are answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AdaptiveConcurrency {
    /// Whether there is one.
    pub enabled: bool,
    /// The limit is never more.
    pub max_concurrency: u32,
    /// And never less.
    pub min_concurrency: u32,
    /// How often it is set anew.
    pub update_interval: Span,
    /// Which of the times in an interval counts, in percent.
    pub sample_percentile: u32,
    /// How it is measured in what time requests are answered when there are few.
    #[serde(rename = "minRTT")]
    pub min_rtt: MinRtt,
}

/// How it is measured in what time requests are answered when there are few.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MinRtt {
    /// How often.
    pub interval: Span,
    /// By how many requests.
    pub request_count: u32,
    /// How much later at random, in percent of the interval.
    pub jitter_percent: u32,
    /// What may be added to the time before the limit shrinks, in percent.
    pub buffer_percent: u32,
}

/// How much of the limit on requests those of each criticality may use up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadShedding {
    /// The header that says how critical a request is.
    pub header: String,
    /// What one is that does not say.
    #[serde(rename = "default")]
    pub unsaid: String,
    /// In percent of the limit.
    pub shares: Shares,
}

/// Shares of the limit, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Shares {
    /// Of requests whose failure is a serious one.
    pub critical_plus: u32,
    /// Of those whose failure users see.
    pub critical: u32,
    /// Of those that may be unavailable for a while.
    pub sheddable_plus: u32,
    /// Of those that often are.
    pub sheddable: u32,
}

impl Default for AdaptiveConcurrency {
    fn default() -> Self {
        let model = overload::AdaptiveConcurrency::default();
        Self {
            enabled: true,
            max_concurrency: model.max_concurrency,
            min_concurrency: model.min_concurrency,
            update_interval: model.update_interval.into(),
            sample_percentile: model.sample_percentile,
            min_rtt: MinRtt::default(),
        }
    }
}

impl Default for MinRtt {
    fn default() -> Self {
        let model = overload::MinRtt::default();
        Self {
            interval: model.interval.into(),
            request_count: model.request_count,
            jitter_percent: model.jitter_percent,
            buffer_percent: model.buffer_percent,
        }
    }
}

impl Default for LoadShedding {
    fn default() -> Self {
        Self {
            header: overload::LoadShedding::HEADER.to_string(),
            unsaid: Criticality::Critical.as_str().to_owned(),
            shares: Shares::default(),
        }
    }
}

impl Default for Shares {
    fn default() -> Self {
        let [critical_plus, critical, sheddable_plus, sheddable] = overload::LoadShedding::SHARES;
        Self {
            critical_plus,
            critical,
            sheddable_plus,
            sheddable,
        }
    }
}

impl AdaptiveConcurrency {
    /// `None` if it is switched off.
    pub(crate) fn to_model(&self, c: &mut Check<'_>) -> Option<overload::AdaptiveConcurrency> {
        let (min, max) = (self.min_concurrency, self.max_concurrency);
        if min == 0 {
            let message = "must not be 0: nothing would ever get through";
            c.error_at("minConcurrency", message, "leave it out for 3");
        }
        if min > max {
            c.error_at(
                "minConcurrency",
                "is more than `maxConcurrency`",
                "make `maxConcurrency` at least as large",
            );
        }
        if self.update_interval.get().is_zero() {
            c.error_at("updateInterval", "must not be 0", "leave it out for 100ms");
        }
        if !(1..=99).contains(&self.sample_percentile) {
            let message = "must be from 1 to 99";
            c.error_at("samplePercentile", message, "50 is the median");
        }
        let min_rtt = c.at("minRTT", |c| self.min_rtt.to_model(c));
        self.enabled.then_some(overload::AdaptiveConcurrency {
            max_concurrency: max,
            min_concurrency: min,
            update_interval: self.update_interval.get(),
            sample_percentile: self.sample_percentile,
            min_rtt,
        })
    }
}

impl MinRtt {
    fn to_model(&self, c: &mut Check<'_>) -> overload::MinRtt {
        if self.interval.get().as_millis() < 1000 {
            let message = "must be at least 1s: the limit is at its lowest while it is measured";
            c.error_at("interval", message, "leave it out for 60s");
        }
        if !(1..=10_000).contains(&self.request_count) {
            let message = "must be from 1 to 10000";
            c.error_at("requestCount", message, "leave it out for 50");
        }
        for (field, percent) in [
            ("jitterPercent", self.jitter_percent),
            ("bufferPercent", self.buffer_percent),
        ] {
            if percent > 100 {
                c.error_at(field, "must be from 0 to 100", "");
            }
        }
        overload::MinRtt {
            interval: self.interval.get(),
            request_count: self.request_count,
            jitter_percent: self.jitter_percent,
            buffer_percent: self.buffer_percent,
        }
    }
}

impl LoadShedding {
    pub(crate) fn to_model(&self, c: &mut Check<'_>) -> Option<overload::LoadShedding> {
        let header = header_name("header", &self.header, c);
        let unsaid = Criticality::of(&self.unsaid);
        if unsaid.is_none() {
            let words = Criticality::ALL.map(Criticality::as_str);
            let hint = match suggest::hint(&self.unsaid, words) {
                hint if hint.is_empty() => format!("use {}", words.join(", ")),
                hint => hint,
            };
            let message = format!("\"{}\" is not a criticality", shorten(&self.unsaid));
            c.error_at("default", message, hint);
        }
        let shares = c.at("shares", |c| self.shares.to_model(c));
        Some(overload::LoadShedding {
            header: header?,
            unsaid: unsaid?,
            shares,
        })
    }
}

impl Shares {
    fn to_model(self, c: &mut Check<'_>) -> [u32; 4] {
        let shares = [
            ("critical-plus", self.critical_plus),
            ("critical", self.critical),
            ("sheddable-plus", self.sheddable_plus),
            ("sheddable", self.sheddable),
        ];
        let mut above = 100;
        for (field, share) in shares {
            if share > 100 {
                c.error_at(field, "must be from 0 to 100", "");
            } else if share > above {
                c.error_at(
                    field,
                    "is more than that of what is more critical",
                    "make it at most as large",
                );
            }
            above = share;
        }
        shares.map(|(_, share)| share)
    }
}
