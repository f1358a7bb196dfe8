//! Resources from within the process, for a proxy without a control plane.
//!
//! [`start`] gives what [`crate::client::start`] gives, so that its receiver does not know the
//! difference; what is subscribed to is answered from a set of resources that a [`Feed`] changes.
//! As there, batches come one at a time, and each subscription gets an answer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::resource::{Key, Resource, collection_containing};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::client::{Batch, Handle, Reply, Shared};
use crate::delta::client::Session;
use crate::delta::{WILDCARD, covering};

/// Changes the resources that are answered from; cheap to clone.
#[derive(Clone)]
pub struct Feed {
    shared: Arc<Shared>,
    store: Arc<Mutex<Store>>,
}

/// All resources, and what has changed since it was last looked at.
#[derive(Default)]
struct Store {
    resources: BTreeMap<Key, Arc<Resource>>,
    /// From an alias to the resources that have it.
    aliases: HashMap<Key, BTreeSet<Arc<str>>>,
    changed: BTreeSet<Key>,
}

/// A feed that has nothing yet, and its receiver's side, on the current tokio runtime. Its task ends
/// when the receiver is dropped.
pub fn start() -> (Feed, Handle, mpsc::Receiver<Batch>) {
    let shared = Arc::new(Shared {
        session: Mutex::new(Session::unbounded()),
        wake: Notify::new(),
        connected: watch::Sender::new(true),
    });
    let feed = Feed {
        shared: Arc::clone(&shared),
        store: Arc::default(),
    };
    let (batches, receiver) = mpsc::channel(1);
    let driver = Driver {
        feed: feed.clone(),
        batches,
        answered: BTreeSet::new(),
        sent: BTreeSet::new(),
    };
    tokio::spawn(driver.run());
    (feed, Handle { shared }, receiver)
}

impl Feed {
    /// Changes resources (`None`: removes them), all at once. What is as it was costs nothing
    /// further.
    pub fn apply(&self, changes: Vec<(Key, Option<Resource>)>) {
        let mut store = self.store();
        for (key, resource) in changes {
            store.set(key, resource.map(Arc::new));
        }
        if !store.changed.is_empty() {
            self.shared.wake.notify_one();
        }
    }

    /// Makes these the resources there are.
    pub fn replace(&self, resources: Vec<Resource>) {
        let mut store = self.store();
        let new: BTreeMap<Key, Resource> = resources.into_iter().map(|r| (r.key(), r)).collect();
        let gone: Vec<Key> = store.resources.keys().cloned().collect();
        for key in gone.into_iter().filter(|key| !new.contains_key(key)) {
            store.set(key, None);
        }
        for (key, resource) in new {
            store.set(key, Some(Arc::new(resource)));
        }
        if !store.changed.is_empty() {
            self.shared.wake.notify_one();
        }
    }

    /// Every operation leaves it whole.
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed")
            .field("resources", &self.store().resources.len())
            .finish_non_exhaustive()
    }
}

impl Store {
    fn set(&mut self, key: Key, resource: Option<Arc<Resource>>) {
        if self.resources.get(&key) == resource.as_ref() {
            return;
        }
        if let Some(old) = self.resources.remove(&key) {
            for alias in old.aliases() {
                let alias = Key::new(key.kind, alias);
                if let Some(names) = self.aliases.get_mut(&alias) {
                    names.remove(&key.name);
                    if names.is_empty() {
                        self.aliases.remove(&alias);
                    }
                }
            }
        }
        if let Some(new) = resource {
            for alias in new.aliases() {
                let names = self.aliases.entry(Key::new(key.kind, alias)).or_default();
                names.insert(Arc::clone(&key.name));
            }
            self.resources.insert(key.clone(), new);
        }
        self.changed.insert(key);
    }

    /// The resources that a subscription covers.
    fn expand(&self, subscription: &Key) -> Vec<Key> {
        let kind = subscription.kind;
        let name: &str = &subscription.name;
        if let Some(prefix) = name.strip_suffix(WILDCARD)
            && (prefix.is_empty() || prefix.ends_with('/'))
        {
            return self
                .resources
                .range((Bound::Included(Key::new(kind, prefix)), Bound::Unbounded))
                .map(|(key, _)| key)
                .take_while(|key| key.kind == kind && key.name.starts_with(prefix))
                .filter(|key| {
                    prefix.is_empty() || collection_containing(&key.name).as_deref() == Some(name)
                })
                .cloned()
                .collect();
        }
        let aliased = self.aliases.get(subscription).into_iter().flatten();
        let named = self.resources.contains_key(subscription);
        named
            .then(|| subscription.clone())
            .into_iter()
            .chain(aliased.map(|name| Key::new(kind, Arc::clone(name))))
            .collect()
    }
}

/// The task that answers.
struct Driver {
    feed: Feed,
    batches: mpsc::Sender<Batch>,
    /// Subscriptions that have had their answer.
    answered: BTreeSet<Key>,
    /// What the receiver has.
    sent: BTreeSet<Key>,
}

impl Driver {
    async fn run(mut self) {
        loop {
            tokio::select! {
                () = self.feed.shared.wake.notified() => {}
                () = self.batches.closed() => return,
            }
            let (upserts, removed) = self.next();
            if upserts.is_empty() && removed.is_empty() {
                continue;
            }
            let (reply, verdict) = oneshot::channel();
            let batch = Batch {
                upserts,
                removed,
                reply: Reply(reply),
            };
            if self.batches.send(batch).await.is_err() {
                return;
            }
            if let Ok(Err(why)) = verdict.await {
                tracing::error!(why, "a change of the configuration was refused");
            }
        }
    }

