//! What this proxy knows of the mesh, and how it comes to know more.
//!
//! [`State`] is what requests read: one snapshot, replaced whole when a destination comes or goes;
//! a destination's own configuration is replaced within it. [`Updater`] is the one writer, on the
//! control thread: it turns batches from the control plane into snapshots, and wants of the workers
//! into subscriptions. A destination is subscribed to when it is first asked for and forgotten when
//! nobody has asked for long.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use model::endpoint::{self, Health};
use model::mesh::{Mesh, OutboundPolicy, TrustBundle};
use model::resource::{Key, Kind, Resource, SINGLETON, address_alias, collection_of};
use model::route::Target;
use model::service::{Port, Service};
use model::workload::{Tunnel, Workload};
use model::{ServiceName, WorkloadName};
use tokio::sync::{mpsc, watch};
use xds::client::{Batch, Handle};

use crate::destination::{Destination, Endpoint, EndpointLive, seconds};
use crate::options::Mode;

/// Longest wait for the control plane to tell about a destination that is new to this proxy.
const LOOKUP: Duration = Duration::from_secs(5);
/// Seconds after which an unused destination is forgotten.
const FORGET_AFTER: u64 = 600;
/// Names that do not exist and are watched all the same, in case they come to exist.
const ABSENT_LIMIT: usize = 1024;
/// Lookups that may wait for the control thread.
const WANTS: usize = 1024;

/// What requests read.
pub(crate) struct State {
    snapshot: ArcSwap<Snapshot>,
    changed: watch::Sender<u64>,
    wants: mpsc::Sender<Want>,
    connected: AtomicBool,
}

/// Everything known at one moment.
#[derive(Clone, Default)]
pub(crate) struct Snapshot {
    pub(crate) mesh: Arc<Mesh>,
    pub(crate) own: Option<Arc<Own>>,
    services: HashMap<ServiceName, Entry<Arc<Destination>>>,
    addresses: HashMap<IpAddr, Entry<Arc<Destination>>>,
}

/// The proxy's own workload, and its application as an endpoint.
pub(crate) struct Own {
    pub(crate) workload: Arc<Workload>,
    /// The application's host, for metrics: its service account's, since one workload can serve
    /// several services and a caller may write what it likes into `Host`.
    pub(crate) host: Arc<str>,
    pub(crate) application: Arc<Endpoint>,
}

#[derive(Clone)]
enum Entry<T> {
    Present(T),
    Absent,
}

/// The answer to a lookup.
pub(crate) enum Lookup<T> {
    Found(T),
    /// The control plane says that there is no such thing.
    Absent,
    /// The control plane does not answer.
    Unknown,
}

/// Something a worker asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Want {
    Service(ServiceName),
    Address(IpAddr),
}

impl State {
    /// An empty state, and where its updater reads what workers want.
    pub(crate) fn new() -> (Arc<Self>, mpsc::Receiver<Want>) {
        let (wants, wanted) = mpsc::channel(WANTS);
        let state = Self {
            snapshot: ArcSwap::default(),
            changed: watch::channel(0).0,
            wants,
            connected: AtomicBool::new(false),
        };
        (Arc::new(state), wanted)
    }

