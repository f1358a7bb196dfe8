//! A destination as this proxy sees it: a service with its routes, merged policies and endpoints,
//! made once per change of configuration and read by every request.
//!
//! What lives (requests in flight, ejections, budgets) is kept beside it and carried over.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use lb::budget::Budget;
use lb::outlier::{self, Group, Record};
use lb::{Balancer, Candidates, Standing};
use model::backend_tls::BackendTls;
use model::endpoint::{self, Health};
use model::request::RequestPolicy;
use model::route::Route;
use model::service::{Protocol, Service};
use model::traffic::{OutlierDetection, TrafficPolicy};
use model::workload::Tunnel;
use model::{ServiceName, SpiffeId};
use policy::effective::Effective;
use policy::request::Here;
use policy::route::RouteTable;

use crate::outside::Outside;
use crate::request::{Compiled, Limiters, Policies};

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
    outliers: Arc<Group>,
    connections: Arc<Connections>,
    last_used: AtomicU64,
}

/// Connections to the endpoints of a destination, those of all workers.
#[derive(Default)]
struct Connections {
    open: AtomicU32,
    /// Of them, for HTTP/1: at rest in a pool.
    kept: AtomicU32,
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
    /// Those that serve this port.
    pub(crate) endpoints: Vec<Candidate>,
    heaviest: u32,
}

/// An endpoint of a port. What choosing asks stands side by side for all of them: with many endpoints
/// each look elsewhere waits for memory.
pub(crate) struct Candidate {
    live: Arc<EndpointLive>,
    weight: u32,
    /// The endpoint's own number of the port.
    pub(crate) port: u16,
    healthy: bool,
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
    /// To all endpoints of the destination.
    connections: Arc<Connections>,
}

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
                outliers: Group::new(),
                connections: Arc::default(),
                last_used: AtomicU64::new(seconds()),
            },
        }
    }

    /// The configuration in force; cheap.
    pub(crate) fn view(&self) -> arc_swap::Guard<Arc<View>> {
        self.view.load()
    }

    /// Puts a new configuration in force. Endpoints that are still there keep their live state,
    /// and those that did not change at all their connections.
    pub(crate) fn update(
        &self,
        service: &Service,
        endpoints: &[Arc<endpoint::Endpoint>],
        policies: (&[Arc<TrafficPolicy>], &[Arc<RequestPolicy>]),
        routes: &[Arc<Route>],
        outside: &[Arc<BackendTls>],
    ) {
        let before = self.view.load();
        let (policies, requests) = policies;
        let requests = Compiled::new(requests.iter().map(Arc::as_ref), &before.limiters);
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
                let live = match old.filter(stays) {
                    Some(old) => Arc::clone(&old.live),
                    None => EndpointLive::new(&self.live.outliers, &self.live.connections),
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
                let serving: Vec<_> = endpoints
                    .iter()
                    .filter_map(|e| {
                        let target = *e.config.ports.get(&port.number)?;
                        let own = for_port(e, port.number, target, outside, before);
                        Some(Candidate::new(&own, target))
                    })
                    .collect();
                PortView {
                    number: port.number,
                    protocol: port.protocol,
                    routes: RouteTable::compile(routes, port.number),
                    stream: policy::route::stream(routes, port.number, false).cloned(),
                    datagrams: policy::route::stream(routes, port.number, true).cloned(),
                    policy: Effective::merge(policies, port.number),
                    requests: requests.at(Here::Port(port.number)),
                    heaviest: serving.iter().map(|c| c.weight).max().unwrap_or(1),
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

impl View {
    pub(crate) fn port(&self, number: u16) -> Option<&PortView> {
        self.ports.iter().find(|p| p.number == number)
    }

    pub(crate) fn port_numbers(&self) -> impl Iterator<Item = u16> + '_ {
        self.ports.iter().map(|p| p.number)
    }

    pub(crate) fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }
}

impl PortView {
    /// Picks an endpoint, none of `tried` (by id) while another is left. `None`: there is none that
    /// may be chosen at all.
    pub(crate) fn pick<'a>(
        &'a self,
        balancer: &mut Balancer,
        tried: &[u64],
        now: Instant,
    ) -> Option<(&'a Arc<Endpoint>, u16)> {
        let place = |id: &u64| self.endpoints.iter().position(|c| c.endpoint.id == *id);
        let tried: Vec<usize> = tried.iter().filter_map(place).collect();
        let hosts = Hosts {
            port: self,
            now: at(now),
        };
        let index = balancer.choose(self.policy.algorithm, &hosts, &tried, &mut rand::rng())?;
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
        self.port.endpoints[index].weight
    }

    fn load(&self, index: usize) -> u32 {
        let live = &self.port.endpoints[index].live;
        live.in_flight.load(Ordering::Relaxed)
    }

    fn standing(&self, index: usize) -> Standing {
        let candidate = &self.port.endpoints[index];
        if !candidate.healthy {
            Standing::Excluded
        } else if candidate.live.outlier.ejected(self.now) {
            Standing::Ejected
        } else {
            Standing::Usable
        }
    }

    fn heaviest(&self) -> u32 {
        self.port.heaviest
    }
}

