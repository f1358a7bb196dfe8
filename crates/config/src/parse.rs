//! From text to objects.

use std::collections::HashMap;
use std::sync::Arc;

use crate::check::Problem;
use crate::diagnostic::{Diagnostic, Severity};
use crate::object::{self, Object, ObjectKey, Trust};
use crate::schema::Schemas;
use crate::yaml::{self, Node, Place, Value};

/// The largest text that is read.
pub const MAX_INPUT_BYTES: usize = 16 * 1024 * 1024;
/// A text that has more findings than this is not looked at any further.
const MAX_DIAGNOSTICS: usize = 1_000;

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
/// A document that is wrong does not stop the others; of two objects with one name the first is
/// kept and the second reported. Objects of Gateway API get the defaults of their CRDs, and what the
/// CRDs' schemas and rules refuse is refused. Lists (`kind: List`, `kind: ServiceList`) count as their items.
/// Never panics, whatever the text; its cost is proportional to the text.
pub fn parse(source_name: &str, text: &str) -> Parsed {
    let _in_memory = Schemas::shared();
    let mut reader = Reader {
        file: source_name.into(),
        parsed: Parsed::default(),
        seen: HashMap::new(),
    };
    if text.len() > MAX_INPUT_BYTES {
        let message = format!(
            "is {} MiB long; at most {} MiB are read",
            text.len() >> 20,
            MAX_INPUT_BYTES >> 20
        );
        reader.refuse(Place::default(), message, "split it");
        return reader.parsed;
    }
    for (lines_before, document) in yaml::documents(text) {
        if reader.parsed.diagnostics.len() >= MAX_DIAGNOSTICS {
            let place = Place {
                line: lines_before + 1,
                column: 1,
            };
            reader.refuse(
                place,
                "too much is wrong to go on".to_owned(),
                "mend the above first",
            );
            break;
        }
        match yaml::parse(document, lines_before) {
            Ok(mut node) => reader.document(&mut node),
            Err(error) => {
                let message = format!("this document cannot be read: {error}");
                reader.refuse(error.place, message, "the other documents are not affected");
            }
        }
    }
    reader.parsed
}

struct Reader {
    file: Arc<str>,
    parsed: Parsed,
    seen: HashMap<ObjectKey, usize>,
}

impl Reader {
    fn refuse(&mut self, place: Place, message: String, hint: &str) {
        let problem = Problem::error("", place, message, hint);
        self.parsed
            .diagnostics
            .push(problem.into_diagnostic(&self.file, None));
    }

    fn document(&mut self, node: &mut Node) {
        if node.value == Value::Null {
            return;
        }
        let Some(items) = list_items(node) else {
            return self.object(node);
        };
        for item in items {
            if self.parsed.diagnostics.len() >= MAX_DIAGNOSTICS {
                break;
            }
            self.object(item);
        }
    }

    fn object(&mut self, node: &mut Node) {
        let diagnostics = &mut self.parsed.diagnostics;
        let Some(object) = object::read(node, Trust::Users, &self.file, diagnostics) else {
            return;
        };
        if let Some(first) = self.seen.get(&object.key) {
            let finding = object.duplicate_of(&self.parsed.objects[*first]);
            self.parsed.diagnostics.push(finding);
        } else {
            self.seen
                .insert(object.key.clone(), self.parsed.objects.len());
            self.parsed.objects.push(object);
        }
    }
}

fn list_items(node: &mut Node) -> Option<&mut [Node]> {
    if !node.get("kind")?.as_text()?.ends_with("List") {
        return None;
    }
    match &mut node.get_mut("items")?.value {
        Value::List(items) => Some(items),
        _ => None,
    }
}

impl Diagnostic {
    /// An error about a whole source, such as a file that cannot be opened.
    pub fn of_source(
        source_name: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Error,
            object: None,
            file: source_name.into(),
            line: 0,
            column: 0,
            field: String::new(),
            message: message.into(),
            hint: hint.into(),
        }
    }
}
