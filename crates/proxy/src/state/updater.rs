//! The one writer of a [`State`]: batches of the control plane become snapshots, wants of the workers
//! become subscriptions.
//!
//! A service is subscribed to whole (itself, its endpoints, policies and routes) and shown to
//! requests only when all of that has been answered. To the routes that are for clients of this
//! proxy's namespace alone belongs a subscription of their own.

mod gateways;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::iter;
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use model::mesh::TrustBundle;
use model::request;
use model::resource::{
    Key, Kind, Resource, SINGLETON, address_alias, class_alias, collection_of,
    collection_of_consumers, collection_of_gateway, is_for_consumers,
};
use model::route::{Filter, Target};
use model::workload::Locality;
use model::{ServiceName, WorkloadName};
use tokio::sync::{mpsc, watch};
use xds::client::{Batch, Handle};

use super::{Entry, Own, Snapshot, State, Want, endpoint_config, service_of_workload};
use crate::destination::{Destination, seconds};
use crate::options::{self, Role};
use gateways::Gateways;

/// Seconds after which an unused destination is forgotten.
const FORGET_AFTER: u64 = 600;
/// Names that do not exist and are watched all the same, in case they come to exist.
const ABSENT_LIMIT: usize = 1024;
/// The one writer of a [`State`].
pub(crate) struct Updater {
    state: Arc<State>,
    handle: Handle,
    own: WorkloadName,
    role: Role,
    /// Where this proxy is.
    locality: Locality,
    trust: watch::Sender<Option<Arc<TrustBundle>>>,
    resources: BTreeMap<Key, Arc<Resource>>,
    /// What is subscribed to, and what of it has been answered.
    services: HashMap<ServiceName, HashSet<Part>>,
    addresses: HashMap<IpAddr, HashSet<Kind>>,
    pinned: HashSet<ServiceName>,
    gateways: Gateways,
    next: Snapshot,
}

/// What is subscribed to of a service. It is complete when each part has been answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    /// The service itself, or the collection of what of a kind belongs to it.
    All(Kind),
    /// The routes that are for the clients of this proxy's namespace alone.
    ConsumerRoutes,
}

/// The parts that every proxy needs.
const PARTS: [Part; 5] = [
    Part::All(Kind::Service),
    Part::All(Kind::Endpoint),
    Part::All(Kind::TrafficPolicy),
    Part::All(Kind::RequestPolicy),
    Part::All(Kind::Route),
];

/// The subscription to all of a kind.
const WILDCARD: &str = "*";

impl Updater {
    /// `trust` is told each new trust bundle.
    pub(crate) fn new(
        state: Arc<State>,
        handle: Handle,
        own: WorkloadName,
        role: &Role,
        locality: Locality,
        trust: watch::Sender<Option<Arc<TrustBundle>>>,
    ) -> Self {
        handle.subscribe(Kind::Mesh, SINGLETON);
        handle.subscribe(Kind::TrustBundle, SINGLETON);
        match role {
            Role::Sidecar(_) => handle.subscribe(Kind::Workload, &own.to_string()),
            Role::Gateway(options::Gateways::All) => handle.subscribe(Kind::Listener, WILDCARD),
            Role::Gateway(options::Gateways::One(name)) => {
                handle.subscribe(Kind::Listener, &collection_of_gateway(name))
            }
            Role::Gateway(options::Gateways::Class(class)) => {
                handle.subscribe(Kind::Listener, &class_alias(class))
            }
        };
        let mut updater = Self {
            state,
            own,
            role: role.clone(),
            locality,
            trust,
            resources: BTreeMap::new(),
            services: HashMap::new(),
            addresses: HashMap::new(),
            pinned: HashSet::new(),
            gateways: Gateways::default(),
            next: Snapshot::default(),
            handle,
        };
        updater.adopt();
        updater
    }

    /// Keeps a service subscribed to for as long as the proxy runs.
    pub(crate) fn pin(&mut self, name: ServiceName) {
        self.want_service(&name);
        self.pinned.insert(name);
    }

