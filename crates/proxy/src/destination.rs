//! A destination as this proxy sees it: a service with its routes, merged policies and endpoints,
//! made once per change of configuration and read by every request.
//!
//! What lives (requests in flight, ejections, budgets) is kept beside it and carried over.

mod connections;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use lb::budget::Budget;
use lb::concurrency::Gradient;
use lb::ewma::Peak;
use lb::outlier::{self, Group, Record};
use lb::slow_start;
use lb::spread::{Rule, Spread};
use lb::table::Table;
use lb::{Balancer, Candidates, Choice, Lookup, Standing};
use model::backend_tls::BackendTls;
use model::balancing::{Algorithm, LocalityMode, SlowStart};
use model::endpoint::{self, Health};
use model::health_check::HealthCheck;
use model::overload::AdaptiveConcurrency;
use model::request::RequestPolicy;
use model::route::Route;
use model::service::{Protocol, Service};
use model::traffic::{OutlierDetection, TrafficPolicy};
use model::workload::{Locality, Tunnel};
use model::{ServiceName, SpiffeId};
use policy::effective::Effective;
use policy::locality;
use policy::request::Here;
use policy::route::RouteTable;

use crate::health::Checked;
use crate::outside::Outside;
use crate::request::{Compiled, Limiters, Policies};
use connections::Connections;

/// A service that this proxy talks to.
pub(crate) struct Destination {
    /// Never used twice.
    pub(crate) id: u64,
    pub(crate) name: ServiceName,
    /// Host in full, for metrics and logs.
    pub(crate) host: Arc<str>,
    view: ArcSwap<View>,
    pub(crate) live: Live,
}

/// What outlives a change of configuration.
pub(crate) struct Live {
    pub(crate) budget: Budget,
    pub(crate) requests: AtomicU32,
    retries: AtomicU32,
    /// Where a policy asks for it.
    gradient: OnceLock<Gradient>,
    outliers: Arc<Group>,
    connections: Arc<Connections>,
    last_used: AtomicU64,
    /// Whether its endpoints have ever been known.
    known: AtomicBool,
}

/// The configuration of a destination at one moment.
pub(crate) struct View {
    pub(crate) service: Service,
    ports: Vec<PortView>,
    endpoints: Vec<Arc<Endpoint>>,
    limiters: Vec<Arc<Limiters>>,
}

/// One port of a destination.
pub(crate) struct PortView {
    pub(crate) number: u16,
    pub(crate) protocol: Protocol,
    pub(crate) routes: RouteTable,
    /// Where connections go in the service's stead, where they are not read as HTTP.
    pub(crate) stream: Option<Arc<Route>>,
    /// Where datagrams do.
    pub(crate) datagrams: Option<Arc<Route>>,
    pub(crate) policy: Effective,
    /// Faults and limits.
    pub(crate) requests: Policies,
    /// Those that serve this port; those of one group of [`PortView::spread`] side by side.
    pub(crate) endpoints: Vec<Candidate>,
    heaviest: u32,
    /// Never used twice.
    id: u64,
    /// For algorithms that hash.
    table: Option<Arc<Table>>,
    /// How traffic is spread over them by where they are, and when health counts for nothing.
    spread: Option<Spread>,
    outliers: Arc<Group>,
}

/// An endpoint of a port. What choosing asks stands side by side for all of them: with many endpoints
/// each look elsewhere waits for memory.
pub(crate) struct Candidate {
    live: Arc<EndpointLive>,
    weight: u32,
    /// The endpoint's own number of the port.
    pub(crate) port: u16,
    health: Health,
    /// What its checks say, where there are any.
    pub(crate) checked: Option<Arc<Checked>>,
    pub(crate) endpoint: Arc<Endpoint>,
}

/// An endpoint with its live state. What each request reads comes first.
#[repr(C)]
pub(crate) struct Endpoint {
    /// Never used twice: pools key their connections by it.
    pub(crate) id: u64,
    pub(crate) live: Arc<EndpointLive>,
    pub(crate) workload: Arc<str>,
    pub(crate) version: Arc<str>,
    /// TLS by the endpoint's port, where it is no member of the mesh and a policy asks for it.
    outside: BTreeMap<u16, Arc<Outside>>,
    pub(crate) config: endpoint::Endpoint,
    pub(crate) principal: Arc<str>,
}

