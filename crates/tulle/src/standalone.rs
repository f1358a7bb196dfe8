//! A proxy's configuration from a directory, without a control plane: files to objects, objects to
//! resources, resources to the proxy. What is wrong is said on the log; a file with an error keeps
//! its last good state.

use std::path::PathBuf;

use anyhow::Context as _;
use config::translate::{self, Defaults, Translator};
use control::change::{Applied, Change, ChangeSet};
use control::source::Source as _;
use control::source::files::Files;
use model::mesh::AccessLog;
use model::resource::{Key, Resource};
use tokio::signal::unix::{SignalKind, signal};
use xds::local::Feed;

use crate::failure::AlreadySaid;

type Changes = Vec<(Key, Option<Resource>)>;

/// A directory that is watched.
pub(crate) struct Directory {
    files: Files,
    translator: Translator,
    /// Whether a line is written for each request.
    access_log: bool,
}

impl Directory {
    /// Reads a directory for the first time. With nothing to fall back to, an error in it is one of
    /// the start.
    pub(crate) fn open(path: PathBuf, access_log: bool) -> anyhow::Result<(Self, Changes)> {
        let files = Files::watch(vec![path], Vec::new()).context("--static")?;
        let mut directory = Self {
            files,
            translator: Translator::new(Defaults::default()),
            access_log,
        };
        let set = directory.files.look(true).unwrap_or_default();
        if directory.files.report().broken() > 0 {
            return Err(AlreadySaid.into());
        }
        let changes = directory.translate(set);
        Ok((directory, changes))
    }

    /// Feeds the proxy with changes of the files for as long as it runs. A hang-up signal makes it
    /// look at once.
    pub(crate) async fn follow(mut self, feed: Feed) {
        let mut hang_up = match signal(SignalKind::hangup()) {
            Ok(hang_up) => hang_up,
            Err(error) => {
                tracing::error!(%error, "SIGHUP cannot be listened to, nor files be watched");
                return;
            }
        };
        loop {
            let set = tokio::select! {
                set = self.files.next() => Some(set),
                Some(()) = hang_up.recv() => self.files.look(true),
            };
            let Some(set) = set else {
                tracing::info!("looked at the files again: nothing has changed");
                continue;
            };
            let changes = self.translate(set);
            tracing::info!(resources = changes.len(), "configuration changed");
            feed.apply(changes);
        }
    }

    fn translate(&mut self, set: ChangeSet) -> Changes {
        let changes = set.changes.into_iter().map(|change| match change {
            Change::Put { object, .. } => translate::Change::Put(object),
            Change::Delete { key, .. } => translate::Change::Delete(key),
        });
        let outcome = self.translator.apply(changes.collect());
        for diagnostic in &outcome.diagnostics {
            tracing::warn!("{diagnostic}");
        }
        self.files.applied(&Ok(Applied::default()));
        let mut resources = outcome.resources;
        for (_, resource) in &mut resources {
            if let Some(Resource::Mesh(mesh)) = resource {
                // Whoever asks for an access log here, on the command line, wants all of it.
                mesh.access_log = if self.access_log {
                    AccessLog::All
                } else {
                    AccessLog::Off
                };
                // There is nobody to send spans to.
                (mesh.trace_sampling, mesh.trace_reservoir) = (0, 0);
            }
        }
        resources
    }
}
