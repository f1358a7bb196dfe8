//! The API server as a source of change sets.
//!
//! The first set comes when every kind was listed, so that nobody sees half a cluster; after it
//! each burst of news is one set. What a watch cannot say at the moment stays as it was: an object
//! goes only when the API server says so, by its deletion, by a whole list without it, or by not
//! having its kind at two looks in a row. An object that the model refuses keeps its last good
//! version, also across a restart of the control plane.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use config::{Diagnostic, Object, ObjectKey, ObjectKind, Severity};
use kube::api::DynamicObject;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};

use super::Cluster;
use super::objects::{Converted, convert, key_of};
use super::report::{Refused, Report};
use super::secrets::{Secrets, Wanted};
use super::seen::SeenObjects;
use super::watch::{News, Watched};
use crate::change::{Applied, ApplyError, Change, ChangeSet, OnConflict, Origin};
use crate::source::Source;

#[cfg(test)]
mod tests;

/// Quiet that ends a burst of news.
const QUIET: Duration = Duration::from_millis(20);
/// A burst is not waited for longer than this.
const BURST: Duration = Duration::from_millis(250);
/// A kind that is missed at as many looks in a row is gone: an API server that has just started
/// may not know it yet.
const MISSES: u32 = 2;

/// The source.
pub struct Kubernetes {
    news: mpsc::Receiver<News>,
    kinds: BTreeMap<ObjectKind, Known>,
    /// The API server has said which kinds there are.
    discovered: bool,
    /// What the state has from here.
    in_force: BTreeSet<ObjectKey>,
    /// What is to be said next; `None` for what goes away.
    pending: BTreeMap<ObjectKey, Option<Arc<Object>>>,
    /// What was said last, until it is known what became of it.
    offered: BTreeMap<ObjectKey, Option<Arc<Object>>>,
    /// What belongs to somebody else, and is offered again with each set.
    blocked: BTreeMap<ObjectKey, Arc<Object>>,
    seen: SeenObjects,
    report: Report,
    secrets: Secrets,
    synced: watch::Sender<bool>,
    /// Findings that were logged.
    logged: BTreeMap<ObjectKey, BTreeSet<String>>,
}

/// What is known of a kind.
#[derive(Debug, Default)]
struct Known {
    /// Seen since a list began.
    listing: Option<BTreeSet<ObjectKey>>,
    /// Looks in a row at which the cluster did not have it.
    misses: u32,
}

impl Kubernetes {
    /// Watches a cluster. `kept` are the objects that it gave before a restart; `wanted` says which
    /// Secrets what is in force asks for.
    pub(super) fn watch(
        cluster: &Cluster,
        kept: Vec<ObjectKey>,
        leader: watch::Receiver<bool>,
        wanted: Wanted,
    ) -> Self {
        let (follow, named) = watch::channel(BTreeSet::new());
        let news = super::watch::start(cluster.client.clone(), named);
        let report = Report::new(cluster.url.clone(), leader);
        Self::over(news, kept, report, Secrets::new(wanted, follow))
    }

    fn over(
        news: mpsc::Receiver<News>,
        kept: Vec<ObjectKey>,
        report: Report,
        secrets: Secrets,
    ) -> Self {
        Self {
            secrets,
            news,
            kinds: BTreeMap::new(),
            discovered: false,
            in_force: kept.into_iter().collect(),
            pending: BTreeMap::new(),
            offered: BTreeMap::new(),
            blocked: BTreeMap::new(),
            seen: SeenObjects::default(),
            report,
            synced: watch::Sender::new(false),
            logged: BTreeMap::new(),
        }
    }

    /// What there is to say of it.
    pub fn report(&self) -> Report {
        self.report.clone()
    }

    /// The objects' statuses as they are in the cluster.
    pub(super) fn seen(&self) -> SeenObjects {
        self.seen.clone()
    }

    /// Becomes true when all kinds have been listed and are in force.
    pub fn synced(&self) -> watch::Receiver<bool> {
        self.synced.subscribe()
    }