/// What outlives a change of an endpoint's configuration.
pub(crate) struct EndpointLive {
    pub(crate) in_flight: AtomicU32,
    pub(crate) outlier: Record,
    /// How soon it answers; kept only where it is asked for.
    pub(crate) latency: Peak,
    /// Milliseconds at which it came, or was well again; [`ALWAYS`] where it was there first.
    since: AtomicU64,
    /// To all endpoints of the destination.
    pub(crate) connections: Arc<Connections>,
}

/// An endpoint that the proxy found when it came to know the destination is not new for that.
const ALWAYS: u64 = u64::MAX;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Destination {
    pub(crate) fn new(service: Service) -> Self {
        let name = service.name.clone();
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            host: name.host().into(),
            name,
            view: ArcSwap::from_pointee(View {
                service,
                ports: Vec::new(),
                endpoints: Vec::new(),
                limiters: Vec::new(),
            }),
            live: Live {
                budget: Budget::new(),
                requests: AtomicU32::new(0),
                retries: AtomicU32::new(0),
                gradient: OnceLock::new(),
                outliers: Group::new(),
                connections: Arc::default(),
                last_used: AtomicU64::new(seconds()),
                known: AtomicBool::new(false),
            },
        }
    }

    /// The configuration in force; cheap.
    pub(crate) fn view(&self) -> arc_swap::Guard<Arc<View>> {
        self.view.load()
    }

    /// Puts a new configuration in force. Endpoints that are still there keep their live state,
    /// and those that did not change at all their connections. `own` is where this proxy is.
    pub(crate) fn update(
        &self,
        own: &Locality,
        service: &Service,
        endpoints: &[Arc<endpoint::Endpoint>],
        policies: (&[Arc<TrafficPolicy>], &[Arc<RequestPolicy>]),
        routes: &[Arc<Route>],
        outside: &[Arc<BackendTls>],
    ) {
        let before = self.view.load();
        let (policies, requests) = policies;
        let requests = Compiled::new(requests.iter().map(Arc::as_ref), &before.limiters);
        let first = !self.live.known.swap(true, Ordering::Relaxed);
        let known: HashMap<_, _> = before
            .endpoints
            .iter()
            .map(|e| (&e.config.workload, e))
            .collect();
        let endpoints: Vec<Arc<Endpoint>> = endpoints
            .iter()
            .map(|config| {
                let old = known.get(&config.workload);
                let tls = outside_of(config, outside, old.map(|old| &old.outside));
                let unchanged = |old: &&&Arc<Endpoint>| {
                    old.config == **config
                        && old.outside.len() == tls.len()
                        && old.outside.iter().all(|(port, tls_then)| {
                            tls.get(port).is_some_and(|now| Arc::ptr_eq(now, tls_then))
                        })
                };
                if let Some(old) = old.filter(unchanged) {
                    return Arc::clone(old);
                }
                let stays = |old: &&&Arc<Endpoint>| {
                    old.config.addresses == config.addresses && old.config.tunnel == config.tunnel
                };
                let live = if let Some(old) = old.filter(stays) {
                    old.live.note_health(old.config.health, config.health);
                    Arc::clone(&old.live)
                } else {
                    let since = if first { ALWAYS } else { millis() };
                    EndpointLive::new(&self.live.outliers, &self.live.connections, since)
                };
                let mut endpoint = Endpoint::new(config, live);
                endpoint.outside = tls;
                Arc::new(endpoint)
            })
            .collect();
        let ports = service
            .ports
            .iter()
            .map(|port| {
                let before = before.port(port.number);
                let mut serving: Vec<_> = endpoints
                    .iter()
                    .filter_map(|e| {
                        let target = *e.config.ports.get(&port.number)?;
                        let own = for_port(e, port.number, target, outside, before);
                        Some(Candidate::new(&own, target))
                    })
                    .collect();
                let policy = Effective::merge(policies, port.number);
                if let Some(settings) = &policy.health_check {
                    for candidate in &mut serving {
                        candidate.check(settings, before, (port.protocol, &self.host));
                    }
                }
                let mode = policy.locality(service);
                let spread = group(&mut serving, mode, policy.balancer.panic_threshold, own);
                let slow = policy.balancer.slow_start.is_some();
                let heaviest = serving.iter().map(|c| c.whole(slow)).max().unwrap_or(1);
                PortView {
                    number: port.number,
                    protocol: port.protocol,
                    routes: RouteTable::compile(routes, port.number),
                    stream: policy::route::stream(routes, port.number, false).cloned(),
                    datagrams: policy::route::stream(routes, port.number, true).cloned(),
                    requests: requests.at(Here::Port(port.number)),
                    heaviest,
                    id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
                    table: table(policy.balancer.algorithm, &serving, before),
                    spread,
                    outliers: Arc::clone(&self.live.outliers),
                    policy,
                    endpoints: serving,
                }
            })
            .collect();
        drop(known);
        self.view.store(Arc::new(View {
            service: service.clone(),
            ports,
            endpoints,
            limiters: requests.limiters(),
        }));
    }

    /// Compares the endpoints' rates, when an interval is over.
    pub(crate) fn compare(&self, settings: &OutlierDetection) {
        let now = since_start();
        if !self.live.outliers.is_due(now, settings.interval) {
            return;
        }
        let view = self.view.load();
        let records = view.endpoints.iter().map(|e| &e.live.outlier);
        for (index, ejection) in outlier::compare(records, now, settings) {
            tracing::warn!(
                service = %self.name,
                workload = %view.endpoints[index].config.workload,
                ?ejection,
                "endpoint ejected: it failed more often than it should"
            );
        }
    }

    /// Notes that it is in use. `now` is in seconds of whatever clock [`Destination::idle_since`]
    /// is read with.
    pub(crate) fn touch(&self, now: u64) {
        // A plain load first: the cache line stays shared between workers for a whole second.
        if self.live.last_used.load(Ordering::Relaxed) != now {
            self.live.last_used.store(now, Ordering::Relaxed);
        }
    }

    pub(crate) fn idle_since(&self) -> u64 {
        self.live.last_used.load(Ordering::Relaxed)
    }
}

