//! One worker's part of the registry.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hash;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::labels::{RequestLabels, TcpLabels};
use super::series::{RequestCells, RequestSeries, TcpCells, TcpSeries};
use super::{Shared, lock};

/// What the scrape sees of a shard.
#[derive(Default)]
pub(super) struct ShardState {
    pub(super) requests: Mutex<HashMap<RequestLabels, Arc<RequestCells>>>,
    pub(super) tcp: Mutex<HashMap<TcpLabels, Arc<TcpCells>>>,
}

/// One worker thread's series. It neither is nor needs to be shared between threads.
pub struct Shard {
    shared: Arc<Shared>,
    state: Arc<ShardState>,
    requests: RefCell<HashMap<RequestLabels, Rc<RequestSeries>>>,
    tcp: RefCell<HashMap<TcpLabels, Rc<TcpSeries>>>,
}

impl Shard {
    pub(super) fn new(shared: Arc<Shared>, state: Arc<ShardState>) -> Self {
        Self {
            shared,
            state,
            requests: RefCell::default(),
            tcp: RefCell::default(),
        }
    }

    /// The series with these labels. Takes a lock the first time; resolve once and keep it.
    pub fn requests(&self, labels: &RequestLabels) -> Rc<RequestSeries> {
        let mut mine = self.requests.borrow_mut();
        if let Some(series) = mine.get(labels) {
            return Rc::clone(series);
        }
        let cap = self.shared.limits.series;
        let labels = if admit(&self.shared.requests, labels, cap, || {
            retire(&mut mine, &self.shared.requests, &self.state.requests);
        }) {
            labels.clone()
        } else {
            self.shared.folded.fetch_add(1, Ordering::Relaxed);
            labels.folded()
        };
        let series = mine.entry(labels).or_insert_with_key(|labels| {
            let cells = Arc::default();
            lock(&self.state.requests).insert(labels.clone(), Arc::clone(&cells));
            Rc::new(RequestSeries::new(Arc::clone(&self.shared), cells))
        });
        Rc::clone(series)
    }

    /// The series of connections with these labels; as [`Shard::requests`].
    pub fn tcp(&self, labels: &TcpLabels) -> Rc<TcpSeries> {
        let mut mine = self.tcp.borrow_mut();
        if let Some(series) = mine.get(labels) {
            return Rc::clone(series);
        }
        let cap = self.shared.limits.series;
        let labels = if admit(&self.shared.tcp, labels, cap, || {
            retire(&mut mine, &self.shared.tcp, &self.state.tcp);
        }) {
            labels.clone()
        } else {
            self.shared.folded.fetch_add(1, Ordering::Relaxed);
            labels.folded()
        };
        let series = mine.entry(labels).or_insert_with_key(|labels| {
            let cells = Arc::default();
            lock(&self.state.tcp).insert(labels.clone(), Arc::clone(&cells));
            Rc::new(TcpSeries::new(cells))
        });
        Rc::clone(series)
    }
}

/// Whether `labels` may have a series of its own; counts this shard as one of its holders.
fn admit<L: Hash + Eq + Clone>(
    admitted: &Mutex<HashMap<L, usize>>,
    labels: &L,
    cap: usize,
    make_room: impl FnOnce(),
) -> bool {
    let fits = |held: &mut HashMap<L, usize>| {
        let fits = held.len() < cap || held.contains_key(labels);
        if fits {
            *held.entry(labels.clone()).or_default() += 1;
        }
        fits
    };
    if fits(&mut lock(admitted)) {
        return true;
    }
    make_room();
    fits(&mut lock(admitted))
}

/// Forgets the series that nobody but the shard holds: their endpoints or routes are gone.
fn retire<L: Hash + Eq, S, C>(
    mine: &mut HashMap<L, Rc<S>>,
    admitted: &Mutex<HashMap<L, usize>>,
    state: &Mutex<HashMap<L, Arc<C>>>,
) {
    let mut admitted = lock(admitted);
    let mut state = lock(state);
    mine.retain(|labels, series| {
        // A folded series was never admitted and is kept: its counts belong to many.
        let Some(holders) = admitted.get_mut(labels) else {
            return true;
        };
        if Rc::strong_count(series) > 1 {
            return true;
        }
        *holders -= 1;
        if *holders == 0 {
            admitted.remove(labels);
        }
        state.remove(labels);
        false
    });
}
