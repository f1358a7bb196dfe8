//! Files and directories of YAML and JSON.
//!
//! A directory is read with those below it; names that begin with a dot are left out, so that a
//! mounted ConfigMap (whose files are links through `..data`) is read once. Changes are noticed
//! through the system's file events, and by looking every few seconds, for links and file systems
//! that send none; a burst of events is one change set.
//!
//! A file with an error anywhere keeps its last good state, also across a restart of the control
//! plane, and is reported until it is mended. A file that is deleted takes its objects with it. A
//! path given at start that vanishes as a whole keeps its objects: an unmounted disk is no wish.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use config::{Diagnostic, Object, ObjectKey, Severity};
use notify::{RecursiveMode, Watcher as _};
use serde::Serialize;
use tokio::sync::mpsc;

use super::Source;
use crate::aside::aside;
use crate::change::{Applied, ApplyError, Change, ChangeSet, OnConflict, Origin};

mod scan;

#[cfg(test)]
mod tests;

/// Quiet that ends a burst of events.
const QUIET: Duration = Duration::from_millis(100);
/// A burst is not waited for longer than this.
const BURST: Duration = Duration::from_secs(1);
/// How often is looked without an event.
const LOOK: Duration = Duration::from_secs(5);

/// What status says of a file.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FileStatus {
    /// Its path.
    pub path: String,
    /// Objects in force from it.
    pub objects: usize,
    /// What is wrong; while there is an error the last good state is in force.
    pub diagnostics: Vec<Diagnostic>,
}

impl FileStatus {
    /// Whether its last good state is in force instead of what it says now.
    pub fn is_broken(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }
}

/// What status says of all files; shared with the source.
#[derive(Debug, Clone, Default)]
pub struct FileReport(Arc<Mutex<Vec<FileStatus>>>);

impl FileReport {
    /// All files, by path.
    pub fn all(&self) -> Vec<FileStatus> {
        self.lock().clone()
    }

