//! Metrics of the process, registered by name and shared between threads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::{Registry, lock};

/// A count that only grows; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<AtomicU64>);

/// A whole number that goes up and down; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Gauge(Arc<AtomicI64>);

/// A distribution; cheap to clone.
#[derive(Debug, Clone)]
pub struct Histogram(Arc<Buckets>);

#[derive(Debug)]
pub(super) struct Buckets {
    pub(super) bounds: Vec<f64>,
    pub(super) counts: Vec<AtomicU64>,
    /// In millionths of the unit.
    pub(super) sum: AtomicU64,
}

/// A sample that is worked out when scraped.
type Computed = Arc<dyn Fn() -> f64 + Send + Sync>;

/// Metrics of one name.
pub(super) struct Family {
    pub(super) help: String,
    pub(super) kind: Kind,
    pub(super) samples: BTreeMap<Vec<(String, String)>, Sample>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

#[derive(Clone)]
pub(super) enum Sample {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
    Computed(Computed),
}

/// Samples of one name beyond which no more are taken.
const MAX_SAMPLES: usize = 4096;

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The count.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Gauge {
    /// Sets the value.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Adds `n`, which may be negative.
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Takes one away.
    pub fn dec(&self) {
        self.add(-1);
    }

    /// The value.
    pub fn value(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Histogram {
    fn new(bounds: &[f64]) -> Self {
        Self(Arc::new(Buckets {
            bounds: bounds.to_vec(),
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }))
    }

    /// Counts a value, which is not negative.
    pub fn observe(&self, value: f64) {
        let i = self.0.bounds.partition_point(|bound| *bound < value);
        self.0.counts[i].fetch_add(1, Ordering::Relaxed);
        self.0
            .sum
            .fetch_add((value * 1e6).round() as u64, Ordering::Relaxed);
    }

    pub(super) fn buckets(&self) -> &Buckets {
        &self.0
    }
}

impl Registry {
    /// The counter of this name, which ends in `_total`. Asking again gives the same one.
    pub fn counter(&self, name: &str, help: &str) -> Counter {
        self.counter_with(name, help, &[])
    }

    /// The counter of this name and these labels.
    pub fn counter_with(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Counter {
        let fresh = Sample::Counter(Counter::default());
        match self.sample(name, help, labels, Kind::Counter, fresh) {
            Some(Sample::Counter(counter)) => counter,
            _ => Counter::default(),
        }
    }

    /// The gauge of this name. Asking again gives the same one.
    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.gauge_with(name, help, &[])
    }

    /// The gauge of this name and these labels.
    pub fn gauge_with(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Gauge {
        let fresh = Sample::Gauge(Gauge::default());
        match self.sample(name, help, labels, Kind::Gauge, fresh) {
            Some(Sample::Gauge(gauge)) => gauge,
            _ => Gauge::default(),
        }
    }

    /// A gauge whose value is worked out at each scrape. The first of a name stays.
    pub fn gauge_fn(
        &self,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
        value: impl Fn() -> f64 + Send + Sync + 'static,
    ) {
        let fresh = Sample::Computed(Arc::new(value));
        self.sample(name, help, labels, Kind::Gauge, fresh);
    }

    /// A counter kept elsewhere (drop counts of queues, for one) and read at each scrape.
    pub fn counter_fn(
        &self,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
        value: impl Fn() -> u64 + Send + Sync + 'static,
    ) {
        let fresh = Sample::Computed(Arc::new(move || value() as f64));
        self.sample(name, help, labels, Kind::Counter, fresh);
    }

    /// The histogram of this name, with buckets up to each of `bounds`, which ascend.
    pub fn histogram(
        &self,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
        bounds: &[f64],
    ) -> Histogram {
        let fresh = Sample::Histogram(Histogram::new(bounds));
        match self.sample(name, help, labels, Kind::Histogram, fresh) {
            Some(Sample::Histogram(histogram)) => histogram,
            _ => Histogram::new(bounds),
        }
    }

    /// Takes away a sample, of a peer that has gone for one.
    pub fn remove(&self, name: &str, labels: &[(&str, &str)]) {
        if let Some(family) = lock(&self.shared.process).get_mut(name) {
            family.samples.remove(&owned(labels));
        }
    }

    fn sample(
        &self,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
        kind: Kind,
        fresh: Sample,
    ) -> Option<Sample> {
        let valid = |s: &str| {
            !s.is_empty()
                && !s.as_bytes()[0].is_ascii_digit()
                && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        if !valid(name) || !labels.iter().all(|(key, _)| valid(key)) {
            tracing::error!(name, "metric not shown: its name or a label is not valid");
            return None;
        }
        let mut families = lock(&self.shared.process);
        let family = families.entry(name.to_owned()).or_insert_with(|| Family {
            help: help.to_owned(),
            kind,
            samples: BTreeMap::new(),
        });
        if family.kind != kind {
            tracing::error!(name, "metric not shown: registered before as another type");
            return None;
        }
        let labels = owned(labels);
        if !family.samples.contains_key(&labels) && family.samples.len() >= MAX_SAMPLES {
            self.shared.folded.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(family.samples.entry(labels).or_insert(fresh).clone())
    }
}

fn owned(labels: &[(&str, &str)]) -> Vec<(String, String)> {
    labels
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}
