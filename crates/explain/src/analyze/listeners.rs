//! Listeners that give way to others or have no route, and routes whose hosts or connections another
//! has.

use std::collections::BTreeMap;
use std::sync::Arc;

use config::{ObjectKey, ObjectKind, Spec};
use model::gateway::{GatewayName, StreamKind};
use model::hostname::Hostname;
use policy::gateway::{Port, attached, hosts};

use super::{Notes, Said, Severity, rules};
use crate::world::{Gateway, Listener};

pub(super) fn look(notes: &mut Notes<'_>) {
    let world = notes.world;
    for (name, gateway) in &world.gateways {
        for (listener, conflict) in &gateway.refused {
            let said = Said {
                severity: Severity::Warning,
                check: "conflict",
                field: field(notes, name, &listener.name),
                message: format!("the listener is not served: {conflict}"),
                why: format!("of those on port {} the first stays", listener.port),
                remedy: "give it a port or a hostname of its own".to_owned(),
            };
            notes.add(object(name), said);
        }
        for listener in gateway.listeners() {
            let none = listener.tables.is_empty() && listener.streams.values().next().is_none();
            if none {
                let said = Said {
                    severity: Severity::Info,
                    check: "unused",
                    field: field(notes, name, &listener.config.name),
                    message: "no route is attached to the listener".to_owned(),
                    why: "whatever it takes is answered with no_route".to_owned(),
                    remedy: "attach a route, or take the listener out".to_owned(),
                };
                notes.add(object(name), said);
            }
        }
        for port in gateway.ports.values() {
            for listener in port.listeners() {
                hosts_of_others(notes, gateway, port, listener);
            }
        }
        streams(notes, gateway);
    }
}

/// Hosts of routes that are attached to one listener while another of the same port has them.
fn hosts_of_others(
    notes: &mut Notes<'_>,
    gateway: &Gateway,
    port: &Port<Arc<Listener>>,
    listener: &Arc<Listener>,
) {
    let mut lost: BTreeMap<&Hostname, &str> = BTreeMap::new();
    for host in listener.tables.iter().filter_map(|(host, _)| host.as_ref()) {
        let other = port.listeners().find(|other| {
            let theirs = other.config.hostname.as_ref();
            let narrower = listener.config.hostname.as_ref().is_none_or(|own| {
                theirs.is_some_and(|t| t != own && t.shared(own).as_ref() == Some(t))
            });
            !Arc::ptr_eq(other, listener)
                && narrower
                && theirs.is_some_and(|t| t.shared(host).as_ref() == Some(host))
        });
        if let Some(other) = other {
            lost.insert(host, &other.config.name);
        }
    }
    if lost.is_empty() {
        return;
    }
    for route in &gateway.routes {
        for host in hosts(route, &listener.config).into_iter().flatten() {
            let Some(other) = lost.get(&host) else {
                continue;
            };
            let also = route.parent.gateway().is_some() && is_attached(gateway, route, other);
            if also {
                continue;
            }
            let own = &listener.config.name;
            let said = Said {
                severity: Severity::Warning,
                check: "shadowed",
                field: "spec.hostnames".to_owned(),
                message: format!(
                    "gets no request for {host}: listener \"{other}\" has that host on the same port"
                ),
                why: format!(
                    "the route is attached to listener \"{own}\", whose hostname is less specific"
                ),
                remedy: format!("attach it to listener \"{other}\" too"),
            };
            notes.add(rules::object(route.kind, &route.name), said);
        }
    }
}

fn is_attached(gateway: &Gateway, route: &model::route::Route, listener: &str) -> bool {
    let named = gateway.listeners().find(|l| l.config.name == listener);
    named.is_some_and(|l| !hosts(route, &l.config).is_empty())
}

/// Routes of connections of which another, older one has all.
fn streams(notes: &mut Notes<'_>, gateway: &Gateway) {
    for route in &gateway.streams {
        let places = gateway.listeners().flat_map(|listener| {
            let hosts = attached(&route.attachments, &listener.config);
            let has = hosts
                .into_iter()
                .filter_map(|h| listener.streams.get(h.as_ref()).cloned());
            has.collect::<Vec<_>>()
        });
        let places: Vec<_> = places.collect();
        let own = places.iter().any(|has| Arc::ptr_eq(has, route));
        let winner = places.first().filter(|_| !own);
        let Some(winner) = winner else {
            continue;
        };
        let kind = match route.kind {
            StreamKind::Tls => ObjectKind::TlsRoute,
            StreamKind::Tcp => ObjectKind::TcpRoute,
            StreamKind::Udp => ObjectKind::UdpRoute,
        };
        let said = Said {
            severity: Severity::Warning,
            check: "shadowed",
            field: String::new(),
            message: format!(
                "never gets a connection: {} {} has them all",
                winner.kind, winner.name
            ),
            why: if winner.created < route.created {
                "it is older".to_owned()
            } else {
                "both are equally old, and its name comes first".to_owned()
            },
            remedy: "take one of them out, or give each its own listener or hostnames".to_owned(),
        };
        notes.add(
            ObjectKey::new(kind, route.name.namespace(), route.name.name()),
            said,
        );
    }
}

pub(super) fn object(name: &GatewayName) -> ObjectKey {
    ObjectKey::new(ObjectKind::Gateway, name.namespace(), name.name())
}

/// `spec.listeners[2]`.
pub(super) fn field(notes: &Notes<'_>, gateway: &GatewayName, listener: &str) -> String {
    let object = notes.world.object(&object(gateway));
    let place = object.and_then(|object| match &object.spec {
        Spec::Gateway(spec) => spec.listeners.iter().position(|l| l.name == listener),
        _ => None,
    });
    place
        .map(|at| format!("spec.listeners[{at}]"))
        .unwrap_or_default()
}