impl Live {
    /// Counts one more retry, if fewer than `limit` are under way.
    pub(crate) fn retry(&self, limit: u32) -> Option<Retrying<'_>> {
        let more = |now: u32| (now < limit).then_some(now + 1);
        let retries = &self.retries;
        let counted = retries.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        counted.is_ok().then(|| Retrying(retries))
    }

    /// The same, if there is one.
    pub(crate) fn adaptive(&self) -> Option<&Gradient> {
        self.gradient.get()
    }

    /// The limit on requests at once that finds itself.
    pub(crate) fn gradient(&self, settings: &AdaptiveConcurrency) -> &Gradient {
        let new = || Gradient::new(settings, since_start());
        self.gradient.get_or_init(new)
    }
}

/// A retry under way.
pub(crate) struct Retrying<'a>(&'a AtomicU32);

impl Drop for Retrying<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl View {
    pub(crate) fn port(&self, number: u16) -> Option<&PortView> {
        self.ports.iter().find(|p| p.number == number)
    }

    pub(crate) fn port_numbers(&self) -> impl Iterator<Item = u16> + '_ {
        self.ports.iter().map(|p| p.number)
    }

    /// What is to be checked.
    pub(crate) fn checked(&self) -> impl Iterator<Item = &Arc<Checked>> {
        let ports = self.ports.iter();
        let asked = ports.filter(|port| port.policy.health_check.is_some());
        asked.flat_map(|port| port.endpoints.iter().filter_map(|c| c.checked.as_ref()))
    }

    pub(crate) fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }
}