impl Candidate {
    fn new(endpoint: &Arc<Endpoint>, port: u16) -> Self {
        Self {
            live: Arc::clone(&endpoint.live),
            weight: endpoint.config.weight,
            port,
            healthy: endpoint.config.health == Health::Healthy,
            endpoint: Arc::clone(endpoint),
        }
    }
}

impl EndpointLive {
    fn new(group: &Arc<Group>, connections: &Arc<Connections>) -> Arc<Self> {
        Arc::new(Self {
            in_flight: AtomicU32::new(0),
            outlier: Record::new(Arc::clone(group)),
            connections: Arc::clone(connections),
        })
    }

    /// For an endpoint that stands alone.
    pub(crate) fn alone() -> Arc<Self> {
        Self::new(&Group::new(), &Arc::default())
    }

    /// Counts one more connection, if fewer than `limit` are in use, or whatever their number. Those
    /// at rest do not count: another worker's would be in the way of this one's requests.
    pub(crate) fn open(&self, limit: u32, whatever: bool) -> bool {
        let kept = self.connections.kept.load(Ordering::Relaxed);
        let room = |open: u32| (whatever || open.saturating_sub(kept) < limit).then_some(open + 1);
        let open = &self.connections.open;
        open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room)
            .is_ok()
    }

    /// A connection is closed.
    pub(crate) fn closed(&self) {
        self.connections.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// A connection is at rest from now on.
    pub(crate) fn keep(&self) {
        self.connections.kept.fetch_add(1, Ordering::Relaxed);
    }

    /// One that was is not any more.
    pub(crate) fn lend(&self) {
        self.connections.kept.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether `limit` connections to the destination are open, or more.
    pub(crate) fn is_full(&self, limit: u32) -> bool {
        self.connections.open.load(Ordering::Relaxed) >= limit
    }

    /// Whether there are more than `limit`.
    pub(crate) fn is_over(&self, limit: u32) -> bool {
        self.connections.open.load(Ordering::Relaxed) > limit
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

/// The same in whole seconds.
pub(crate) fn seconds() -> u64 {
    since_start().as_secs()
}

#[cfg(test)]
mod tests {
    use model::backend_tls::Roots;
    use model::service::Port;
    use model::tls::TlsOptions;
    use model::workload::Locality;

    use super::*;

    fn policy(name: &str, port: Option<u16>, hostname: &str) -> Arc<BackendTls> {
        Arc::new(BackendTls {
            name: name.parse().expect("valid"),
            target: "shop/s".parse().expect("valid"),
            port,
            created: 0,
            hostname: hostname.to_owned(),
            names: Vec::new(),
            roots: Roots::System,
            options: TlsOptions::default(),
        })
    }

    #[test]
    fn ports_that_lead_to_one_port_of_an_endpoint_have_each_its_own_tls() {
        let port = |number| Port {
            name: format!("p{number}"),
            number,
            protocol: Protocol::Http,
        };
        let service = Service {
            name: "shop/s".parse().expect("valid"),
            addresses: Vec::new(),
            ports: vec![port(443), port(8443)],
            headless: false,
        };
        let endpoint = Arc::new(endpoint::Endpoint {
            service: service.name.clone(),
            workload: "shop/w".parse().expect("valid"),
            addresses: vec!["127.0.0.1".parse().expect("valid")],
            ports: [(443, 8443), (8443, 8443)].into(),
            tunnel: Tunnel::None,
            identity: "spiffe://mesh.local/ns/shop/sa/x".parse().expect("valid"),
            health: Health::Healthy,
            weight: 1,
            locality: Locality::default(),
            version: String::new(),
        });
        let policies = [
            policy("shop/one", Some(443), "one.example"),
            policy("shop/all", None, "all.example"),
        ];
        let destination = Destination::new(service.clone());
        let update = |policies: &[Arc<BackendTls>]| {
            destination.update(
                &service,
                &[Arc::clone(&endpoint)],
                (&[], &[]),
                &[],
                policies,
            );
            let view = Arc::clone(&destination.view());
            [443, 8443].map(|number| {
                let port = view.port(number).expect("it has it");
                Arc::clone(&port.endpoints[0].endpoint)
            })
        };
        let [one, all] = update(&policies);
        assert!(
            one.outside(8443)
                .is_some_and(|tls| tls.is_for(&policies[0]))
        );
        assert!(
            all.outside(8443)
                .is_some_and(|tls| tls.is_for(&policies[1]))
        );
        // Connections are kept by endpoint, and the load is that of one.
        assert_ne!(one.id, all.id);
        assert!(Arc::ptr_eq(&one.live, &all.live));
        // What has not changed stays.
        let again = update(&policies);
        assert_eq!(again.map(|e| e.id), [one.id, all.id]);
        let [one, all] = update(&policies[..1]);
        assert!(one.outside(8443).is_some() && all.outside(8443).is_none());
    }
}