    /// How many files are not in force as they are.
    pub fn broken(&self) -> usize {
        self.lock().iter().filter(|f| f.is_broken()).count()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<FileStatus>> {
        // Replaced as a whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A path that cannot be watched.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}; check the path given with -f", path.display())]
pub struct SourceError {
    path: PathBuf,
    source: io::Error,
}

/// The source.
pub struct Files {
    roots: Vec<PathBuf>,
    known: BTreeMap<PathBuf, State>,
    /// What is wrong with whole paths.
    unreadable: BTreeMap<PathBuf, Diagnostic>,
    /// What the state refused because somebody else owns it.
    conflicts: BTreeMap<ObjectKey, Diagnostic>,
    /// Which file's object is in force for each key.
    owners: BTreeMap<ObjectKey, PathBuf>,
    /// The last set was not applied: everything is offered again.
    retry: bool,
    report: FileReport,
    events: mpsc::Receiver<()>,
    _watcher: Option<notify::RecommendedWatcher>,
}

/// What is known of a file.
#[derive(Debug, Default)]
struct State {
    seen: Option<scan::Fingerprint>,
    text: Option<Arc<str>>,
    good: Vec<Arc<Object>>,
    diagnostics: Vec<Diagnostic>,
}

impl Files {
    /// Watches paths, which must exist. `kept` are the objects that files gave before a restart.
    pub fn watch(roots: Vec<PathBuf>, kept: Vec<Arc<Object>>) -> Result<Self, SourceError> {
        let (signal, events) = mpsc::channel(1);
        let watcher = start_watcher(&roots, signal);
        let mut absolute = Vec::new();
        for root in roots {
            let path = std::path::absolute(&root).and_then(|p| p.metadata().map(|_| p));
            absolute.push(path.map_err(|source| SourceError { path: root, source })?);
        }
        let mut files: BTreeMap<PathBuf, State> = BTreeMap::new();
        let mut owners = BTreeMap::new();
        for object in kept {
            let path = PathBuf::from(&*object.source.file);
            owners.insert(object.key.clone(), path.clone());
            files.entry(path).or_default().good.push(object);
        }
        Ok(Self {
            roots: absolute,
            known: files,
            unreadable: BTreeMap::new(),
            conflicts: BTreeMap::new(),
            owners,
            // The first look is always applied: it removes what is owned by files no longer given.
            retry: true,
            report: FileReport::default(),
            events,
            _watcher: watcher,
        })
    }

    /// What status says of the files.
    pub fn report(&self) -> FileReport {
        self.report.clone()
    }

    /// Looks at everything once; `None` if nothing is different. `thorough` reads files that do
    /// not look changed. Blocks.
    pub fn look(&mut self, thorough: bool) -> Option<ChangeSet> {
        let offered_again = std::mem::take(&mut self.retry) || !self.conflicts.is_empty();
        let changed = self.read_all(thorough);
        if !changed && !offered_again {
            self.publish(&BTreeMap::new());
            return None;
        }
        let (wanted, duplicates) = self.in_force();
        let mut set = ChangeSet {
            who: "files".to_owned(),
            on_conflict: OnConflict::Skip,
            ..ChangeSet::default()
        };
        for (key, path) in &self.owners {
            if !wanted.contains_key(key) {
                set.changes.push(Change::Delete {
                    key: key.clone(),
                    origin: origin(path),
                });
            }
        }
        let mut owners = BTreeMap::new();
        for (key, (path, object)) in wanted {
            set.changes.push(Change::Put {
                object,
                origin: origin(&path),
            });
            owners.insert(key, path);
        }
        self.owners = owners;
        self.publish(&duplicates);
        Some(set)
    }

    /// Reads what looks changed; whether anything is different.
    fn read_all(&mut self, thorough: bool) -> bool {
        // So that the files share them.
        let _schemas = config::Schemas::shared();
        let found = scan::scan(&self.roots);
        let mut changed = self.unreadable.len() != found.unreadable.len();
        self.unreadable = found.unreadable;
        for (path, fingerprint) in &found.files {
            let state = self.known.entry(path.clone()).or_default();
            if !thorough && state.seen.as_ref() == Some(fingerprint) {
                continue;
            }
            state.seen = Some(fingerprint.clone());
            changed |= state.read(path);
        }
        // What lies under a path that cannot be read now is kept as it was.
        let gone: Vec<PathBuf> = self
            .known
            .keys()
            .filter(|path| !found.files.contains_key(*path))
            .filter(|path| !self.unreadable.keys().any(|lost| path.starts_with(lost)))
            .cloned()
            .collect();
        for path in gone {
            tracing::info!(file = %path.display(), "file is gone, and its objects with it");
            self.known.remove(&path);
            changed = true;
        }
        changed
    }

    /// The objects that are to be in force, and what is wrong because two files say the same.
    #[expect(
        clippy::type_complexity,
        reason = "two maps, used once, next to each other"
    )]
    fn in_force(
        &self,
    ) -> (
        BTreeMap<ObjectKey, (PathBuf, Arc<Object>)>,
        BTreeMap<PathBuf, Vec<Diagnostic>>,
    ) {
        let mut wanted: BTreeMap<ObjectKey, (PathBuf, Arc<Object>)> = BTreeMap::new();
        let mut duplicates: BTreeMap<PathBuf, Vec<Diagnostic>> = BTreeMap::new();
        for (path, state) in &self.known {
            for object in &state.good {
                if let Some((_, other)) = wanted.get(&object.key) {
                    let diagnostic = object.duplicate_of(other);
                    duplicates.entry(path.clone()).or_default().push(diagnostic);
                } else {
                    let entry = (path.clone(), Arc::clone(object));
                    wanted.insert(object.key.clone(), entry);
                }
            }
        }
        (wanted, duplicates)
    }

    fn publish(&self, duplicates: &BTreeMap<PathBuf, Vec<Diagnostic>>) {
        let mut all: Vec<FileStatus> = self
            .known
            .iter()
            .map(|(path, state)| {
                let conflicts = self
                    .conflicts
                    .values()
                    .filter(|d| Path::new(&*d.file) == path);
                FileStatus {
                    path: path.display().to_string(),
                    objects: self.owners.values().filter(|p| *p == path).count(),
                    diagnostics: state
                        .diagnostics
                        .iter()
                        .chain(duplicates.get(path).into_iter().flatten())
                        .chain(conflicts)
                        .cloned()
                        .collect(),
                }
            })
            .collect();
        for (path, diagnostic) in &self.unreadable {
            let path = path.display().to_string();
            match all.iter_mut().find(|f| f.path == path) {
                Some(file) => file.diagnostics.push(diagnostic.clone()),
                None => all.push(FileStatus {
                    path,
                    objects: 0,
                    diagnostics: vec![diagnostic.clone()],
                }),
            }
        }
        let mut shown = self.report.lock();
        let known: BTreeSet<String> = shown
            .iter()
            .flat_map(|f| &f.diagnostics)
            .map(ToString::to_string)
            .collect();
        for file in &all {
            let was_broken = shown.iter().any(|f| f.path == file.path && f.is_broken());
            if was_broken && !file.is_broken() {
                tracing::info!(file = file.path, "file is mended and in force");
            }
            for diagnostic in &file.diagnostics {
                log(diagnostic, &known);
            }
        }
        *shown = all;
    }
}

/// Each finding once, not at each look.
fn log(diagnostic: &Diagnostic, known: &BTreeSet<String>) {
    let text = diagnostic.to_string();
    if known.contains(&text) {
        return;
    }
    if diagnostic.is_error() {
        tracing::error!("{text}; the file's last good state stays in force");
    } else {
        tracing::warn!("{text}");
    }
}

impl State {
    /// Reads the file; whether it says something else than before.
    fn read(&mut self, path: &Path) -> bool {
        let name = path.to_string_lossy();
        let text = match scan::read(path) {
            Ok(text) => text,
            Err(diagnostic) => {
                let diagnostic = Diagnostic {
                    file: name.into(),
                    ..*diagnostic
                };
                let changed = self.diagnostics != [diagnostic.clone()];
                self.diagnostics = vec![diagnostic];
                self.text = None;
                return changed;
            }
        };
        if self.text.as_deref() == Some(&*text) {
            return false;
        }
        let parsed = config::parse(&name, &text);
        self.text = Some(text.into());
        if !parsed.has_errors() {
            self.good = parsed.objects.into_iter().map(Arc::new).collect();
        }
        self.diagnostics = parsed.diagnostics;
        true
    }
}

impl Source for Files {
    async fn next(&mut self) -> ChangeSet {
        loop {
            if self.retry
                && let Some(set) = aside(|| self.look(true))
            {
                return set;
            }
            let thorough = tokio::select! {
                Some(()) = self.events.recv() => {
                    self.burst_ends().await;
                    true
                }
                () = tokio::time::sleep(LOOK) => false,
            };
            if let Some(set) = aside(|| self.look(thorough)) {
                return set;
            }
        }
    }

