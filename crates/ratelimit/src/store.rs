//! Where counts are.

mod memory;
mod redis;

use std::fmt;
use std::time::Duration;

use aws_lc_rs::digest;

pub use self::memory::Memory;
pub use self::redis::Redis;

use crate::limit::{Unit, Window};

/// Bytes of a key that is kept as it is.
const LONGEST: usize = 512;

/// Where counts are kept.
#[derive(Debug)]
pub enum Store {
    /// In this process, and gone with it.
    Memory(Memory),
    /// In a Redis that several processes may share.
    Redis(Box<Redis>),
}

/// Why nothing was counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It is not said where.
    #[error(
        "\"{0}\" is no store: expected memory, or redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]"
    )]
    Url(String),
    /// Redis cannot be asked.
    #[error("redis at {at}: {why}; is it running, and may this process use it?")]
    Redis {
        /// Its address, without what is secret in it.
        at: String,
        /// What is wrong.
        why: String,
    },
    /// It has too much to do.
    #[error("redis at {at}: {count} questions wait for it already")]
    Busy {
        /// Its address.
        at: String,
        /// As many as there may be.
        count: usize,
    },
}

/// Something to be counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Count {
    /// What is counted: the same for all who mean the same.
    pub(crate) key: String,
    pub(crate) window: Window,
    pub(crate) hits: u64,
}

impl Store {
    /// `memory`, or the URL of a Redis, which need not be there yet.
    pub fn open(url: &str) -> Result<Self, StoreError> {
        match url {
            "memory" => Ok(Self::Memory(Memory::default())),
            url if url.starts_with("redis://") => Redis::new(url).map(Box::new).map(Self::Redis),
            // A URL may have a password.
            url => {
                let shown = url.split_once("://").map_or(url, |(scheme, _)| scheme);
                Err(StoreError::Url(shown.to_owned()))
            }
        }
    }

    /// Counts; gives what each count has come to.
    pub(crate) async fn add(
        &self,
        counts: &[Count],
        now: Duration,
    ) -> Result<Vec<u64>, StoreError> {
        match self {
            Self::Memory(memory) => Ok(counts.iter().map(|count| memory.add(count, now)).collect()),
            Self::Redis(redis) => redis.add(counts, now).await,
        }
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(_) => f.write_str("memory"),
            Self::Redis(redis) => write!(f, "redis at {}", redis.at()),
        }
    }
}

/// The key of what descriptors mean: no two that differ have the same. Long ones are kept as their
/// SHA-256.
pub(crate) fn key<'e>(
    domain: &str,
    entries: impl Iterator<Item = (&'e str, &'e str)>,
    unit: Unit,
) -> String {
    let mut key = String::new();
    quote(domain, &mut key);
    for (name, value) in entries {
        key.push('|');
        quote(name, &mut key);
        key.push('=');
        quote(value, &mut key);
    }
    if key.len() > LONGEST {
        let hash = digest::digest(&digest::SHA256, key.as_bytes());
        let digits = hash.as_ref().iter().map(|byte| format!("{byte:02x}"));
        key = format!("sha256:{}", digits.collect::<String>());
    }
    key.push('|');
    key.push_str(unit.as_str());
    key
}

fn quote(text: &str, key: &mut String) {
    for c in text.chars() {
        match c {
            '%' => key.push_str("%25"),
            '|' => key.push_str("%7C"),
            '=' => key.push_str("%3D"),
            c => key.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_descriptors_have_different_keys() {
        let of = |domain: &str, entries: &[(&str, &str)]| {
            key(domain, entries.iter().copied(), Unit::Minute)
        };
        let long = "x".repeat(LONGEST);
        let longer = "x".repeat(LONGEST + 1);
        let all = [
            of("a", &[("b", "c")]),
            of("a", &[("b", "c|d=e")]),
            of("a", &[("b", "c"), ("d", "e")]),
            of("a|b=c", &[]),
            of("a", &[("b", "%7C")]),
            of("a", &[("b", &long)]),
            of("a", &[("b", &longer)]),
            key("a", [("b", "c")].into_iter(), Unit::Hour),
        ];
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len(), "{all:?}");
        assert!(all.iter().all(|key| key.len() < LONGEST + 20));
    }

    #[test]
    fn a_store_that_is_none_is_refused_without_its_password() {
        let error = Store::open("mysql://root:secret@db").expect_err("none");
        assert!(!error.to_string().contains("secret"), "{error}");
        assert!(Store::open("memory").is_ok());
        let redis = Store::open("redis://user:secret@127.0.0.1:6379/2").expect("valid");
        assert_eq!(redis.to_string(), "redis at 127.0.0.1:6379");
    }
}