    pub(crate) fn snapshot(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    pub(crate) fn connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Completes when the proxy knows enough to serve: the mesh's settings and its own workload.
    pub(crate) async fn configured(&self) {
        let mut changed = self.changed.subscribe();
        while self.snapshot().own.is_none() {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// A service by name. Waits, once per service, until the control plane has told about it.
    pub(crate) async fn service(&self, name: &ServiceName) -> Lookup<Arc<Destination>> {
        if let Some(Entry::Present(destination)) = self.snapshot().services.get(name) {
            destination.touch(seconds());
            return Lookup::Found(Arc::clone(destination));
        }
        self.look_up(Want::Service(name.clone()), |s| {
            s.services.get(name).cloned()
        })
        .await
    }

    /// The service or workload that has an address of the mesh's networks. A workload asked for by
    /// its own address is a destination of its own, with one endpoint and without routes.
    pub(crate) async fn address(&self, address: IpAddr) -> Lookup<Arc<Destination>> {
        if let Some(Entry::Present(found)) = self.snapshot().addresses.get(&address) {
            found.touch(seconds());
            return Lookup::Found(Arc::clone(found));
        }
        self.look_up(Want::Address(address), |s| {
            s.addresses.get(&address).cloned()
        })
        .await
    }

    async fn look_up<T>(
        &self,
        want: Want,
        find: impl Fn(&Snapshot) -> Option<Entry<T>>,
    ) -> Lookup<T> {
        let mut changed = self.changed.subscribe();
        let wait = async {
            let mut asked = false;
            loop {
                match find(&self.snapshot()) {
                    Some(Entry::Present(found)) => return Lookup::Found(found),
                    Some(Entry::Absent) => return Lookup::Absent,
                    None => {}
                }
                if !asked {
                    asked = true;
                    if self.wants.send(want.clone()).await.is_err() {
                        return Lookup::Unknown;
                    }
                } else if changed.changed().await.is_err() {
                    return Lookup::Unknown;
                }
            }
        };
        // Without a control plane there is nobody to wait for, but for the moment of a reconnect.
        let limit = if self.connected() { LOOKUP } else { LOOKUP / 5 };
        tokio::time::timeout(limit, wait)
            .await
            .unwrap_or(Lookup::Unknown)
    }
}

impl Snapshot {
    pub(crate) fn allows_outside(&self) -> bool {
        self.mesh.outbound == OutboundPolicy::AllowAny
    }

    pub(crate) fn destinations(&self) -> impl Iterator<Item = &Arc<Destination>> {
        self.services.values().filter_map(|e| match e {
            Entry::Present(destination) => Some(destination),
            Entry::Absent => None,
        })
    }
}

/// The one writer of a [`State`].
pub(crate) struct Updater {
    state: Arc<State>,
    handle: Handle,
    own: WorkloadName,
    mode: Mode,
    trust: watch::Sender<Option<Arc<TrustBundle>>>,
    resources: BTreeMap<Key, Arc<Resource>>,
    /// What is subscribed to, and what of it has been answered.
    services: HashMap<ServiceName, HashSet<Kind>>,
    addresses: HashMap<IpAddr, HashSet<Kind>>,
    pinned: HashSet<ServiceName>,
    next: Snapshot,
}

/// A service is complete when each of these has been answered.
const PARTS: [Kind; 4] = [
    Kind::Service,
    Kind::Endpoint,
    Kind::TrafficPolicy,
    Kind::Route,
];

impl Updater {
    /// `trust` is told each new trust bundle.
    pub(crate) fn new(
        state: Arc<State>,
        handle: Handle,
        own: WorkloadName,
        mode: Mode,
        trust: watch::Sender<Option<Arc<TrustBundle>>>,
    ) -> Self {
        handle.subscribe(Kind::Mesh, SINGLETON);
        handle.subscribe(Kind::TrustBundle, SINGLETON);
        handle.subscribe(Kind::Workload, &own.to_string());
        let mut updater = Self {
            state,
            own,
            mode,
            trust,
            resources: BTreeMap::new(),
            services: HashMap::new(),
            addresses: HashMap::new(),
            pinned: HashSet::new(),
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
                    None => {
                        if let Ok(name) = key.name.parse() {
                            self.services.entry(name).or_default();
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
        self.services.insert(name.clone(), HashSet::new());
        let collection = collection_of(name);
        for kind in [Kind::Endpoint, Kind::TrafficPolicy, Kind::Route] {
            self.handle.subscribe(kind, &collection);
        }
        self.handle.subscribe(Kind::Service, &name.to_string());
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
        for (key, resource) in upserts {
            match &**resource {
                Resource::Mesh(mesh) => self.next.mesh = Arc::new(mesh.clone()),
                Resource::TrustBundle(bundle) => {
                    self.trust.send_replace(Some(Arc::new(bundle.clone())));
                }
                Resource::Workload(workload) => {
                    if workload.name == self.own {
                        self.next.own = Some(Arc::new(Own::new(workload, self.mode)));
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
                Resource::Route(route) => {
                    touched.insert(route.parent.clone());
                    self.want_backends(route);
                }
            }
            self.resources.insert(key.clone(), Arc::clone(resource));
            self.note_answer(key.kind, &key.name, &mut touched);
        }
        for key in removed {
            self.resources.remove(key);
            if let Some(address) = key.name.strip_prefix("ip/").and_then(|a| a.parse().ok()) {
                self.addresses.entry(address).or_default().insert(key.kind);
                addresses.insert(address);
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
        self.publish();
    }

    fn unanswered_addresses(&self) -> Vec<IpAddr> {
        self.addresses
            .keys()
            .filter(|a| !self.next.addresses.contains_key(a))
            .copied()
            .collect()
    }

    /// Routes lead to further services: they are subscribed to before the first request needs them.
    fn want_backends(&mut self, route: &model::route::Route) {
        for backend in route.rules.iter().flat_map(|r| &r.backends) {
            if let Target::Service { name, .. } = &backend.target {
                self.want_service(name);
            }
        }
    }

    fn note_answer(&mut self, kind: Kind, name: &str, touched: &mut BTreeSet<ServiceName>) {
        if let Some(service) = service_of(name)
            && let Some(answered) = self.services.get_mut(&service)
            && answered.insert(kind)
        {
            touched.insert(service);
        }
    }

    fn rebuild(&mut self, name: &ServiceName) {
        let Some(answered) = self.services.get(name) else {
            return;
        };
        if !PARTS.iter().all(|part| answered.contains(part)) {
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
        let routes = self.members(Kind::Route, name, |r| match r {
            Resource::Route(route) => Some(Arc::new(route.clone())),
            _ => None,
        });
        destination.update(service, &endpoints, &policies, &routes);
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
            destination.update(&service, &[endpoint], &[], &[]);
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
            .filter_map(|r| match &**r {
                Resource::Route(route) => Some(route),
                _ => None,
            })
            .flat_map(|route| route.rules.iter().flat_map(|r| &r.backends))
            .filter_map(|b| match &b.target {
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
        let collection = collection_of(name);
        for kind in [Kind::Endpoint, Kind::TrafficPolicy, Kind::Route] {
            self.handle.unsubscribe(kind, &collection);
            let prefix = format!("{name}/");
            self.resources
                .retain(|key, _| key.kind != kind || !key.name.starts_with(&prefix));
        }
        self.handle.unsubscribe(Kind::Service, &name.to_string());
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

impl Own {
    fn new(workload: &Workload, mode: Mode) -> Self {
        let address = match mode {
            Mode::Explicit => Some(IpAddr::from([127, 0, 0, 1])),
            Mode::Transparent => workload.addresses.first().copied(),
        };
        let mut config = endpoint_config(workload, address);
        config.tunnel = Tunnel::None;
        let account = workload
            .identity
            .service_account()
            .map_or(workload.name.name(), |(_, account)| account);
        Self {
            host: format!(
                "{account}.{}.svc.{}",
                workload.name.namespace(),
                model::name::CLUSTER_DOMAIN
            )
            .into(),
            workload: Arc::new(workload.clone()),
            application: Arc::new(Endpoint::new(&config, EndpointLive::alone())),
        }
    }
}

fn service_of_workload(workload: &Workload, address: IpAddr) -> Service {
    let ports = workload.ports.iter().map(|p| Port {
        name: p.name.clone(),
        number: p.number,
        protocol: p.protocol,
    });
    Service {
        name: workload.name.clone(),
        addresses: vec![address],
        ports: ports.collect(),
        headless: false,
    }
}

fn endpoint_config(workload: &Workload, address: Option<IpAddr>) -> endpoint::Endpoint {
    endpoint::Endpoint {
        service: workload.name.clone(),
        workload: workload.name.clone(),
        addresses: address.into_iter().collect(),
        ports: workload
            .ports
            .iter()
            .map(|p| (p.number, p.number))
            .collect(),
        tunnel: workload.tunnel,
        identity: workload.identity.clone(),
        health: Health::Healthy,
        weight: 1,
        locality: workload.locality.clone(),
        version: workload.labels.get("version").cloned().unwrap_or_default(),
    }
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
