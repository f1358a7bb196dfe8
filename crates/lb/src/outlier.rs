//! Leaves an endpoint alone for a while when it fails again and again.
//!
//! Envoy's outlier detection. So many 5xx, gateway errors or failures without an answer ("local
//! origin") in a row eject the endpoint; so does, in an interval, a share of successes far below the
//! others' ([`SuccessRate`]) or a share of failures above a threshold ([`FailurePercentage`]). It is
//! ejected for `n` times the base time at its `n`-th ejection (at most 300 s, or the base if that is
//! longer); good conduct forgives one ejection every 10 s. A bounded share of a destination's
//! endpoints is ejected at once: as in Envoy without `always_eject_one_host`, a share that is less
//! than one endpoint ejects none.
//!
//! Differs from Envoy: there is no sweep by timer. An ejection ends by itself when its time is
//! over, and its place in the share is freed by whoever next looks at the endpoint; rates are
//! compared by whoever is the first to send a request after an interval. Failures without an answer
//! that are told apart are in no rate.
//!
//! All workers share the state without a lock. The share holds whatever the interleaving: a place
//! is taken *before* the endpoint is ejected. Memory order is relaxed throughout: each value is
//! decided on by compare-and-swap and no other memory hangs on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use model::traffic::{FailurePercentage, OutlierDetection, SuccessRate};

/// No ejection is longer, unless the base time is.
const LONGEST: Duration = Duration::from_mins(5);
/// After which good conduct forgives one ejection.
const FORGIVEN_AFTER: Duration = Duration::from_secs(10);

/// What a try told about an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It answered with another status than 5xx.
    Success,
    /// It answered with a 5xx other than 502, 503 and 504.
    ServerError,
    /// It answered with 502, 503 or 504.
    GatewayError,
    /// It did not answer: no connection was made, or it broke, or time was over.
    NoAnswer,
}

impl Verdict {
    /// What a response's status tells.
    pub fn of_status(status: u16) -> Self {
        match status {
            502..=504 => Self::GatewayError,
            500..=599 => Self::ServerError,
            _ => Self::Success,
        }
    }
}

/// What the endpoints of one destination share: how many there are and how many are ejected.
#[derive(Debug, Default)]
pub struct Group {
    members: AtomicU32,
    ejected: AtomicU32,
    /// Milliseconds at which rates were last compared.
    compared: AtomicU64,
    /// Counts ejections and their ends, and other changes of a standing.
    changes: AtomicU32,
}

impl Group {
    /// A group without members.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// How many endpoints are ejected; those whose time is over but were not looked at count.
    pub fn ejected(&self) -> u32 {
        self.ejected.load(Relaxed)
    }

    /// How many endpoints there are.
    pub fn members(&self) -> u32 {
        self.members.load(Relaxed)
    }

    /// Whether rates are to be compared now; of those who ask at once one is told so.
    pub fn is_due(&self, now: Duration, interval: Duration) -> bool {
        let last = self.compared.load(Relaxed);
        let now = millis(now);
        now.saturating_sub(last) >= millis(interval)
            && self
                .compared
                .compare_exchange(last, now, Relaxed, Relaxed)
                .is_ok()
    }

    /// Another number whenever an ejection has begun or been found over, or something else has changed.
    pub fn changes(&self) -> u32 {
        self.changes.load(Relaxed)
    }

    /// Takes a place among the ejected, if the share allows for one more.
    fn take_place(&self, max_percent: u32) -> bool {
        let members = u64::from(self.members.load(Relaxed));
        let fits = |ejected: u32| {
            let more = ejected.checked_add(1)?;
            (u64::from(more) * 100 <= members * u64::from(max_percent)).then_some(more)
        };
        self.ejected.fetch_update(Relaxed, Relaxed, fits).is_ok()
    }

    /// Notes that a standing has changed for another reason.
    pub fn note_change(&self) {
        self.changes.fetch_add(1, Relaxed);
    }

    fn free_place(&self) {
        self.ejected.fetch_sub(1, Relaxed);
        self.note_change();
    }
}

/// The record of one endpoint. Lives as long as the endpoint is known, whatever the configuration;
/// dropping it frees its place in the group.
#[derive(Debug)]
pub struct Record {
    group: Arc<Group>,
    server_errors: AtomicU32,
    gateway_errors: AtomicU32,
    unanswered: AtomicU32,
    /// Of this interval.
    answers: AtomicU32,
    /// Of them, no 5xx.
    successes: AtomicU32,
    /// Milliseconds at which the last ejection ends or ended, doubled, plus one while it holds a
    /// place in the group.
    ejection: AtomicU64,
    /// Ejections not yet forgiven.
    count: AtomicU32,
}