    /// Runs until the client of the control plane ends.
    pub(crate) async fn run(
        mut self,
        mut batches: mpsc::Receiver<Batch>,
        mut wants: mpsc::Receiver<Want>,
    ) {
        let mut sweep = tokio::time::interval(Duration::from_secs(30));
        let mut connected = self.handle.connected();
        loop {
            let up = *connected.borrow_and_update();
            self.state.connected.store(up, Ordering::Relaxed);
            tokio::select! {
                batch = batches.recv() => match batch {
                    Some(batch) => {
                        self.apply(&batch.upserts, &batch.removed);
                        batch.accept();
                    }
                    None => return,
                },
                Some(want) = wants.recv() => self.want(&want),
                _ = sweep.tick() => self.forget_unused(),
                Ok(()) = connected.changed() => {}
            }
        }
    }

    /// Takes over what the client restored from disk, so that it is kept up to date.
    fn adopt(&mut self) {
        for key in self.handle.subscriptions() {
            if key.kind == Kind::Service {
                match key.name.strip_prefix("ip/") {
                    Some(address) => {
                        if let Ok(address) = address.parse() {
                            self.addresses.entry(address).or_default();
                        }
                    }
                    // What an older proxy did not ask for is asked for now.
                    None => {
                        if let Ok(name) = key.name.parse() {
                            self.subscribe(&name);
                        }
                    }
                }
            }
        }
    }

    fn want(&mut self, want: &Want) {
        match want {
            Want::Service(name) => self.want_service(name),
            Want::Address(address) => self.want_address(*address),
        }
    }

    fn want_service(&mut self, name: &ServiceName) {
        if self.services.contains_key(name) {
            return;
        }
        self.make_room();
        self.subscribe(name);
    }

    fn subscribe(&mut self, name: &ServiceName) {
        self.services.entry(name.clone()).or_default();
        // The service last: its answer then finds all else asked for.
        for part in self.parts(name).rev() {
            let (kind, wanted) = self.subscription(part, name);
            self.handle.subscribe(kind, &wanted);
        }
    }

    /// What to ask for to know a part of a service.
    fn subscription(&self, part: Part, name: &ServiceName) -> (Kind, String) {
        match part {
            Part::All(Kind::Service) => (Kind::Service, name.to_string()),
            Part::All(kind) => (kind, collection_of(name)),
            Part::ConsumerRoutes => {
                let collection = collection_of_consumers(name, self.own.namespace());
                (Kind::Route, collection)
            }
        }
    }

    fn want_address(&mut self, address: IpAddr) {
        if self.addresses.contains_key(&address) {
            return;
        }
        self.make_room();
        self.addresses.insert(address, HashSet::new());
        let alias = address_alias(address);
        self.handle.subscribe(Kind::Workload, &alias);
        self.handle.subscribe(Kind::Service, &alias);
    }