impl PortView {
    /// Picks an endpoint, none of `tried` (by id) while another is left. `None`: there is none that
    /// may be chosen at all. `hash` is what the request is told from others by, if it can be.
    pub(crate) fn pick<'a>(
        &'a self,
        balancer: &mut Balancer,
        hash: Option<u64>,
        tried: &[u64],
        now: Instant,
    ) -> Option<(&'a Arc<Endpoint>, u16)> {
        let place = |id: &u64| self.endpoints.iter().position(|c| c.endpoint.id == *id);
        let tried: Vec<usize> = tried.iter().filter_map(place).collect();
        let hosts = Hosts {
            port: self,
            now: at(now),
        };
        let lookup = self.table.as_ref().map(|table| Lookup {
            table,
            // What has nothing to be told by goes anywhere, as in Envoy.
            hash: hash.unwrap_or_else(rand::random),
        });
        let choice = match (self.policy.balancer.algorithm, &lookup) {
            (Algorithm::LeastRequest, _) => Choice::LeastRequest,
            (Algorithm::RoundRobin, _) => Choice::RoundRobin,
            (Algorithm::PeakEwma, _) => Choice::PeakEwma,
            (_, Some(lookup)) => Choice::Hashed(lookup),
            (_, None) => Choice::Random,
        };
        let index = balancer.choose(choice, &hosts, &tried, &mut rand::rng())?;
        let candidate = self.endpoints.get(index)?;
        Some((&candidate.endpoint, candidate.port))
    }

    /// The endpoint at this place, if it is usable.
    pub(crate) fn kept(&self, place: SocketAddr, now: Instant) -> Option<(&Arc<Endpoint>, u16)> {
        let hosts = Hosts {
            port: self,
            now: at(now),
        };
        let mut candidates = self.endpoints.iter();
        let index = candidates.position(|c| c.endpoint.place(self.number) == Some(place))?;
        let candidate = &self.endpoints[index];
        let usable = hosts.standing(index) == Standing::Usable;
        usable.then_some((&candidate.endpoint, candidate.port))
    }
}

/// Brings endpoints of one group together, and says how traffic is spread over the groups. `None`
/// where there is nothing to say: then health is looked at endpoint by endpoint.
fn group(
    serving: &mut [Candidate],
    mode: &LocalityMode,
    panic_threshold: Option<u32>,
    own: &Locality,
) -> Option<Spread> {
    fn place(candidate: &Candidate) -> &Locality {
        &candidate.endpoint.config.locality
    }
    match mode {
        LocalityMode::Failover if locality::is_known(own) => {
            let distance = |c: &Candidate| locality::distance(own, place(c));
            serving.sort_by_key(distance);
            let size = |group| serving.iter().filter(|c| distance(c) == group).count();
            let sizes: Vec<_> = (0..locality::DISTANCES).map(size).collect();
            Some(Spread::new(sizes, Rule::Failover, panic_threshold))
        }
        LocalityMode::Weighted(given) => {
            serving.sort_by(|a, b| {
                let key = |c| (&place(c).region, &place(c).zone);
                key(a).cmp(&key(b))
            });
            let weights = locality::weights(given, serving.iter().map(place));
            let size = |(region, zone): &(&str, &str)| {
                let here = |c: &&Candidate| place(c).region == *region && place(c).zone == *zone;
                serving.iter().filter(here).count()
            };
            let sizes: Vec<_> = weights.keys().map(size).collect();
            let rule = Rule::Weighted(weights.into_values().collect());
            Some(Spread::new(sizes, rule, panic_threshold))
        }
        _ if panic_threshold.is_some() => {
            let sizes = [serving.len()];
            Some(Spread::new(sizes, Rule::Failover, panic_threshold))
        }
        _ => None,
    }
}

/// The table that an algorithm needs; the one before where nothing has changed that it is made of.
fn table(
    algorithm: Algorithm,
    serving: &[Candidate],
    before: Option<&PortView>,
) -> Option<Arc<Table>> {
    if !algorithm.hashes() {
        return None;
    }
    // Names alone: where the endpoints are, and since when, must not matter.
    let names: Vec<String> = serving
        .iter()
        .map(|c| c.endpoint.config.workload.to_string())
        .collect();
    let weights = serving.iter().map(|c| c.weight);
    let members: Vec<_> = names.iter().map(String::as_str).zip(weights).collect();
    let known = before.and_then(|before| before.table.as_ref());
    if let Some(known) = known.filter(|table| table.is_of(algorithm, &members)) {
        return Some(Arc::clone(known));
    }
    Table::build(algorithm, &members).map(Arc::new)
}

