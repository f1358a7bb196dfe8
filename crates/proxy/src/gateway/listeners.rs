//! The listeners of all Gateways that this proxy serves, compiled once per change.
//!
//! Several listeners may share a port, be they of one Gateway or of several: the host that a client
//! asks for decides between them, and then between the routes of that listener.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use model::gateway::{self, Protocol};
use model::hostname::Hostname;
use model::name::ObjectName;
use model::route::{Parent, Route};
use model::service;

use super::host::HostMap;
use crate::destination::Destination;

/// All listeners, by port.
#[derive(Default)]
pub(crate) struct Listeners {
    ports: BTreeMap<u16, Arc<Port>>,
}

/// One port.
pub(crate) struct Port {
    /// Where it is bound; empty for everywhere.
    pub(crate) addresses: Vec<IpAddr>,
    hosts: HostMap<Arc<Listener>>,
}

/// One listener with its routes.
pub(crate) struct Listener {
    config: Arc<gateway::Listener>,
    hosts: HostMap<Arc<Table>>,
}

/// The routes for one host of one listener.
pub(crate) struct Table {
    routes: Vec<Arc<Route>>,
    pub(crate) destination: Arc<Destination>,
}

impl Listeners {
    /// Compiles. What has not changed is taken over from `before`.
    pub(crate) fn compile(
        listeners: &[Arc<gateway::Listener>],
        routes: &[Arc<Route>],
        before: &Self,
    ) -> Self {
        let mut ports: BTreeMap<u16, Port> = BTreeMap::new();
        for config in listeners {
            if config.protocol != Protocol::Http {
                continue;
            }
            let old = before.find(config);
            let listener = Listener::compile(config, routes, old.map(AsRef::as_ref));
            let port = ports.entry(config.port).or_insert_with(|| Port {
                addresses: config.addresses.clone(),
                hosts: HostMap::default(),
            });
            if config.addresses.is_empty() || port.addresses.is_empty() {
                port.addresses.clear();
            } else {
                port.addresses.extend(&config.addresses);
                port.addresses.sort();
                port.addresses.dedup();
            }
            port.hosts
                .insert(config.hostname.as_ref(), Arc::new(listener));
        }
        let ports = ports.into_iter().map(|(number, p)| (number, Arc::new(p)));
        Self {
            ports: ports.collect(),
        }
    }

    fn find(&self, config: &gateway::Listener) -> Option<&Arc<Listener>> {
        let same =
            |l: &&Arc<Listener>| l.config.gateway == config.gateway && l.config.name == config.name;
        self.ports.get(&config.port)?.hosts.values().find(same)
    }

    /// A port.
    pub(crate) fn port(&self, number: u16) -> Option<&Arc<Port>> {
        self.ports.get(&number)
    }

    /// All ports.
    pub(crate) fn ports(&self) -> impl Iterator<Item = (u16, &Arc<Port>)> {
        self.ports.iter().map(|(number, port)| (*number, port))
    }
}

impl Port {
    /// The routes for a host in normal form.
    pub(crate) fn find(&self, host: &str) -> Option<&Arc<Table>> {
        self.hosts.find(host)?.hosts.find(host)
    }
}

impl Listener {
    fn compile(
        config: &Arc<gateway::Listener>,
        routes: &[Arc<Route>],
        before: Option<&Self>,
    ) -> Self {
        let mut by_host: BTreeMap<Option<Hostname>, Vec<Arc<Route>>> = BTreeMap::new();
        for route in routes {
            for host in hosts(route, config) {
                by_host.entry(host).or_default().push(Arc::clone(route));
            }
        }
        let mut hosts = HostMap::default();
        for (host, routes) in by_host {
            let old = before.and_then(|b| b.hosts.get(host.as_ref()));
            let table = match old {
                Some(old) if same(&old.routes, &routes) => Arc::clone(old),
                _ => Arc::new(Table::compile(config, routes)),
            };
            hosts.insert(host.as_ref(), table);
        }
        Self {
            config: Arc::clone(config),
            hosts,
        }
    }
}

/// The hosts for which a route is attached to a listener.
fn hosts(route: &Route, listener: &gateway::Listener) -> Vec<Option<Hostname>> {
    let Parent::Gateway {
        gateway,
        attachments,
    } = &route.parent
    else {
        return Vec::new();
    };
    if *gateway != listener.gateway {
        return Vec::new();
    }
    match attachments.iter().find(|a| a.listener == listener.name) {
        None => Vec::new(),
        Some(attachment) if attachment.hostnames.is_empty() => vec![listener.hostname.clone()],
        Some(attachment) => attachment.hostnames.iter().cloned().map(Some).collect(),
    }
}

fn same(a: &[Arc<Route>], b: &[Arc<Route>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
}

impl Table {
    fn compile(config: &gateway::Listener, routes: Vec<Arc<Route>>) -> Self {
        // No service has a dot in its name, so that it is never taken for one.
        let name = format!("{}.gateway", config.gateway.name());
        let name = ObjectName::new(config.gateway.namespace(), &name);
        let service = service::Service {
            name: name.unwrap_or_else(|_| config.gateway.clone()),
            addresses: Vec::new(),
            ports: vec![service::Port {
                name: String::new(),
                number: config.port,
                protocol: service::Protocol::Http,
            }],
            headless: false,
        };
        let destination = Arc::new(Destination::new(service.clone()));
        destination.update(&service, &[], &[], &routes);
        Self {
            routes,
            destination,
        }
    }
}
