//! The protocol's state machines, without sockets, clocks or tasks.
//!
//! Incremental xDS in short: on one stream, each kind is a conversation of its own. A client names
//! what it wants, and the server answers with each resource, or, in `removed_resources`, with each
//! name under which there is nothing; from then on the server sends what changes. Each response has
//! a nonce, with which the client acknowledges it (ACK) or refuses it (NACK, with `error_detail`).
//! On a new stream the client says what it still holds (`initial_resource_versions`), and the
//! server sends the difference.
//!
//! A subscription is one of: a resource's name; an alias (`ip/10.0.0.1`); a collection
//! (`bookshop/reviews/*`); or `*`, all of a kind. Where Tulle is stricter than the protocol: a
//! server has one unacknowledged response for each kind at most, so that a slow client costs no
//! memory; a collection with nothing in it is answered like a name with nothing behind it.

pub mod client;
pub mod server;
pub mod store;

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

use model::resource::{self, collection_containing};

use crate::codec;

/// The subscription to all resources of a kind.
pub const WILDCARD: &str = "*";

/// The longest name, alias or collection that may be subscribed to, in bytes.
pub const MAX_NAME_BYTES: usize = 1024;

/// What kinds of resources there are on a stream: Tulle's own, or Envoy's.
pub trait Kind: Copy + Ord + fmt::Debug + Send + Sync + 'static {
    /// All of them, in the order in which a client needs them.
    const ALL: &'static [Self];

    /// Its place among all.
    fn place(self) -> usize;

    /// Its type URL.
    fn url(self) -> &'static str;

    /// The kind with this type URL.
    fn of_url(url: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.url() == url)
    }
}

impl Kind for resource::Kind {
    const ALL: &'static [Self] = &Self::ALL;

    fn place(self) -> usize {
        self as usize
    }

    fn url(self) -> &'static str {
        codec::type_url(self)
    }
}

/// A value for each kind.
#[derive(Debug)]
pub(crate) struct PerKind<T, K = resource::Kind>(Vec<T>, PhantomData<K>);

impl<T: Default, K: Kind> Default for PerKind<T, K> {
    fn default() -> Self {
        let values = K::ALL.iter().map(|_| T::default());
        Self(values.collect(), PhantomData)
    }
}

impl<T, K: Kind> Index<K> for PerKind<T, K> {
    type Output = T;

    fn index(&self, kind: K) -> &T {
        &self.0[kind.place()]
    }
}

impl<T, K: Kind> IndexMut<K> for PerKind<T, K> {
    fn index_mut(&mut self, kind: K) -> &mut T {
        &mut self.0[kind.place()]
    }
}

/// Calls `visit` with each subscription that covers a resource, until it answers `false`.
pub(crate) fn covering<'a>(
    name: &'a str,
    aliases: impl IntoIterator<Item = &'a str>,
    mut visit: impl FnMut(&str) -> bool,
) {
    if !visit(name) {
        return;
    }
    for alias in aliases {
        if !visit(alias) {
            return;
        }
    }
    if let Some(collection) = collection_containing(name)
        && !visit(&collection)
    {
        return;
    }
    visit(WILDCARD);
}

/// Whether one of the subscriptions covers a resource.
pub(crate) fn covered<'a>(
    subscriptions: &std::collections::BTreeSet<std::sync::Arc<str>>,
    name: &'a str,
    aliases: impl IntoIterator<Item = &'a str>,
) -> bool {
    let mut found = false;
    covering(name, aliases, |subscription| {
        found = subscriptions.contains(subscription);
        !found
    });
    found
}

#[cfg(test)]
mod tests;