    fn applied(&mut self, result: &Result<Applied, ApplyError>) {
        match result {
            Ok(applied) => {
                for warning in &applied.warnings {
                    tracing::warn!("{warning}");
                }
                let conflicts = applied.conflicts.iter().map(|conflict| {
                    let path = self.owners.get(&conflict.key);
                    let line = path
                        .and_then(|p| self.known.get(p))
                        .and_then(|s| s.good.iter().find(|o| o.key == conflict.key))
                        .map_or(0, |o| o.source.line);
                    let diagnostic = Diagnostic {
                        severity: Severity::Error,
                        object: Some(conflict.key.clone()),
                        file: path.map(|p| p.to_string_lossy()).unwrap_or_default().into(),
                        line,
                        column: 0,
                        field: String::new(),
                        message: conflict.message.clone(),
                        hint: conflict.hint.clone(),
                    };
                    (conflict.key.clone(), diagnostic)
                });
                self.conflicts = conflicts.collect();
                let (_, duplicates) = self.in_force();
                self.publish(&duplicates);
            }
            Err(error) => {
                tracing::error!("changed files could not be applied and are tried again: {error}");
                self.retry = true;
            }
        }
    }
}

impl Files {
    async fn burst_ends(&mut self) {
        let burst = async {
            while let Ok(Some(())) = tokio::time::timeout(QUIET, self.events.recv()).await {}
        };
        let _ = tokio::time::timeout(BURST, burst).await;
    }
}

fn origin(path: &Path) -> Origin {
    Origin::File(path.to_string_lossy().into())
}

/// Events only hasten the next look, so one that is lost or a system that sends none costs
/// seconds, not correctness.
fn start_watcher(
    roots: &[PathBuf],
    signal: mpsc::Sender<()>,
) -> Option<notify::RecommendedWatcher> {
    let handler = move |event: notify::Result<notify::Event>| {
        let reading = matches!(&event, Ok(e) if e.kind.is_access());
        if !reading {
            // Full means that a look is due anyway.
            let _ = signal.try_send(());
        }
    };
    let mut watcher = notify::recommended_watcher(handler)
        .inspect_err(|error| {
            tracing::warn!(%error, "no file events from this system; changes are noticed within {} s", LOOK.as_secs());
        })
        .ok()?;
    for root in roots {
        let (path, mode) = if root.is_dir() {
            (root.as_path(), RecursiveMode::Recursive)
        } else {
            // Editors replace files; the directory sees that.
            let parent = root.parent().filter(|p| !p.as_os_str().is_empty());
            (
                parent.unwrap_or(Path::new(".")),
                RecursiveMode::NonRecursive,
            )
        };
        if let Err(error) = watcher.watch(path, mode) {
            tracing::warn!(path = %path.display(), %error, "no file events; changes are noticed within {} s", LOOK.as_secs());
        }
    }
    Some(watcher)
}
