//! Metric registry: counters that each have one writer, summed when scraped.
//!
//! A worker thread owns a [`Shard`]. It resolves a [`RequestSeries`] once per (route, endpoint) and
//! keeps it; recording a request is then a few plain loads and stores. [`Registry::render`] sums all
//! shards. Series are bounded: beyond [`Limits::series`] distinct label sets, and after series that
//! nobody holds any more have been retired, new ones are folded into one whose labels say `other`,
//! and `tulle_metrics_folded_total` counts how often.
//!
//! Things of the process (connections, certificate expiry, build) are [`Counter`]s, [`Gauge`]s and
//! [`Histogram`]s registered by name; those may be shared between threads.

mod exposition;
mod histogram;
mod labels;
mod process;
mod series;
mod shard;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use crate::Direction;
pub use exposition::Format;
pub use histogram::{BYTES_BOUNDS, DURATION_BOUNDS};
pub use labels::{RequestLabels, TcpLabels};
pub use process::{Counter, Gauge, Histogram};
pub use series::{RequestSeries, TcpSeries};
pub use shard::Shard;

use shard::ShardState;

/// Bounds on what a registry holds.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Distinct label sets of requests, and again of TCP connections, over all shards.
    pub series: usize,
    /// Distinct (status, gRPC status, reason) within one label set.
    pub outcomes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            series: 4096,
            outcomes: 48,
        }
    }
}

/// The scrape side; cheap to clone.
#[derive(Clone, Default)]
pub struct Registry {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    limits: Limits,
    shards: Mutex<Vec<Arc<ShardState>>>,
    /// Label sets that have a series of their own, with the number of shards that hold one.
    requests: Mutex<HashMap<RequestLabels, usize>>,
    tcp: Mutex<HashMap<TcpLabels, usize>>,
    folded: AtomicU64,
    process: Mutex<BTreeMap<String, process::Family>>,
}

impl Registry {
    /// An empty registry with the usual limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty registry.
    pub fn with_limits(limits: Limits) -> Self {
        Self {
            shared: Arc::new(Shared {
                limits,
                ..Shared::default()
            }),
        }
    }

    /// A shard for one worker thread. What it counted stays in the registry after it is dropped.
    pub fn shard(&self) -> Shard {
        let state = Arc::new(ShardState::default());
        lock(&self.shared.shards).push(Arc::clone(&state));
        Shard::new(Arc::clone(&self.shared), state)
    }

    /// All metrics as a scrape's body; its content type is [`Format::content_type`].
    pub fn render(&self, format: Format) -> String {
        exposition::render(&self.shared, format)
    }

    /// How often a series or an outcome was folded into `other`.
    pub fn folded(&self) -> u64 {
        self.shared.folded.load(Ordering::Relaxed)
    }
}

/// No code runs under these locks that can leave the data half-written.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
