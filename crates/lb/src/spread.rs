//! How traffic is spread over groups of endpoints: near ones first, or each by its weight; and when
//! so few are usable that all are used.
//!
//! Envoy's priority levels, panic threshold and locality weights, in its whole percents: a group's
//! health is 1.4 times its share of usable endpoints (overprovisioning), at most 100; each level
//! takes as much of the traffic as its health, the rest goes on to the next. Only where all of them
//! together are below 100 does a level panic, if its share of usable endpoints is below the
//! threshold. Differs from Envoy: of one group alone the threshold counts as it is written, without
//! the factor, since there is no other group to go to.

use std::ops::Range;
use std::time::Duration;

use crate::choose::{Candidates, Standing};

/// So much more than its share can a group take, in percent.
const OVERPROVISIONING: u64 = 140;

/// Groups of endpoints, which stand side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spread {
    ends: Vec<usize>,
    rule: Rule,
    panic_threshold: Option<u32>,
}

/// How traffic is spread over groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// The earlier first.
    Failover,
    /// Each by its weight.
    Weighted(Vec<u32>),
}

impl Spread {
    /// Over groups of these sizes.
    pub fn new(
        sizes: impl IntoIterator<Item = usize>,
        rule: Rule,
        panic_threshold: Option<u32>,
    ) -> Self {
        let mut end = 0;
        let ends = sizes.into_iter().map(|size| {
            end += size;
            end
        });
        Self {
            ends: ends.collect(),
            rule,
            panic_threshold,
        }
    }

    /// How many groups there are.
    pub fn groups(&self) -> usize {
        self.ends.len()
    }

    /// The endpoints of a group.
    pub fn range(&self, group: usize) -> Range<usize> {
        let end = |group: usize| self.ends.get(group).copied().unwrap_or(0);
        let start = group.checked_sub(1).map_or(0, end);
        start..end(group).max(start)
    }

    /// Whether endpoints that are ejected are used when no other is left.
    pub(crate) fn spares_nobody(&self) -> bool {
        self.panic_threshold.is_none()
    }

    /// Whether the groups have an order.
    pub(crate) fn is_ordered(&self) -> bool {
        self.rule == Rule::Failover
    }
}

/// How many of a group's endpoints there are, and are usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// All that might be used.
    pub all: u32,
    /// Those that are usable.
    pub usable: u32,
}

impl Count {
    fn percent(self) -> u64 {
        u64::from(self.usable) * 100 / u64::from(self.all.max(1))
    }

    fn health(self) -> u64 {
        (u64::from(self.usable) * OVERPROVISIONING / u64::from(self.all.max(1))).min(100)
    }

    fn is_below(self, threshold: u32) -> bool {
        u64::from(self.usable) * 100 < u64::from(self.all) * u64::from(threshold)
    }
}

/// The share of each group at one moment. Keeps its memory.
#[derive(Debug, Default)]
pub struct Shares {
    counts: Vec<Count>,
    parts: Vec<u64>,
    panics: Vec<bool>,
    total: u64,
    /// Of which state of the endpoints, and until when.
    stamp: Option<(u64, u32)>,
    until: Option<Duration>,
}

impl Shares {
    /// As they are now; looks at endpoints only where something has changed.
    pub(crate) fn update<C: Candidates + ?Sized>(&mut self, spread: &Spread, candidates: &C) {
        let stamp = candidates.stamp();
        let now = candidates.now();
        if self.stamp == Some(stamp) && self.until.is_none_or(|until| now < until) {
            return;
        }
        self.stamp = Some(stamp);
        self.until = None;
        self.counts.clear();
        for group in 0..spread.groups() {
            let mut count = Count::default();
            for i in spread.range(group) {
                match candidates.standing(i) {
                    Standing::Excluded => continue,
                    Standing::Unhealthy => {}
                    Standing::Usable => count.usable += 1,
                    Standing::Ejected => {
                        let back = candidates.back(i);
                        self.until = match (self.until, back) {
                            (Some(a), Some(b)) => Some(a.min(b)),
                            (a, b) => a.or(b),
                        };
                    }
                }
                count.all += 1;
            }
            self.counts.push(count);
        }
        self.divide(spread);
    }

