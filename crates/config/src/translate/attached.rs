//! How many routes are attached to each listener, and `ListenerSet`s to each Gateway.
//!
//! Each route's translation says which listeners take it; here only differences are counted, so
//! that a change of one route costs the same however many others its Gateway has.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::status::Status;
use crate::object::ObjectKey;

/// What something is attached to: the listeners of a Gateway or `ListenerSet`, by name, or the
/// Gateway itself (a `ListenerSet`).
pub(super) type Attached = BTreeSet<(ObjectKey, Option<String>)>;

/// How much is attached, by Gateway or `ListenerSet` and listener.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts(HashMap<ObjectKey, BTreeMap<Option<String>, u32>>);

impl Counts {
    /// An object that was attached to some places is attached to others now. Returns whose counts
    /// that changes.
    pub(super) fn change(&mut self, old: &Attached, new: &Attached) -> BTreeSet<ObjectKey> {
        let mut changed = BTreeSet::new();
        for (owner, listener) in new.difference(old) {
            let counts = self.0.entry(owner.clone()).or_default();
            *counts.entry(listener.clone()).or_default() += 1;
            changed.insert(owner.clone());
        }
        for (owner, listener) in old.difference(new) {
            let Some(counts) = self.0.get_mut(owner) else {
                continue;
            };
            if let Some(count) = counts.get_mut(listener) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(listener);
                }
            }
            if counts.is_empty() {
                self.0.remove(owner);
            }
            changed.insert(owner.clone());
        }
        changed
    }

    /// Puts the counts into the status of a Gateway or `ListenerSet`.
    pub(super) fn fill(&self, owner: &ObjectKey, status: &mut Status) {
        let counts = self.0.get(owner);
        let count = |place: &Option<String>| {
            let count = counts.and_then(|counts| counts.get(place));
            count.copied().unwrap_or(0)
        };
        for listener in &mut status.listeners {
            listener.attached_routes = count(&Some(listener.name.clone()));
        }
        if let Some(sets) = &mut status.attached_listener_sets {
            *sets = count(&None);
        }
    }
}
