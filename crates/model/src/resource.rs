//! What travels from the control plane to proxies: kinds, names, and which name belongs to whom.
//!
//! A resource's name begins with its parent's, so that a proxy that subscribes to the service
//! `bookshop/reviews` and to the collections `bookshop/reviews/*` of routes, endpoints and
//! policies holds all about that destination and nothing else. Routes that are for the clients of
//! one namespace alone are a collection of their own, `bookshop/reviews/consumers:shop/*`, which
//! only proxies of that namespace ask for. Some resources have aliases (`ip/10.0.0.1`), under which
//! a proxy can ask for what it knows only by address.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::backend_tls::BackendTls;
use crate::endpoint::Endpoint;
use crate::gateway::{GatewayName, Listener, StreamRoute};
use crate::mesh::{Mesh, TrustBundle};
use crate::name::{ServiceName, WorkloadName};
use crate::request::{self, RequestPolicy, Section};
use crate::route::{Parent, Route};
use crate::service::Service;
use crate::traffic::TrafficPolicy;
use crate::workload::Workload;

/// The kinds of resources, in the order in which a proxy needs them: what is referred to comes
/// before what refers to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// [`Mesh`], always named `default`.
    Mesh,
    /// [`TrustBundle`], always named `default`.
    TrustBundle,
    /// [`Workload`], `namespace/name`; aliases: its addresses.
    Workload,
    /// [`Service`], `namespace/name`; aliases: its addresses.
    Service,
    /// [`Endpoint`], `namespace/service/workload`.
    Endpoint,
    /// [`TrafficPolicy`], `namespace/service/namespace.policy`, with `:port` where it is for one port.
    TrafficPolicy,
    /// [`RequestPolicy`], `namespace/service/kind.namespace.policy` or
    /// `namespace/gateway:name/kind.namespace.policy`, with `:part` where it is for a part of it.
    RequestPolicy,
    /// [`BackendTls`], `namespace/service/namespace.policy`, with `:port` where it is for one port.
    BackendTls,
    /// [`Listener`], `namespace/gateway:name/listener`.
    Listener,
    /// [`Route`], `namespace/service/kind.namespace.route`, with `:port` where it is for one port;
    /// `namespace/service/consumers:namespace/kind.namespace.route` where it is for the clients of
    /// one namespace alone;
    /// `namespace/gateway:name/kind.namespace.route` where the parent is a Gateway.
    Route,
    /// [`StreamRoute`], `namespace/gateway:name/kind.namespace.route`.
    StreamRoute,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 11] = [
        Self::Mesh,
        Self::TrustBundle,
        Self::Workload,
        Self::Service,
        Self::Endpoint,
        Self::TrafficPolicy,
        Self::RequestPolicy,
        Self::BackendTls,
        Self::Listener,
        Self::Route,
        Self::StreamRoute,
    ];

    /// The kind's name, which is also its message's in the protobuf package `tulle.v1`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mesh => "Mesh",
            Self::TrustBundle => "TrustBundle",
            Self::Workload => "Workload",
            Self::Service => "Service",
            Self::Endpoint => "Endpoint",
            Self::TrafficPolicy => "TrafficPolicy",
            Self::RequestPolicy => "RequestPolicy",
            Self::BackendTls => "BackendTls",
            Self::Listener => "Listener",
            Self::Route => "Route",
            Self::StreamRoute => "StreamRoute",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Kind and name of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: Arc<str>,
}

