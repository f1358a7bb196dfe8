//! Where a check stands in its object, and what it has found.
//!
//! The functions that turn a specification into the model take a [`Check`]. When an object is
//! read they are run for their findings; when it is translated, for their result. So a value
//! cannot be found valid by one piece of code and be refused by another.

use std::sync::Arc;

use crate::decode::join;
use crate::diagnostic::{Diagnostic, Severity};
use crate::object::{ObjectKey, Places};
use crate::yaml::{Key, Node, Place, Value};

/// A finding that does not yet know its file and object.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub(crate) severity: Severity,
    pub(crate) field: String,
    pub(crate) place: Place,
    pub(crate) placed: bool,
    pub(crate) message: String,
    pub(crate) hint: String,
}

impl Problem {
    pub(crate) fn error(
        field: &str,
        place: Place,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Error,
            field: field.to_owned(),
            place,
            placed: false,
            message: message.into(),
            hint: hint.into(),
        }
    }

    pub(crate) fn into_diagnostic(self, file: &Arc<str>, object: Option<&ObjectKey>) -> Diagnostic {
        Diagnostic {
            severity: self.severity,
            object: object.cloned(),
            file: Arc::clone(file),
            line: self.place.line,
            column: self.place.column,
            field: self.field,
            message: self.message,
            hint: self.hint,
        }
    }
}

/// A step into an object.
#[derive(Debug, Clone)]
enum Step {
    Field(&'static str),
    Key(String),
    Index(usize),
}

/// Walks along with the checks of one object.
pub(crate) struct Check<'a> {
    /// The object's text; `None` when it is translated, where only `places` are known.
    root: Option<&'a Node>,
    places: Option<&'a Places>,
    steps: Vec<Step>,
    pub(crate) problems: Vec<Problem>,
    pub(crate) marks: Vec<(Box<str>, u32, u32)>,
}

impl<'a> Check<'a> {
    /// For an object as it is read.
    pub(crate) fn reading(root: &'a Node) -> Self {
        Self {
            root: Some(root),
            places: None,
            steps: Vec::new(),
            problems: Vec::new(),
            marks: Vec::new(),
        }
    }

    /// For an object as it is translated, with the places of its references.
    pub(crate) fn translating(places: &'a Places) -> Self {
        Self {
            root: None,
            places: Some(places),
            steps: Vec::new(),
            problems: Vec::new(),
            marks: Vec::new(),
        }
    }

    /// Does something one field further down.
    pub(crate) fn at<T>(&mut self, field: &'static str, f: impl FnOnce(&mut Self) -> T) -> T {
        self.within(Step::Field(field), f)
    }

    /// Does something at the entry of a map with free keys.
    pub(crate) fn at_key<T>(&mut self, key: &str, f: impl FnOnce(&mut Self) -> T) -> T {
        self.within(Step::Key(key.to_owned()), f)
    }

    /// Does something for each item of the list in `field`, and keeps what comes of it.
    pub(crate) fn each<I, T>(
        &mut self,
        field: &'static str,
        items: impl IntoIterator<Item = I>,
        mut f: impl FnMut(&mut Self, I) -> T,
    ) -> Vec<T> {
        self.at(field, |c| {
            items
                .into_iter()
                .enumerate()
                .map(|(i, item)| c.within(Step::Index(i), |c| f(c, item)))
                .collect()
        })
    }

    fn within<T>(&mut self, step: Step, f: impl FnOnce(&mut Self) -> T) -> T {
        self.steps.push(step);
        let result = f(self);
        self.steps.pop();
        result
    }

    /// Reports what only following references shows; the other findings of a translation are
    /// those of reading, and were told then.
    pub(crate) fn found(
        &mut self,
        severity: Severity,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let problem = Problem {
            severity,
            field: self.path(),
            place: self.place(),
            placed: true,
            message: message.into(),
            hint: hint.into(),
        };
        self.problems.push(problem);
    }

    /// Reports an error here.
    pub(crate) fn error(&mut self, message: impl Into<String>, hint: impl Into<String>) {
        self.report(Severity::Error, message.into(), hint.into());
    }

    /// Reports a warning here.
    pub(crate) fn warn(&mut self, message: impl Into<String>, hint: impl Into<String>) {
        self.report(Severity::Warning, message.into(), hint.into());
    }

    /// Reports an error at a field of what is here.
    pub(crate) fn error_at(
        &mut self,
        field: &'static str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.at(field, |c| c.error(message, hint));
    }

    /// Reports a warning at a field of what is here.
    pub(crate) fn warn_at(
        &mut self,
        field: &'static str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.at(field, |c| c.warn(message, hint));
    }

    /// Reports more items than there may be.
    pub(crate) fn at_most(&mut self, field: &'static str, length: usize, limit: usize) {
        if length > limit {
            self.error_at(
                field,
                format!("has {length} items; there may be {limit}"),
                "spread them over several objects",
            );
        }
    }

    /// Remembers the place of this reference: what it leads to is only known when translating.
    pub(crate) fn mark(&mut self) {
        if self.root.is_some() {
            let path = self.path();
            let place = self.place();
            self.marks.push((path.into(), place.line, place.column));
        }
    }

    fn report(&mut self, severity: Severity, message: String, hint: String) {
        if self.root.is_some() {
            self.found(severity, message, hint);
        }
    }

    fn path(&self) -> String {
        self.steps
            .iter()
            .fold(String::new(), |path, step| match step {
                Step::Field(name) => join(&path, name),
                Step::Key(name) => join(&path, name),
                Step::Index(i) => format!("{path}[{i}]"),
            })
    }

    /// The place of what is here, or of the nearest thing around it that was written.
    fn place(&self) -> Place {
        if let Some(places) = self.places {
            return places.find(&self.path());
        }
        let Some(mut node) = self.root else {
            return Place::default();
        };
        let mut place = node.place;
        for step in &self.steps {
            let next = match (step, &node.value) {
                (Step::Field(name), _) => node.entry(name).map(Self::entry_place),
                (Step::Key(name), _) => node.entry(name).map(Self::entry_place),
                (Step::Index(i), Value::List(items)) => items.get(*i).map(|n| (n.place, n)),
                (Step::Index(_), _) => None,
            };
            match next {
                Some(next) => (place, node) = next,
                None => break,
            }
        }
        place
    }

    /// A scalar is found at itself, a map or list at its key.
    fn entry_place<'n>((key, node): (&Key, &'n Node)) -> (Place, &'n Node) {
        match node.value {
            Value::Map(_) | Value::List(_) => (key.place, node),
            _ => (node.place, node),
        }
    }
}
