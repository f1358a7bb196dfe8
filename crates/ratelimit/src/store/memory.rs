//! Counts in this process.
//!
//! A key is kept as a number that only this process can work out. There are at most 1048576; when
//! there would be more, those go whose window is over, and if that does not suffice the half whose
//! window ends the soonest. What was forgotten begins anew.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Count;

/// Keys that are remembered, some 40 bytes each; docs/rate-limits.md says so too.
#[cfg(test)]
const KEYS: usize = SHARDS * KEYS_OF_SHARD;
/// Two questions wait for each other if their keys are in one shard.
const SHARDS: usize = 64;
const KEYS_OF_SHARD: usize = 16 * 1024;

/// Counts in this process.
#[derive(Debug)]
pub struct Memory {
    hashes: RandomState,
    shards: Vec<Mutex<Shard>>,
}

type Shard = HashMap<u64, Counted>;

#[derive(Debug, Clone, Copy)]
struct Counted {
    /// Of its window.
    end: u64,
    hits: u64,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            hashes: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }
}

impl Memory {
    /// How many keys are remembered.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn add(&self, count: &Count, now: Duration) -> u64 {
        self.add_key(self.hashes.hash_one(&count.key), count, now)
    }

    fn add_key(&self, key: u64, count: &Count, now: Duration) -> u64 {
        // The upper bits: a table looks at the lower ones.
        let mut shard = lock(&self.shards[(key >> 32) as usize % SHARDS]);
        if shard.len() >= KEYS_OF_SHARD && !shard.contains_key(&key) {
            make_room(&mut shard, now.as_secs());
        }
        let end = count.window.end;
        let counted = shard.entry(key).or_insert(Counted { end, hits: 0 });
        if counted.end != end {
            *counted = Counted { end, hits: 0 };
        }
        counted.hits = counted.hits.saturating_add(count.hits);
        counted.hits
    }
}

/// Nothing in here panics half-way.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn make_room(shard: &mut Shard, now: u64) {
    shard.retain(|_, counted| counted.end > now);
    if shard.len() <= KEYS_OF_SHARD / 2 {
        return;
    }
    let mut ends: Vec<u64> = shard.values().map(|counted| counted.end).collect();
    let middle = ends.len() / 2;
    let (_, middle, _) = ends.select_nth_unstable(middle);
    let middle = *middle;
    let mut surplus = shard.len() - KEYS_OF_SHARD / 2;
    // Of those that end together some go.
    shard.retain(|_, counted| {
        let goes = counted.end <= middle && surplus > 0;
        surplus -= usize::from(goes);
        !goes
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::Unit;

    fn count(unit: Unit, now: Duration) -> Count {
        Count {
            key: String::new(),
            window: unit.window(now),
            hits: 1,
        }
    }

    #[test]
    fn a_count_ends_with_its_window() {
        let memory = Memory::default();
        let at = Duration::from_secs;
        let add = |key: &str, now| {
            let count = Count {
                key: key.to_owned(),
                ..count(Unit::Minute, now)
            };
            memory.add(&count, now)
        };
        assert_eq!((add("a", at(60)), add("a", at(119))), (1, 2));
        assert_eq!(add("b", at(119)), 1);
        assert_eq!(add("a", at(120)), 1);
    }

    #[test]
    fn keys_are_bounded_and_those_that_count_the_longest_are_kept() {
        let memory = Memory::default();
        let now = Duration::from_secs(1000);
        memory.add_key(7, &count(Unit::Day, now), now);
        for key in 0..2 * KEYS as u64 {
            let hash = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 << 8;
            memory.add_key(hash, &count(Unit::Second, now), now);
        }
        assert!(memory.len() <= KEYS, "{}", memory.len());
        assert_eq!(memory.add_key(7, &count(Unit::Day, now), now), 2);
    }
}
