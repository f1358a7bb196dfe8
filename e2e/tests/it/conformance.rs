//! Cases of the official Gateway API suite (v1.6.3), off Kubernetes, by name.
//!
//! Each test bears the name of one of the suite's, with objects that mean the same, the same requests
//! and the same answers and conditions to expect: a table for each. Cases of the mesh run with
//! sidecars in both modes, cases of Gateways with a `tulle gateway` under a control plane. What of
//! the suite needs a cluster (Deployments, addresses of Services) is `make conformance`.
//!
//! Cases of one kind share a world, with a frontend or a listener for each: whoever needs it first
//! starts it, and it ends when no test that runs has it any more.

mod ask;
mod gateway;
mod mesh;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

pub(crate) use ask::{Ask, get};

/// A world for all tests that run at the same time.
struct Shared<T>(Mutex<Weak<T>>);

impl<T> Shared<T> {
    const fn new() -> Self {
        Self(Mutex::new(Weak::new()))
    }

    /// The world that is there, or a new one; it is there for as long as the caller holds it.
    fn get(&self, make: impl FnOnce() -> T) -> Arc<T> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(world) = known.upgrade() {
            return world;
        }
        let world = Arc::new(make());
        *known = Arc::downgrade(&world);
        world
    }
}

/// Requests sent to find how weights divide them.
const SAMPLE: u32 = 1000;

/// Whether 70 % went to `v1` and 30 % to `v2`, and nothing elsewhere; within six standard
/// deviations.
#[track_caller]
fn assert_seventy_thirty(ask: impl FnMut(u32) -> String) {
    let mut counts = BTreeMap::<String, u32>::new();
    for by in (0..SAMPLE).map(ask) {
        *counts.entry(by).or_default() += 1;
    }
    let of = |by| counts.get(by).copied().unwrap_or(0);
    assert!((213..=387).contains(&of("v2")), "{counts:?}");
    assert_eq!(of("v1") + of("v2"), SAMPLE, "{counts:?}");
}