/// The endpoint as one port of the service has it. Ports that lead to the same port of an endpoint
/// may differ in their TLS: then each has an endpoint of its own, and so connections of its own.
fn for_port(
    endpoint: &Arc<Endpoint>,
    port: u16,
    target: u16,
    policies: &[Arc<BackendTls>],
    before: Option<&PortView>,
) -> Arc<Endpoint> {
    let wanted = match endpoint.config.tunnel {
        Tunnel::None => policy::backend_tls::choose(policies.iter().map(Arc::as_ref), port),
        _ => None,
    };
    let fits = |one: &Arc<Endpoint>| match (wanted, one.outside(target)) {
        (None, None) => true,
        (Some(policy), Some(tls)) => tls.is_for(policy),
        _ => false,
    };
    if fits(endpoint) {
        return Arc::clone(endpoint);
    }
    let known = before.and_then(|before| {
        let mut known = before.endpoints.iter().map(|c| &c.endpoint);
        known.find(|e| {
            e.config == endpoint.config && Arc::ptr_eq(&e.live, &endpoint.live) && fits(e)
        })
    });
    if let Some(known) = known {
        return Arc::clone(known);
    }
    let mut own = Endpoint::new(&endpoint.config, Arc::clone(&endpoint.live));
    own.outside = wanted
        .map(|policy| (target, Arc::new(Outside::new(policy))))
        .into_iter()
        .collect();
    Arc::new(own)
}

/// TLS by the endpoint's port; what is as it was stays, sessions included.
fn outside_of(
    config: &endpoint::Endpoint,
    policies: &[Arc<BackendTls>],
    before: Option<&BTreeMap<u16, Arc<Outside>>>,
) -> BTreeMap<u16, Arc<Outside>> {
    // A member of the mesh is known by its identity.
    if policies.is_empty() || config.tunnel != Tunnel::None {
        return BTreeMap::new();
    }
    let ports = config.ports.iter();
    ports
        .filter_map(|(port, target)| {
            let policy = policy::backend_tls::choose(policies.iter().map(Arc::as_ref), *port)?;
            let known = before
                .and_then(|b| b.get(target))
                .filter(|o| o.is_for(policy));
            let tls = known.map_or_else(|| Arc::new(Outside::new(policy)), Arc::clone);
            Some((*target, tls))
        })
        .collect()
}

/// The endpoints of a port as candidates at one moment.
struct Hosts<'a> {
    port: &'a PortView,
    now: Duration,
}

impl Candidates for Hosts<'_> {
    fn len(&self) -> usize {
        self.port.endpoints.len()
    }

    fn weight(&self, index: usize) -> u32 {
        let candidate = &self.port.endpoints[index];
        match &self.port.policy.balancer.slow_start {
            None => candidate.weight,
            Some(settings) => candidate.warmed(settings, self.now),
        }
    }

    fn load(&self, index: usize) -> u32 {
        let live = &self.port.endpoints[index].live;
        live.in_flight.load(Ordering::Relaxed)
    }

    fn standing(&self, index: usize) -> Standing {
        let candidate = &self.port.endpoints[index];
        match candidate.health() {
            Health::Healthy if candidate.live.outlier.ejected(self.now) => Standing::Ejected,
            Health::Healthy => Standing::Usable,
            Health::Unhealthy => Standing::Unhealthy,
            Health::Draining => Standing::Excluded,
        }
    }

    fn heaviest(&self) -> u32 {
        self.port.heaviest
    }

    fn cost(&self, index: usize) -> f64 {
        let live = &self.port.endpoints[index].live;
        live.latency.cost(self.load(index), self.now)
    }

    fn spread(&self) -> Option<&Spread> {
        self.port.spread.as_ref()
    }

    fn stamp(&self) -> (u64, u32) {
        (self.port.id, self.port.outliers.changes())
    }

    fn back(&self, index: usize) -> Option<Duration> {
        self.port.endpoints[index].live.outlier.back()
    }

    fn now(&self) -> Duration {
        self.now
    }
}

impl Candidate {
    fn new(endpoint: &Arc<Endpoint>, port: u16) -> Self {
        Self {
            live: Arc::clone(&endpoint.live),
            weight: endpoint.config.weight,
            port,
            health: endpoint.config.health,
            checked: None,
            endpoint: Arc::clone(endpoint),
        }
    }

    /// Has it checked; what is known from the same check of the same endpoint stays.
    fn check(
        &mut self,
        settings: &Arc<HealthCheck>,
        before: Option<&PortView>,
        (protocol, host): (Protocol, &Arc<str>),
    ) {
        let known = before.and_then(|before| {
            let same = |c: &&Candidate| Arc::ptr_eq(&c.live, &self.live) && c.port == self.port;
            before.endpoints.iter().find(same)?.checked.as_ref()
        });
        self.checked = Some(match known {
            Some(known) if known.is_of(settings, &self.endpoint, protocol) => Arc::clone(known),
            known => {
                let healthy = known.is_none_or(|known| known.is_healthy());
                let target = (Arc::clone(&self.endpoint), self.port);
                Arc::new(Checked::new(settings, target, protocol, host, healthy))
            }
        });
    }