    /// Of groups with these endpoints.
    pub fn of(spread: &Spread, counts: &[Count]) -> Self {
        let mut shares = Self {
            counts: counts.to_vec(),
            ..Self::default()
        };
        shares.divide(spread);
        shares
    }

    fn divide(&mut self, spread: &Spread) {
        self.parts.clear();
        self.panics.clear();
        let threshold = spread.panic_threshold.unwrap_or(0).min(100);
        match &spread.rule {
            Rule::Failover => self.by_order(threshold),
            Rule::Weighted(weights) => self.by_weight(weights, threshold),
        }
        self.total = self.parts.iter().sum();
    }

    fn by_order(&mut self, threshold: u32) {
        let health: u64 = self.counts.iter().map(|c| c.health()).sum();
        let health = health.min(100);
        // Of one group alone there is nothing that could make up for it.
        let only = self.counts.iter().filter(|c| c.all > 0).count() == 1;
        let panics = |c: &Count| (only || health < 100) && c.is_below(threshold);
        self.panics.extend(self.counts.iter().map(panics));
        let groups = self.counts.iter().zip(&self.panics);
        let all_panic = threshold > 0 && groups.clone().all(|(c, panics)| *panics || c.all == 0);
        if all_panic {
            // There is no difference left but how many there are.
            let all: u64 = self.counts.iter().map(|c| u64::from(c.all)).sum();
            let share = |c: &Count| u64::from(c.all) * 100 / all.max(1);
            self.parts.extend(self.counts.iter().map(share));
        } else {
            let mut left = 100;
            for count in &self.counts {
                let share = (count.health() * 100 / health.max(1)).min(left);
                left -= share;
                self.parts.push(share);
            }
        }
        // What was lost in rounding goes to the first that gets any.
        let lost = 100_u64.saturating_sub(self.parts.iter().sum());
        if let Some(first) = self.parts.iter_mut().find(|share| **share > 0) {
            *first += lost;
        }
    }

    fn by_weight(&mut self, weights: &[u32], threshold: u32) {
        let sum = self.counts.iter().fold(Count::default(), |sum, c| Count {
            all: sum.all + c.all,
            usable: sum.usable + c.usable,
        });
        let panic = sum.is_below(threshold);
        for (count, weight) in self.counts.iter().zip(weights) {
            let health = if panic && count.all > 0 {
                100
            } else {
                count.health()
            };
            self.parts.push(u64::from(*weight) * health);
            self.panics.push(panic);
        }
    }

    /// The group that a draw below the total leads to.
    pub(crate) fn draw(&self, draw: impl FnOnce(u64) -> u64) -> Option<usize> {
        let first = self.parts.iter().position(|share| *share > 0)?;
        // Most of the time all of it goes to one.
        if self.parts.get(first) == Some(&self.total) {
            return Some(first);
        }
        let mut drawn = draw(self.total);
        self.parts.iter().position(|share| {
            let here = drawn < *share;
            drawn = drawn.saturating_sub(*share);
            here
        })
    }

    /// Whether endpoints of a group are used whatever their health.
    pub(crate) fn panics(&self, group: usize) -> bool {
        self.panics.get(group).copied().unwrap_or(false)
    }

    /// The share of each group; of the whole that they add up to.
    pub fn shares(&self) -> &[u64] {
        &self.parts
    }

    /// Whether each group panics.
    pub fn panicking(&self) -> &[bool] {
        &self.panics
    }

    /// How much of a group is usable, in percent.
    pub fn usable(&self, group: usize) -> u64 {
        self.counts.get(group).map_or(0, |c| c.percent())
    }
}

#[cfg(test)]
mod tests;
