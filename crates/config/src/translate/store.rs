//! The objects, listed under the topics by which others find them, and the view through which a
//! translation reads them while it is noted what it has read.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use super::gateway::merge::Merged;
use crate::kind::ObjectKind;
use crate::kind::backend::{BackendRef, BackendTarget, service_kind};
use crate::kind::service::{ServicePort, ServiceSpec};
use crate::kind::stream_route::{StreamBackendRef, StreamRouteSpec, TlsRouteSpec};
use crate::object::{Object, ObjectKey, Spec};
use crate::reference::TargetRef;

/// Something that a translation can read and a change can touch. A translation is done again
/// when a change touches a topic that it has read, whether or not there was anything to read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Topic {
    /// One object.
    Object(ObjectKey),
    /// All objects of a kind in a namespace.
    Kind(ObjectKind, Arc<str>),
    /// The Services of a namespace whose selector's first label is this one.
    Selects(Arc<str>, String, String),
    /// The policies or `ListenerSet`s (by kind) that are attached to an object, the Gateways of a class.
    Attached(ObjectKind, ObjectKey),
    /// The routes that send to a Service.
    Backs(ObjectKey),
    /// The Gateways that claim routes which do not name them.
    Defaults,
}

/// All objects.
#[derive(Debug, Clone, Default)]
pub(super) struct Store {
    objects: HashMap<ObjectKey, Arc<Object>>,
    listed: HashMap<Topic, BTreeSet<ObjectKey>>,
}

impl Store {
    pub(super) fn get(&self, key: &ObjectKey) -> Option<&Arc<Object>> {
        self.objects.get(key)
    }

    /// Puts an object in or takes it out. Adds the topics that this touches to `touched`.
    pub(super) fn set(
        &mut self,
        key: &ObjectKey,
        object: Option<Arc<Object>>,
        touched: &mut BTreeSet<Topic>,
    ) {
        let old = match object {
            Some(object) => {
                if let Some(old) = self.objects.get(key)
                    && old.says_the_same(&object)
                    && old.metadata.created == object.metadata.created
                    && old.metadata.generation == object.metadata.generation
                {
                    self.objects.insert(key.clone(), object);
                    return;
                }
                for topic in topics(&object) {
                    touched.insert(topic);
                }
                self.objects.insert(key.clone(), object)
            }
            None => self.objects.remove(key),
        };
        for topic in old.iter().flat_map(|old| topics(old)) {
            if let Some(keys) = self.listed.get_mut(&topic) {
                keys.remove(key);
                if keys.is_empty() {
                    self.listed.remove(&topic);
                }
            }
            touched.insert(topic);
        }
        for topic in self.objects.get(key).iter().flat_map(|new| topics(new)) {
            self.listed.entry(topic).or_default().insert(key.clone());
        }
    }
}

/// The topics that an object is listed under.
fn topics(object: &Object) -> Vec<Topic> {
    let key = &object.key;
    let mut found = vec![
        Topic::Object(key.clone()),
        Topic::Kind(key.kind, Arc::clone(&key.namespace)),
    ];
    match &object.spec {
        Spec::Service(service) => {
            if let Some((label, value)) = service.selector.first_key_value() {
                let namespace = Arc::clone(&key.namespace);
                found.push(Topic::Selects(namespace, label.clone(), value.clone()));
            }
        }
        Spec::HttpRoute(route) => {
            let references = route.rules.iter().flat_map(|rule| &rule.backend_refs);
            backs(key, references.map(BackendRef::target), &mut found);
        }
        Spec::GrpcRoute(route) => {
            let references = route.rules.iter().flat_map(|rule| &rule.backend_refs);
            backs(key, references.map(BackendRef::target), &mut found);
        }
        Spec::TlsRoute(TlsRouteSpec { rules, .. })
        | Spec::TcpRoute(StreamRouteSpec { rules, .. })
        | Spec::UdpRoute(StreamRouteSpec { rules, .. }) => {
            let references = rules.iter().flat_map(|rule| &rule.backend_refs);
            backs(key, references.map(StreamBackendRef::target), &mut found);
        }
        Spec::Gateway(gateway) => {
            let class = ObjectKey::new(ObjectKind::GatewayClass, "", &gateway.gateway_class_name);
            found.push(Topic::Attached(key.kind, class));
            if !gateway.default_scope.is_none() {
                found.push(Topic::Defaults);
            }
        }
        Spec::ListenerSet(set) => {
            if let Some(gateway) = set.gateway(&key.namespace) {
                found.push(Topic::Attached(key.kind, gateway));
            }
        }
        Spec::TrafficPolicy(policy) => {
            for target in &policy.target_refs {
                let target = ObjectKey::new(ObjectKind::Service, &key.namespace, &target.name);
                found.push(Topic::Attached(key.kind, target));
            }
        }
        Spec::BackendTlsPolicy(policy) => {
            for target in &policy.target_refs {
                let target = ObjectKey::new(ObjectKind::Service, &key.namespace, &target.name);
                found.push(Topic::Attached(key.kind, target));
            }
        }
        Spec::ListenerPolicy(policy) => {
            for target in &policy.target_refs {
                let target = ObjectKey::new(ObjectKind::Gateway, &key.namespace, &target.name);
                found.push(Topic::Attached(key.kind, target));
            }
        }
        Spec::AuthenticationPolicy(_) | Spec::FaultPolicy(_) | Spec::RateLimitPolicy(_) => {
            let targets: &[TargetRef] = match &object.spec {
                Spec::AuthenticationPolicy(policy) => &policy.target_refs,
                Spec::FaultPolicy(policy) => &policy.target_refs,
                Spec::RateLimitPolicy(policy) => &policy.target_refs,
                _ => &[],
            };
            for target in targets {
                if let Some(kind) = ObjectKind::ALL
                    .into_iter()
                    .find(|k| k.as_str() == target.kind)
                {
                    let target = ObjectKey::new(kind, &key.namespace, &target.name);
                    found.push(Topic::Attached(key.kind, target));
                }
            }
        }
        _ => {}
    }
    found
}

