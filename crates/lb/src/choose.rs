//! Which endpoint gets the next request (or try).
//!
//! A [`Balancer`] belongs to one destination in one worker. It picks among [`Candidates`] in up to
//! four rounds, and takes the first that yields one:
//!
//! 1. usable endpoints that no earlier try of this request went to,
//! 2. usable endpoints,
//! 3. *panic*: ejected endpoints that were not tried before, for when all fail alike: ejecting is of
//!    no use to anyone then. Envoy panics already when fewer than half are healthy; here, unless a
//!    threshold is set, only when none is left,
//! 4. ejected endpoints.
//!
//! Where the candidates have a [`Spread`], a group of them is drawn first, and each round looks there
//! before it looks elsewhere. [`Standing::Excluded`] endpoints are never picked. Picking allocates
//! nothing, and for the random algorithms does not depend on the number of endpoints as long as most
//! of them are usable.

use std::ops::Range;
use std::time::Duration;

use rand::Rng;

use crate::hash::mix;
use crate::spread::{Shares, Spread};
use crate::table::Table;

/// Draws at random before all endpoints are looked at. With half of them usable, one draw in
/// 65,536 picks goes the long way.
const DRAWS: usize = 16;

/// How the next one is chosen.
#[derive(Debug, Clone, Copy)]
pub enum Choice<'a> {
    /// Of two drawn at random, the one with less load for its weight.
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
    /// Of two drawn at random, the one with the lower cost for its weight.
    PeakEwma,
    /// The one that the hash of the request leads to.
    Hashed(&'a Lookup<'a>),
}

/// What leads to an endpoint by hash. Behind a reference in [`Choice`], so that
/// the others are passed in registers.
#[derive(Debug, Clone, Copy)]
pub struct Lookup<'a> {
    /// The table of the endpoints.
    pub table: &'a Table,
    /// The hash of the request.
    pub hash: u64,
}

/// Whether an endpoint may be picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Yes.
    Usable,
    /// Only when no other is left, or in a panic.
    Ejected,
    /// Only in a panic below the threshold.
    Unhealthy,
    /// No: it is draining, or gone.
    Excluded,
}

/// The endpoints of a destination, by index.
pub trait Candidates {
    /// How many there are.
    fn len(&self) -> usize;

    /// The endpoint's share relative to the others; 0 counts as 1.
    fn weight(&self, index: usize) -> u32;

    /// Requests in flight to it.
    fn load(&self, index: usize) -> u32;

    /// Whether it may be picked.
    fn standing(&self, index: usize) -> Standing;

    /// The largest weight; worth keeping at hand, since it is asked for at each pick.
    fn heaviest(&self) -> u32 {
        (0..self.len()).map(|i| self.weight(i)).max().unwrap_or(1)
    }

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What one more request to it costs, for [`Choice::PeakEwma`].
    fn cost(&self, index: usize) -> f64 {
        f64::from(self.load(index))
    }

    /// The groups that they stand in; `None`: in one, of which no more is known.
    fn spread(&self) -> Option<&Spread> {
        None
    }

    /// Another whenever endpoints or their standings may have changed, but by time alone. Asked for
    /// only where there is a spread, as are the two below.
    fn stamp(&self) -> (u64, u32) {
        (0, 0)
    }

    /// When an ejected endpoint is back.
    fn back(&self, _index: usize) -> Option<Duration> {
        None
    }

    /// What time it is.
    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

/// Endpoints side by side.
trait Run: Copy {
    fn range(self) -> Range<usize>;
}

/// All of them, so many: that the first is 0 is known when this is compiled, and costs nothing.
#[derive(Clone, Copy)]
struct Whole(usize);

impl Run for Whole {
    fn range(self) -> Range<usize> {
        0..self.0
    }
}

/// From one to before another.
#[derive(Clone, Copy)]
struct Part(usize, usize);

impl Run for Part {
    fn range(self) -> Range<usize> {
        self.0..self.1
    }
}

/// Picks endpoints for one destination; keeps what round robin has to remember.
#[derive(Debug, Default)]
pub struct Balancer {
    /// Credit of each endpoint: nginx's smooth weighted round robin.
    credit: Vec<i64>,
    /// Where the last turn ended.
    last: usize,
    /// How much each group gets.
    shares: Shares,
}

impl Balancer {
    /// A balancer without a past.
    pub fn new() -> Self {
        Self::default()
    }

