//! What is wrong with what a user wrote, where, and what to do about it.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::object::ObjectKey;

/// Whether an object is refused or merely wrong somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The object is refused; its last good version stays.
    Error,
    /// The object is applied and fails only where it is wrong.
    Warning,
}

/// One finding. `Display` is one line: `file:line:column: Kind ns/name: field: message; hint`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The object it is about, where that much could be read.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub object: Option<ObjectKey>,
    /// The file, or what else the text came from; empty if unknown.
    #[serde(skip_serializing_if = "str::is_empty", default)]
    pub file: Arc<str>,
    /// Line, from 1; 0 if unknown.
    #[serde(default)]
    pub line: u32,
    /// Column, from 1; 0 if unknown.
    #[serde(default)]
    pub column: u32,
    /// Path of the field: `spec.rules[2].backendRefs[0].name`; empty for the whole object.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it; may be empty.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub hint: String,
}

impl Diagnostic {
    /// Whether the object is refused.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            write!(f, "{}:", self.file)?;
            if self.line > 0 {
                write!(f, "{}:", self.line)?;
            }
            if self.column > 0 {
                write!(f, "{}:", self.column)?;
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
        if !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        Ok(())
    }
}
