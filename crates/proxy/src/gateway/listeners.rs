//! The listeners of all Gateways that this proxy serves, compiled once per change.
//!
//! Several listeners may share a port, be they of one Gateway or of several: the host that a client
//! asks for decides between them, and then between the routes of that listener. What has not
//! changed is taken over, TLS configurations with their session tickets among it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use model::gateway::{self, Protocol, ProxyProtocol, StreamRoute, Tls};
use model::limits::Limits;
use model::request::{self, RequestPolicy};
use model::route::Route;
use policy::gateway::{Conflict, Tables, Transport};
use policy::host::HostMap;
use policy::request::Here;
use policy::route::RouteTable;
use rustls::ServerConfig;

use crate::behalf::Shown;
use crate::error::chain;
use crate::http3;
use crate::request::{Compiled, Limiters, Policies};

/// What HTTP clients are offered inside TLS.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// All listeners, by port.
#[derive(Default)]
pub(crate) struct Listeners {
    ports: BTreeMap<u16, Arc<Port>>,
    /// Those for datagrams, which share no numbers with the others.
    datagrams: BTreeMap<u16, Arc<Port>>,
    limiters: Vec<Arc<Limiters>>,
}

/// One port.
pub(crate) struct Port {
    /// Where it is bound; empty for everywhere.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) proxy_protocol: ProxyProtocol,
    pub(crate) trusted_hops: u32,
    pub(crate) limits: Limits,
    /// Whether HTTP/3 is served on the same number, over UDP.
    http3: bool,
    listeners: policy::gateway::Port<Arc<Listener>>,
    /// Connections that are open, by all workers together.
    open: Arc<AtomicU32>,
}

/// A place among the connections of a port.
pub(crate) struct Place(Arc<AtomicU32>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One listener with its routes.
pub(crate) struct Listener {
    pub(crate) config: Arc<gateway::Listener>,
    /// `Gateway namespace/name`, for messages.
    pub(crate) name: Arc<str>,
    /// How TLS is ended, where it is.
    pub(crate) tls: Option<Arc<ServerConfig>>,
    /// What its Gateway shows to backends.
    pub(crate) shown: Option<Arc<Shown>>,
    /// The same inside QUIC, where HTTP/3 is served.
    pub(crate) quic: Option<Arc<ServerConfig>>,
    /// What clients are told of HTTP/3 (RFC 7838).
    pub(crate) alt_svc: Option<Arc<str>>,
    hosts: HostMap<Arc<Table>>,
    streams: HostMap<Arc<StreamRoute>>,
}

/// The HTTP routes for one host of one listener.
pub(crate) struct Table {
    name: Arc<str>,
    shown: Option<Arc<Shown>>,
    policies: Arc<Policies>,
    tables: Tables,
}

/// What listeners are compiled from.
pub(crate) struct Inputs<'a> {
    pub(crate) listeners: &'a [Arc<gateway::Listener>],
    pub(crate) routes: &'a [Arc<Route>],
    pub(crate) streams: &'a [Arc<StreamRoute>],
    pub(crate) policies: &'a [Arc<RequestPolicy>],
}

impl Listeners {
    /// Compiles. What has not changed is taken over from `before`.
    pub(crate) fn compile(inputs: &Inputs<'_>, before: &Self) -> Self {
        let mut ports: BTreeMap<u16, Port> = BTreeMap::new();
        let mut datagrams: BTreeMap<u16, Port> = BTreeMap::new();
        let requests = RequestPolicies::compile(inputs, before);
        let mut shown: Vec<Arc<Shown>> = before.shown().cloned().collect();
        for config in inputs.listeners {
            let transport = Transport::of(config.protocol);
            let (ports, of_before) = match transport {
                Transport::Udp => (&mut datagrams, &before.datagrams),
                _ => (&mut ports, &before.ports),
            };
            let port = ports.entry(config.port).or_insert_with(|| Port {
                addresses: config.addresses.clone(),
                proxy_protocol: config.proxy_protocol,
                trusted_hops: config.trusted_hops,
                limits: config.limits.clone(),
                http3: false,
                listeners: policy::gateway::Port::new(transport),
                open: of_before
                    .get(&config.port)
                    .map_or_else(Arc::default, |p| Arc::clone(&p.open)),
            });
            let name = format!("listener {} of Gateway {}", config.name, config.gateway);
            if let Err(conflict) = port.listeners.takes(config) {
                not_served(&name, config, conflict);
                continue;
            }
            let old = before.find(config).map(Arc::as_ref);
            let shown = intern(config, &mut shown);
            let Some(listener) = Listener::compile(config, inputs, &requests, shown, old) else {
                continue;
            };
            port.bind_to(&config.addresses);
            // In clear text it is not known yet whose connection it is: none is believed more than the
            // least that any of them believes.
            port.trusted_hops = port.trusted_hops.min(config.trusted_hops);
            let http3 = listener.quic.is_some();
            if let Err(conflict) = port.listeners.add(config, Arc::new(listener)) {
                not_served(&name, config, conflict);
                continue;
            }
            port.http3 |= http3;
        }
        for (number, port) in &mut ports {
            if port.http3 && datagrams.contains_key(number) {
                tracing::error!(
                    port = number,
                    "HTTP/3 is not served: a listener for UDP has the port; change one of them"
                );
                port.http3 = false;
            }
        }
        let shared = |ports: BTreeMap<u16, Port>| {
            let ports = ports.into_iter().map(|(number, p)| (number, Arc::new(p)));
            ports.collect()
        };
        Self {
            ports: shared(ports),
            datagrams: shared(datagrams),
            limiters: requests.limiters(),
        }
    }

