//! What the server has to give: resources by name, alias and collection, encoded once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use model::resource::{Key, Kind as Own, Resource};

use super::{Kind, PerKind, WILDCARD, covering};
use crate::codec::{self, Version};

/// A resource, ready to be sent.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Of its bytes.
    pub version: Version,
    /// As [`codec::encode`] made them.
    pub bytes: Arc<[u8]>,
    /// Further names.
    pub aliases: Vec<Arc<str>>,
}

/// All resources.
#[derive(Debug)]
pub struct Store<K = Own> {
    kinds: PerKind<Resources, K>,
}

impl<K: Kind> Default for Store<K> {
    fn default() -> Self {
        Self {
            kinds: PerKind::default(),
        }
    }
}

#[derive(Debug, Default)]
struct Resources {
    entries: BTreeMap<Arc<str>, Entry>,
    aliases: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
}

impl Entry {
    /// Encodes a resource.
    pub fn of(resource: &Resource) -> Self {
        let bytes: Arc<[u8]> = codec::encode(resource).into();
        Self {
            version: Version::of(&bytes),
            bytes,
            aliases: resource.aliases().into_iter().map(Into::into).collect(),
        }
    }

    /// A message that has no other name.
    pub fn encoded(bytes: Vec<u8>) -> Self {
        Self {
            version: Version::of(&bytes),
            bytes: bytes.into(),
            aliases: Vec::new(),
        }
    }

    pub(crate) fn aliases(&self) -> impl Iterator<Item = &str> {
        self.aliases.iter().map(|alias| &**alias)
    }
}

impl Store {
    /// As [`put`](Self::put), by key.
    pub fn set(&mut self, key: &Key, entry: Option<Entry>) -> Option<BTreeSet<Arc<str>>> {
        self.put(key.kind, &key.name, entry)
    }
}

impl<K: Kind> Store<K> {
    /// Puts or removes a resource. Answers with the subscriptions that cover it or did so before;
    /// `None` if nothing changed.
    pub fn put(
        &mut self,
        kind: K,
        name: &Arc<str>,
        entry: Option<Entry>,
    ) -> Option<BTreeSet<Arc<str>>> {
        let resources = &mut self.kinds[kind];
        let old = resources.entries.get(name);
        // Aliases follow from the contents, so the version vouches for them too.
        if old.map(|entry| entry.version) == entry.as_ref().map(|entry| entry.version) {
            return None;
        }
        let mut touched = BTreeSet::new();
        if let Some(old) = resources.entries.remove(name) {
            touch(&mut touched, name, &old);
            for alias in &old.aliases {
                if let Some(names) = resources.aliases.get_mut(alias) {
                    names.remove(name);
                    if names.is_empty() {
                        resources.aliases.remove(alias);
                    }
                }
            }
        }
        if let Some(new) = entry {
            touch(&mut touched, name, &new);
            for alias in &new.aliases {
                let names = resources.aliases.entry(Arc::clone(alias)).or_default();
                names.insert(Arc::clone(name));
            }
            resources.entries.insert(Arc::clone(name), new);
        }
        Some(touched)
    }

    /// The names of all resources of a kind, in order.
    pub fn names(&self, kind: K) -> impl Iterator<Item = &Arc<str>> {
        self.kinds[kind].entries.keys()
    }

    /// A resource by its name.
    pub fn entry(&self, kind: K, name: &str) -> Option<&Entry> {
        self.kinds[kind].entries.get(name)
    }

    /// The names of the resources that a subscription covers.
    pub fn expand(&self, kind: K, subscription: &str) -> Vec<Arc<str>> {
        let resources = &self.kinds[kind];
        if subscription == WILDCARD {
            return resources.entries.keys().cloned().collect();
        }
        if let Some(prefix) = subscription.strip_suffix(WILDCARD)
            && prefix.ends_with('/')
        {
            return resources
                .entries
                .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
                .map(|(name, _)| name)
                .take_while(|name| name.starts_with(prefix))
                .filter(|name| {
                    model::resource::collection_containing(name).as_deref() == Some(subscription)
                })
                .cloned()
                .collect();
        }
        let named = resources.entries.get_key_value(subscription);
        let aliased = resources.aliases.get(subscription);
        let mut names: Vec<_> = named
            .map(|(name, _)| Arc::clone(name))
            .into_iter()
            .collect();
        names.extend(aliased.into_iter().flatten().cloned());
        names
    }
}

fn touch(touched: &mut BTreeSet<Arc<str>>, name: &str, entry: &Entry) {
    covering(name, entry.aliases(), |subscription| {
        touched.insert(subscription.into());
        true
    });
}