impl Record {
    /// A clean record for a new member of the group.
    pub fn new(group: Arc<Group>) -> Self {
        group.members.fetch_add(1, Relaxed);
        Self {
            group,
            server_errors: AtomicU32::new(0),
            gateway_errors: AtomicU32::new(0),
            unanswered: AtomicU32::new(0),
            answers: AtomicU32::new(0),
            successes: AtomicU32::new(0),
            ejection: AtomicU64::new(0),
            count: AtomicU32::new(0),
        }
    }

    /// Whether the endpoint is ejected at `now` (since the start that all times count from).
    pub fn ejected(&self, now: Duration) -> bool {
        let seen = self.ejection.load(Relaxed);
        let (until, holds) = unpack(seen);
        if !holds {
            return false;
        }
        if millis(now) < until {
            return true;
        }
        // Over. One of those who see it frees the place.
        let over = pack(until, false);
        if self
            .ejection
            .compare_exchange(seen, over, Relaxed, Relaxed)
            .is_ok()
        {
            self.group.free_place();
            // Failures that were still under way when it was ejected do not count against it.
            self.forgive();
        }
        false
    }

    /// Whose member it is.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// When the ejection ends that it holds a place for.
    pub fn back(&self) -> Option<Duration> {
        let (until, holds) = unpack(self.ejection.load(Relaxed));
        holds.then(|| Duration::from_millis(until))
    }

    /// Adds a success; costs three loads as long as all goes well, where no rates are compared.
    pub fn succeeded(&self, settings: &OutlierDetection) {
        self.forgive();
        self.count(true, settings);
    }

    fn forgive(&self) {
        reset(&self.server_errors);
        reset(&self.gateway_errors);
        reset(&self.unanswered);
    }

    fn count(&self, success: bool, settings: &OutlierDetection) {
        if settings.has_rates() {
            add(&self.answers);
            if success {
                add(&self.successes);
            }
        }
    }

    /// Adds a verdict; returns for how long it ejects the endpoint, if it does.
    pub fn record(
        &self,
        verdict: Verdict,
        now: Duration,
        settings: &OutlierDetection,
    ) -> Option<Duration> {
        let reached = |count, limit| limit > 0 && count >= limit;
        let told_apart = settings.consecutive_local_origin_failures;
        let (server, gateway) = match (verdict, told_apart) {
            (Verdict::Success, _) => {
                self.succeeded(settings);
                return None;
            }
            (Verdict::NoAnswer, Some(limit)) => {
                let row = add(&self.unanswered);
                return reached(row, limit).then(|| self.eject(now, settings))?;
            }
            (Verdict::ServerError, _) => {
                reset(&self.gateway_errors);
                (add(&self.server_errors), 0)
            }
            (Verdict::GatewayError | Verdict::NoAnswer, _) => {
                (add(&self.server_errors), add(&self.gateway_errors))
            }
        };
        if verdict != Verdict::NoAnswer {
            reset(&self.unanswered);
        }
        self.count(false, settings);
        if reached(server, settings.consecutive_5xx)
            || reached(gateway, settings.consecutive_gateway_errors)
        {
            return self.eject(now, settings);
        }
        None
    }

    fn eject(&self, now: Duration, settings: &OutlierDetection) -> Option<Duration> {
        // Also frees the place of an ejection that is over.
        if self.ejected(now) || !self.group.take_place(settings.max_ejection_percent) {
            return None;
        }
        let seen = self.ejection.load(Relaxed);
        let (ended, holds) = unpack(seen);
        let count = self
            .unforgiven(millis(now).saturating_sub(ended))
            .saturating_add(1);
        let longest = LONGEST.max(settings.base_ejection_time);
        let length = settings
            .base_ejection_time
            .saturating_mul(count)
            .min(longest);
        let until = millis(now.saturating_add(length));
        let won = !holds
            && self
                .ejection
                .compare_exchange(seen, pack(until, true), Relaxed, Relaxed)
                .is_ok();
        if !won {
            // Another worker ejected it at the same time.
            self.group.free_place();
            return None;
        }
        self.count.store(count, Relaxed);
        self.group.note_change();
        self.forgive();
        Some(length)
    }

