//! The objects of the mesh, and the one place where they change.
//!
//! A single task takes change sets one after the other: it checks who owns what, gives services
//! their addresses, commits to the store, and only then shows the change to readers and proxies.
//! So the order of commits is the order in which proxies learn of them, and a caller that goes
//! away in the middle leaves nothing half done. Readers take a short lock on a map of `Arc`s.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use config::translate::Defaults;
use config::{Object, ObjectKey, ObjectKind};
use model::mesh::TrustBundle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use xds::server::Distributor;

use crate::change::{Applied, ApplyError, ChangeSet, Origin};
use crate::distribute::Distribution;
use crate::published::Published;
use crate::store::object::Stored;
use crate::store::{self, Store, StoreError};
use writer::{Command, Writer};

mod writer;

#[cfg(test)]
mod tests;

/// Change sets that may wait.
const QUEUE: usize = 256;

/// An object with what the store adds to it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The object; its metadata holds generation, creation time and resource version.
    pub object: Arc<Object>,
    /// Whose it is.
    pub origin: Origin,
}

type Objects = BTreeMap<ObjectKey, Entry>;

/// The objects of the mesh. Cheap to clone.
#[derive(Clone)]
pub struct State {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
}

/// Looks at the objects without keeping them alive.
#[derive(Clone)]
pub struct Glance(Weak<Shared>);

impl Glance {
    /// An object, as long as there is a state.
    pub fn find(&self, key: &ObjectKey) -> Option<Entry> {
        self.0.upgrade()?.read().get(key).cloned()
    }
}

struct Shared {
    objects: RwLock<Objects>,
    distribution: Distribution,
    store: Store,
    published: Published,
    /// Counts commits.
    revision: watch::Sender<u64>,
}

impl State {
    /// Takes everything from the store and hands it to the distributor. The task that is
    /// returned ends when the last clone of the state is gone.
    pub async fn load(
        store: Store,
        distributor: Arc<Distributor>,
        defaults: Defaults,
        bundle: TrustBundle,
    ) -> Result<(Self, JoinHandle<()>), StoreError> {
        let (rows, addresses, version) = store
            .write(|t| {
                Ok((
                    store::object::all(t)?,
                    store::object::addresses(t)?,
                    store::object::version(t)?,
                ))
            })
            .await?;
        let objects: Objects = rows.iter().filter_map(restore).collect();
        let distribution = Distribution::new(distributor, defaults, bundle);
        distribution.apply(
            objects
                .values()
                .map(|entry| config::translate::Change::Put(Arc::clone(&entry.object)))
                .collect(),
        );
        let shared = Arc::new(Shared {
            objects: RwLock::new(objects),
            distribution,
            store,
            published: Published::default(),
            revision: watch::Sender::new(0),
        });
        let (commands, queue) = mpsc::channel(QUEUE);
        let writer = Writer::new(Arc::clone(&shared), addresses, version);
        let task = tokio::spawn(writer.run(queue));
        Ok((Self { shared, commands }, task))
    }

    /// Applies a change set; returns once it is on disk and on its way to the proxies.
    pub async fn apply(&self, set: ChangeSet) -> Result<Applied, ApplyError> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(Command { set, reply })
            .await
            .map_err(|_| ApplyError::Stopping)?;
        answer.await.map_err(|_| ApplyError::Stopping)?
    }

    /// For those whom the state itself keeps.
    pub fn glance(&self) -> Glance {
        Glance(Arc::downgrade(&self.shared))
    }

    /// An object.
    pub fn find(&self, key: &ObjectKey) -> Option<Entry> {
        self.read().get(key).cloned()
    }

    /// Objects of a kind, of one namespace or of all, by name.
    pub fn list(&self, kind: ObjectKind, namespace: Option<&str>) -> Vec<Entry> {
        self.read()
            .range(ObjectKey::new(kind, "", "")..)
            .take_while(|(key, _)| key.kind == kind)
            .filter(|(key, _)| namespace.is_none_or(|n| !kind.namespaced() || &*key.namespace == n))
            .map(|(_, entry)| entry.clone())
            .collect()
    }

    /// Objects that belong to files.
    pub fn of_files(&self) -> Vec<Entry> {
        self.read()
            .values()
            .filter(|entry| matches!(entry.origin, Origin::File(_)))
            .cloned()
            .collect()
    }

    /// Objects that belong to Kubernetes.
    pub fn of_kubernetes(&self) -> Vec<ObjectKey> {
        let objects = self.read();
        let own = objects
            .iter()
            .filter(|(_, entry)| entry.origin == Origin::Kubernetes);
        own.map(|(key, _)| key.clone()).collect()
    }

    /// How many objects of a kind there are.
    pub fn count(&self, kind: ObjectKind) -> usize {
        self.read()
            .range(ObjectKey::new(kind, "", "")..)
            .take_while(|(key, _)| key.kind == kind)
            .count()
    }

    /// What proxies have and what the translator thinks.
    pub fn distribution(&self) -> &Distribution {
        &self.shared.distribution
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// Where Gateways can be reached.
    pub fn published(&self) -> &Published {
        &self.shared.published
    }

    /// Grows with each commit.
    pub fn revision(&self) -> watch::Receiver<u64> {
        self.shared.revision.subscribe()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Objects> {
        self.shared.read()
    }
}

impl Shared {
    /// The writer replaces whole entries: the map is never half changed.
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Objects> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An object from its row. What this version cannot read stays in the store and is reported: a
/// later version may have written it.
fn restore(row: &Stored) -> Option<(ObjectKey, Entry)> {
    let origin = Origin::from_text(&row.origin);
    let file = match &origin {
        Origin::File(path) => path,
        _ => "",
    };
    let read = serde_json::from_str(&row.json)
        .map_err(|error| error.to_string())
        .and_then(|json| {
            Object::from_json(file, json).map_err(|found| {
                let found: Vec<_> = found.iter().map(ToString::to_string).collect();
                found.join("; ")
            })
        });
    match read {
        Ok(mut object) => {
            object.metadata.generation = Some(row.generation);
            object.metadata.created = Some(row.created);
            object.metadata.resource_version = Some(row.resource_version.to_string());
            let object = Arc::new(object);
            Some((object.key.clone(), Entry { object, origin }))
        }
        Err(error) => {
            tracing::error!(
                kind = row.kind, namespace = row.namespace, name = row.name, %error,
                "an object in the store cannot be read and is left out; was it written by another version of tulle?"
            );
            None
        }
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs()
}