    fn apply(&mut self, upserts: &[(Key, Arc<Resource>)], removed: &[Key]) {
        let mut touched = BTreeSet::new();
        let mut addresses = BTreeSet::new();
        let mut gateways = false;
        for (key, resource) in upserts {
            match &**resource {
                Resource::Mesh(mesh) => self.next.mesh = Arc::new(mesh.clone()),
                Resource::TrustBundle(bundle) => {
                    self.trust.send_replace(Some(Arc::new(bundle.clone())));
                }
                Resource::Workload(workload) => {
                    if let Role::Sidecar(mode) = self.role
                        && workload.name == self.own
                    {
                        let before = self.next.own.as_deref();
                        self.next.own = Some(Arc::new(Own::new(workload, mode, before)));
                        let limits = workload.limits.iter().map(|own| &own.limits);
                        self.pin_counters(limits);
                        let place = &workload.locality;
                        if *place != Locality::default() && *place != self.locality {
                            self.locality = place.clone();
                            // What is near is another now.
                            touched.extend(self.services.keys().cloned());
                        }
                    }
                    addresses.extend(workload.addresses.iter().copied());
                }
                Resource::Service(service) => {
                    addresses.extend(service.addresses.iter().copied());
                    touched.insert(service.name.clone());
                }
                Resource::Endpoint(endpoint) => {
                    touched.insert(endpoint.service.clone());
                }
                Resource::TrafficPolicy(policy) => {
                    touched.insert(policy.target.clone());
                }
                Resource::RequestPolicy(policy) => {
                    if let request::Effect::Limits(limits) = &policy.effect {
                        self.pin_counters(std::iter::once(limits));
                    }
                    if let request::Parent::Service(service) = &policy.parent {
                        touched.insert(service.clone());
                    }
                }
                Resource::Route(route) => {
                    touched.extend(route.parent.service().cloned());
                    self.want_targets(targets(route));
                }
                Resource::BackendTls(policy) => {
                    touched.insert(policy.target.clone());
                }
                Resource::StreamRoute(route) => {
                    self.want_targets(route.backends.iter().map(|b| &b.target));
                }
                Resource::Listener(_) => {}
            }
            gateways |= self.gateways.note(&self.handle, key, Some(resource));
            self.resources.insert(key.clone(), Arc::clone(resource));
            self.note_answer(key.kind, &key.name, &mut touched);
        }
        for key in removed {
            gateways |= self.gateways.note(&self.handle, key, None);
            self.resources.remove(key);
            if let Some(address) = key.name.strip_prefix("ip/").and_then(|a| a.parse().ok()) {
                // What is no longer subscribed to comes as removed too, and is nothing to remember.
                if let Some(answered) = self.addresses.get_mut(&address) {
                    answered.insert(key.kind);
                    addresses.insert(address);
                }
            }
            if let Some(service) = service_of(&key.name) {
                touched.insert(service);
            }
            self.note_answer(key.kind, &key.name, &mut touched);
        }
        for name in touched {
            self.rebuild(&name);
        }
        for address in addresses
            .into_iter()
            .chain(self.unanswered_addresses())
            .collect::<BTreeSet<_>>()
        {
            self.rebuild_address(address);
        }
        if gateways {
            let before = Arc::clone(&self.next.listeners);
            self.next.listeners = Arc::new(self.gateways.compile(&self.handle, &before));
        }
        self.next.ready = self.next.ready || self.is_ready();
        self.publish();
    }

    /// What of a service this proxy needs to know.
    fn parts(&self, name: &ServiceName) -> impl DoubleEndedIterator<Item = Part> + use<> {
        let more = match self.role {
            // A route in the service's own namespace is for everybody.
            Role::Sidecar(_) if name.namespace() == self.own.namespace() => None,
            Role::Sidecar(_) => Some(Part::ConsumerRoutes),
            Role::Gateway(_) => Some(Part::All(Kind::BackendTls)),
        };
        PARTS.into_iter().chain(more)
    }

    /// Whether all parts of a service have been answered.
    fn is_whole(&self, name: &ServiceName, answered: &HashSet<Part>) -> bool {
        self.parts(name).all(|part| answered.contains(&part))
    }

    /// Whether enough is known to serve.
    fn is_ready(&self) -> bool {
        match self.role {
            Role::Sidecar(_) => self.next.own.is_some(),
            Role::Gateway(_) => {
                let mut services = self.services.iter();
                self.gateways.are_complete() && services.all(|(name, a)| self.is_whole(name, a))
            }
        }
    }

    fn unanswered_addresses(&self) -> Vec<IpAddr> {
        self.addresses
            .keys()
            .filter(|a| !self.next.addresses.contains_key(a))
            .copied()
            .collect()
    }