    /// What there is to say: about new subscriptions, about changes to what is subscribed to, and
    /// what is no longer.
    fn next(&mut self) -> (Vec<(Key, Arc<Resource>)>, Vec<Key>) {
        let wanted: BTreeSet<Key> = {
            let session = self.feed.shared.session();
            let all = session.wanted();
            all.map(|(kind, name)| Key::new(kind, Arc::clone(name)))
                .collect()
        };
        let mut store = self.feed.store();
        let mut upserts = BTreeSet::new();
        let mut removed = BTreeSet::new();
        let ended = self.answered.difference(&wanted).next().is_some();
        for subscription in wanted.difference(&self.answered) {
            let found = store.expand(subscription);
            if found.is_empty() {
                removed.insert(subscription.clone());
            }
            upserts.extend(found);
        }
        for key in std::mem::take(&mut store.changed) {
            match store.resources.get(&key) {
                Some(resource) if is_wanted(&wanted, &key, resource) => {
                    upserts.insert(key);
                }
                _ if self.sent.contains(&key) => {
                    removed.extend(emptied(&store, &wanted, &key));
                    removed.insert(key);
                }
                _ => {}
            }
        }
        if ended {
            let unwanted = self.sent.iter().filter(|key| {
                let resource = store.resources.get(*key);
                resource.is_none_or(|resource| !is_wanted(&wanted, key, resource))
            });
            removed.extend(unwanted.cloned());
        }
        self.sent.extend(upserts.iter().cloned());
        self.sent.retain(|key| !removed.contains(key));
        self.answered = wanted;
        let upserts = upserts
            .into_iter()
            .filter_map(|key| Some((key.clone(), Arc::clone(store.resources.get(&key)?))))
            .collect();
        (upserts, removed.into_iter().collect())
    }
}

fn is_wanted(wanted: &BTreeSet<Key>, key: &Key, resource: &Resource) -> bool {
    let aliases = resource.aliases();
    let mut found = false;
    covering(
        &key.name,
        aliases.iter().map(String::as_str),
        |subscription| {
            found = wanted.contains(&Key::new(key.kind, subscription));
            !found
        },
    );
    found
}

/// Collections that are wanted, had this resource, and have nothing now.
fn emptied(store: &Store, wanted: &BTreeSet<Key>, key: &Key) -> Option<Key> {
    let collection = Key::new(key.kind, collection_containing(&key.name)?);
    (wanted.contains(&collection) && store.expand(&collection).is_empty()).then_some(collection)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::resource::Kind;
    use model::service::Service;

    fn service(name: &str, address: &str) -> Resource {
        Resource::Service(Service {
            name: name.parse().expect("valid"),
            addresses: vec![address.parse().expect("valid")],
            ports: Vec::new(),
            headless: false,
            near: false,
        })
    }

    fn put(resource: Resource) -> (Key, Option<Resource>) {
        (resource.key(), Some(resource))
    }

    async fn next(batches: &mut mpsc::Receiver<Batch>) -> (Vec<String>, Vec<String>) {
        let batch = batches.recv().await.expect("a batch");
        let upserts = batch.upserts.iter().map(|(k, _)| k.to_string()).collect();
        let removed = batch.removed.iter().map(ToString::to_string).collect();
        batch.accept();
        (upserts, removed)
    }

    #[tokio::test]
    async fn each_subscription_is_answered() {
        let (feed, handle, mut batches) = start();
        feed.apply(vec![put(service("a/b", "10.0.0.1"))]);
        handle.subscribe(Kind::Service, "a/b");
        handle.subscribe(Kind::Service, "a/none");
        handle.subscribe(Kind::Route, "a/b/*");
        let (upserts, removed) = next(&mut batches).await;
        assert_eq!(upserts, ["Service a/b"]);
        assert_eq!(removed, ["Service a/none", "Route a/b/*"]);

        // Covered by another subscription already, and answered all the same.
        handle.subscribe(Kind::Service, "ip/10.0.0.1");
        assert_eq!(next(&mut batches).await.0, ["Service a/b"]);
        handle.subscribe(Kind::Service, "*");
        assert_eq!(next(&mut batches).await.0, ["Service a/b"]);
    }

    #[tokio::test]
    async fn changes_reach_those_who_want_them_and_no_others() {
        let (feed, handle, mut batches) = start();
        handle.subscribe(Kind::Service, "a/b");
        assert_eq!(next(&mut batches).await.1, ["Service a/b"]);

        feed.apply(vec![
            put(service("a/b", "10.0.0.1")),
            put(service("a/c", "10.0.0.2")),
        ]);
        assert_eq!(next(&mut batches).await.0, ["Service a/b"]);

        feed.replace(vec![service("a/c", "10.0.0.3")]);
        assert_eq!(next(&mut batches).await.1, ["Service a/b"]);

        handle.subscribe(Kind::Service, "a/c");
        assert_eq!(next(&mut batches).await.0, ["Service a/c"]);
        handle.unsubscribe(Kind::Service, "a/c");
        assert_eq!(next(&mut batches).await.1, ["Service a/c"]);
    }
}
