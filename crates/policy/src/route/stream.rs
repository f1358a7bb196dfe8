//! Which of a service's routes are in force on a port, and where its connections or datagrams go.
//!
//! Gateway API for meshes (GEP-1294, Route types): of routes of several types on one port one type is
//! applied, GRPCRoutes and HTTPRoutes before TLSRoutes before TCPRoutes. Datagrams have a type of
//! their own. What a connection says of itself is not looked at: hostnames mean nothing here.

use std::sync::Arc;

use model::route::{Route, RouteKind};

/// The routes that are in force on a port for one transport: those of the clients' own namespace
/// where there are any, else the producer's; see [`compile`](super::RouteTable::compile).
pub(super) fn in_force(
    routes: &[Arc<Route>],
    port: u16,
    datagrams: bool,
) -> impl Iterator<Item = &Arc<Route>> {
    let attached = move |r: &&Arc<Route>| {
        r.port.is_none_or(|own| own == port) && (r.kind == RouteKind::Udp) == datagrams
    };
    let by_consumers = |r: &Arc<Route>| r.consumers().is_some();
    let consumers = routes.iter().filter(attached).any(by_consumers);
    let all = routes.iter().filter(attached);
    all.filter(move |r| by_consumers(r) == consumers)
}

/// The route of a port's connections, or of its datagrams: the oldest, then the one whose name comes
/// first. Connections to a port with routes for requests have none.
pub fn stream(routes: &[Arc<Route>], port: u16, datagrams: bool) -> Option<&Arc<Route>> {
    let mut requests = in_force(routes, port, datagrams).filter(|r| r.kind.is_http());
    if requests.next().is_some() {
        return None;
    }
    in_force(routes, port, datagrams).min_by_key(|r| (r.kind, r.created, r.name.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::name::ObjectName;
    use model::route::Parent;

    fn route(kind: RouteKind, name: &str, port: Option<u16>, created: u64) -> Arc<Route> {
        Arc::new(Route {
            kind,
            name: name.parse().expect("valid"),
            parent: Parent::Service(ObjectName::new("shop", "db").expect("valid")),
            port,
            created,
            rules: Vec::new(),
        })
    }

    #[test]
    fn one_type_is_in_force_and_the_oldest_route_of_it() {
        let mut routes = vec![
            route(RouteKind::Tcp, "shop/new", None, 2),
            route(RouteKind::Tcp, "shop/old", None, 1),
            route(RouteKind::Udp, "shop/udp", Some(53), 3),
        ];
        let name = |routes: &[Arc<Route>], port, datagrams| {
            stream(routes, port, datagrams).map(|r| r.name.name().to_owned())
        };
        assert_eq!(name(&routes, 5432, false).as_deref(), Some("old"));
        assert_eq!(name(&routes, 53, true).as_deref(), Some("udp"));
        assert_eq!(name(&routes, 5432, true), None);
        routes.push(route(RouteKind::Tls, "shop/tls", Some(443), 9));
        assert_eq!(name(&routes, 443, false).as_deref(), Some("tls"));
        routes.push(route(RouteKind::Http, "shop/http", Some(443), 9));
        assert_eq!(name(&routes, 443, false), None);
        // A consumer's, of whatever type, takes the place of all of the producer's.
        routes.push(route(RouteKind::Tcp, "clients/own", Some(443), 9));
        assert_eq!(name(&routes, 443, false).as_deref(), Some("own"));
        assert_eq!(name(&routes, 5432, false).as_deref(), Some("old"));
    }
}