    /// Routes lead to further services: they are subscribed to before the first request needs them.
    fn want_targets<'r>(&mut self, targets: impl Iterator<Item = &'r Target>) {
        for target in targets {
            if let Target::Service { name, .. } = target {
                self.want_service(name);
            }
        }
    }

    /// Whoever counts for the whole mesh is known before the first request asks, and stays so.
    fn pin_counters<'l>(&mut self, limits: impl Iterator<Item = &'l request::Limits>) {
        for service in limits.filter_map(|limits| limits.service.as_ref()) {
            self.pin(service.name.clone());
        }
    }

    fn note_answer(&mut self, kind: Kind, name: &str, touched: &mut BTreeSet<ServiceName>) {
        let part = match kind {
            Kind::Route if is_for_consumers(name) => Part::ConsumerRoutes,
            kind => Part::All(kind),
        };
        if let Some(service) = service_of(name)
            && let Some(answered) = self.services.get_mut(&service)
            && answered.insert(part)
        {
            touched.insert(service);
        }
    }

    fn rebuild(&mut self, name: &ServiceName) {
        let Some(answered) = self.services.get(name) else {
            return;
        };
        if !self.is_whole(name, answered) {
            return;
        }
        // Its addresses may have changed; those it still has come back below.
        self.next
            .addresses
            .retain(|_, entry| !matches!(entry, Entry::Present(d) if d.name == *name));
        let key = Key::new(Kind::Service, name.to_string());
        let Some(Resource::Service(service)) = self.resources.get(&key).map(Arc::as_ref) else {
            self.next.services.insert(name.clone(), Entry::Absent);
            return;
        };
        let destination = match self.next.services.get(name) {
            Some(Entry::Present(destination)) => Arc::clone(destination),
            _ => Arc::new(Destination::new(service.clone())),
        };
        let endpoints = self.members(Kind::Endpoint, name, |r| match r {
            Resource::Endpoint(e) => Some(Arc::new(e.clone())),
            _ => None,
        });
        let policies = self.members(Kind::TrafficPolicy, name, |r| match r {
            Resource::TrafficPolicy(p) => Some(Arc::new(p.clone())),
            _ => None,
        });
        let requests = self.members(Kind::RequestPolicy, name, |r| match r {
            Resource::RequestPolicy(p) => Some(Arc::new(p.clone())),
            _ => None,
        });
        let routes = self.members(Kind::Route, name, |r| match r {
            Resource::Route(route) => Some(Arc::new(route.clone())),
            _ => None,
        });
        let outside = self.members(Kind::BackendTls, name, |r| match r {
            Resource::BackendTls(policy) => Some(Arc::new(policy.clone())),
            _ => None,
        });
        let policies = (policies.as_slice(), requests.as_slice());
        destination.update(
            &self.locality,
            service,
            &endpoints,
            policies,
            &routes,
            &outside,
        );
        for address in &service.addresses {
            if self.addresses.contains_key(address) {
                self.next
                    .addresses
                    .insert(*address, Entry::Present(Arc::clone(&destination)));
            }
        }
        self.next
            .services
            .insert(name.clone(), Entry::Present(destination));
    }

    /// The resources of a kind that belong to a service.
    fn members<T>(
        &self,
        kind: Kind,
        service: &ServiceName,
        take: impl Fn(&Resource) -> Option<T>,
    ) -> Vec<T> {
        let prefix = format!("{service}/");
        self.resources
            .range((
                Bound::Included(Key::new(kind, prefix.as_str())),
                Bound::Unbounded,
            ))
            .take_while(|(key, _)| key.kind == kind && key.name.starts_with(&prefix))
            .filter_map(|(_, resource)| take(resource))
            .collect()
    }

    fn rebuild_address(&mut self, address: IpAddr) {
        if !self.addresses.contains_key(&address) {
            return;
        }
        let service = self.resources.values().find_map(|r| match &**r {
            Resource::Service(s) if s.addresses.contains(&address) => Some(s.name.clone()),
            _ => None,
        });
        if let Some(name) = service {
            // Known by address; to be of use it must be known whole.
            self.want_service(&name);
            if let Some(Entry::Present(destination)) = self.next.services.get(&name) {
                let found = Arc::clone(destination);
                self.next.addresses.insert(address, Entry::Present(found));
            }
            return;
        }
        let workload = self.resources.values().find_map(|r| match &**r {
            Resource::Workload(w) if w.addresses.contains(&address) => Some(w),
            _ => None,
        });
        if let Some(workload) = workload {
            let service = service_of_workload(workload, address);
            let destination = match self.next.addresses.get(&address) {
                Some(Entry::Present(known)) if known.name == service.name => Arc::clone(known),
                _ => Arc::new(Destination::new(service.clone())),
            };
            let endpoint = Arc::new(endpoint_config(workload, Some(address)));
            destination.update(&self.locality, &service, &[endpoint], (&[], &[]), &[], &[]);
            self.next
                .addresses
                .insert(address, Entry::Present(destination));
            return;
        }
        let answered = self.addresses.get(&address);
        if answered
            .is_some_and(|kinds| kinds.contains(&Kind::Service) && kinds.contains(&Kind::Workload))
        {
            self.next.addresses.insert(address, Entry::Absent);
        }
    }

    fn publish(&self) {
        self.state.snapshot.store(Arc::new(self.next.clone()));
        self.state.version.fetch_add(1, Ordering::Release);
        self.state.changed.send_modify(|n| *n += 1);
    }

    /// Keeps the watch on names that do not exist within bounds: all of them are let go at once,
    /// and those still asked for come back.
    fn make_room(&mut self) {
        let absent: Vec<ServiceName> = self
            .next
            .services
            .iter()
            .filter(|(_, e)| matches!(e, Entry::Absent))
            .map(|(name, _)| name.clone())
            .collect();
        let addresses: Vec<IpAddr> = self
            .next
            .addresses
            .iter()
            .filter(|(_, e)| matches!(e, Entry::Absent))
            .map(|(a, _)| *a)
            .collect();
        if absent.len() + addresses.len() < ABSENT_LIMIT {
            return;
        }
        for name in absent {
            self.forget(&name);
        }
        for address in addresses {
            self.forget_address(address);
        }
        self.publish();
    }

    fn forget_unused(&mut self) {
        let now = seconds();
        let referenced: HashSet<ServiceName> = self
            .resources
            .values()
            .flat_map(|resource| match &**resource {
                Resource::Route(route) => targets(route).collect(),
                Resource::StreamRoute(route) => route.backends.iter().map(|b| &b.target).collect(),
                _ => Vec::new(),
            })
            .filter_map(|target| match target {
                Target::Service { name, .. } => Some(name.clone()),
                Target::Invalid { .. } => None,
            })
            .collect();
        let unused: Vec<ServiceName> = self
            .next
            .destinations()
            .filter(|d| now.saturating_sub(d.idle_since()) > FORGET_AFTER)
            .filter(|d| !self.pinned.contains(&d.name) && !referenced.contains(&d.name))
            .map(|d| d.name.clone())
            .collect();
        if unused.is_empty() {
            return;
        }
        for name in unused {
            tracing::info!(service = %name, "not used for long: forgotten");
            self.forget(&name);
        }
        self.publish();
    }

    fn forget(&mut self, name: &ServiceName) {
        if self.pinned.contains(name) || self.services.remove(name).is_none() {
            return;
        }
        let prefix = format!("{name}/");
        for part in self.parts(name).rev() {
            let (kind, wanted) = self.subscription(part, name);
            self.handle.unsubscribe(kind, &wanted);
            self.resources
                .retain(|key, _| key.kind != kind || !key.name.starts_with(&prefix));
        }
        let gone = self
            .resources
            .remove(&Key::new(Kind::Service, name.to_string()));
        if let Some(Resource::Service(service)) = gone.as_deref() {
            for address in &service.addresses {
                self.forget_address(*address);
            }
        }
        self.next.services.remove(name);
    }

    fn forget_address(&mut self, address: IpAddr) {
        if self.addresses.remove(&address).is_some() {
            let alias = address_alias(address);
            self.handle.unsubscribe(Kind::Workload, &alias);
            self.handle.unsubscribe(Kind::Service, &alias);
            self.next.addresses.remove(&address);
        }
    }
}

/// Where a route leads.
fn targets<'r>(route: &'r model::route::Route) -> impl Iterator<Item = &'r Target> {
    let copies = |filters: &'r [Filter]| {
        filters.iter().filter_map(|filter| match filter {
            Filter::Mirror(mirror) => Some(&mirror.target),
            _ => None,
        })
    };
    route.rules.iter().flat_map(move |rule| {
        let backends = rule.backends.iter();
        backends
            .flat_map(move |backend| iter::once(&backend.target).chain(copies(&backend.filters)))
            .chain(copies(&rule.filters))
    })
}

/// The service that a resource name belongs to: `a/b` of `a/b`, `a/b/c` and `a/b/*`.
fn service_of(name: &str) -> Option<ServiceName> {
    let mut parts = name.splitn(3, '/');
    let (namespace, service) = (parts.next()?, parts.next()?);
    let alias = namespace == "ip" && service.parse::<IpAddr>().is_ok();
    if alias {
        None
    } else {
        ServiceName::new(namespace, service).ok()
    }
}

#[cfg(test)]
mod tests;
