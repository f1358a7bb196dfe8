//! Rules that can never match: because of what requests are, or because others leave them nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use config::{ObjectKey, ObjectKind};
use model::ObjectName;
use model::route::{PathMatch, Route, RouteKind};
use policy::route::{Place, RouteTable, Shadow, impossible};

use super::{Notes, Said, Severity};
use crate::world::World;

/// A match of a rule of a route.
type At = (RouteKind, ObjectName, usize, usize);

/// In how many tables a match stands, and in which others leave it nothing.
#[derive(Default)]
struct Seen {
    tables: usize,
    impossible: Option<String>,
    shadowed: Vec<Shadowed>,
    matches: usize,
}

struct Shadowed {
    table: String,
    by: String,
    why: &'static str,
}

pub(super) fn look(notes: &mut Notes<'_>) {
    let mut seen: BTreeMap<At, Seen> = BTreeMap::new();
    each_table(notes.world, |name, table| look_at(name, table, &mut seen));
    let mut rules: BTreeMap<(RouteKind, ObjectName, usize), Vec<(usize, Seen)>> = BTreeMap::new();
    for ((kind, route, rule, at), seen) in seen {
        let rule = rules.entry((kind, route, rule)).or_default();
        rule.push((at, seen));
    }
    for ((kind, route, rule), matches) in rules {
        let object = object(kind, &route);
        let whole = matches.len() > 1
            && matches
                .iter()
                .all(|(_, seen)| seen.tables == seen.shadowed.len());
        for (at, seen) in matches {
            // Of a rule that is lost as a whole the first match speaks for all.
            if whole && at > 0 {
                continue;
            }
            let field = if whole || seen.matches == 1 {
                format!("spec.rules[{rule}]")
            } else {
                format!("spec.rules[{rule}].matches[{at}]")
            };
            say(notes, object.clone(), field, seen);
        }
    }
}

/// Every table of routes, with a name for it.
fn each_table(world: &World, mut look: impl FnMut(&dyn Fn() -> String, &RouteTable)) {
    for (gateway, listeners) in &world.gateways {
        for listener in listeners.listeners() {
            for (host, tables) in &listener.tables {
                let name = || {
                    let host = host
                        .as_ref()
                        .map_or_else(|| "*".to_owned(), ToString::to_string);
                    let listener = &listener.config.name;
                    format!("host {host} on listener \"{listener}\" of Gateway {gateway}")
                };
                look(&name, tables.own().table());
            }
        }
    }
    for (service, destination) in &world.services {
        for (number, port) in &destination.ports {
            for (consumers, ways) in port.all_ways() {
                let routes = &ways.routes;
                // A namespace whose own routes are for datagrams has the producer's table.
                let same = |r: &Arc<Route>| r.consumers() == consumers;
                if !routes.routes().iter().all(same) {
                    continue;
                }
                let name = || {
                    let whose = consumers.map(|namespace| format!(", from namespace {namespace}"));
                    let whose = whose.unwrap_or_default();
                    format!("port {number} of Service {service}{whose}")
                };
                look(&name, routes);
            }
        }
    }
}

fn look_at(name: &dyn Fn() -> String, table: &RouteTable, seen: &mut BTreeMap<At, Seen>) {
    for place in table.places() {
        let rule = &place.route.rules[place.rule_index];
        let entry = seen.entry(at(&place)).or_default();
        if entry.tables == 0 {
            entry.matches = rule.matches.len();
            entry.impossible = impossible(&rule.matches[place.match_index], place.route.kind);
        }
        entry.tables += 1;
    }
    for shadow in table.shadows() {
        let entry = seen.entry(at(&shadow.of)).or_default();
        entry.shadowed.push(Shadowed {
            table: name(),
            by: crate::simulate::described(&shadow.by),
            why: why(&shadow),
        });
    }
}

fn at(place: &Place<'_>) -> At {
    let route = place.route;
    (
        route.kind,
        route.name.clone(),
        place.rule_index,
        place.match_index,
    )
}

/// Why the other has precedence.
fn why(shadow: &Shadow<'_>) -> &'static str {
    let (of, by) = (shadow.of.route, shadow.by.route);
    match (path(&shadow.of), path(&shadow.by)) {
        (PathMatch::Regex(a), PathMatch::Regex(b)) if a != b => "the longer expression comes first",
        (PathMatch::Regex(_), _) | (_, PathMatch::Regex(_))
            if path(&shadow.of) != path(&shadow.by) =>
        {
            "expressions come before prefixes"
        }
        _ if of.name == by.name => "it stands before it in the same route",
        _ if by.created < of.created => "its route is older",
        _ => "both routes are equally old, and its name comes first",
    }
}

fn path<'t>(place: &Place<'t>) -> &'t PathMatch {
    &place.route.rules[place.rule_index].matches[place.match_index].path
}

fn say(notes: &mut Notes<'_>, object: ObjectKey, field: String, seen: Seen) {
    if let Some(why) = seen.impossible {
        let (why, remedy) = match why.split_once("; ") {
            Some((why, remedy)) => (why.to_owned(), remedy.to_owned()),
            None => (why, String::new()),
        };
        let said = Said {
            severity: Severity::Warning,
            check: "impossible",
            field,
            message: "no request can ever match".to_owned(),
            why,
            remedy,
        };
        return notes.add(object, said);
    }
    let Some(first) = seen.shadowed.first() else {
        return;
    };
    let everywhere = seen.shadowed.len() == seen.tables;
    let message = if everywhere {
        format!("never gets a request: {} takes all that it could", first.by)
    } else {
        let others = match seen.shadowed.len() - 1 {
            0 => String::new(),
            more => format!(" (and in {more} other places)"),
        };
        format!(
            "gets no request for {}{others}: {} takes all that it could",
            first.table, first.by
        )
    };
    let said = Said {
        severity: if everywhere {
            Severity::Warning
        } else {
            Severity::Info
        },
        check: "shadowed",
        field,
        message,
        why: first.why.to_owned(),
        remedy: "take one of them out, or give it a condition that the other has not".to_owned(),
    };
    notes.add(object, said);
}

/// The object that a route was written as.
pub(super) fn object(kind: RouteKind, name: &ObjectName) -> ObjectKey {
    let kind = match kind {
        RouteKind::Http => ObjectKind::HttpRoute,
        RouteKind::Grpc => ObjectKind::GrpcRoute,
        RouteKind::Tls => ObjectKind::TlsRoute,
        RouteKind::Tcp => ObjectKind::TcpRoute,
        RouteKind::Udp => ObjectKind::UdpRoute,
    };
    ObjectKey::new(kind, name.namespace(), name.name())
}