    fn take(&mut self, news: News) {
        match news {
            News::Kinds(kinds) => self.kinds_are(&kinds),
            News::Unknown(why) => {
                let mut report = self.report.lock();
                if report.discovery.is_none() {
                    tracing::warn!(
                        "the API server cannot be asked: {why}; what it said last stays in force"
                    );
                }
                report.discovery = Some(why);
            }
            News::Of(kind, watched) => self.of(kind, watched),
            News::OfSecret(key, watched) => self.of_secret(&key, watched),
        }
    }

    /// What the watch of one Secret says.
    fn of_secret(&mut self, key: &ObjectKey, watched: Watched) {
        match watched {
            Watched::Begins => self.secrets.begins(key),
            Watched::Is(object) => {
                if self.secrets.shown(key) {
                    self.is(key.kind, &object);
                }
            }
            Watched::Deleted(_) => {
                if self.secrets.gone(key) {
                    self.gone(key);
                }
            }
            Watched::Complete => {
                if self.secrets.complete(key) {
                    self.gone(key);
                }
            }
            Watched::Failed { why, .. } => {
                tracing::debug!("the watch of {key} does not work: {why}; it is tried again");
                self.secrets.cannot_say_more(key);
            }
        }
    }

    /// Asks again which Secrets are wanted.
    fn look_for_secrets(&mut self) {
        for key in self.secrets.look() {
            self.gone(&key);
        }
    }

    fn kinds_are(&mut self, there: &[(ObjectKind, String)]) {
        self.discovered = true;
        let mut gone = Vec::new();
        let mut report = self.report.lock();
        if report.discovery.take().is_some() {
            tracing::info!("the API server can be asked again");
        }
        for kind in ObjectKind::ALL {
            let watch = report.watches.entry(kind).or_default();
            let known = self.kinds.entry(kind).or_default();
            if let Some((_, version)) = there.iter().find(|(k, _)| *k == kind) {
                if watch.version != *version {
                    tracing::info!("watching {kind} ({version})");
                    // It will be listed; until then what is known stands.
                    watch.listed = false;
                    watch.version.clone_from(version);
                }
                known.misses = 0;
            } else {
                known.misses = known.misses.saturating_add(1);
                if !watch.version.is_empty() {
                    tracing::info!("the cluster does not have {kind} any more");
                    *watch = super::report::Watch::default();
                }
                known.listing = None;
                if known.misses >= MISSES {
                    gone.push(kind);
                }
            }
        }
        drop(report);
        for kind in gone {
            self.retain(kind, &BTreeSet::new());
        }
    }

    fn of(&mut self, kind: ObjectKind, watched: Watched) {
        match watched {
            Watched::Begins => {
                self.kinds.entry(kind).or_default().listing = Some(BTreeSet::new());
                // It has only been asked for yet.
                return;
            }
            Watched::Is(object) => {
                if let Some(key) = key_of(kind, &object).filter(|_| kind == ObjectKind::Secret) {
                    self.secrets.shown_by_all(&key);
                }
                self.is(kind, &object);
            }
            Watched::Deleted(object) => {
                if let Some(key) = key_of(kind, &object)
                    && (kind != ObjectKind::Secret || self.secrets.gone_by_all(&key))
                {
                    self.gone(&key);
                }
            }
            Watched::Complete => {
                if let Some(listed) = self.kinds.entry(kind).or_default().listing.take() {
                    self.retain(kind, &listed);
                    if kind == ObjectKind::Secret {
                        self.secrets.listed_by_all(&listed);
                        self.look_for_secrets();
                    }
                }
                let mut report = self.report.lock();
                let watch = report.watches.entry(kind).or_default();
                watch.listed = true;
                watch.lists += 1;
                watch.works();
            }
            Watched::Failed { why, forbidden } => {
                let mut report = self.report.lock();
                let watch = report.watches.entry(kind).or_default();
                if watch.failing.is_none() {
                    let hint = if forbidden {
                        "give the service account `get`, `list` and `watch` of it (docs/kubernetes.md)"
                    } else {
                        "it is tried again; what it said last stays in force"
                    };
                    tracing::warn!("the watch of {kind} does not work: {why}; {hint}");
                }
                watch.fails(why, forbidden);
                drop(report);
                if forbidden && kind == ObjectKind::Secret {
                    self.secrets.listed_by_all(&BTreeSet::new());
                    self.look_for_secrets();
                }
                return;
            }
        }
        let mut report = self.report.lock();
        report.watches.entry(kind).or_default().works();
    }

