//! Which endpoint gets the next request (or try).
//!
//! A [`Balancer`] belongs to one destination in one worker. It picks among [`Candidates`] in up to
//! three rounds, and takes the first that yields one:
//!
//! 1. usable endpoints that no earlier try of this request went to,
//! 2. usable endpoints,
//! 3. *panic*: ejected endpoints, for when all fail alike, ejecting is of no use to anyone. Those
//!    not tried before come first here too. Envoy panics already when fewer than half are healthy;
//!    here only when none is left.
//!
//! [`Standing::Excluded`] endpoints are never picked. Picking allocates nothing, and for the random
//! algorithms does not depend on the number of endpoints as long as most of them are usable.

use model::traffic::Algorithm;
use rand::Rng;

/// Draws at random before all endpoints are looked at. With half of them usable, one draw in
/// 65,536 picks goes the long way.
const DRAWS: usize = 16;

/// Whether an endpoint may be picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Yes.
    Usable,
    /// Only when no other is left.
    Ejected,
    /// No: it is draining, unhealthy, or gone.
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
}

/// Picks endpoints for one destination; keeps what round robin has to remember.
#[derive(Debug, Default)]
pub struct Balancer {
    /// Credit of each endpoint: nginx's smooth weighted round robin.
    credit: Vec<i64>,
    /// Where the last turn ended.
    last: usize,
}

impl Balancer {
    /// A balancer without a past.
    pub fn new() -> Self {
        Self::default()
    }

    /// The endpoint for the next try; `tried` are those that earlier tries of the same request
    /// went to. `None` when every endpoint is excluded, or there is none.
    pub fn choose<C: Candidates + ?Sized, R: Rng + ?Sized>(
        &mut self,
        algorithm: Algorithm,
        candidates: &C,
        tried: &[usize],
        rng: &mut R,
    ) -> Option<usize> {
        let standing = |i| candidates.standing(i);
        let untried = |i| !tried.contains(&i);
        self.pick(algorithm, candidates, rng, |i| {
            standing(i) == Standing::Usable && untried(i)
        })
        .or_else(|| {
            // Without an earlier try this round would be the first again.
            let again = !tried.is_empty();
            again.then(|| {
                self.pick(algorithm, candidates, rng, |i| {
                    standing(i) == Standing::Usable
                })
            })?
        })
        .or_else(|| {
            self.pick(algorithm, candidates, rng, |i| {
                standing(i) == Standing::Ejected && untried(i)
            })
        })
        .or_else(|| {
            self.pick(algorithm, candidates, rng, |i| {
                standing(i) == Standing::Ejected
            })
        })
    }

    fn pick<C: Candidates + ?Sized, R: Rng + ?Sized>(
        &mut self,
        algorithm: Algorithm,
        candidates: &C,
        rng: &mut R,
        allowed: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        match algorithm {
            Algorithm::Random => draw(candidates, rng, allowed),
            Algorithm::RoundRobin => self.next(candidates, allowed),
            Algorithm::LeastRequest => least_request(candidates, rng, allowed),
        }
    }

    /// Each allowed endpoint earns its weight; the richest is picked and pays what all earned.
    fn next<C: Candidates + ?Sized>(
        &mut self,
        candidates: &C,
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
        for i in (self.last + 1..n).chain(0..(self.last + 1).min(n)) {
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

/// Of two drawn by weight, the one with less load for its weight; the first if they are equal, so
/// that an idle destination is shared by weight.
fn least_request<C: Candidates + ?Sized, R: Rng + ?Sized>(
    candidates: &C,
    rng: &mut R,
    allowed: impl Fn(usize) -> bool,
) -> Option<usize> {
    let first = draw(candidates, rng, &allowed)?;
    let Some(second) = draw(candidates, rng, |i| i != first && allowed(i)) else {
        return Some(first);
    };
    // a / b < c / d as a * d < c * b: no division, no rounding.
    let cross =
        |i, other| u64::from(candidates.load(i)) * u64::from(candidates.weight(other).max(1));
    Some(if cross(second, first) < cross(first, second) {
        second
    } else {
        first
    })
}

/// An allowed endpoint, each with a chance in proportion to its weight.
fn draw<C: Candidates + ?Sized, R: Rng + ?Sized>(
    candidates: &C,
    rng: &mut R,
    allowed: impl Fn(usize) -> bool,
) -> Option<usize> {
    let n = candidates.len();
    if n < 2 {
        return (n == 1 && allowed(0)).then_some(0);
    }
    let heaviest = candidates.heaviest().max(1);
    // Any index, kept with a chance in proportion to its weight: the same distribution as below.
    for _ in 0..DRAWS {
        let i = rng.random_range(0..n);
        let weight = candidates.weight(i).max(1);
        let kept = weight >= heaviest || rng.random_range(0..heaviest) < weight;
        if kept && allowed(i) {
            return Some(i);
        }
    }
    scan(candidates, rng, allowed)
}

/// One pass over all: each allowed endpoint replaces the choice so far with a chance of its weight
/// in the sum of those seen (weighted reservoir of one).
fn scan<C: Candidates + ?Sized, R: Rng + ?Sized>(
    candidates: &C,
    rng: &mut R,
    allowed: impl Fn(usize) -> bool,
) -> Option<usize> {
    let mut total: u64 = 0;
    let mut chosen = None;
    for i in (0..candidates.len()).filter(|&i| allowed(i)) {
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
