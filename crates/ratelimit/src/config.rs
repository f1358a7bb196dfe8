//! Limits from files, in the format of github.com/envoyproxy/ratelimit: a file for each domain, with
//! descriptors that are nested as questions list their entries.
//!
//! The limit of a question's descriptor is that of the node where its last entry leads; one that leads
//! past the last node, or not to a limit, has none. At each level the entry with the very value comes
//! first, then the longest that ends in `*` and fits, then the one without a value. A field that is not
//! known is an error: nothing that was written is ignored.

mod file;
mod source;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use source::Source;

use crate::limit::Limit;

/// The limits of all domains.
#[derive(Debug, Clone, Default)]
pub struct Config {
    domains: BTreeMap<String, Domain>,
}

#[derive(Debug, Clone)]
struct Domain {
    /// Where it was read.
    path: PathBuf,
    node: Node,
}

/// Where some entries lead.
#[derive(Debug, Clone, Default)]
struct Node {
    limit: Option<Arc<Limit>>,
    /// By the next entry's key.
    next: HashMap<String, Branch>,
}

#[derive(Debug, Clone, Default)]
struct Branch {
    exact: HashMap<String, Node>,
    /// The longest first.
    starts: Vec<(String, Node)>,
    any: Option<Box<Node>>,
}

/// Files that are not valid, or not to be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The system does not let us.
    #[error("{path}: {why}")]
    Read {
        /// File or directory.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// What is written is no limit.
    #[error("{path}:{line}: {message}; {hint}")]
    Invalid {
        /// The file.
        path: String,
        /// Where in it, from 1.
        line: u64,
        /// What is wrong.
        message: String,
        /// What to do.
        hint: String,
    },
}

impl Config {
    /// The limits of these files, each with its text.
    pub fn parse<'f>(
        files: impl IntoIterator<Item = (&'f Path, &'f str)>,
    ) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        for (path, text) in files {
            let (name, line, node) = file::parse(path, text)?;
            if let Some(other) = config.domains.get(&name) {
                return Err(ConfigError::Invalid {
                    path: path.display().to_string(),
                    line,
                    message: format!("domain \"{name}\" is in {} already", other.path.display()),
                    hint: "put all of a domain in one file".to_owned(),
                });
            }
            let path = path.to_owned();
            config.domains.insert(name, Domain { path, node });
        }
        Ok(config)
    }

    /// How many domains there are.
    pub fn domains(&self) -> usize {
        self.domains.len()
    }

    /// The limit for what a descriptor says.
    pub fn find<'e>(
        &self,
        domain: &str,
        entries: impl Iterator<Item = (&'e str, &'e str)>,
    ) -> Option<&Arc<Limit>> {
        let mut node = &self.domains.get(domain)?.node;
        for (key, value) in entries {
            node = node.next.get(key)?.take(value)?;
        }
        node.limit.as_ref()
    }
}

impl Branch {
    fn take(&self, value: &str) -> Option<&Node> {
        let exact = self.exact.get(value);
        let start = || {
            let mut starts = self.starts.iter();
            starts.find(|(start, _)| value.starts_with(start.as_str()))
        };
        exact
            .or_else(|| start().map(|(_, node)| node))
            .or(self.any.as_deref())
    }
}

#[cfg(test)]
mod tests;
