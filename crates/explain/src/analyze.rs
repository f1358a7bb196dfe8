//! What in a configuration can do nothing, or not what it seems to.
//!
//! What reading and translating have found comes first; the rest is asked of the compiled tables and
//! of the references between objects. Its cost grows with the number of objects, not with its square.

mod backends;
mod certificates;
mod limits;
mod listeners;
mod references;
mod requests;
mod rules;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use config::{Diagnostic, ObjectKey};
use serde::Serialize;

use crate::world::World;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Refused, or requests fail.
    Error,
    /// Something can do nothing, or not what it says.
    Warning,
    /// Worth knowing.
    Info,
}

/// A finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Which check has found it.
    pub check: &'static str,
    /// The object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<ObjectKey>,
    /// The file; empty if unknown.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub file: Arc<str>,
    /// The line, from 1; 0 if unknown.
    pub line: u32,
    /// Path of the field; empty for the whole object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// Why it is so; may be empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// What to do; may be empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

/// Looks through a configuration. `read` is what was found in reading it; `now` decides about
/// certificates.
pub fn analyze(world: &World, read: &[Diagnostic], now: SystemTime) -> Vec<Finding> {
    let mut notes = Notes {
        world,
        found: Vec::new(),
    };
    for diagnostic in read.iter().chain(&world.diagnostics) {
        notes.found.push(of_diagnostic(diagnostic));
    }
    rules::look(&mut notes);
    listeners::look(&mut notes);
    certificates::look(&mut notes, now);
    backends::look(&mut notes);
    limits::look(&mut notes);
    references::look(&mut notes);
    requests::look(&mut notes, now);
    let mut found = notes.found;
    let place = |f: &Finding| (f.severity, f.object.clone(), f.line, f.field.clone());
    found.sort_by_cached_key(place);
    let mut seen = BTreeSet::new();
    found.retain(|f| seen.insert((f.object.clone(), f.field.clone(), f.message.clone())));
    found
}

fn of_diagnostic(diagnostic: &Diagnostic) -> Finding {
    Finding {
        severity: if diagnostic.is_error() {
            Severity::Error
        } else {
            Severity::Warning
        },
        check: if diagnostic.is_error() {
            "refused"
        } else {
            "configuration"
        },
        object: diagnostic.object.clone(),
        file: Arc::clone(&diagnostic.file),
        line: diagnostic.line,
        field: diagnostic.field.clone(),
        message: diagnostic.message.clone(),
        why: String::new(),
        remedy: diagnostic.hint.clone(),
    }
}

/// Findings about a configuration, while it is looked through.
struct Notes<'w> {
    world: &'w World,
    found: Vec<Finding>,
}

/// What is said of a field of an object.
struct Said {
    severity: Severity,
    check: &'static str,
    field: String,
    message: String,
    why: String,
    remedy: String,
}

impl Notes<'_> {
    fn add(&mut self, object: ObjectKey, said: Said) {
        let known = self.world.object(&object);
        let (file, line) = known.map_or_else(Default::default, |o| {
            (Arc::clone(&o.source.file), o.place(&said.field).0)
        });
        self.found.push(Finding {
            severity: said.severity,
            check: said.check,
            object: Some(object),
            file,
            line,
            field: said.field,
            message: said.message,
            why: said.why,
            remedy: said.remedy,
        });
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        })
    }
}

/// One line: `file:line: Kind ns/name: field: message: why; remedy`.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            write!(f, "{}:", self.file)?;
            if self.line > 0 {
                write!(f, "{}:", self.line)?;
            }
            f.write_str(" ")?;
        }
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)?;
        if !self.why.is_empty() {
            write!(f, ": {}", self.why)?;
        }
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}
