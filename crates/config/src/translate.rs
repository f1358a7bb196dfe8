//! From objects to resources of the model, incrementally.
//!
//! Each object is translated by itself, through a view that notes what the translation has read:
//! other objects, the Services that select a label, the policies attached to something, also where
//! there was nothing. A change touches topics of the same kind, and exactly the translations that
//! have read one of them are done again. So a change costs what it can affect, and what comes out
//! is the same as if everything had been translated anew (a property test holds it to that).

mod attached;
mod backend_tls;
mod endpoint_slice;
mod gateway;
mod policy;
mod rate_limit;
mod request;
mod route;
mod status;
mod store;
mod stream_route;
mod workload;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use ipnet::IpNet;
use model::gateway::StreamKind;
use model::resource::{Key, Kind, Resource};
use model::{ObjectName, TrustDomain, session};

use self::attached::{Attached, Counts};
pub use self::status::{Condition, ListenerStatus, Status};
use self::store::{Memo, Store, Topic, View};
use crate::check::Check;
use crate::diagnostic::{Diagnostic, Severity};
use crate::kind::ObjectKind;
use crate::kind::mesh_config::MeshConfigSpec;
use crate::object::{Object, ObjectKey, Spec};

/// What holds where no object says otherwise.
#[derive(Debug, Clone, Default)]
pub struct Defaults {
    /// The trust domain that the certificate authority serves.
    pub trust_domain: TrustDomain,
    /// Where services and workloads have their addresses.
    pub networks: Vec<IpNet>,
    /// Whether the addresses of a Gateway are those of something before it (a Kubernetes Service),
    /// not of its host: then listeners are bound everywhere.
    pub addresses_outside: bool,
    /// What tokens of sessions are sealed with.
    pub session_key: Option<session::Key>,
}

/// A change of one object.
#[derive(Debug, Clone)]
pub enum Change {
    /// The object is new or another.
    Put(Arc<Object>),
    /// The object is gone.
    Delete(ObjectKey),
}

/// What a set of changes led to.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Resources that are new or different, then `None` for those that are gone. What is referred
    /// to comes before what refers to it, and goes after it.
    pub resources: Vec<(Key, Option<Resource>)>,
    /// The whole status of each object whose status is new or different.
    pub statuses: Vec<(ObjectKey, Status)>,
    /// The objects that were looked at again: earlier findings about them no longer count.
    pub translated: BTreeSet<ObjectKey>,
    /// Findings about the objects that were looked at again.
    pub diagnostics: Vec<Diagnostic>,
}

/// Keeps objects and what was made of them.
#[derive(Debug, Clone)]
pub struct Translator {
    defaults: Defaults,
    store: Store,
    /// What was made of each object, and of the `MeshConfig` even where there is none.
    units: HashMap<ObjectKey, Unit>,
    /// Which objects' translations have read a topic.
    readers: HashMap<Topic, BTreeSet<ObjectKey>>,
    /// How many objects' translations have looked for a Secret, beside its own.
    secrets: BTreeMap<ObjectKey, usize>,
    /// Routes of each listener.
    counts: Counts,
    started: bool,
}

#[derive(Debug, Clone, Default)]
struct Unit {
    resources: BTreeMap<Key, Resource>,
    /// As last told, with the counts of routes.
    status: Status,
    /// Of a route: the listeners that it is attached to.
    attached: Attached,
    reads: BTreeSet<Topic>,
}

/// What a translation yields.
#[derive(Debug, Default)]
struct Output {
    resources: Vec<Resource>,
    conditions: Vec<Condition>,
    listeners: Vec<ListenerStatus>,
    attached_listener_sets: Option<u32>,
    attached: Attached,
    diagnostics: Vec<Diagnostic>,
}

/// The statuses that a set of changes may have changed, as they were before; `None` where there
/// was none.
type Before = BTreeMap<ObjectKey, Option<Status>>;

impl Translator {
    /// A translator without objects. The first [`apply`](Self::apply) emits the mesh's defaults.
    pub fn new(defaults: Defaults) -> Self {
        Self {
            defaults,
            store: Store::default(),
            units: HashMap::new(),
            readers: HashMap::new(),
            secrets: BTreeMap::new(),
            counts: Counts::default(),
            started: false,
        }
    }

