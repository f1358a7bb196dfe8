//! Regular expressions with a bound on their size; matching is linear in the text.

use std::fmt;

/// The largest compiled program, in bytes. Gateway API leaves the bound to implementations.
const SIZE_LIMIT: usize = 64 * 1024;

/// A compiled expression that remembers its source. Equality is that of the source.
#[derive(Clone)]
pub struct Pattern {
    source: Box<str>,
    regex: regex::Regex,
}

/// An expression that cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("regular expression \"{text}\" {why}")]
pub struct InvalidPattern {
    text: String,
    why: String,
}

impl Pattern {
    /// Compiles an expression that must match the *whole* text, as Envoy's `safe_regex` and
    /// Gateway API's `RegularExpression` do. RE2 syntax.
    pub fn new(source: &str) -> Result<Self, InvalidPattern> {
        let invalid = |why: String| InvalidPattern {
            text: source.chars().take(120).collect(),
            why,
        };
        let build = |text: &str| {
            let mut builder = regex::RegexBuilder::new(text);
            builder
                .size_limit(SIZE_LIMIT)
                .dfa_size_limit(SIZE_LIMIT * 8);
            builder.build()
        };
        // By itself first: "a)|(b" would close the group that it is put into.
        build(source)
            .and_then(|_| build(&format!("^(?:{source})$")))
            .map(|regex| Self {
                source: source.into(),
                regex,
            })
            .map_err(|error| match error {
                regex::Error::CompiledTooBig(_) => invalid(format!(
                    "needs more than {SIZE_LIMIT} bytes compiled; make it simpler"
                )),
                other => invalid(format!(
                    "does not compile: {}",
                    last_line(&other.to_string())
                )),
            })
    }

    /// Whether the whole of `text` matches.
    pub fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// What the user wrote.
    pub fn source(&self) -> &str {
        &self.source
    }
}

fn last_line(text: &str) -> String {
    text.lines()
        .last()
        .unwrap_or(text)
        .trim()
        .trim_start_matches("error: ")
        .to_owned()
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/", self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_text_must_match() {
        let p = Pattern::new("a|b+").expect("valid");
        assert!(p.matches("a") && p.matches("bb"));
        assert!(!p.matches("ab") && !p.matches("xa"));
    }

    #[test]
    fn a_huge_expression_is_refused() {
        assert!(Pattern::new("(a{1000}){1000}").is_err());
        assert!(Pattern::new("a)|(b").is_err());
        assert!(
            Pattern::new("(")
                .expect_err("unbalanced")
                .to_string()
                .contains("unclosed")
        );
    }
}