    fn find(&self, config: &gateway::Listener) -> Option<&Arc<Listener>> {
        let same = |l: &&Arc<Listener>| l.is(&config.gateway, &config.name);
        let ports = match config.protocol {
            Protocol::Udp => &self.datagrams,
            _ => &self.ports,
        };
        ports.get(&config.port)?.listeners.listeners().find(same)
    }

    /// What Gateways show to backends; the same more than once.
    fn shown(&self) -> impl Iterator<Item = &Arc<Shown>> {
        let ports = self.ports.values();
        let listeners = ports.flat_map(|port| port.listeners.listeners());
        listeners.filter_map(|listener| listener.shown.as_ref())
    }

    /// A port.
    pub(crate) fn port(&self, number: u16) -> Option<&Arc<Port>> {
        self.ports.get(&number)
    }

    /// A port for datagrams.
    pub(crate) fn datagrams(&self, number: u16) -> Option<&Arc<Port>> {
        self.datagrams.get(&number)
    }

    /// All ports.
    pub(crate) fn ports(&self) -> impl Iterator<Item = (u16, &Arc<Port>)> {
        let all = self.ports.iter().chain(&self.datagrams);
        all.map(|(number, port)| (*number, port))
    }
}

impl Port {
    /// The listener for a host in normal form; without one, for those who name none.
    pub(crate) fn listener(&self, host: Option<&str>) -> Option<&Arc<Listener>> {
        self.listeners.listener(host)
    }

    /// What its connections begin with.
    pub(crate) fn transport(&self) -> Transport {
        self.listeners.transport()
    }

    /// Whether HTTP/3 is served on the same number, over UDP.
    pub(crate) fn http3(&self) -> bool {
        self.http3
    }

    /// A place for one more connection; `None` when there are as many as may be.
    pub(crate) fn admit(&self) -> Option<Place> {
        let place = Place(Arc::clone(&self.open));
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        (before < self.limits.max_connections).then_some(place)
    }

    fn bind_to(&mut self, addresses: &[IpAddr]) {
        if addresses.is_empty() || self.addresses.is_empty() {
            self.addresses.clear();
        } else {
            self.addresses.extend(addresses);
            self.addresses.sort();
            self.addresses.dedup();
        }
    }
}

fn not_served(name: &str, config: &gateway::Listener, conflict: Conflict) {
    let (port, protocol) = (config.port, config.protocol.as_str());
    tracing::error!(port, protocol, "{name} is not served: {conflict}");
}

impl Listener {
    /// Whether it is the one of this name.
    pub(crate) fn is(&self, gateway: &gateway::GatewayName, name: &str) -> bool {
        self.config.gateway == *gateway && self.config.name == name
    }

    /// The HTTP routes for a host in normal form.
    pub(crate) fn table(&self, host: &str) -> Option<&Arc<Table>> {
        self.hosts.find(host)
    }

    /// The route of connections for a server name in normal form.
    pub(crate) fn stream(&self, host: Option<&str>) -> Option<&Arc<StreamRoute>> {
        policy::gateway::stream(&self.streams, host)
    }

    /// `None` if it cannot be served.
    fn compile(
        config: &Arc<gateway::Listener>,
        inputs: &Inputs<'_>,
        requests: &RequestPolicies<'_>,
        shown: Option<Arc<Shown>>,
        before: Option<&Self>,
    ) -> Option<Self> {
        let alpn: &[&[u8]] = match config.protocol {
            Protocol::Https => &ALPN,
            _ => &[],
        };
        let tls = match &config.tls {
            Some(Tls::Terminate(_)) => {
                let old = before.and_then(|b| Some((&*b.config, b.tls.as_ref()?)));
                Some(server_config(config, alpn, old)?)
            }
            Some(Tls::Passthrough) | None => None,
        };
        // Tickets of its own: what is resumed in QUIC was begun there.
        let quic = config.http3.filter(|_| tls.is_some()).and_then(|_| {
            let old = before.and_then(|b| Some((&*b.config, b.quic.as_ref()?)));
            server_config(config, &[http3::ALPN], old)
        });
        let alt_svc = config.http3.filter(|_| quic.is_some()).map(|http3| {
            let age = http3.max_age.as_secs();
            format!("h3=\":{}\"; ma={age}", http3.port).into()
        });
        let name = format!("Gateway {}", config.gateway).into();
        let whose = Whose {
            name: &name,
            shown: shown.as_ref(),
            policies: Arc::new(requests.at(config)),
        };
        let hosts = tables(config, &whose, inputs.routes, before);
        Some(Self {
            config: Arc::clone(config),
            name,
            tls,
            shown,
            quic,
            alt_svc,
            hosts,
            streams: policy::gateway::streams(config, inputs.streams),
        })
    }
}