    /// The endpoint for the next try; `tried` are those that earlier tries of the same request
    /// went to. `None` when none may be picked, or there is none.
    pub fn choose<C: Candidates + ?Sized, R: Rng + ?Sized>(
        &mut self,
        choice: Choice<'_>,
        candidates: &C,
        tried: &[usize],
        rng: &mut R,
    ) -> Option<usize> {
        if let Some(spread) = candidates.spread() {
            return self.choose_group(spread, choice, candidates, tried, rng);
        }
        if let Choice::Hashed(lookup) = choice {
            return by_hash(lookup, candidates, tried);
        }
        let all = Whole(candidates.len());
        let picked = self.pick(choice, candidates, all, rng, |i| {
            candidates.standing(i) == Standing::Usable && !tried.contains(&i)
        });
        picked.or_else(|| self.choose_again(choice, candidates, tried, rng))
    }

    /// The further rounds, where all that are usable were tried or none is. Apart, as they are seldom.
    #[cold]
    #[inline(never)]
    fn choose_again<C: Candidates + ?Sized, R: Rng + ?Sized>(
        &mut self,
        choice: Choice<'_>,
        candidates: &C,
        tried: &[usize],
        rng: &mut R,
    ) -> Option<usize> {
        let all = Whole(candidates.len());
        let standing = |i| candidates.standing(i);
        // Without an earlier try the first round would only come again.
        let usable = if tried.is_empty() {
            None
        } else {
            self.pick(choice, candidates, all, rng, |i| {
                standing(i) == Standing::Usable
            })
        };
        usable
            .or_else(|| {
                self.pick(choice, candidates, all, rng, |i| {
                    standing(i) == Standing::Ejected && !tried.contains(&i)
                })
            })
            .or_else(|| {
                self.pick(choice, candidates, all, rng, |i| {
                    standing(i) == Standing::Ejected
                })
            })
    }

    /// The same where traffic is spread over groups. Apart, so that where it is not nothing is paid.
    #[inline(never)]
    fn choose_group<C: Candidates + ?Sized, R: Rng + ?Sized>(
        &mut self,
        spread: &Spread,
        choice: Choice<'_>,
        candidates: &C,
        tried: &[usize],
        rng: &mut R,
    ) -> Option<usize> {
        let mut shares = std::mem::take(&mut self.shares);
        shares.update(spread, candidates);
        let drawn = shares.draw(|total| match choice {
            // Other bits than those that choose the endpoint.
            Choice::Hashed(lookup) => mix(lookup.hash) % total,
            _ => rng.random_range(0..total),
        });
        let untried = |i: usize| !tried.contains(&i);
        let serves = |i: usize, group: usize| match candidates.standing(i) {
            Standing::Usable => true,
            Standing::Ejected | Standing::Unhealthy => shares.panics(group),
            Standing::Excluded => false,
        };
        let ejected = |i: usize, _: usize| candidates.standing(i) == Standing::Ejected;
        let mut picked = self.round(spread, drawn, choice, candidates, rng, |i, group| {
            serves(i, group) && untried(i)
        });
        if picked.is_none() && !tried.is_empty() {
            picked = self.round(spread, drawn, choice, candidates, rng, serves);
        }
        if picked.is_none() && spread.spares_nobody() {
            picked = self
                .round(spread, drawn, choice, candidates, rng, |i, group| {
                    ejected(i, group) && untried(i)
                })
                .or_else(|| self.round(spread, drawn, choice, candidates, rng, ejected));
        }
        self.shares = shares;
        picked
    }

    /// One round over the group that was drawn, then over the others: in their order where they have
    /// one, else over all at once.
    fn round<C: Candidates + ?Sized, R: Rng + ?Sized>(
        &mut self,
        spread: &Spread,
        drawn: Option<usize>,
        choice: Choice<'_>,
        candidates: &C,
        rng: &mut R,
        allowed: impl Fn(usize, usize) -> bool,
    ) -> Option<usize> {
        let others = (0..spread.groups()).filter(|_| spread.is_ordered());
        for group in drawn.into_iter().chain(others) {
            let range = spread.range(group);
            let picked = self.pick(choice, candidates, Part(range.start, range.end), rng, |i| {
                allowed(i, group)
            });
            if picked.is_some() {
                return picked;
            }
        }
        if spread.is_ordered() {
            return None;
        }
        self.pick(choice, candidates, Whole(candidates.len()), rng, |i| {
            // Panic is of all groups alike where they have no order.
            allowed(i, 0)
        })
    }

    fn pick<C: Candidates + ?Sized, R: Rng + ?Sized>(
        &mut self,
        choice: Choice<'_>,
        candidates: &C,
        run: impl Run,
        rng: &mut R,
        allowed: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        match choice {
            Choice::Random => draw(candidates, run, rng, allowed),
            Choice::RoundRobin => self.next(candidates, run, allowed),
            Choice::LeastRequest => of_two(candidates, run, rng, allowed, |a, b| {
                // a / b < c / d as a * d < c * b: no division, no rounding.
                let cross = |i, other| {
                    u64::from(candidates.load(i)) * u64::from(candidates.weight(other).max(1))
                };
                cross(a, b) < cross(b, a)
            }),
            Choice::PeakEwma => of_two(candidates, run, rng, allowed, |a, b| {
                let cross =
                    |i, other| candidates.cost(i) * f64::from(candidates.weight(other).max(1));
                cross(a, b) < cross(b, a)
            }),
            Choice::Hashed(Lookup { table, hash }) => {
                table.find(*hash, |i| run.range().contains(&i) && allowed(i))
            }
        }
    }

