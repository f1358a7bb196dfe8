//! Files, and when they change.
//!
//! They are looked at every second, which also sees what a Kubernetes ConfigMap does (a link that is
//! turned); nothing is made of them unless a byte differs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::{Config, ConfigError};
use crate::metrics::Metrics;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// Bytes of a file.
const LARGEST: u64 = 4 << 20;
/// Files.
const MOST: usize = 1024;

/// Files and directories of files, in the order in which they were named.
#[derive(Debug, Clone, Default)]
pub struct Source(Vec<PathBuf>);

/// What stands in each file.
type Texts = Vec<(PathBuf, String)>;

impl Source {
    /// Of a directory the files count whose names end in `.yaml` or `.yml`.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Self(paths)
    }

    /// The limits in the files, and their texts.
    pub(crate) fn load(&self) -> Result<(Config, Texts), ConfigError> {
        let texts = self.read()?;
        let config = parse(&texts)?;
        Ok((config, texts))
    }

    fn read(&self) -> Result<Texts, ConfigError> {
        let mut found = Vec::new();
        for path in &self.0 {
            if path.is_dir() {
                let mut inside = listed(path).map_err(|error| failed(path, &error))?;
                inside.sort();
                found.extend(inside);
            } else {
                found.push(path.clone());
            }
        }
        if found.len() > MOST {
            let path = self.0.first().map_or(Path::new("."), PathBuf::as_path);
            let error = io::Error::other(format!("there are more than {MOST} files"));
            return Err(failed(path, &error));
        }
        let read = |path: PathBuf| match text(&path) {
            Ok(text) => Ok((path, text)),
            Err(error) => Err(failed(&path, &error)),
        };
        found.into_iter().map(read).collect()
    }

    /// Puts what the files say in force whenever they change. What is not valid is told once, and what
    /// was in force before stays.
    pub(crate) async fn watch(
        self,
        mut seen: Texts,
        config: Arc<ArcSwap<Config>>,
        metrics: Metrics,
    ) {
        if self.0.is_empty() {
            return std::future::pending().await;
        }
        let mut told = None;
        let mut ticks = tokio::time::interval(EVERY);
        loop {
            ticks.tick().await;
            let source = self.clone();
            let Ok(read) = tokio::task::spawn_blocking(move || source.read()).await else {
                continue;
            };
            let changed = match read {
                Ok(texts) if texts == seen => {
                    if told.take().is_some() {
                        metrics.config_is_bad.set(0);
                    }
                    continue;
                }
                Ok(texts) => parse(&texts).map(|config| (config, texts)),
                Err(error) => Err(error),
            };
            match changed {
                Ok((new, texts)) => {
                    tracing::info!(domains = new.domains(), "limits have changed");
                    config.store(Arc::new(new));
                    seen = texts;
                    told = None;
                    metrics.config_loaded.inc();
                    metrics.config_is_bad.set(0);
                }
                Err(error) => {
                    if told.as_ref() != Some(&error) {
                        tracing::warn!(%error, "the limits that were in force before stay");
                        told = Some(error);
                        metrics.config_is_bad.set(1);
                    }
                }
            }
        }
    }
}

fn parse(texts: &Texts) -> Result<Config, ConfigError> {
    Config::parse(
        texts
            .iter()
            .map(|(path, text)| (path.as_path(), text.as_str())),
    )
}

fn listed(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if matches!(extension, Some("yaml" | "yml")) && !hidden && path.is_file() {
            found.push(path);
        }
    }
    Ok(found)
}

fn text(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > LARGEST {
        return Err(io::Error::other(format!("is larger than {LARGEST} bytes")));
    }
    fs::read_to_string(path)
}

fn failed(path: &Path, error: &io::Error) -> ConfigError {
    ConfigError::Read {
        path: path.display().to_string(),
        why: error.to_string(),
    }
}
