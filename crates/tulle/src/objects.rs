//! Where the commands that look ahead (`simulate`, `diff`, `analyze`) have their objects from: files,
//! or the running control plane.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use config::translate::Defaults;
use config::{Diagnostic, Object, ObjectKey, ObjectKind};
use model::TrustDomain;
use serde_json::Value;

use crate::cli::Connection;
use crate::client::Client;
use crate::command::apply::read_all;
use crate::command::block_on;
use crate::command::get::items;
use crate::failure::usage;
use crate::kind;

/// A set of objects, and what was found wrong in reading it.
#[derive(Debug, Default)]
pub(crate) struct Set {
    /// By name.
    pub(crate) objects: BTreeMap<ObjectKey, Arc<Object>>,
    /// What is wrong with the texts; what has an error is not among the objects.
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// What holds where no object says otherwise.
    pub(crate) defaults: Defaults,
}

/// Reads files and directories as a control plane would.
pub(crate) fn of_files(files: &[PathBuf]) -> anyhow::Result<Set> {
    let mut set = Set::default();
    for source in read_all(files)? {
        let parsed = config::parse(&source.name, &source.text);
        set.diagnostics.extend(parsed.diagnostics);
        for object in parsed.objects {
            match set.objects.get(&object.key) {
                Some(first) => set.diagnostics.push(object.duplicate_of(first)),
                None => {
                    set.objects.insert(object.key.clone(), Arc::new(object));
                }
            }
        }
    }
    if set.objects.is_empty() && set.diagnostics.is_empty() {
        return Err(usage!(
            "no object in the files given with -f; write at least one with `apiVersion`, `kind` and `metadata.name`"
        ));
    }
    Ok(set)
}

/// Asks the running control plane for all that it has.
pub(crate) fn of_control_plane(connection: &Connection) -> anyhow::Result<Set> {
    let client = Client::of(connection)?;
    let (status, lists) = block_on(async {
        let status = client.get("/api/v1/status").await?;
        let mut lists = Vec::new();
        for kind in ObjectKind::ALL {
            lists.push(client.get(&kind::path(kind, None, None)).await?);
        }
        Ok((status, lists))
    })?;
    let mut set = Set::default();
    if let Some(domain) = status.get("trustDomain").and_then(Value::as_str)
        && let Ok(domain) = TrustDomain::new(domain)
    {
        set.defaults.trust_domain = domain;
    }
    for list in &lists {
        for item in items(list) {
            match explain::live::object(item.clone()) {
                Ok(object) => {
                    set.objects.insert(object.key.clone(), object);
                }
                Err(diagnostics) => set.diagnostics.extend(diagnostics),
            }
        }
    }
    Ok(set)
}

/// From files where there are any, else from the control plane.
pub(crate) fn of(files: &[PathBuf], connection: &Connection) -> anyhow::Result<Set> {
    if files.is_empty() {
        of_control_plane(connection)
    } else {
        of_files(files)
    }
}

impl Set {
    /// Translated and compiled.
    pub(crate) fn world(&self) -> explain::World {
        explain::World::new(self.objects.values().cloned(), self.defaults.clone())
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
