//! What a process still waits for before it can serve.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A set of named conditions; the process is ready when all are met. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<BTreeSet<&'static str>>>);

impl Readiness {
    /// Nothing is waited for yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition that is not met.
    pub fn wait_for(&self, condition: &'static str) {
        self.lock().insert(condition);
    }

    /// Marks a condition as met.
    pub fn met(&self, condition: &'static str) {
        self.lock().remove(condition);
    }

    /// The conditions that are not met; empty when ready.
    pub fn missing(&self) -> Vec<&'static str> {
        self.lock().iter().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<&'static str>> {
        // The set is whole after every operation, so a panic elsewhere cannot have torn it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_only_when_every_condition_is_met() {
        let readiness = Readiness::new();
        readiness.wait_for("a");
        readiness.wait_for("b");
        readiness.met("a");
        assert_eq!(readiness.missing(), ["b"]);
        readiness.met("b");
        assert!(readiness.missing().is_empty());
    }
}