    /// Each allowed endpoint earns its weight; the richest is picked and pays what all earned.
    fn next<C: Candidates + ?Sized>(
        &mut self,
        candidates: &C,
        run: impl Run,
        allowed: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let n = candidates.len();
        if self.credit.len() != n {
            self.credit.clear();
            self.credit.resize(n, 0);
            self.last = n.saturating_sub(1);
        }
        let mut earned = 0;
        let mut richest: Option<usize> = None;
        // From the one after the last, so that equals take turns.
        let range = run.range();
        let middle = (self.last + 1).max(range.start).min(range.end);
        for i in (middle..range.end).chain(range.start..middle) {
            if !allowed(i) {
                // An endpoint that is away saves nothing up.
                self.credit[i] = 0;
                continue;
            }
            let weight = i64::from(candidates.weight(i).max(1));
            earned += weight;
            self.credit[i] += weight;
            if richest.is_none_or(|r| self.credit[r] < self.credit[i]) {
                richest = Some(i);
            }
        }
        let chosen = richest?;
        self.credit[chosen] -= earned;
        self.last = chosen;
        Some(chosen)
    }
}

/// All rounds of a lookup. Apart, as what is looked up needs more room than the other ways to choose.
#[inline(never)]
fn by_hash<C: Candidates + ?Sized>(
    lookup: &Lookup<'_>,
    candidates: &C,
    tried: &[usize],
) -> Option<usize> {
    let find = |wanted: Standing, again: bool| {
        lookup.table.find(lookup.hash, |i| {
            candidates.standing(i) == wanted && (again || !tried.contains(&i))
        })
    };
    find(Standing::Usable, false)
        .or_else(|| find(Standing::Usable, true))
        .or_else(|| find(Standing::Ejected, false))
        .or_else(|| find(Standing::Ejected, true))
}

/// Of two drawn by weight, the second if it is `better` than the first: the first if they are equal,
/// so that an idle destination is shared by weight.
fn of_two<C: Candidates + ?Sized, R: Rng + ?Sized>(
    candidates: &C,
    run: impl Run,
    rng: &mut R,
    allowed: impl Fn(usize) -> bool,
    better: impl Fn(usize, usize) -> bool,
) -> Option<usize> {
    let first = draw(candidates, run, rng, &allowed)?;
    let Some(second) = draw(candidates, run, rng, |i| i != first && allowed(i)) else {
        return Some(first);
    };
    Some(if better(second, first) { second } else { first })
}

/// An allowed endpoint, each with a chance in proportion to its weight.
#[expect(
    clippy::inline_always,
    reason = "counted: a pick draws twice, and costs a tenth more where that is called"
)]
#[inline(always)]
fn draw<C: Candidates + ?Sized, R: Rng + ?Sized>(
    candidates: &C,
    run: impl Run,
    rng: &mut R,
    allowed: impl Fn(usize) -> bool,
) -> Option<usize> {
    let range = run.range();
    if range.len() < 2 {
        return range.into_iter().find(|i| allowed(*i));
    }
    let heaviest = candidates.heaviest().max(1);
    // Any index, kept with a chance in proportion to its weight: the same distribution as below.
    for _ in 0..DRAWS {
        let i = range.start + rng.random_range(0..range.len());
        let weight = candidates.weight(i).max(1);
        let kept = weight >= heaviest || rng.random_range(0..heaviest) < weight;
        if kept && allowed(i) {
            return Some(i);
        }
    }
    scan(candidates, range, rng, allowed)
}

/// One pass over all: each allowed endpoint replaces the choice so far with a chance of its weight
/// in the sum of those seen (weighted reservoir of one).
fn scan<C: Candidates + ?Sized, R: Rng + ?Sized>(
    candidates: &C,
    range: Range<usize>,
    rng: &mut R,
    allowed: impl Fn(usize) -> bool,
) -> Option<usize> {
    let mut total: u64 = 0;
    let mut chosen = None;
    for i in range.filter(|&i| allowed(i)) {
        let weight = u64::from(candidates.weight(i).max(1));
        total += weight;
        if rng.random_range(0..total) < weight {
            chosen = Some(i);
        }
    }
    chosen
}

#[cfg(test)]
mod tests;
