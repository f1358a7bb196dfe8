//! What there is to say of the source: each watch, what was refused, what did not work.
//!
//! Written by the source, read by status and metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use config::{Diagnostic, ObjectKey, ObjectKind};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::authority::rfc3339;

/// A watch that has not failed again for as long works: it is tried again after at most 5 seconds,
/// and a connection fails after as many.
const MENDED: Duration = Duration::from_secs(15);

/// The report. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Report(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    leader: watch::Receiver<bool>,
    url: String,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    /// All kinds were listed once.
    pub(super) synced: bool,
    /// And the Secrets that they ask for were.
    pub(super) settled: bool,
    /// Why the API server could not say which kinds there are.
    pub(super) discovery: Option<String>,
    pub(super) watches: BTreeMap<ObjectKind, Watch>,
    /// What is wrong with objects whose last good version, if there was one, is in force.
    pub(super) refused: BTreeMap<ObjectKey, Refused>,
    /// Objects that belong to somebody else.
    pub(super) conflicts: BTreeMap<ObjectKey, Diagnostic>,
    /// Statuses written, and how often that failed.
    pub(super) writes: u64,
    pub(super) write_errors: u64,
}

/// An object that is not in force as it is.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    pub(super) generation: Option<u64>,
    pub(super) diagnostics: Vec<Diagnostic>,
}

/// One watch.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// The `apiVersion` that is watched; empty when the cluster does not have the kind.
    pub(super) version: String,
    pub(super) objects: usize,
    /// It has listed all objects at least once.
    pub(super) listed: bool,
    /// The API server does not allow it.
    pub(super) forbidden: bool,
    pub(super) lists: u64,
    pub(super) failures: u64,
    pub(super) heard: Option<Instant>,
    /// The first and the last failure since it last worked, and why.
    pub(super) failing: Option<(Instant, Instant, SystemTime, String)>,
}

impl Watch {
    pub(super) fn works(&mut self) {
        self.heard = Some(Instant::now());
        self.failing = None;
        self.forbidden = false;
    }

    pub(super) fn fails(&mut self, why: String, forbidden: bool) {
        let now = Instant::now();
        let since = self.lag(now).map_or(now, |lag| now - lag);
        self.failures += 1;
        self.forbidden = forbidden;
        self.failing = Some((since, now, SystemTime::now(), why));
    }

    /// For how long it may have missed changes; `None` when it works.
    fn lag(&self, now: Instant) -> Option<Duration> {
        let (since, last, ..) = self.failing.as_ref()?;
        (now < *last + MENDED || !self.listed).then(|| now - *since)
    }
}

impl Report {
    pub(super) fn new(url: String, leader: watch::Receiver<bool>) -> Self {
        Self(Arc::new(Shared {
            inner: Mutex::default(),
            leader,
            url,
        }))
    }

    /// Whether all kinds were listed once since the start.
    pub fn is_synced(&self) -> bool {
        self.lock().synced
    }

    /// Whether also the Secrets that those ask for were listed once.
    pub(super) fn is_settled(&self) -> bool {
        self.lock().settled
    }

    /// What is waited for, for people.
    pub fn missing(&self) -> String {
        let inner = self.lock();
        if let Some(why) = &inner.discovery {
            return format!("the API server {}: {why}", self.0.url);
        }
        let missing: Vec<String> = inner
            .watches
            .iter()
            .filter(|(_, watch)| !watch.listed && !watch.version.is_empty())
            .map(|(kind, watch)| match &watch.failing {
                Some((.., why)) => format!("{kind}: {why}"),
                None => kind.to_string(),
            })
            .collect();
        if missing.is_empty() && inner.synced {
            return format!(
                "Secrets of the API server {} that Gateways and policies name",
                self.0.url
            );
        }
        format!(
            "lists of the API server {}: {}",
            self.0.url,
            missing.join(", ")
        )
    }