    /// Whether it is well, by what is said of it and by its checks.
    pub(crate) fn health(&self) -> Health {
        match self.health {
            Health::Healthy if self.is_failing() => Health::Unhealthy,
            health => health,
        }
    }

    /// Whether its checks say that it is not well.
    fn is_failing(&self) -> bool {
        self.checked.as_ref().is_some_and(|c| !c.is_healthy())
    }

    /// Its weight once it is warm; where some are not, all are told in parts.
    fn whole(&self, parts: bool) -> u32 {
        let parts = if parts { slow_start::WHOLE } else { 1 };
        self.weight.max(1).saturating_mul(parts)
    }

    /// Its weight now, in the same parts.
    fn warmed(&self, settings: &SlowStart, now: Duration) -> u32 {
        let factor = match self.live.since.load(Ordering::Relaxed) {
            ALWAYS => slow_start::WHOLE,
            since => {
                let age = now.saturating_sub(Duration::from_millis(since));
                slow_start::factor(age, settings)
            }
        };
        self.weight.max(1).saturating_mul(factor)
    }
}

impl EndpointLive {
    fn new(group: &Arc<Group>, connections: &Arc<Connections>, since: u64) -> Arc<Self> {
        Arc::new(Self {
            in_flight: AtomicU32::new(0),
            outlier: Record::new(Arc::clone(group)),
            latency: Peak::new(),
            since: AtomicU64::new(since),
            connections: Arc::clone(connections),
        })
    }

    /// For an endpoint that stands alone.
    pub(crate) fn alone() -> Arc<Self> {
        Self::new(&Group::new(), &Arc::default(), ALWAYS)
    }

    /// Notes that its checks have come to another end.
    pub(crate) fn note_check(&self, healthy: bool) {
        if healthy {
            self.since.store(millis(), Ordering::Relaxed);
        }
        self.outlier.group().note_change();
    }

    /// An endpoint that is well again is as one that is new.
    fn note_health(&self, before: Health, now: Health) {
        if before != Health::Healthy && now == Health::Healthy {
            self.since.store(millis(), Ordering::Relaxed);
        }
    }

    /// Whether both count towards the limits of one destination.
    pub(crate) fn is_sibling(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.connections, &other.connections)
    }
}

impl Endpoint {
    /// Where it serves a port of the service, as sessions name it.
    pub(crate) fn place(&self, port: u16) -> Option<SocketAddr> {
        let address = self.config.addresses.first()?;
        Some(SocketAddr::new(*address, *self.config.ports.get(&port)?))
    }

    pub(crate) fn new(config: &endpoint::Endpoint, live: Arc<EndpointLive>) -> Self {
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            live,
            workload: config.workload.name().into(),
            version: config.version.as_str().into(),
            outside: BTreeMap::new(),
            config: config.clone(),
            principal: config.identity.as_str().into(),
        }
    }

    pub(crate) fn identity(&self) -> &SpiffeId {
        &self.config.identity
    }

    /// TLS to its port, where a policy asks for it.
    pub(crate) fn outside(&self, port: u16) -> Option<&Arc<Outside>> {
        self.outside.get(&port)
    }

    /// Where to connect for `port`.
    pub(crate) fn address(&self, port: u16) -> Option<SocketAddr> {
        self.config
            .addresses
            .first()
            .map(|ip: &IpAddr| SocketAddr::new(*ip, port))
    }
}

/// Time since the process began to ask, for algorithms that take their clock as a number.
pub(crate) fn since_start() -> Duration {
    at(Instant::now())
}

/// A moment as such a number.
pub(crate) fn at(moment: Instant) -> Duration {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    moment.saturating_duration_since(*START.get_or_init(Instant::now))
}

/// The same in whole milliseconds.
fn millis() -> u64 {
    u64::try_from(since_start().as_millis()).unwrap_or(u64::MAX)
}

/// The same in whole seconds.
pub(crate) fn seconds() -> u64 {
    since_start().as_secs()
}

#[cfg(test)]
mod tests;