    /// Takes in changes, all together, and says what they lead to.
    pub fn apply(&mut self, changes: Vec<Change>) -> Outcome {
        let mut touched = BTreeSet::new();
        for change in changes {
            match change {
                Change::Put(object) => {
                    let key = object.key.clone();
                    self.store.set(&key, Some(object), &mut touched);
                }
                Change::Delete(key) => self.store.set(&key, None, &mut touched),
            }
        }
        let mut stale: BTreeSet<ObjectKey> = BTreeSet::new();
        for topic in &touched {
            stale.extend(self.readers.get(topic).into_iter().flatten().cloned());
            if let Topic::Object(key) = topic {
                stale.insert(key.clone());
            }
        }
        if !std::mem::replace(&mut self.started, true) {
            stale.insert(mesh_key());
        }
        let mut outcome = Outcome::default();
        let mut before = Before::new();
        let memo = Memo::default();
        for key in &stale {
            self.renew(key, &memo, &mut before, &mut outcome);
        }
        self.tell_statuses(before, &mut outcome);
        sort(&mut outcome.resources);
        outcome.translated = stale;
        outcome
    }

    /// Completes the statuses that may have changed, and notes those that have.
    fn tell_statuses(&mut self, before: Before, outcome: &mut Outcome) {
        for (key, old) in before {
            let Some(unit) = self.units.get_mut(&key) else {
                continue;
            };
            self.counts.fill(&key, &mut unit.status);
            if self.store.get(&key).is_some() && old.as_ref() != Some(&unit.status) {
                outcome.statuses.push((key, unit.status.clone()));
            }
        }
    }

    /// The resources that an object has a part in, for its `Programmed` condition.
    pub fn emits(&self, object: &ObjectKey) -> Vec<Key> {
        let own = self
            .units
            .get(object)
            .map(|unit| unit.resources.keys().cloned());
        let mut keys: Vec<Key> = own.into_iter().flatten().collect();
        // Some policies work through the workloads that have read their targets' list.
        if let Some(policy) = self.store.get(object)
            && let Some(targets) = policy.spec.targets_of_workloads()
        {
            let mut workloads = BTreeSet::new();
            for target in targets {
                let kinds = ObjectKind::ALL.into_iter();
                for kind in kinds.filter(|k| k.as_str() == target.kind) {
                    let target = ObjectKey::new(kind, &object.namespace, &target.name);
                    let topic = Topic::Attached(object.kind, target);
                    let readers = self.readers.get(&topic).into_iter().flatten();
                    workloads.extend(readers.filter(|r| r.kind == ObjectKind::Workload));
                }
            }
            keys.extend(
                workloads
                    .iter()
                    .map(|w| Key::new(Kind::Workload, format!("{}/{}", w.namespace, w.name))),
            );
        }
        keys
    }

    /// The object as it was last put.
    pub fn object(&self, key: &ObjectKey) -> Option<&Arc<Object>> {
        self.store.get(key)
    }

    /// The status of an object.
    pub fn status(&self, object: &ObjectKey) -> Option<&Status> {
        self.units.get(object).map(|unit| &unit.status)
    }

    /// All resources, in no order.
    pub fn resources(&self) -> impl Iterator<Item = (&Key, &Resource)> {
        self.units.values().flat_map(|unit| &unit.resources)
    }

    /// The Secrets that some object refers to and is allowed to, whether or not they are there.
    pub fn wanted_secrets(&self) -> impl Iterator<Item = &ObjectKey> {
        self.secrets.keys()
    }

    /// Notes that an object's translation has read a topic.
    fn read(&mut self, topic: &Topic, reader: &ObjectKey) {
        let new = self
            .readers
            .entry(topic.clone())
            .or_default()
            .insert(reader.clone());
        if let Topic::Object(key) = topic
            && new
            && key.kind == ObjectKind::Secret
            && key != reader
        {
            *self.secrets.entry(key.clone()).or_default() += 1;
        }
    }

    /// Notes that it does not any more.
    fn unread(&mut self, topic: &Topic, reader: &ObjectKey) {
        let Some(readers) = self.readers.get_mut(topic) else {
            return;
        };
        let had = readers.remove(reader);
        if readers.is_empty() {
            self.readers.remove(topic);
        }
        if let Topic::Object(key) = topic
            && had
            && key != reader
            && let Some(count) = self.secrets.get_mut(key)
        {
            *count -= 1;
            if *count == 0 {
                self.secrets.remove(key);
            }
        }
    }