impl Key {
    /// A key.
    pub fn new(kind: Kind, name: impl Into<Arc<str>>) -> Self {
        Self {
            kind,
            name: name.into(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// A resource of whatever kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// See [`Mesh`].
    Mesh(Mesh),
    /// See [`TrustBundle`].
    TrustBundle(TrustBundle),
    /// See [`Workload`].
    Workload(Workload),
    /// See [`Service`].
    Service(Service),
    /// See [`Endpoint`].
    Endpoint(Endpoint),
    /// See [`TrafficPolicy`].
    TrafficPolicy(Box<TrafficPolicy>),
    /// See [`RequestPolicy`].
    RequestPolicy(RequestPolicy),
    /// See [`BackendTls`].
    BackendTls(BackendTls),
    /// See [`Listener`].
    Listener(Listener),
    /// See [`Route`].
    Route(Route),
    /// See [`StreamRoute`].
    StreamRoute(StreamRoute),
}

/// The name of the only [`Mesh`] and the only [`TrustBundle`].
pub const SINGLETON: &str = "default";

impl Resource {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Mesh(_) => Kind::Mesh,
            Self::TrustBundle(_) => Kind::TrustBundle,
            Self::Workload(_) => Kind::Workload,
            Self::Service(_) => Kind::Service,
            Self::Endpoint(_) => Kind::Endpoint,
            Self::TrafficPolicy(_) => Kind::TrafficPolicy,
            Self::RequestPolicy(_) => Kind::RequestPolicy,
            Self::BackendTls(_) => Kind::BackendTls,
            Self::Listener(_) => Kind::Listener,
            Self::Route(_) => Kind::Route,
            Self::StreamRoute(_) => Kind::StreamRoute,
        }
    }

    /// Its name, as it follows from its contents.
    pub fn name(&self) -> String {
        match self {
            Self::Mesh(_) | Self::TrustBundle(_) => SINGLETON.to_owned(),
            Self::Workload(w) => w.name.to_string(),
            Self::Service(s) => s.name.to_string(),
            Self::Endpoint(e) => format!(
                "{}/{}.{}",
                e.service,
                e.workload.namespace(),
                e.workload.name()
            ),
            Self::TrafficPolicy(p) => {
                let port = at_port(p.port);
                format!(
                    "{}/{}.{}{port}",
                    p.target,
                    p.name.namespace(),
                    p.name.name()
                )
            }
            Self::RequestPolicy(p) => {
                let parent = match &p.parent {
                    request::Parent::Service(service) => service.to_string(),
                    request::Parent::Gateway(gateway) => parent_of(gateway),
                };
                let (namespace, name) = (p.name.namespace(), p.name.name());
                let section = section(&p.section);
                format!("{parent}/{}.{namespace}.{name}{section}", p.effect.kind())
            }
            Self::BackendTls(b) => {
                let (namespace, name) = (b.name.namespace(), b.name.name());
                format!("{}/{namespace}.{name}{}", b.target, at_port(b.port))
            }
            Self::Listener(l) => format!("{}/{}", parent_of(&l.gateway), l.name),
            Self::Route(r) => {
                let parent = match (&r.parent, r.consumers()) {
                    (Parent::Service(service), None) => service.to_string(),
                    (Parent::Service(service), Some(namespace)) => consumers_of(service, namespace),
                    (Parent::Gateway { gateway, .. }, _) => parent_of(gateway),
                };
                let (namespace, name) = (r.name.namespace(), r.name.name());
                format!("{parent}/{}.{namespace}.{name}{}", r.kind, at_port(r.port))
            }
            Self::StreamRoute(r) => {
                let (namespace, name) = (r.name.namespace(), r.name.name());
                format!("{}/{}.{namespace}.{name}", parent_of(&r.gateway), r.kind)
            }
        }
    }

    /// Kind and name.
    pub fn key(&self) -> Key {
        Key::new(self.kind(), self.name())
    }

    /// Further names under which it may be asked for.
    pub fn aliases(&self) -> Vec<String> {
        match self {
            Self::Workload(w) => w
                .addresses
                .iter()
                .filter(|a| !a.is_loopback())
                .map(|a| address_alias(*a))
                .collect(),
            Self::Listener(l) => l.merged_class.iter().map(|c| class_alias(c)).collect(),
            Self::Service(s) => s.addresses.iter().map(|a| address_alias(*a)).collect(),
            _ => Vec::new(),
        }
    }
}

/// One route or policy may be attached to several ports of a service.
fn at_port(port: Option<u16>) -> String {
    port.map(|p| format!(":{p}")).unwrap_or_default()
}

/// One policy may be attached to several parts of its parent. None of their names has a slash.
fn section(section: &Section) -> String {
    match section {
        Section::Whole => String::new(),
        Section::Port(port) => at_port(Some(*port)),
        Section::Listener(name) => format!(":listener:{name}"),
        Section::Route { kind, name, rule } => {
            let (namespace, name) = (name.namespace(), name.name());
            let rule = rule.as_ref().map(|r| format!(":{r}")).unwrap_or_default();
            format!(":{kind}.{namespace}.{name}{rule}")
        }
    }
}

/// The alias of the listeners of all Gateways of a class that one proxy serves.
pub fn class_alias(class: &str) -> String {
    format!("gatewayclass:{class}")
}

/// The alias of what has this address.
pub fn address_alias(address: IpAddr) -> String {
    format!("ip/{address}")
}

/// The name of the collection of a service's endpoints, policies or routes.
pub fn collection_of(service: &ServiceName) -> String {
    format!("{service}/*")
}

/// The name of the collection of a service's routes for the clients of one namespace alone.
pub fn collection_of_consumers(service: &ServiceName, namespace: &str) -> String {
    format!("{}/*", consumers_of(service, namespace))
}

fn consumers_of(service: &ServiceName, namespace: &str) -> String {
    format!("{service}/{CONSUMERS}{namespace}")
}

/// Whether a resource or collection is for the clients of one namespace alone.
pub fn is_for_consumers(name: &str) -> bool {
    let third = name.splitn(3, '/').nth(2);
    third.is_some_and(|rest| rest.starts_with(CONSUMERS))
}

/// No kind of routes has a colon in its name.
const CONSUMERS: &str = "consumers:";

/// The name of the collection of a Gateway's listeners or routes. No service has a colon in its
/// name, so that it is never a service's.
pub fn collection_of_gateway(gateway: &GatewayName) -> String {
    format!("{}/*", parent_of(gateway))
}

/// The Gateway that a resource's or a collection's name belongs to.
pub fn gateway_of(name: &str) -> Option<GatewayName> {
    let (namespace, rest) = name.split_once('/')?;
    let (gateway, _) = rest.strip_prefix("gateway:")?.split_once('/')?;
    GatewayName::new(namespace, gateway).ok()
}

fn parent_of(gateway: &GatewayName) -> String {
    format!("{}/gateway:{}", gateway.namespace(), gateway.name())
}

/// The collection that a name belongs to: `a/b/*` for `a/b/c`.
pub fn collection_containing(name: &str) -> Option<String> {
    let (parent, _) = name.rsplit_once('/')?;
    parent.contains('/').then(|| format!("{parent}/*"))
}

/// The name of a workload's own resource.
pub fn workload_resource(name: &WorkloadName) -> String {
    name.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_lies_in_its_parents_collection() {
        let service = ServiceName::new("bookshop", "reviews").expect("valid");
        assert_eq!(
            collection_containing("bookshop/reviews/bookshop.reviews-v1-0"),
            Some(collection_of(&service))
        );
        let gateway = GatewayName::new("bookshop", "web").expect("valid");
        let name = "bookshop/gateway:web/HTTPRoute.bookshop.shop.v1";
        assert_eq!(
            collection_containing(name),
            Some(collection_of_gateway(&gateway))
        );
        assert_eq!(gateway_of(name), Some(gateway));
        assert_eq!(gateway_of("bookshop/reviews/x"), None);
        let name = "bookshop/reviews/consumers:shop/HTTPRoute.shop.reviews:80";
        assert_eq!(
            collection_containing(name),
            Some(collection_of_consumers(&service, "shop"))
        );
        assert!(is_for_consumers(name) && gateway_of(name).is_none());
        assert!(!is_for_consumers("bookshop/reviews/HTTPRoute.shop.reviews"));
        assert_eq!(collection_containing("bookshop/reviews"), None);
        assert_eq!(collection_containing("default"), None);
    }
}
