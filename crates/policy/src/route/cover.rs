//! Whether one match takes everything that another could.
//!
//! Says yes only where that is certain. Precedence leaves few ways: a match before another has as
//! many conditions or more, so of matches on one path only those with the same conditions (or an
//! expression that takes the other's value) cover each other. A regular expression covers prefixes
//! and other expressions if it takes all that begins as they do: `.*`, `/api.*`.

use std::collections::{BTreeSet, HashMap};

use http::Method;
use model::pattern::Pattern;
use model::route::{Match, PathMatch, ValueMatch};

/// How many matches with expressions are compared one by one; those beyond are not looked at.
const MAX_COMPARED: usize = 64;

/// Matches in order of precedence, by what can cover another.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// By what must be the same.
    alike: HashMap<Shape, Alike>,
    /// With an expression for the path that takes all that begins in some way.
    sweeping: Vec<usize>,
}

/// Path, method and the names that are asked for.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Shape {
    path: (u8, String),
    method: Option<Method>,
    headers: BTreeSet<String>,
    query: BTreeSet<String>,
}

/// Matches of one shape.
#[derive(Debug, Default)]
struct Alike {
    /// By their values.
    exact: HashMap<Vec<(bool, String)>, usize>,
    /// Those with an expression among the values.
    loose: Vec<usize>,
}

impl Seen {
    /// The first match that covers this one, which comes after all of them.
    pub(super) fn covering<'m>(
        &self,
        condition: &Match,
        of: impl Fn(usize) -> &'m Match,
    ) -> Option<usize> {
        let covers = |&at: &usize| covers(of(at), condition).then_some(at);
        let alike = self.alike.get(&shape(condition));
        let same = alike.and_then(|a| a.exact.get(&values(condition)).copied());
        let loose = || alike?.loose.iter().find_map(covers);
        same.or_else(loose)
            .or_else(|| self.sweeping.iter().find_map(covers))
    }

    pub(super) fn add(&mut self, condition: &Match, at: usize) {
        let alike = self.alike.entry(shape(condition)).or_default();
        alike.exact.entry(values(condition)).or_insert(at);
        let values = condition.headers.iter().map(|h| &h.value);
        let mut values = values.chain(condition.query.iter().map(|q| &q.value));
        let loose = values.any(|v| matches!(v, ValueMatch::Regex(_)));
        if loose && alike.loose.len() < MAX_COMPARED {
            alike.loose.push(at);
        }
        if let PathMatch::Regex(pattern) = &condition.path
            && sweep(pattern).is_some()
            && self.sweeping.len() < MAX_COMPARED
        {
            self.sweeping.push(at);
        }
    }
}

fn shape(condition: &Match) -> Shape {
    let headers = condition.headers.iter().map(|h| h.name.as_str().to_owned());
    let query = condition.query.iter().map(|q| q.name.clone());
    Shape {
        path: match &condition.path {
            PathMatch::Exact(path) => (0, path.clone()),
            PathMatch::Regex(pattern) => (1, pattern.source().to_owned()),
            PathMatch::Prefix(prefix) => (2, prefix.trim_end_matches('/').to_owned()),
            PathMatch::GrpcMethod(method) => (3, method.clone()),
        },
        method: condition.method.clone(),
        headers: headers.collect(),
        query: query.collect(),
    }
}

/// The values that are asked for, in the order of their names, and whether each is an expression.
fn values(condition: &Match) -> Vec<(bool, String)> {
    let mut headers: Vec<_> = condition.headers.iter().collect();
    headers.sort_by_key(|h| h.name.as_str());
    let mut query: Vec<_> = condition.query.iter().collect();
    query.sort_by(|a, b| a.name.cmp(&b.name));
    let values = headers.into_iter().map(|h| &h.value);
    values
        .chain(query.into_iter().map(|q| &q.value))
        .map(|value| match value {
            ValueMatch::Exact(text) => (false, text.clone()),
            ValueMatch::Regex(pattern) => (true, pattern.source().to_owned()),
        })
        .collect()
}

/// Whether `earlier`, which has precedence, takes everything that `later` could.
fn covers(earlier: &Match, later: &Match) -> bool {
    let value_of = |found: Option<&ValueMatch>, wanted: &ValueMatch| {
        found.is_some_and(|later| value_covers(wanted, later))
    };
    path_covers(&earlier.path, &later.path)
        && earlier
            .method
            .as_ref()
            .is_none_or(|m| later.method.as_ref() == Some(m))
        && earlier.headers.iter().all(|h| {
            let found = later.headers.iter().find(|l| l.name == h.name);
            value_of(found.map(|l| &l.value), &h.value)
        })
        && earlier.query.iter().all(|q| {
            let found = later.query.iter().find(|l| l.name == q.name);
            value_of(found.map(|l| &l.value), &q.value)
        })
}

fn value_covers(earlier: &ValueMatch, later: &ValueMatch) -> bool {
    match (earlier, later) {
        (ValueMatch::Exact(a), ValueMatch::Exact(b)) => a == b,
        (ValueMatch::Exact(_), ValueMatch::Regex(_)) => false,
        (ValueMatch::Regex(pattern), ValueMatch::Exact(text)) => pattern.matches(text),
        (ValueMatch::Regex(a), ValueMatch::Regex(b)) => a == b || a.source() == ".*",
    }
}

fn path_covers(earlier: &PathMatch, later: &PathMatch) -> bool {
    let sweeps = |pattern: &Pattern, start: &str| {
        sweep(pattern).is_some_and(|taken| start.starts_with(taken))
    };
    match (earlier, later) {
        (PathMatch::Regex(a), PathMatch::Regex(b)) => {
            a == b || literal_start(b.source()).is_some_and(|start| sweeps(a, start))
        }
        // Every path begins with a slash.
        (PathMatch::Regex(a), PathMatch::Prefix(prefix)) => sweeps(a, prefix),
        (PathMatch::Regex(a), PathMatch::GrpcMethod(_)) => sweeps(a, "/"),
        (PathMatch::Prefix(a), PathMatch::Prefix(b)) => {
            a.trim_end_matches('/') == b.trim_end_matches('/')
        }
        (earlier, later) => earlier == later,
    }
}

/// Of an expression that takes all paths that begin in some way: how.
fn sweep(pattern: &Pattern) -> Option<&str> {
    let start = pattern.source().strip_suffix(".*")?;
    is_literal(start).then_some(start)
}

/// What all texts that an expression takes begin with, as far as it is plain to see.
fn literal_start(source: &str) -> Option<&str> {
    if source.contains('|') {
        return None;
    }
    let end = source.find(|c| !is_literal_char(c)).unwrap_or(source.len());
    let (start, rest) = source.split_at(end);
    // What follows may say how often the last character stands there.
    let repeated = rest.starts_with(['*', '+', '?', '{']);
    let end = start.char_indices().next_back().map_or(0, |(at, _)| at);
    Some(if repeated { &start[..end] } else { start })
}

fn is_literal(text: &str) -> bool {
    text.chars().all(is_literal_char)
}

fn is_literal_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '~' | '%' | ',' | ';' | '=')
}