    /// Translates an object again and notes the differences.
    fn renew(&mut self, key: &ObjectKey, memo: &Memo, before: &mut Before, outcome: &mut Outcome) {
        let mut view = View::new(&self.store, memo);
        let output = translate(key, &mut view, &self.defaults);
        let reads = view.into_reads();
        let known = self.units.remove(key);
        before
            .entry(key.clone())
            .or_insert_with(|| known.as_ref().map(|unit| unit.status.clone()));
        let old = known.unwrap_or_default();
        for owner in self.counts.change(&old.attached, &output.attached) {
            let unit = self.units.get(&owner);
            before
                .entry(owner)
                .or_insert_with(|| unit.map(|unit| unit.status.clone()));
        }

        for topic in old.reads.difference(&reads) {
            self.unread(topic, key);
        }
        let exists = self.store.get(key).is_some();
        if !exists && *key != mesh_key() {
            for topic in &reads {
                self.unread(topic, key);
            }
            outcome
                .resources
                .extend(old.resources.into_keys().map(|k| (k, None)));
            return;
        }
        for topic in reads.difference(&old.reads) {
            self.read(topic, key);
        }

        let resources: BTreeMap<Key, Resource> =
            output.resources.into_iter().map(|r| (r.key(), r)).collect();
        for gone in old.resources.keys().filter(|k| !resources.contains_key(*k)) {
            outcome.resources.push((gone.clone(), None));
        }
        for (resource_key, resource) in &resources {
            if old.resources.get(resource_key) != Some(resource) {
                outcome
                    .resources
                    .push((resource_key.clone(), Some(resource.clone())));
            }
        }
        outcome.diagnostics.extend(output.diagnostics);
        self.units.insert(
            key.clone(),
            Unit {
                resources,
                status: Status {
                    generation: self.store.get(key).and_then(|o| o.metadata.generation),
                    conditions: output.conditions,
                    listeners: output.listeners,
                    attached_listener_sets: output.attached_listener_sets,
                },
                attached: output.attached,
                reads,
            },
        );
    }
}

/// Those that are there in the order of their kinds, then those that are gone the other way round.
fn sort(resources: &mut [(Key, Option<Resource>)]) {
    resources.sort_by(
        |(a, new), (b, other)| match (new.is_some(), other.is_some()) {
            (true, true) => a.cmp(b),
            (false, false) => b.cmp(a),
            (true, false) => std::cmp::Ordering::Less,
            (false, true) => std::cmp::Ordering::Greater,
        },
    );
}

fn mesh_key() -> ObjectKey {
    ObjectKey::new(ObjectKind::MeshConfig, "", "default")
}

/// The `MeshConfig`, unless it is refused for its trust domain.
fn mesh_config<'a>(view: &mut View<'a>, defaults: &Defaults) -> Option<&'a MeshConfigSpec> {
    match &view.get(&mesh_key())?.spec {
        Spec::MeshConfig(spec) => {
            let domain = spec.trust_domain.as_deref();
            domain
                .is_none_or(|d| d == defaults.trust_domain.as_str())
                .then_some(spec)
        }
        _ => None,
    }
}

fn translate(key: &ObjectKey, view: &mut View<'_>, defaults: &Defaults) -> Output {
    let mut output = Output::default();
    if *key == mesh_key() {
        let mesh = match mesh_config(view, defaults) {
            Some(spec) => spec.to_model(defaults),
            None => MeshConfigSpec::default().to_model(defaults),
        };
        output.resources.push(Resource::Mesh(mesh));
    }
    let Some(object) = view.get(key) else {
        return output;
    };
    let mut check = Check::translating(&object.source.places);
    let name = if key.kind.namespaced() {
        ObjectName::new(&key.namespace, &key.name)
    } else {
        ObjectName::new(&key.name, &key.name)
    };
    match name {
        Ok(name) => translate_object(object, &name, view, defaults, &mut check, &mut output),
        // Objects that were read have valid names; one may also be put together by hand.
        Err(error) => check.found(Severity::Error, error.to_string(), ""),
    }
    for problem in check.problems {
        let mut diagnostic = problem.into_diagnostic(&object.source.file, Some(key));
        if diagnostic.line == 0 {
            diagnostic.line = object.source.line;
        }
        output.diagnostics.push(diagnostic);
    }
    output
}

