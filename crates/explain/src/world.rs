//! A configuration as control plane and proxies would have it: objects translated, listeners with
//! their routes and services with theirs compiled.
//!
//! Each Gateway is compiled by itself, as if it had a proxy of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use config::translate::{Change, Condition, Defaults, Translator};
use config::{Diagnostic, Object, ObjectKey};
use model::backend_tls::BackendTls;
use model::endpoint::{Endpoint, Health};
use model::gateway::{self, GatewayName, StreamRoute};
use model::mesh::Mesh;
use model::request::RequestPolicy;
use model::resource::Resource;
use model::route::{Parent, Route};
use model::service::{self, Service};
use model::traffic::TrafficPolicy;
use model::workload::Workload;
use model::{ServiceName, WorkloadName};
use policy::Effective;
use policy::gateway::{Conflict, Port, Tables, Transport};
use policy::host::HostMap;
use policy::route::RouteTable;

/// A configuration.
#[derive(Debug)]
pub struct World {
    objects: BTreeMap<ObjectKey, Arc<Object>>,
    translator: Translator,
    /// What translating has found.
    pub(crate) diagnostics: Vec<Diagnostic>,
    pub(crate) mesh: Mesh,
    pub(crate) gateways: BTreeMap<GatewayName, Gateway>,
    pub(crate) services: BTreeMap<ServiceName, Destination>,
    pub(crate) workloads: BTreeMap<WorkloadName, Workload>,
    /// Faults and limits, but for the limits of workloads.
    pub(crate) requests: Vec<RequestPolicy>,
}

/// A Gateway.
#[derive(Debug, Default)]
pub(crate) struct Gateway {
    pub(crate) ports: BTreeMap<u16, Port<Arc<Listener>>>,
    /// Those for datagrams.
    pub(crate) datagrams: BTreeMap<u16, Port<Arc<Listener>>>,
    /// Listeners that give way to others.
    pub(crate) refused: Vec<(gateway::Listener, Conflict)>,
    pub(crate) routes: Vec<Arc<Route>>,
    pub(crate) streams: Vec<Arc<StreamRoute>>,
}

/// A listener with its routes.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) config: gateway::Listener,
    pub(crate) tables: Vec<(Option<model::hostname::Hostname>, Tables)>,
    pub(crate) hosts: HostMap<Tables>,
    pub(crate) streams: HostMap<Arc<StreamRoute>>,
}

/// A service with what holds for its clients.
#[derive(Debug)]
pub(crate) struct Destination {
    pub(crate) service: Service,
    pub(crate) ports: BTreeMap<u16, DestinationPort>,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) tls: Vec<BackendTls>,
}

/// A port of a service.
#[derive(Debug)]
pub(crate) struct DestinationPort {
    pub(crate) protocol: service::Protocol,
    /// For clients of all namespaces that have no routes of their own.
    pub(crate) ways: Ways,
    /// For clients of those that have, by namespace.
    pub(crate) consumers: BTreeMap<String, Ways>,
    pub(crate) policy: Effective,
}

/// The routes of a port of a service that hold for some of its clients.
#[derive(Debug)]
pub(crate) struct Ways {
    pub(crate) routes: RouteTable,
    /// Of connections that are not read as HTTP.
    pub(crate) stream: Option<Arc<Route>>,
    pub(crate) datagrams: Option<Arc<Route>>,
}

/// What of a service was translated, before it is compiled.
#[derive(Default)]
struct Parts {
    service: Option<Service>,
    endpoints: Vec<Endpoint>,
    policies: Vec<Arc<TrafficPolicy>>,
    routes: Vec<Arc<Route>>,
    tls: Vec<BackendTls>,
}

impl World {
    /// Translates and compiles. Of two objects with one name the later counts.
    pub fn new(objects: impl IntoIterator<Item = Arc<Object>>, defaults: Defaults) -> Self {
        let objects: BTreeMap<_, _> = objects.into_iter().map(|o| (o.key.clone(), o)).collect();
        let mut translator = Translator::new(defaults);
        let changes = objects.values().cloned().map(Change::Put).collect();
        let outcome = translator.apply(changes);
        let mut world = Self {
            objects,
            translator,
            diagnostics: outcome.diagnostics,
            mesh: Mesh::default(),
            gateways: BTreeMap::new(),
            services: BTreeMap::new(),
            workloads: BTreeMap::new(),
            requests: Vec::new(),
        };
        let resources = outcome.resources.into_iter().filter_map(|(_, r)| r);
        world.compile(resources);
        world
    }

    /// All objects.
    pub fn objects(&self) -> &BTreeMap<ObjectKey, Arc<Object>> {
        &self.objects
    }

    pub(crate) fn object(&self, key: &ObjectKey) -> Option<&Arc<Object>> {
        self.objects.get(key)
    }

    pub(crate) fn conditions(&self, key: &ObjectKey) -> &[Condition] {
        let status = self.translator.status(key);
        status.map_or(&[], |status| &status.conditions)
    }

