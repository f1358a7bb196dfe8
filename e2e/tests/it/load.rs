//! Requests that go on while something happens to the mesh.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use testkit::raw::Raw;

use crate::mesh::{SOON, Workload, timed};

/// Threads that send one request after the other on kept connections, until told to stop.
pub(crate) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    sent: AtomicUsize,
    result: Mutex<Outcome>,
}

/// What came of a [`Load`].
#[derive(Debug, Default, Clone)]
pub(crate) struct Outcome {
    /// Bodies of the answers with 200, and how many of each.
    pub(crate) answers: BTreeMap<String, usize>,
    /// Everything that was not an answer with 200.
    pub(crate) failures: Vec<String>,
    /// The longest that a request took.
    pub(crate) slowest: Duration,
}

impl Load {
    /// Starts a thread for each of the methods; `target` is a host, perhaps with a path.
    pub(crate) fn start(client: &Workload, target: &str, methods: &[&str]) -> Self {
        let split = target.find('/').unwrap_or(target.len());
        let (host, path) = target.split_at(split);
        let path = if path.is_empty() { "/" } else { path };
        let shared = Arc::<Shared>::default();
        let way = client.way(host);
        let threads = methods.iter().map(|method| {
            let body = if *method == "GET" { "" } else { "an order" };
            let text = client.text(method, host, path, "", body);
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.send(way, &text))
        });
        let threads = threads.collect();
        Self { shared, threads }
    }

    /// Waits until this many more requests were answered.
    #[track_caller]
    pub(crate) fn progress(&self, count: usize) {
        let goal = self.shared.sent.load(Ordering::Relaxed) + count;
        testkit::wait_for("the load to go on", SOON, || {
            (self.shared.sent.load(Ordering::Relaxed) >= goal).then_some(())
        });
    }

    /// What came of it so far.
    pub(crate) fn so_far(&self) -> Outcome {
        let outcome = self.shared.result.lock();
        outcome.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends it.
    pub(crate) fn stop(mut self) -> Outcome {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("the load does not panic");
        }
        self.so_far()
    }

    /// Ends it, and fails the test if any request failed.
    #[track_caller]
    pub(crate) fn stop_without_failures(self) -> Outcome {
        let outcome = self.stop();
        let total = outcome.answers.values().sum::<usize>();
        let failures = &outcome.failures;
        assert!(
            failures.is_empty(),
            "{} of {total} failed, the first: {}",
            failures.len(),
            failures[0]
        );
        outcome
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn send(&self, way: std::net::SocketAddr, text: &str) {
        let mut kept: Option<Raw> = None;
        while !self.stop.load(Ordering::Relaxed) {
            let (answer, taken) = timed(|| {
                let mut raw = match kept.take() {
                    Some(raw) => raw,
                    None => Raw::connect(way).map_err(|e| format!("connecting: {e}"))?,
                };
                raw.send(text).map_err(|e| format!("sending: {e}"))?;
                let response = raw.response(SOON).map_err(|e| format!("{e:?}"))?;
                if response.header("connection") != Some("close") {
                    kept = Some(raw);
                }
                match response.status {
                    200 => Ok(response.text()),
                    _ => Err(format!("{response:?}")),
                }
            });
            let mut outcome = self.result.lock().unwrap_or_else(PoisonError::into_inner);
            outcome.slowest = outcome.slowest.max(taken);
            match answer {
                Ok(text) => *outcome.answers.entry(text).or_default() += 1,
                Err(failure) => outcome.failures.push(failure),
            }
            drop(outcome);
            self.sent.fetch_add(1, Ordering::Relaxed);
        }
    }
}