    /// How many objects are not in force as they are.
    pub fn broken(&self) -> usize {
        let inner = self.lock();
        inner.refused.len() + inner.conflicts.len()
    }

    /// What was found wrong with objects that were refused, or belong to somebody else.
    pub fn findings(&self) -> Vec<Diagnostic> {
        let inner = self.lock();
        let refused = inner.refused.values().flat_map(|r| &r.diagnostics);
        refused.chain(inner.conflicts.values()).cloned().collect()
    }

    /// What was found wrong with one object.
    pub fn findings_of(&self, key: &ObjectKey) -> Vec<Diagnostic> {
        let inner = self.lock();
        let refused = inner
            .refused
            .get(key)
            .into_iter()
            .flat_map(|r| &r.diagnostics);
        refused.chain(inner.conflicts.get(key)).cloned().collect()
    }

    /// Of a kind: seconds for which its watch may have missed changes, its failures and its lists.
    pub fn watch(&self, kind: ObjectKind) -> (f64, u64, u64) {
        self.lock().watches.get(&kind).map_or((0.0, 0, 0), |watch| {
            let lag = watch.lag(Instant::now()).unwrap_or_default();
            (lag.as_secs_f64(), watch.failures, watch.lists)
        })
    }

    /// Statuses written, and how often that failed.
    pub fn writes(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.writes, inner.write_errors)
    }

    /// Whether this replica writes status.
    pub fn is_leader(&self) -> bool {
        *self.0.leader.borrow()
    }

    /// For `GET /api/v1/status`.
    pub fn to_json(&self) -> Value {
        let now = Instant::now();
        let inner = self.lock();
        let watches: Vec<Value> = inner
            .watches
            .iter()
            .filter(|(_, watch)| !watch.version.is_empty())
            .map(|(kind, watch)| {
                let lag = watch.lag(now);
                let state = match (lag, watch.listed) {
                    (Some(_), _) => "failing",
                    (None, true) => "watching",
                    (None, false) => "listing",
                };
                json!({
                    "kind": kind, "apiVersion": watch.version, "state": state,
                    "objects": watch.objects,
                    "lagSeconds": lag.unwrap_or_default().as_secs(),
                    "heardSecondsAgo": watch.heard.map(|at| (now - at).as_secs()),
                    "lists": watch.lists, "failures": watch.failures,
                    "lastError": watch.failing.as_ref().map(|(.., at, why)| json!({
                        "time": time(*at), "message": why,
                    })),
                })
            })
            .collect();
        let missing: Vec<&ObjectKind> = inner
            .watches
            .iter()
            .filter(|(_, watch)| watch.version.is_empty())
            .map(|(kind, _)| kind)
            .collect();
        json!({
            "type": "kubernetes", "url": self.0.url, "synced": inner.synced,
            "leader": self.is_leader(), "watches": watches, "kindsNotInstalled": missing,
            "lastError": inner.discovery,
            "statusWrites": inner.writes, "statusWriteErrors": inner.write_errors,
        })
    }

    /// Every operation leaves it whole.
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn time(at: SystemTime) -> String {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    rfc3339(since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_watch_lags_from_its_first_failure_until_it_works() {
        let mut watch = Watch {
            listed: true,
            ..Watch::default()
        };
        let pass = |seconds| tokio::time::advance(Duration::from_secs(seconds));
        watch.works();
        assert_eq!(watch.lag(Instant::now()), None);
        watch.fails("refused".to_owned(), false);
        pass(10).await;
        watch.fails("refused".to_owned(), false);
        pass(12).await;
        assert_eq!(watch.lag(Instant::now()), Some(Duration::from_secs(22)));
        // Quiet for longer than it would wait between two attempts: the second one succeeded.
        pass(20).await;
        assert_eq!(watch.lag(Instant::now()), None);
        watch.fails("refused".to_owned(), false);
        assert_eq!(watch.lag(Instant::now()), Some(Duration::ZERO));
        watch.works();
        assert_eq!(watch.lag(Instant::now()), None);
    }
}
