//! Regular expressions of schemas and rules: each compiled once, when it is first needed, and
//! forgotten with the schemas.
//!
//! They are RE2's, linear in the text, and so is the engine here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use regex::Regex;

/// Those that were needed so far; `None` is one that cannot be compiled.
#[derive(Default)]
pub(super) struct Patterns(Mutex<HashMap<Box<str>, Option<Arc<Regex>>>>);

impl Patterns {
    fn find(&self, pattern: &str) -> Option<Arc<Regex>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(pattern) {
            return found.clone();
        }
        let compiled = Regex::new(pattern).ok().map(Arc::new);
        known.insert(pattern.into(), compiled.clone());
        compiled
    }
}

/// Whether a text matches a pattern of the schemas, anywhere in it; `None` if it is no pattern.
pub(super) fn matches(pattern: &str, text: &str) -> Option<bool> {
    let regex = super::Schemas::shared().0.patterns.find(pattern)?;
    Some(regex.is_match(text))
}
