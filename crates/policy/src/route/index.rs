//! Finds the best entry for a path without looking at the others.
//!
//! Entries are inserted best first, so that each bucket is in order of precedence and the buckets
//! themselves are visited in that order: exact path, regular expressions, prefixes from the
//! longest to the shortest, gRPC methods, `/`.

use std::collections::HashMap;

use model::pattern::Pattern;
use model::route::PathMatch;

/// Entries of one kind of route, by path.
#[derive(Debug)]
pub(super) struct Index {
    exact: HashMap<Box<str>, Vec<usize>>,
    regex: Vec<usize>,
    /// A tree of path elements; the first node is `/`.
    nodes: Vec<Node>,
    method: HashMap<Box<str>, Vec<usize>>,
}

/// A prefix.
#[derive(Debug, Default)]
struct Node {
    /// The node of the prefix that is one element shorter; that of `/` is itself.
    parent: usize,
    children: HashMap<Box<str>, usize>,
    entries: Vec<usize>,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            exact: HashMap::new(),
            regex: Vec::new(),
            nodes: vec![Node::default()],
            method: HashMap::new(),
        }
    }
}

impl Index {
    /// Adds an entry that is not better than those already there.
    pub(super) fn insert(&mut self, path: &PathMatch, entry: usize) {
        match path {
            PathMatch::Exact(path) => self
                .exact
                .entry(path.as_str().into())
                .or_default()
                .push(entry),
            PathMatch::Regex(_) => self.regex.push(entry),
            PathMatch::GrpcMethod(method) => {
                self.method
                    .entry(method.as_str().into())
                    .or_default()
                    .push(entry);
            }
            PathMatch::Prefix(prefix) => {
                let node = self.node(prefix);
                self.nodes[node].entries.push(entry);
            }
        }
    }

    fn node(&mut self, prefix: &str) -> usize {
        let mut at = 0;
        for element in elements(prefix.trim_end_matches('/')) {
            let known = self.nodes[at].children.get(element).copied();
            at = known.unwrap_or_else(|| self.add_child(at, element));
        }
        at
    }

    fn add_child(&mut self, parent: usize, element: &str) -> usize {
        let child = self.nodes.len();
        self.nodes.push(Node {
            parent,
            ..Node::default()
        });
        self.nodes[parent].children.insert(element.into(), child);
        child
    }

    /// The best entry whose path and, as `fits` says, other conditions hold. `pattern` gives the
    /// expression of an entry that has one.
    pub(super) fn find<'p>(
        &self,
        path: &str,
        fits: impl Fn(usize) -> bool,
        pattern: impl Fn(usize) -> Option<&'p Pattern>,
    ) -> Option<usize> {
        let first = |entries: &[usize]| entries.iter().copied().find(|&at| fits(at));
        self.exact
            .get(path)
            .and_then(|entries| first(entries))
            .or_else(|| {
                // The other conditions first: they cost less than the expression.
                let matches =
                    |&at: &usize| fits(at) && pattern(at).is_some_and(|p| p.matches(path));
                self.regex.iter().copied().find(matches)
            })
            .or_else(|| self.find_prefix(path, first))
            .or_else(|| {
                let entries = self.method.get(method_of(path)?)?;
                first(entries)
            })
            .or_else(|| first(&self.nodes.first()?.entries))
    }

    /// Down the tree as far as the path goes, then back up to the first node that has a match.
    fn find_prefix(&self, path: &str, first: impl Fn(&[usize]) -> Option<usize>) -> Option<usize> {
        let mut at = 0;
        for element in elements(path) {
            match self.nodes[at].children.get(element) {
                Some(&child) => at = child,
                None => break,
            }
        }
        while at != 0 {
            let found = first(&self.nodes[at].entries);
            if found.is_some() {
                return found;
            }
            at = self.nodes[at].parent;
        }
        None
    }
}

/// What stands between the slashes of a path.
fn elements(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').skip(1)
}

/// The method of a gRPC path, `/package.Service/Method`.
pub(super) fn method_of(path: &str) -> Option<&str> {
    let (service, method) = path.strip_prefix('/')?.rsplit_once('/')?;
    (!service.is_empty() && !method.is_empty()).then_some(method)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn ten_thousand_paths_cost_as_many_looks_as_ten() {
        for n in [10, 10_000] {
            let mut index = Index::default();
            for i in 0..n {
                let path = match i % 3 {
                    0 => PathMatch::Exact(format!("/api/{i}/x")),
                    1 => PathMatch::Prefix(format!("/api/{i}")),
                    _ => PathMatch::GrpcMethod(format!("M{i}")),
                };
                index.insert(&path, i);
            }
            index.insert(&PathMatch::Prefix("/".to_owned()), n);
            let looks = Cell::new(0);
            let count = |_| {
                looks.set(looks.get() + 1);
                true
            };
            for (path, want) in [
                ("/api/3/x", 3),
                ("/api/4/y/z", 4),
                ("/s.S/M5", 5),
                ("/none", n),
            ] {
                looks.set(0);
                assert_eq!(index.find(path, count, |_| None), Some(want), "{path}");
                assert_eq!(looks.get(), 1, "{path} among {n}");
            }
        }
    }
}