/// Lists a route under the Services that it sends to.
fn backs<'a>(
    key: &ObjectKey,
    references: impl Iterator<Item = BackendTarget<'a>>,
    found: &mut Vec<Topic>,
) {
    let mut seen = BTreeSet::new();
    for target in references {
        let Some(kind) = service_kind(target.group, target.kind) else {
            continue;
        };
        let namespace = target.namespace.unwrap_or(&key.namespace);
        if seen.insert((kind, namespace, target.name)) {
            found.push(Topic::Backs(ObjectKey::new(kind, namespace, target.name)));
        }
    }
}

/// What is worked out once for all translations of a set of changes: the merged listeners of
/// Gateways, or of classes, with what was read for them.
pub(super) type Memo = RefCell<HashMap<ObjectKey, (Rc<Merged>, Rc<BTreeSet<Topic>>)>>;

/// The objects as one translation sees them.
pub(super) struct View<'a> {
    store: &'a Store,
    memo: &'a Memo,
    reads: BTreeSet<Topic>,
}

impl<'a> View<'a> {
    pub(super) fn new(store: &'a Store, memo: &'a Memo) -> Self {
        Self {
            store,
            memo,
            reads: BTreeSet::new(),
        }
    }

    /// Works out merged listeners of a Gateway or class, unless that has been done.
    pub(super) fn once(
        &mut self,
        of: &ObjectKey,
        merge: impl FnOnce(&mut View<'a>) -> Merged,
    ) -> Rc<Merged> {
        let known = self.memo.borrow().get(of).cloned();
        let (merged, reads) = known.unwrap_or_else(|| {
            let mut view = View::new(self.store, self.memo);
            let merged = Rc::new(merge(&mut view));
            let made = (merged, Rc::new(view.into_reads()));
            self.memo.borrow_mut().insert(of.clone(), made.clone());
            made
        });
        self.reads.extend(reads.iter().cloned());
        merged
    }

    pub(super) fn into_reads(self) -> BTreeSet<Topic> {
        self.reads
    }

    /// One object.
    pub(super) fn get(&mut self, key: &ObjectKey) -> Option<&'a Arc<Object>> {
        self.reads.insert(Topic::Object(key.clone()));
        self.store.get(key)
    }

    /// All objects listed under a topic, by key.
    pub(super) fn list(&mut self, topic: Topic) -> Vec<&'a Arc<Object>> {
        let store = self.store;
        let keys = store.listed.get(&topic);
        self.reads.insert(topic);
        keys.into_iter()
            .flatten()
            .filter_map(|key| store.get(key))
            .collect()
    }

    /// One Service.
    pub(super) fn service(&mut self, namespace: &str, name: &str) -> Option<&'a ServiceSpec> {
        match &self
            .get(&ObjectKey::new(ObjectKind::Service, namespace, name))?
            .spec
        {
            Spec::Service(spec) => Some(spec),
            _ => None,
        }
    }

    /// The ports of a Service or `ServiceImport`.
    pub(super) fn ports(&mut self, service: &ObjectKey) -> Option<&'a [ServicePort]> {
        match &self.get(service)?.spec {
            Spec::Service(spec) => Some(&spec.ports),
            Spec::ServiceImport(spec) => Some(&spec.ports),
            _ => None,
        }
    }

    /// The names of all objects of a kind in a namespace, for suggestions.
    pub(super) fn names(&mut self, kind: ObjectKind, namespace: &str) -> Vec<&'a str> {
        self.list(Topic::Kind(kind, namespace.into()))
            .into_iter()
            .map(|object| &*object.key.name)
            .collect()
    }
}
