//! Endpoints by hash: a ring, or the table of Maglev. Made once for each change of the endpoints, and
//! read by all workers.
//!
//! Both are made of the endpoints' names and weights alone, in the order of the names, so that every
//! proxy makes the same. The ring is Envoy's (Karger et al.; so many entries for each endpoint as its
//! weight asks for, between a least and a largest size). The table is built as in Eisenbud et al.,
//! *Maglev: A Fast and Reliable Software Network Load Balancer*, NSDI 2016, section 3.4: each
//! endpoint has a permutation of the entries and in turn takes the first that is free; one with less
//! weight than the heaviest sits turns out, as in Envoy.
//!
//! Differs from Envoy: unusable endpoints stay in, and a request that hits one goes on to the next
//! entry's. So an ejection moves no requests but the ejected one's, and builds nothing. After
//! [`STEPS`] such entries it goes to the endpoint of the highest random weight for its hash
//! (rendezvous hashing, by weight), which is as much the same for everybody and is found in one pass.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use model::balancing::Algorithm;

use crate::hash::{hash, hash_with, mix};

/// Entries that are looked at before all endpoints are.
const STEPS: usize = 64;
/// What an entry holds before anybody has it.
const FREE: u32 = u32::MAX;

/// A ring or table over endpoints by index.
#[derive(Debug)]
pub struct Table {
    algorithm: Algorithm,
    members: Box<[Member]>,
    /// Where on the ring each entry is, ascending; empty for a table.
    places: Box<[u64]>,
    /// Whose each entry is.
    owners: Box<[u32]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Member {
    key: u64,
    weight: u32,
}

impl Table {
    /// Over endpoints by name and weight, whose order says how they are called from then on. `None`
    /// for algorithms that need none, and without endpoints.
    pub fn build(algorithm: Algorithm, endpoints: &[(&str, u32)]) -> Option<Self> {
        let members: Box<[Member]> = members(endpoints).collect();
        if members.is_empty() {
            return None;
        }
        let mut order: Vec<usize> = (0..endpoints.len()).collect();
        order.sort_by_key(|i| endpoints.get(*i).map(|(name, _)| *name));
        let (places, owners) = match algorithm {
            Algorithm::RingHash { minimum, maximum } => ring(endpoints, &order, minimum, maximum),
            Algorithm::Maglev { table } => (Box::default(), maglev(endpoints, &order, table)),
            _ => return None,
        };
        Some(Self {
            algorithm,
            members,
            places,
            owners,
        })
    }

    /// Whether this is what [`Table::build`] would make.
    pub fn is_of(&self, algorithm: Algorithm, endpoints: &[(&str, u32)]) -> bool {
        self.algorithm == algorithm && self.members.iter().copied().eq(members(endpoints))
    }

    /// How many entries it has.
    pub fn entries(&self) -> usize {
        self.owners.len()
    }

    /// The allowed endpoint that a hash leads to.
    pub fn find(&self, hash: u64, allowed: impl Fn(usize) -> bool) -> Option<usize> {
        let entries = self.owners.len();
        let start = if self.places.is_empty() {
            usize::try_from(hash % entries.max(1) as u64).unwrap_or(0)
        } else {
            self.places.partition_point(|place| *place < hash)
        };
        let (before, from) = self.owners.split_at(start.min(entries));
        from.iter()
            .chain(before)
            .take(STEPS)
            .map(|owner| *owner as usize)
            .find(|i| allowed(*i))
            .or_else(|| self.highest(hash, allowed))
    }

    /// Rendezvous hashing: by weight, the endpoint with the highest draw for this hash.
    fn highest(&self, hash: u64, allowed: impl Fn(usize) -> bool) -> Option<usize> {
        let draw = |member: &Member| {
            // In (0, 1]; by weight, the time until the first of so many events.
            let unit = ((mix(hash ^ member.key) >> 11) + 1) as f64 / (1_u64 << 53) as f64;
            -unit.ln() / f64::from(member.weight)
        };
        let allowed = self.members.iter().enumerate().filter(|(i, _)| allowed(*i));
        allowed
            .map(|(i, member)| (draw(member), i))
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, i)| i)
    }
}

fn members(endpoints: &[(&str, u32)]) -> impl Iterator<Item = Member> {
    endpoints.iter().map(|(name, weight)| Member {
        key: hash(name.as_bytes()),
        weight: (*weight).max(1),
    })
}

