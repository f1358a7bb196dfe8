//! Which listener of a port takes a host, and which of its routes it is put to.
//!
//! Several listeners may share a port: of those that take a host the one with the most specific
//! hostname has it (Gateway API, `Listener.hostname`). Within the listener the same holds for the
//! routes: each of their hosts has a table of its own, and what no rule in it takes is put to the
//! tables of less specific hosts that take this one too (`HTTPRoute.spec.hostnames`). Routes for
//! connections are one for each host, the oldest.
//!
//! Compiled once per change; a lookup costs a few hashes, whatever the number of names.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::gateway::{Attachment, Listener, Protocol, StreamRoute};
use model::hostname::Hostname;
use model::route::{Parent, Route};

use crate::host::HostMap;
use crate::route::{Decision, RequestView, RouteTable};

/// What the connections of a port begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// An HTTP request.
    Http,
    /// TLS: the server name says which listener is meant.
    Tls,
    /// Anything.
    Tcp,
    /// They are no connections but datagrams, which share no port numbers with the others.
    Udp,
}

impl Transport {
    /// That of a listener.
    pub fn of(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Http => Self::Http,
            Protocol::Https | Protocol::Tls => Self::Tls,
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
        }
    }
}

/// Why a listener is not served on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// Its connections begin with something else than those of the listeners before it.
    #[error("its port is taken by a listener for something else")]
    Transport,
    /// Another has its hostname.
    #[error("it has port and hostname of another listener")]
    Hostname,
}

/// The listeners of one port. `L` is what is kept for each.
#[derive(Debug)]
pub struct Port<L> {
    transport: Transport,
    hosts: HostMap<L>,
}

impl<L> Port<L> {
    /// A port without a listener.
    pub fn new(transport: Transport) -> Self {
        Self {
            transport,
            hosts: HostMap::default(),
        }
    }

    /// What its connections begin with.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Whether a listener can be added.
    pub fn takes(&self, listener: &Listener) -> Result<(), Conflict> {
        if Transport::of(listener.protocol) != self.transport {
            return Err(Conflict::Transport);
        }
        match self.hosts.get(listener.hostname.as_ref()) {
            Some(_) => Err(Conflict::Hostname),
            None => Ok(()),
        }
    }

    /// Adds a listener; the first of those that conflict stays.
    pub fn add(&mut self, listener: &Listener, value: L) -> Result<(), Conflict> {
        self.takes(listener)?;
        self.hosts.insert(listener.hostname.as_ref(), value);
        Ok(())
    }

    /// The listener for a host in normal form; without one, for those who name none.
    pub fn listener(&self, host: Option<&str>) -> Option<&L> {
        match host {
            Some(host) => self.hosts.find(host),
            None => self.hosts.get(None),
        }
    }

    /// All listeners.
    pub fn listeners(&self) -> impl Iterator<Item = &L> {
        self.hosts.values()
    }
}

/// The route of connections for a server name in normal form; without one, for those who name none.
pub fn stream<'m>(
    streams: &'m HostMap<Arc<StreamRoute>>,
    host: Option<&str>,
) -> Option<&'m Arc<StreamRoute>> {
    match host {
        Some(host) => streams.find(host),
        None => streams.get(None),
    }
}

/// Routes for exactly the same host.
#[derive(Debug)]
pub struct Layer {
    routes: Vec<Arc<Route>>,
    table: Arc<RouteTable>,
}

/// The HTTP routes for one host of one listener.
#[derive(Debug, Clone)]
pub struct Tables {
    own: Arc<Layer>,
    /// Those of less specific hosts that take this one too, the most specific first.
    wider: Vec<Arc<Layer>>,
}

impl Tables {
    /// The tables to ask, in this order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<RouteTable>> {
        std::iter::once(&self.own)
            .chain(&self.wider)
            .map(|layer| &layer.table)
    }

    /// That of the host itself.
    pub fn own(&self) -> &Arc<Layer> {
        &self.own
    }
}