    fn compile(&mut self, resources: impl Iterator<Item = Resource>) {
        let mut listeners = Vec::new();
        let mut services: BTreeMap<ServiceName, Parts> = BTreeMap::new();
        for resource in resources {
            match resource {
                Resource::Mesh(mesh) => self.mesh = mesh,
                Resource::Workload(w) => {
                    self.workloads.insert(w.name.clone(), w);
                }
                Resource::Listener(listener) => listeners.push(listener),
                Resource::StreamRoute(route) => {
                    let gateway = self.gateways.entry(route.gateway.clone()).or_default();
                    gateway.streams.push(Arc::new(route));
                }
                Resource::Route(route) => match &route.parent {
                    Parent::Gateway { gateway, .. } => {
                        let gateway = self.gateways.entry(gateway.clone()).or_default();
                        gateway.routes.push(Arc::new(route));
                    }
                    Parent::Service(service) => {
                        let parts = services.entry(service.clone()).or_default();
                        parts.routes.push(Arc::new(route));
                    }
                },
                Resource::Service(s) => {
                    let parts = services.entry(s.name.clone()).or_default();
                    parts.service = Some(s);
                }
                Resource::Endpoint(e) => {
                    let parts = services.entry(e.service.clone()).or_default();
                    parts.endpoints.push(e);
                }
                Resource::TrafficPolicy(p) => {
                    let parts = services.entry(p.target.clone()).or_default();
                    parts.policies.push(Arc::new(*p));
                }
                Resource::BackendTls(b) => {
                    services.entry(b.target.clone()).or_default().tls.push(b);
                }
                Resource::RequestPolicy(policy) => self.requests.push(policy),
                Resource::TrustBundle(_) => {}
            }
        }
        for listener in listeners {
            let gateway = self.gateways.entry(listener.gateway.clone()).or_default();
            gateway.add(listener);
        }
        self.services = services
            .into_iter()
            .filter_map(|(name, parts)| Some((name, parts.compile()?)))
            .collect();
    }
}

impl Gateway {
    fn add(&mut self, config: gateway::Listener) {
        let transport = Transport::of(config.protocol);
        let ports = match transport {
            Transport::Udp => &mut self.datagrams,
            _ => &mut self.ports,
        };
        let port = ports
            .entry(config.port)
            .or_insert_with(|| Port::new(transport));
        if let Err(conflict) = port.takes(&config) {
            self.refused.push((config, conflict));
            return;
        }
        let tables: Vec<_> = policy::gateway::tables(&config, &self.routes, |_| None)
            .into_iter()
            .collect();
        let mut hosts = HostMap::default();
        for (host, tables) in &tables {
            hosts.insert(host.as_ref(), tables.clone());
        }
        let listener = Arc::new(Listener {
            tables,
            hosts,
            streams: policy::gateway::streams(&config, &self.streams),
            config,
        });
        let added = port.add(&listener.config, Arc::clone(&listener));
        debug_assert_eq!(added, Ok(()), "asked for above");
    }

    /// All listeners that are served, by port.
    pub(crate) fn listeners(&self) -> impl Iterator<Item = &Arc<Listener>> {
        let ports = self.ports.values().chain(self.datagrams.values());
        ports.flat_map(Port::listeners)
    }
}

impl Parts {
    fn compile(self) -> Option<Destination> {
        let service = self.service?;
        let namespaces: BTreeSet<&str> = self.routes.iter().filter_map(|r| r.consumers()).collect();
        // What a proxy of the namespace, or of one that has no routes of its own, is told of.
        let told = |namespace: Option<&str>| -> Vec<Arc<Route>> {
            let told = |r: &&Arc<Route>| r.consumers().is_none() || r.consumers() == namespace;
            self.routes.iter().filter(told).cloned().collect()
        };
        let producers = told(None);
        let port = |port: &service::Port| {
            let of_namespace = |namespace: &&str| {
                let ways = Ways::compile(&told(Some(*namespace)), port.number);
                ways.is_consumers().then(|| ((*namespace).to_owned(), ways))
            };
            let compiled = DestinationPort {
                protocol: port.protocol,
                ways: Ways::compile(&producers, port.number),
                consumers: namespaces.iter().filter_map(of_namespace).collect(),
                policy: Effective::merge(&self.policies, port.number),
            };
            (port.number, compiled)
        };
        Some(Destination {
            ports: service.ports.iter().map(port).collect(),
            service,
            endpoints: self.endpoints,
            tls: self.tls,
        })
    }
}

impl DestinationPort {
    /// What holds for clients of a namespace.
    pub(crate) fn ways_for(&self, namespace: &str) -> &Ways {
        self.consumers.get(namespace).unwrap_or(&self.ways)
    }

    /// What holds for most clients (`None`), and for those of each namespace with routes of its own.
    pub(crate) fn all_ways(&self) -> impl Iterator<Item = (Option<&str>, &Ways)> {
        let consumers = self.consumers.iter();
        let consumers = consumers.map(|(namespace, ways)| (Some(namespace.as_str()), ways));
        std::iter::once((None, &self.ways)).chain(consumers)
    }
}

impl Ways {
    fn compile(routes: &[Arc<Route>], port: u16) -> Self {
        Self {
            routes: RouteTable::compile(routes, port),
            stream: policy::route::stream(routes, port, false).cloned(),
            datagrams: policy::route::stream(routes, port, true).cloned(),
        }
    }

    /// All of its routes; of those for connections and datagrams the one that counts.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Route>> {
        let streams = self.stream.iter().chain(&self.datagrams);
        self.routes.routes().iter().chain(streams)
    }

    /// Whether a route among them is for the clients of one namespace alone.
    pub(crate) fn is_consumers(&self) -> bool {
        self.all().any(|route| route.consumers().is_some())
    }
}

impl Destination {
    /// The endpoints that serve a port, with the number they have it under, and whether they may be
    /// chosen.
    pub(crate) fn endpoints(&self, port: u16) -> impl Iterator<Item = (&Endpoint, u16, bool)> {
        self.endpoints.iter().filter_map(move |endpoint| {
            let target = *endpoint.ports.get(&port)?;
            Some((endpoint, target, endpoint.health == Health::Healthy))
        })
    }

    /// The policy for TLS to its endpoints outside the mesh.
    pub(crate) fn tls(&self, port: u16) -> Option<&BackendTls> {
        policy::backend_tls::choose(self.tls.iter(), port)
    }
}