type Ring = (Box<[u64]>, Box<[u32]>);

/// Envoy's sizes: so large that the lightest endpoint has a whole number of entries and the others
/// theirs in proportion, at least `minimum` and at most `maximum`.
fn ring(endpoints: &[(&str, u32)], order: &[usize], minimum: u32, maximum: u32) -> Ring {
    let weight = |i: usize| endpoints.get(i).map_or(1, |(_, weight)| (*weight).max(1));
    let total: f64 = order.iter().map(|i| f64::from(weight(*i))).sum();
    let lightest = order.iter().map(|i| weight(*i)).min().unwrap_or(1);
    let least = f64::from(lightest) / total;
    let size = ((least * f64::from(minimum)).ceil() / least).min(f64::from(maximum));
    let mut entries = Vec::with_capacity(size.ceil() as usize);
    let (mut current, mut target) = (0.0, 0.0);
    let mut text = String::new();
    for i in order {
        target += size * f64::from(weight(*i)) / total;
        let mut n = 0_u32;
        while current < target {
            text.clear();
            let name = endpoints.get(*i).map_or("", |(name, _)| name);
            text.push_str(name);
            text.push('_');
            text.push_str(&n.to_string());
            entries.push((hash(text.as_bytes()), *i as u32));
            n += 1;
            current += 1.0;
        }
    }
    // By place, and where two have one, always in the same order: that of the names.
    entries.sort_by_key(|(place, _)| *place);
    entries
        .into_iter()
        .unzip::<u64, u32, Vec<_>, Vec<_>>()
        .into_boxes()
}

trait IntoBoxes {
    fn into_boxes(self) -> Ring;
}

impl IntoBoxes for (Vec<u64>, Vec<u32>) {
    fn into_boxes(self) -> Ring {
        (self.0.into_boxed_slice(), self.1.into_boxed_slice())
    }
}

/// An endpoint that has yet to take entries.
struct Taker {
    index: u32,
    weight: u64,
    /// Its permutation: `offset + n * skip`, modulo the size.
    offset: u64,
    skip: u64,
    /// How far in its permutation it is.
    next: u64,
    /// How many entries it has.
    taken: u64,
}

/// The paper's algorithm, with turns by weight: an endpoint that has `k` entries takes its next in
/// turn `k * heaviest / weight`.
fn maglev(endpoints: &[(&str, u32)], order: &[usize], size: u32) -> Box<[u32]> {
    let size = u64::from(size.max(2));
    let mut takers: Vec<Taker> = order
        .iter()
        .filter_map(|i| {
            let (name, weight) = endpoints.get(*i)?;
            Some(Taker {
                index: *i as u32,
                weight: u64::from((*weight).max(1)),
                offset: hash(name.as_bytes()) % size,
                skip: hash_with(name.as_bytes(), 1) % (size - 1) + 1,
                next: 0,
                taken: 0,
            })
        })
        .collect();
    let heaviest = takers.iter().map(|t| t.weight).max().unwrap_or(1);
    let mut table = vec![FREE; size as usize];
    let mut free = size;
    let mut turns: BinaryHeap<Reverse<(u64, usize)>> =
        (0..takers.len()).map(|i| Reverse((1, i))).collect();
    while free > 0 {
        let Some(Reverse((turn, i))) = turns.pop() else {
            break;
        };
        let Some(taker) = takers.get_mut(i) else {
            break;
        };
        // The size is a prime, so a permutation meets every entry, and one is free.
        loop {
            let at = (taker.offset + taker.next * taker.skip) % size;
            taker.next += 1;
            if let Some(entry) = table.get_mut(at as usize)
                && *entry == FREE
            {
                *entry = taker.index;
                break;
            }
            if taker.next > size {
                // Of a size that is no prime a permutation may miss some: the first that is free.
                if let Some(entry) = table.iter_mut().find(|entry| **entry == FREE) {
                    *entry = taker.index;
                }
                break;
            }
        }
        taker.taken += 1;
        free -= 1;
        let due = (taker.taken * heaviest).div_ceil(taker.weight);
        turns.push(Reverse((due.max(turn + 1), i)));
    }
    table.into_boxed_slice()
}

#[cfg(test)]
mod tests;
