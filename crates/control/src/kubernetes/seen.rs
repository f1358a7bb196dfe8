//! Objects as the API server last said they are, as far as their status is concerned: what it
//! says now, and in which version.
//!
//! The source writes, the status writer reads; whatever the source changes is marked for the
//! writer. Only kinds with a status that Tulle writes are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use config::kind::{GATEWAY_GROUP, TULLE_GROUP};
use config::{ObjectKey, ObjectKind};
use kube::api::DynamicObject;
use serde_json::Value;
use tokio::sync::Notify;

/// What is known of an object's status.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub(super) generation: Option<u64>,
    pub(super) resource_version: Option<String>,
    /// `status`, or null.
    pub(super) status: Value,
    /// `spec.parentRefs` or `spec.targetRefs` as written, and `spec.gatewayClassName` or
    /// `spec.controllerName`: for objects that the model has refused.
    pub(super) spec: Value,
    /// The `apiVersion` in which it was read.
    pub(super) api_version: String,
}

/// All of them. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct SeenObjects(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    inner: Mutex<Inner>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    objects: BTreeMap<ObjectKey, Seen>,
    marked: BTreeSet<ObjectKey>,
}

/// Whether Tulle writes the status of a kind.
pub(super) fn has_status(kind: ObjectKind) -> bool {
    matches!(kind.group(), GATEWAY_GROUP | TULLE_GROUP) && kind != ObjectKind::ReferenceGrant
}

impl SeenObjects {
    /// Notes an object.
    pub(super) fn set(&self, key: &ObjectKey, object: &DynamicObject) {
        if !has_status(key.kind) {
            return;
        }
        let seen = Seen::of(object);
        let mut inner = self.lock();
        inner.objects.insert(key.clone(), seen);
        inner.marked.insert(key.clone());
        drop(inner);
        self.0.wake.notify_one();
    }

    /// Notes an object that was just written: nothing follows from it.
    pub(super) fn note(&self, key: &ObjectKey, object: &DynamicObject) {
        if let Some(known) = self.lock().objects.get_mut(key) {
            *known = Seen::of(object);
        }
    }

    /// Forgets an object.
    pub(super) fn remove(&self, key: &ObjectKey) {
        let mut inner = self.lock();
        inner.objects.remove(key);
        inner.marked.remove(key);
    }

    /// Marks objects whose status may have to change.
    pub(super) fn mark(&self, keys: impl IntoIterator<Item = ObjectKey>) {
        let mut inner = self.lock();
        let known: Vec<_> = keys
            .into_iter()
            .filter(|key| inner.objects.contains_key(key))
            .collect();
        if known.is_empty() {
            return;
        }
        inner.marked.extend(known);
        drop(inner);
        self.0.wake.notify_one();
    }

    /// Marks all objects of some kinds.
    pub(super) fn mark_kinds(&self, wanted: impl Fn(ObjectKind) -> bool) {
        let keys: Vec<ObjectKey> = {
            let inner = self.lock();
            inner
                .objects
                .keys()
                .filter(|key| wanted(key.kind))
                .cloned()
                .collect()
        };
        self.mark(keys);
    }

    /// Takes the marks.
    pub(super) fn take_marked(&self) -> BTreeSet<ObjectKey> {
        std::mem::take(&mut self.lock().marked)
    }

    /// Waits until something is marked, or may be.
    pub(super) async fn marked(&self) {
        self.0.wake.notified().await;
    }

    pub(super) fn find(&self, key: &ObjectKey) -> Option<Seen> {
        self.lock().objects.get(key).cloned()
    }

    /// Every operation leaves it whole.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    pub(super) fn of(object: &DynamicObject) -> Self {
        const KEPT: [&str; 5] = [
            "parentRefs",
            "targetRefs",
            "gatewayClassName",
            "controllerName",
            "parentRef",
        ];
        let spec = object.data.get("spec");
        let kept = KEPT.into_iter().filter_map(|field| {
            let value = spec?.get(field)?;
            Some((field.to_owned(), value.clone()))
        });
        Self {
            generation: object.metadata.generation.and_then(|n| n.try_into().ok()),
            resource_version: object.metadata.resource_version.clone(),
            status: object.data.get("status").cloned().unwrap_or_default(),
            spec: Value::Object(kept.collect()),
            api_version: object
                .types
                .as_ref()
                .map(|types| types.api_version.clone())
                .unwrap_or_default(),
        }
    }
}