/// How TLS is ended; the configuration of before where nothing about it has changed.
fn server_config(
    config: &gateway::Listener,
    alpn: &[&[u8]],
    before: Option<(&gateway::Listener, &Arc<ServerConfig>)>,
) -> Option<Arc<ServerConfig>> {
    if let Some((before, made)) = before
        && before.tls == config.tls
        && before.protocol == config.protocol
    {
        return Some(Arc::clone(made));
    }
    let Some(Tls::Terminate(termination)) = &config.tls else {
        return None;
    };
    let made = identity::edge::server_config(termination, alpn);
    if let Err(error) = &made {
        tracing::error!(
            gateway = %config.gateway,
            listener = config.name,
            error = chain(error),
            "TLS cannot be served; mend the Secret"
        );
    }
    // A certificate that cannot be used does not take down the one that can.
    made.ok()
        .or_else(|| before.map(|(_, made)| Arc::clone(made)))
}

/// What a listener's Gateway shows to backends: one for all its listeners, and for as long as it is
/// as it is, since connections are kept by it.
fn intern(config: &gateway::Listener, known: &mut Vec<Arc<Shown>>) -> Option<Arc<Shown>> {
    let (gateway, identity) = (&config.gateway, &config.backend_identity);
    if let Some(same) = known.iter().find(|s| s.is_for(gateway, identity)) {
        return Some(Arc::clone(same));
    }
    let new = Shown::new(gateway, identity)?;
    known.push(Arc::clone(&new));
    Some(new)
}

/// What all tables of a listener have in common.
struct Whose<'a> {
    name: &'a Arc<str>,
    shown: Option<&'a Arc<Shown>>,
    policies: Arc<Policies>,
}

/// The policies about requests, by Gateway.
struct RequestPolicies<'a>(BTreeMap<&'a gateway::GatewayName, Compiled<'a>>);

impl<'a> RequestPolicies<'a> {
    fn compile(inputs: &Inputs<'a>, before: &Listeners) -> Self {
        let mut by_gateway: BTreeMap<&gateway::GatewayName, Vec<&RequestPolicy>> = BTreeMap::new();
        for policy in inputs.policies {
            if let request::Parent::Gateway(name) = &policy.parent {
                by_gateway.entry(name).or_default().push(policy);
            }
        }
        let compile = |(name, policies): (_, Vec<&'a RequestPolicy>)| {
            (name, Compiled::new(policies.into_iter(), &before.limiters))
        };
        Self(by_gateway.into_iter().map(compile).collect())
    }

    fn at(&self, listener: &gateway::Listener) -> Policies {
        let compiled = self.0.get(&listener.gateway);
        compiled.map_or_else(Policies::default, |c| c.at(Here::Listener(&listener.name)))
    }

    fn limiters(&self) -> Vec<Arc<Limiters>> {
        self.0.values().flat_map(Compiled::limiters).collect()
    }
}

fn tables(
    config: &gateway::Listener,
    whose: &Whose<'_>,
    routes: &[Arc<Route>],
    before: Option<&Listener>,
) -> HostMap<Arc<Table>> {
    let mut hosts = HostMap::default();
    let known = |host: Option<&_>| Some(before?.hosts.get(host)?.tables.own());
    for (host, tables) in policy::gateway::tables(config, routes, known) {
        let table = Table {
            name: Arc::clone(whose.name),
            shown: whose.shown.cloned(),
            policies: Arc::clone(&whose.policies),
            tables,
        };
        hosts.insert(host.as_ref(), Arc::new(table));
    }
    hosts
}

impl Table {
    /// The tables to ask, in this order.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &Arc<RouteTable>> {
        self.tables.iter()
    }

    /// What their Gateway shows to backends.
    pub(crate) fn shown(&self) -> Option<&Arc<Shown>> {
        self.shown.as_ref()
    }

    /// Faults and limits.
    pub(crate) fn policies(&self) -> &Policies {
        &self.policies
    }

    /// Whose routes they are.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }
}
