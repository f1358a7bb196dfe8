//! The map that fields were read from, which leaves with them: what comes by HTTP/2 and goes on by
//! HTTP/2 is not taken apart and put together again.

use http::HeaderMap;

use crate::map;
use crate::name::Special;

/// A map that says what the first fields of a list say, and how many they are; those behind them are
/// added when it is wanted.
pub(super) struct Kept {
    pub(super) map: HeaderMap,
    pub(super) fields: usize,
}

impl Kept {
    /// One of its fields has another value now, and there is no further one of the name; whether that
    /// could be said.
    pub(super) fn set(&mut self, name: &[u8], value: &[u8], special: Option<Special>) -> bool {
        let field = map::field(name, value).filter(|_| map::passes(special));
        field.is_some_and(|(name, value)| {
            self.map.insert(name, value);
            true
        })
    }

    /// So many of its fields, all of one name, are gone.
    pub(super) fn remove(&mut self, name: &str, fields: usize) {
        self.map.remove(name);
        self.fields -= fields;
    }
}