    fn is(&mut self, kind: ObjectKind, object: &DynamicObject) {
        let Some(key) = key_of(kind, object) else {
            return;
        };
        if let Some(listing) = &mut self.kinds.entry(kind).or_default().listing {
            listing.insert(key.clone());
        }
        match convert(kind, object) {
            Converted::Object(object) => {
                self.report.lock().refused.remove(&key);
                self.pending.insert(key.clone(), Some(Arc::from(object)));
            }
            Converted::Ignored => self.gone(&key),
            Converted::Refused(diagnostics) => {
                let refused = Refused {
                    generation: object.metadata.generation.and_then(|n| n.try_into().ok()),
                    diagnostics,
                };
                self.log(&key, &refused.diagnostics);
                self.report.lock().refused.insert(key.clone(), refused);
                // A good version that was not told yet is older than what is in force is not.
                // It stays pending: it is the last good one.
            }
        }
        self.seen.set(&key, object);
    }

    fn gone(&mut self, key: &ObjectKey) {
        self.seen.remove(key);
        self.logged.remove(key);
        self.blocked.remove(key);
        let mut report = self.report.lock();
        report.refused.remove(key);
        report.conflicts.remove(key);
        drop(report);
        if self.in_force.contains(key) || self.offered.contains_key(key) {
            self.pending.insert(key.clone(), None);
        } else {
            self.pending.remove(key);
        }
    }

    /// Everything of a kind that is not among these is gone.
    fn retain(&mut self, kind: ObjectKind, listed: &BTreeSet<ObjectKey>) {
        let refused: Vec<ObjectKey> = self.report.lock().refused.keys().cloned().collect();
        let waiting = self.pending.iter().filter(|(_, object)| object.is_some());
        let gone: BTreeSet<ObjectKey> = self
            .in_force
            .iter()
            .chain(&refused)
            .chain(waiting.map(|(key, _)| key))
            .filter(|key| key.kind == kind && !listed.contains(key))
            .filter(|key| kind != ObjectKind::Secret || !self.secrets.is_anothers(key))
            .cloned()
            .collect();
        for key in gone {
            self.gone(&key);
        }
    }

    /// Whether every kind was listed, or cannot be.
    fn is_complete(&self) -> bool {
        if !self.secrets.is_settled() {
            return false;
        }
        let report = self.report.lock();
        let settled = |watch: &super::report::Watch| {
            watch.listed || watch.version.is_empty() || watch.forbidden
        };
        self.discovered && report.watches.values().all(settled)
    }

    fn set(&mut self) -> ChangeSet {
        self.offered = std::mem::take(&mut self.pending);
        for (key, object) in std::mem::take(&mut self.blocked) {
            self.offered.entry(key).or_insert(Some(object));
        }
        let changes = self.offered.iter().map(|(key, object)| match object {
            Some(object) => Change::Put {
                object: Arc::clone(object),
                origin: Origin::Kubernetes,
            },
            None => Change::Delete {
                key: key.clone(),
                origin: Origin::Kubernetes,
            },
        });
        ChangeSet {
            changes: changes.collect(),
            who: "kubernetes".to_owned(),
            on_conflict: OnConflict::Skip,
            ..ChangeSet::default()
        }
    }

    /// Each finding once.
    fn log(&mut self, key: &ObjectKey, findings: &[Diagnostic]) {
        let known = self.logged.entry(key.clone()).or_default();
        let mut now = BTreeSet::new();
        for finding in findings {
            let text = finding.to_string();
            if !known.contains(&text) {
                if finding.is_error() {
                    tracing::error!("{text}; the object's last good state stays in force");
                } else {
                    tracing::warn!("{text}");
                }
            }
            now.insert(text);
        }
        *known = now;
    }