impl Layer {
    /// Its table.
    pub fn table(&self) -> &Arc<RouteTable> {
        &self.table
    }
}

/// Of several tables the first with a match has the say.
pub fn decide<'t>(
    tables: impl Iterator<Item = &'t RouteTable>,
    request: &RequestView<'_>,
) -> Option<Decision<'t>> {
    let mut decisions = tables.filter_map(|table| table.decide(request));
    decisions.next()
}

/// The tables of a listener by host. What `before` knows for a host is taken over where its routes are
/// the same.
pub fn tables<'b>(
    listener: &Listener,
    routes: &[Arc<Route>],
    before: impl Fn(Option<&Hostname>) -> Option<&'b Arc<Layer>>,
) -> BTreeMap<Option<Hostname>, Tables> {
    let mut by_host: BTreeMap<Option<Hostname>, Vec<Arc<Route>>> = BTreeMap::new();
    for route in routes {
        for host in hosts(route, listener) {
            by_host.entry(host).or_default().push(Arc::clone(route));
        }
    }
    let mut layers: BTreeMap<Option<Hostname>, Arc<Layer>> = BTreeMap::new();
    for (host, routes) in by_host {
        let layer = match before(host.as_ref()) {
            Some(old) if same(&old.routes, &routes) => Arc::clone(old),
            _ => Arc::new(Layer {
                table: Arc::new(RouteTable::compile(&routes, listener.port)),
                routes,
            }),
        };
        layers.insert(host, layer);
    }
    layers
        .iter()
        .map(|(host, own)| {
            let tables = Tables {
                own: Arc::clone(own),
                wider: wider(host.as_ref(), &layers),
            };
            (host.clone(), tables)
        })
        .collect()
}

fn same(a: &[Arc<Route>], b: &[Arc<Route>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
}

/// The layers of less specific hosts that take `host` too, the most specific first.
fn wider(
    host: Option<&Hostname>,
    layers: &BTreeMap<Option<Hostname>, Arc<Layer>>,
) -> Vec<Arc<Layer>> {
    let mut found = Vec::new();
    let text = match host {
        None => return found,
        Some(Hostname::Exact(text) | Hostname::Below(text)) => text,
    };
    let mut rest: &str = text;
    while let Some((_, suffix)) = rest.split_once('.') {
        let below = Some(Hostname::Below(suffix.into()));
        found.extend(layers.get(&below).cloned());
        rest = suffix;
    }
    found.extend(layers.get(&None).cloned());
    found
}

/// The hosts for which a route is attached to a listener; none if it is not.
pub fn hosts(route: &Route, listener: &Listener) -> Vec<Option<Hostname>> {
    match &route.parent {
        Parent::Gateway {
            gateway,
            attachments,
        } if *gateway == listener.gateway => attached(attachments, listener),
        _ => Vec::new(),
    }
}

/// The hosts for which something with these attachments is attached to a listener of its Gateway.
pub fn attached(attachments: &[Attachment], listener: &Listener) -> Vec<Option<Hostname>> {
    match attachments.iter().find(|a| a.listener == listener.name) {
        None => Vec::new(),
        Some(attachment) if attachment.hostnames.is_empty() => vec![listener.hostname.clone()],
        Some(attachment) => attachment.hostnames.iter().cloned().map(Some).collect(),
    }
}

/// The routes of a listener's connections by host: of several for one host the oldest, then the one
/// whose name comes first.
pub fn streams(listener: &Listener, routes: &[Arc<StreamRoute>]) -> HostMap<Arc<StreamRoute>> {
    let own = routes.iter().filter(|r| r.gateway == listener.gateway);
    let mut ranked: Vec<&Arc<StreamRoute>> = own.collect();
    ranked.sort_by_key(|r| (r.created, r.name.clone()));
    let mut map = HostMap::default();
    for route in ranked {
        for host in attached(&route.attachments, listener) {
            map.insert(host.as_ref(), Arc::clone(route));
        }
    }
    map
}

#[cfg(test)]
mod tests;