    fn unforgiven(&self, quiet_millis: u64) -> u32 {
        let forgiven = quiet_millis / millis(FORGIVEN_AFTER).max(1);
        let forgiven = u32::try_from(forgiven).unwrap_or(u32::MAX);
        self.count.load(Relaxed).saturating_sub(forgiven)
    }
}

/// Compares the rates of a destination's endpoints in the interval that has ended, and begins
/// another. Returns which are ejected, and for how long.
pub fn compare<'r>(
    records: impl Iterator<Item = &'r Record>,
    now: Duration,
    settings: &OutlierDetection,
) -> Vec<(usize, Duration)> {
    let all: Vec<(&Record, Rate)> = records.map(|record| (record, Rate::take(record))).collect();
    let mut ejected = Vec::new();
    let mut eject = |outliers: Vec<usize>| {
        for index in outliers {
            if let Some(length) = all[index].0.eject(now, settings) {
                ejected.push((index, length));
            }
        }
    };
    let rates: Vec<Rate> = all.iter().map(|(_, rate)| *rate).collect();
    if let Some(by) = &settings.success_rate {
        eject(less_successful(&rates, by));
    }
    if let Some(by) = &settings.failure_percentage {
        eject(failing(&rates, by));
    }
    ejected
}

/// What an endpoint answered in an interval.
#[derive(Debug, Clone, Copy)]
struct Rate {
    answers: u32,
    successes: u32,
}

impl Rate {
    fn take(record: &Record) -> Self {
        Self {
            answers: record.answers.swap(0, Relaxed),
            successes: record.successes.swap(0, Relaxed),
        }
    }

    fn of_success(self) -> f64 {
        f64::from(self.successes.min(self.answers)) / f64::from(self.answers.max(1))
    }
}

/// Those with enough requests, with the share of their successes; none if they are too few.
fn comparable(rates: &[Rate], requests: u32, hosts: u32) -> Vec<(usize, f64)> {
    let enough = |(_, rate): &(usize, &Rate)| rate.answers >= requests.max(1);
    let judged: Vec<_> = rates
        .iter()
        .enumerate()
        .filter(enough)
        .map(|(index, rate)| (index, rate.of_success()))
        .collect();
    if judged.len() < hosts as usize {
        return Vec::new();
    }
    judged
}

fn less_successful(rates: &[Rate], by: &SuccessRate) -> Vec<usize> {
    let judged = comparable(rates, by.minimum_requests, by.minimum_hosts);
    let count = judged.len().max(1) as f64;
    let mean = judged.iter().map(|(_, rate)| rate).sum::<f64>() / count;
    let square = |(_, rate): &(usize, f64)| (rate - mean).powi(2);
    let deviation = (judged.iter().map(square).sum::<f64>() / count).sqrt();
    let threshold = mean - deviation * f64::from(by.stdev_factor) / 1000.0;
    let outliers = judged.into_iter().filter(|(_, rate)| *rate < threshold);
    outliers.map(|(index, _)| index).collect()
}

fn failing(rates: &[Rate], by: &FailurePercentage) -> Vec<usize> {
    let judged = comparable(rates, by.minimum_requests, by.minimum_hosts);
    let fails = |(_, rate): &(usize, f64)| (1.0 - rate) * 100.0 >= f64::from(by.threshold);
    let outliers = judged.into_iter().filter(fails);
    outliers.map(|(index, _)| index).collect()
}

impl Drop for Record {
    fn drop(&mut self) {
        if unpack(self.ejection.load(Relaxed)).1 {
            self.group.free_place();
        }
        self.group.members.fetch_sub(1, Relaxed);
    }
}

/// Stores zero, but only where it is not there: an unchanged value stays in every core's cache.
fn reset(counter: &AtomicU32) {
    if counter.load(Relaxed) != 0 {
        counter.store(0, Relaxed);
    }
}

/// The counter's new value; it stops at the largest number.
fn add(counter: &AtomicU32) -> u32 {
    let more = |n: u32| n.checked_add(1);
    match counter.fetch_update(Relaxed, Relaxed, more) {
        Ok(before) => before.saturating_add(1),
        Err(full) => full,
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX) & (u64::MAX >> 1)
}

fn pack(until: u64, holds: bool) -> u64 {
    until << 1 | u64::from(holds)
}

fn unpack(packed: u64) -> (u64, bool) {
    (packed >> 1, packed & 1 == 1)
}

#[cfg(test)]
mod tests;