fn translate_object(
    object: &Object,
    name: &ObjectName,
    view: &mut View<'_>,
    defaults: &Defaults,
    c: &mut Check<'_>,
    output: &mut Output,
) {
    match &object.spec {
        Spec::Namespace(_)
        | Spec::ReferenceGrant(_)
        | Spec::Secret(_)
        | Spec::ConfigMap(_)
        | Spec::Node(_)
        | Spec::Pod(_) => {
            output.conditions.push(Condition::accepted());
        }
        Spec::MeshConfig(spec) => output
            .conditions
            .push(mesh_condition(object, spec, defaults, c)),
        Spec::Service(spec) => {
            output
                .resources
                .push(Resource::Service(spec.to_model(name.clone())));
            output.conditions.push(Condition::accepted());
        }
        Spec::ServiceImport(spec) => {
            // Objects that were read have names to which that can be added.
            if let Ok(name) = object.key.service_name() {
                output
                    .resources
                    .push(Resource::Service(spec.to_model(name)));
            }
            output.conditions.push(Condition::accepted());
        }
        Spec::Workload(spec) => workload::translate(object, name, spec, view, defaults, c, output),
        Spec::EndpointSlice(spec) => {
            endpoint_slice::translate(object, name, spec, view, defaults, c, output);
        }
        Spec::GatewayClass(spec) => output.conditions.extend(gateway::class_conditions(spec)),
        Spec::Gateway(spec) => gateway::translate(object, name, spec, view, defaults, c, output),
        Spec::ListenerSet(spec) => {
            gateway::set::translate(object, spec, view, defaults, c, output);
        }
        Spec::HttpRoute(_) | Spec::GrpcRoute(_) => route::translate(object, name, view, c, output),
        Spec::TlsRoute(spec) => {
            let parts = stream_route::Parts {
                kind: StreamKind::Tls,
                hostnames: &spec.hostnames,
                rules: &spec.rules,
            };
            stream_route::translate(object, name, &parts, view, c, output);
        }
        Spec::TcpRoute(spec) | Spec::UdpRoute(spec) => {
            let parts = stream_route::Parts {
                kind: match object.key.kind {
                    ObjectKind::UdpRoute => StreamKind::Udp,
                    _ => StreamKind::Tcp,
                },
                hostnames: &[],
                rules: &spec.rules,
            };
            stream_route::translate(object, name, &parts, view, c, output);
        }
        Spec::TrafficPolicy(spec) => policy::traffic(object, name, spec, view, c, output),
        Spec::FaultPolicy(spec) => request::faults(object, name, spec, view, c, output),
        Spec::RateLimitPolicy(spec) => {
            request::limits(object, name, spec, view, defaults, c, output);
        }
        Spec::BackendTlsPolicy(spec) => {
            backend_tls::translate(object, name, spec, view, c, output);
        }
        Spec::ListenerPolicy(spec) => gateway::policy::conditions(object, spec, view, c, output),
        Spec::AuthenticationPolicy(spec) => {
            policy::authentication(object, &spec.target_refs, view, c, output);
        }
    }
}

fn mesh_condition(
    object: &Object,
    spec: &MeshConfigSpec,
    defaults: &Defaults,
    c: &mut Check<'_>,
) -> Condition {
    let served = defaults.trust_domain.as_str();
    match &spec.trust_domain {
        Some(domain) if domain != served => {
            let message = format!(
                "the certificate authority serves the trust domain \"{served}\", not \"{domain}\": the MeshConfig is not in force"
            );
            c.at("spec", |c| {
                c.at("trustDomain", |c| {
                    c.found(
                        Severity::Error,
                        message.clone(),
                        "take it out, or start with a new data directory",
                    );
                });
            });
            debug_assert_eq!(object.key, mesh_key(), "there is no other MeshConfig");
            Condition::failed("Accepted", "TrustDomainMismatch", message)
        }
        _ => Condition::accepted(),
    }
}

impl Outcome {
    /// Whether an object is refused.
    pub fn has_errors(&self) -> bool {
        self.diagnostics
            .iter()
            .any(|d| d.severity == Severity::Error)
    }
}
