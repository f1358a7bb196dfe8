//! From text to objects.

use crate::diagnostic::Diagnostic;
use crate::object::Object;

/// The largest text that is read.
pub const MAX_INPUT_BYTES: usize = 16 * 1024 * 1024;

/// What a text held.
#[derive(Debug, Clone, Default)]
pub struct Parsed {
    /// The objects that are valid, in the order written.
    pub objects: Vec<Object>,
    /// All that was found wrong.
    pub diagnostics: Vec<Diagnostic>,
}

impl Parsed {
    /// Whether something was refused.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }
}

/// Reads YAML (any number of documents) or JSON. `source_name` is the file's name in diagnostics.
///
/// A document that is wrong does not stop the others. Never panics, whatever the text.
pub fn parse(_source_name: &str, _text: &str) -> Parsed {
    Parsed::default()
}