    /// Takes all that comes in one burst.
    async fn burst(&mut self) -> bool {
        let Some(news) = self.news.recv().await else {
            return false;
        };
        self.take(news);
        let end = Instant::now() + BURST;
        loop {
            let until = end.min(Instant::now() + QUIET);
            match timeout_at(until, self.news.recv()).await {
                Ok(Some(news)) => self.take(news),
                Ok(None) => return false,
                Err(_) => return true,
            }
            if Instant::now() >= end {
                return true;
            }
        }
    }
}

impl Source for Kubernetes {
    async fn next(&mut self) -> ChangeSet {
        loop {
            self.tell_synced();
            let synced = self.report.is_synced();
            if synced && !self.pending.is_empty() || !synced && self.is_complete() {
                return self.set();
            }
            if !self.burst().await {
                tracing::error!("nobody watches the cluster any more; this is a mistake in tulle");
                std::future::pending::<()>().await;
            }
        }
    }

    fn applied(&mut self, result: &Result<Applied, ApplyError>) {
        let offered = std::mem::take(&mut self.offered);
        let applied = match result {
            Ok(applied) => applied,
            Err(error) => {
                tracing::error!(
                    "changes in the cluster could not be applied and are tried again: {error}"
                );
                for (key, object) in offered {
                    self.pending.entry(key).or_insert(object);
                }
                return;
            }
        };
        let refused: BTreeSet<&ObjectKey> = applied.conflicts.iter().map(|c| &c.key).collect();
        let mut report = self.report.lock();
        for (key, object) in offered {
            match object {
                Some(object) if refused.contains(&key) => {
                    self.in_force.remove(&key);
                    self.blocked.insert(key, object);
                }
                Some(_) => {
                    report.conflicts.remove(&key);
                    self.in_force.insert(key);
                }
                None => {
                    self.in_force.remove(&key);
                }
            }
        }
        for conflict in &applied.conflicts {
            report
                .conflicts
                .insert(conflict.key.clone(), finding(conflict));
        }
        report.synced = true;
        let mut objects: BTreeMap<ObjectKind, usize> = BTreeMap::new();
        for key in &self.in_force {
            *objects.entry(key.kind).or_default() += 1;
        }
        for (kind, watch) in &mut report.watches {
            watch.objects = objects.get(kind).copied().unwrap_or(0);
        }
        let not_in_force: Vec<ObjectKey> = report.refused.keys().cloned().collect();
        drop(report);
        self.log_warnings(applied);
        // Whose they are may be another's now.
        self.seen.mark(not_in_force);
        self.look_for_secrets();
        self.tell_synced();
    }
}

impl Kubernetes {
    /// Says once that all is in force, also the Secrets that only what is in force could ask for.
    fn tell_synced(&self) {
        let all = self.report.is_synced() && self.secrets.is_settled() && self.pending.is_empty();
        if all && !self.report.is_settled() {
            self.report.lock().settled = true;
            self.synced.send_replace(true);
        }
    }

    fn log_warnings(&mut self, applied: &Applied) {
        let mut found: BTreeMap<ObjectKey, Vec<Diagnostic>> = BTreeMap::new();
        for warning in &applied.warnings {
            if let Some(key) = &warning.object {
                found.entry(key.clone()).or_default().push(warning.clone());
            }
        }
        for conflict in &applied.conflicts {
            let all = found.entry(conflict.key.clone()).or_default();
            all.push(finding(conflict));
        }
        for (key, findings) in found {
            self.log(&key, &findings);
        }
    }
}

fn finding(conflict: &crate::change::Conflict) -> Diagnostic {
    Diagnostic {
        severity: Severity::Warning,
        object: Some(conflict.key.clone()),
        file: "".into(),
        line: 0,
        column: 0,
        field: String::new(),
        message: conflict.message.clone(),
        hint: conflict.hint.clone(),
    }
}
