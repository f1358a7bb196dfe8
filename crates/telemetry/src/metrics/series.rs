//! Series as a worker holds them.

use std::cell::RefCell;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::Reason;

use super::histogram::{Durations, Single, Sizes};
use super::{Shared, lock};

/// How a request ended, as a label set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// One of its own.
    Of {
        status: u16,
        grpc_status: Option<u8>,
        reason: Option<Reason>,
    },
    /// Too many different ones were seen in this series.
    Other,
}

/// What is counted of one outcome. Laid out so that an ordinary request, short and small, touches three
/// of its cache lines: with many endpoints none of them is near.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Cell {
    pub(super) outcome: Outcome,
    pub(super) durations: Durations,
    pub(super) request_bytes: Sizes,
    pub(super) response_bytes: Sizes,
}

/// The part of a request series that the scrape sees.
#[derive(Debug, Default)]
pub(super) struct RequestCells(pub(super) Mutex<Vec<Arc<Cell>>>);

/// Requests of one label set in one worker.
pub struct RequestSeries {
    shared: Arc<Shared>,
    cells: Arc<RequestCells>,
    /// The same cells, readable without the lock; the one used last comes first.
    known: RefCell<Vec<Arc<Cell>>>,
}

impl RequestSeries {
    pub(super) fn new(shared: Arc<Shared>, cells: Arc<RequestCells>) -> Self {
        Self {
            shared,
            cells,
            known: RefCell::default(),
        }
    }

    /// Counts a finished request. Sizes are of bodies. Locks and allocates only the first time that
    /// an outcome is seen.
    pub fn record(
        &self,
        status: u16,
        grpc_status: Option<u8>,
        reason: Option<Reason>,
        duration: Duration,
        request_bytes: u64,
        response_bytes: u64,
    ) {
        let outcome = Outcome::Of {
            status,
            grpc_status,
            reason,
        };
        let mut known = self.known.borrow_mut();
        let i = known
            .iter()
            .position(|cell| cell.outcome == outcome)
            .unwrap_or_else(|| self.first(&mut known, outcome));
        let cell = &known[i];
        cell.durations
            .observe(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
        cell.request_bytes.observe(request_bytes);
        cell.response_bytes.observe(response_bytes);
    }

    #[cold]
    fn first(&self, known: &mut Vec<Arc<Cell>>, mut outcome: Outcome) -> usize {
        if known.len() >= self.shared.limits.outcomes {
            self.shared.folded.fetch_add(1, Ordering::Relaxed);
            outcome = Outcome::Other;
            if let Some(i) = known.iter().position(|cell| cell.outcome == outcome) {
                return i;
            }
        }
        let cell = Arc::new(Cell {
            outcome,
            durations: Durations::default(),
            request_bytes: Sizes::default(),
            response_bytes: Sizes::default(),
        });
        lock(&self.cells.0).push(Arc::clone(&cell));
        known.push(cell);
        known.len() - 1
    }
}

/// The part of a TCP series that the scrape sees.
#[derive(Debug, Default)]
pub(super) struct TcpCells {
    pub(super) opened: Single,
    pub(super) sent: Single,
    pub(super) received: Single,
    /// By reason: first that of an ordinary end, then in the order of [`Reason::ALL`].
    pub(super) closed: [Single; Reason::ALL.len() + 1],
}

/// Connections of one label set in one worker.
pub struct TcpSeries {
    cells: Arc<TcpCells>,
}

impl TcpSeries {
    pub(super) fn new(cells: Arc<TcpCells>) -> Self {
        Self { cells }
    }

    /// Counts a connection that was opened.
    pub fn opened(&self) {
        self.cells.opened.add(1);
    }

    /// Counts a connection's end; `None` for an ordinary one.
    pub fn closed(&self, reason: Option<Reason>) {
        self.cells.closed[reason.map_or(0, |r| r as usize + 1)].add(1);
    }

    /// Counts bytes sent to the destination.
    pub fn sent(&self, bytes: u64) {
        self.cells.sent.add(bytes);
    }

    /// Counts bytes received from the destination.
    pub fn received(&self, bytes: u64) {
        self.cells.received.add(bytes);
    }
}
