//! Connections and datagrams: the one route for their server name, and its backends.

use std::fmt::Display;
use std::sync::Arc;

use model::gateway::StreamRoute;
use model::route::{Route, Target};
use model::{ObjectName, Reason};

use super::backend;
use crate::report::{Failure, NotTaken, RouteTaken, Simulation};
use crate::world::{Listener, World};

const ANY: &str = "any connection";

pub(super) fn go(world: &World, listener: &Listener, name: Option<&str>, said: &mut Simulation) {
    let found = policy::gateway::stream(&listener.streams, name);
    let of_gateway = world.gateways.get(&listener.config.gateway);
    let all = of_gateway.filter(|_| !said.brief);
    for route in all.into_iter().flat_map(|g| &g.streams) {
        if found.is_none_or(|f| !Arc::ptr_eq(f, route)) {
            let what = format!("{} {}", route.kind, route.name);
            said.not_taken
                .push(NotTaken::new(what, why_not(route, listener, name)));
        }
    }
    let Some(route) = found else {
        let whom = name.map(|name| format!(" for the server name \"{name}\""));
        let details = format!("no route is attached{}", whom.unwrap_or_default());
        let remedy =
            "attach a route of the listener's protocol, with this host among its hostnames";
        return said.fail(Failure::new(Reason::NoRoute, details).remedy(remedy));
    };
    let condition = match name {
        Some(name) => format!("server name {name}"),
        None => ANY.to_owned(),
    };
    let backends = route.backends.iter().map(|b| (&b.target, b.weight));
    let backends: Vec<_> = backends.collect();
    let route = (&route.kind as &dyn Display, &route.name);
    taken(world, route, condition, &backends, said);
}

/// A connection to a service, or a datagram, that a route of the service's takes.
pub(super) fn of_service(world: &World, route: &Route, said: &mut Simulation) {
    let backends = route.rules.iter().flat_map(|rule| &rule.backends);
    let backends: Vec<_> = backends.map(|b| (&b.target, b.weight)).collect();
    let route = (&route.kind as &dyn Display, &route.name);
    taken(world, route, ANY.to_owned(), &backends, said);
}

/// What a route leads to; of it, kind and name.
fn taken(
    world: &World,
    (kind, name): (&dyn Display, &ObjectName),
    condition: String,
    backends: &[(&Target, u32)],
    said: &mut Simulation,
) {
    said.route = Some(RouteTaken {
        kind: kind.to_string(),
        name: name.to_string(),
        rule_index: 0,
        rule_name: None,
        match_index: None,
        condition,
    });
    let total: u64 = backends.iter().map(|(_, weight)| u64::from(*weight)).sum();
    if total == 0 {
        let details = format!("{kind} {name} has no backend with a weight above 0");
        let remedy = "give one of its backendRefs a weight";
        return said.fail(Failure::no_backend(details).remedy(remedy));
    }
    for (target, weight) in backends {
        let share = (*weight, total);
        let taken = backend::taken(world, None, target, share, said.brief);
        said.backends.push(taken);
    }
    backend::judge(said);
}

fn why_not(route: &StreamRoute, listener: &Listener, name: Option<&str>) -> String {
    let listener = &listener.config;
    let hosts = policy::gateway::attached(&route.attachments, listener);
    if hosts.is_empty() {
        return format!("is attached to other listeners than \"{}\"", listener.name);
    }
    let takes = |name: &str| hosts.iter().flatten().any(|h| h.takes(name)) || hosts.contains(&None);
    match name {
        Some(name) if !takes(name) => {
            let hosts: Vec<String> = hosts.iter().flatten().map(ToString::to_string).collect();
            format!("is for {}, not for {name}", hosts.join(", "))
        }
        _ => "an older route, or one for a more specific host, comes first".to_owned(),
    }
}
