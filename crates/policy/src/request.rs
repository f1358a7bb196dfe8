//! Policies about requests: which of those of a parent holds for a request, and what it makes of it.
//!
//! The most specific holds, and it alone: of the rule that took the request, else of its route, else
//! of the port or listener, else of the service or Gateway. Of two for the same the older does, then
//! the one whose name comes first (GEP-713). What time it is and what chance says is handed in.

pub mod fault;
pub mod limit;

use std::borrow::Cow;
use std::collections::BTreeMap;

use model::ObjectName;
use model::request::{Condition, RequestPolicy, Section};
use model::route::{PathMatch, Route, RouteKind, Rule};

use crate::route::{self, RequestView};

/// The place at which a request comes to a parent.
#[derive(Debug, Clone, Copy)]
pub enum Here<'a> {
    /// A port of a service.
    Port(u16),
    /// A listener of a Gateway.
    Listener(&'a str),
}

/// The policies of one kind for one port or listener, with whatever belongs to each.
#[derive(Debug, Clone)]
pub struct Table<T> {
    here: Option<T>,
    routes: BTreeMap<(RouteKind, ObjectName), OfRoute<T>>,
}

#[derive(Debug, Clone)]
struct OfRoute<T> {
    whole: Option<T>,
    rules: BTreeMap<String, T>,
}

impl<T> Table<T> {
    /// Compiles what holds here, in whatever order it comes; `None` if that is nothing.
    pub fn compile<'p>(
        policies: impl Iterator<Item = (&'p RequestPolicy, T)>,
        here: Here<'_>,
    ) -> Option<Box<Self>> {
        let mut ranked: Vec<(&RequestPolicy, T)> = policies.collect();
        ranked.sort_by_key(|(p, _)| (specificity(&p.section), p.created, p.name.clone()));
        let mut table = Self {
            here: None,
            routes: BTreeMap::new(),
        };
        let mut any = false;
        for (policy, value) in ranked {
            let place = match (&policy.section, here) {
                (Section::Whole, _) => &mut table.here,
                (Section::Port(port), Here::Port(own)) if *port == own => &mut table.here,
                (Section::Listener(name), Here::Listener(own)) if name == own => &mut table.here,
                (Section::Port(_) | Section::Listener(_), _) => continue,
                (Section::Route { kind, name, rule }, _) => {
                    let route = table.routes.entry((*kind, name.clone()));
                    let route = route.or_insert_with(|| OfRoute {
                        whole: None,
                        rules: BTreeMap::new(),
                    });
                    match rule {
                        None => &mut route.whole,
                        Some(rule) => {
                            any = true;
                            route.rules.entry(rule.clone()).or_insert(value);
                            continue;
                        }
                    }
                }
            };
            any = true;
            place.get_or_insert(value);
        }
        any.then(|| Box::new(table))
    }

    /// What holds for a request that a rule of a route took, or that met no route.
    pub fn find(&self, decided: Option<(&Route, &Rule)>) -> Option<&T> {
        self.find_named(
            decided.map(|(route, rule)| (route.kind, &route.name, rule.name.as_deref())),
        )
    }

    /// The same by kind and name of the route and name of the rule.
    pub fn find_named(
        &self,
        decided: Option<(RouteKind, &ObjectName, Option<&str>)>,
    ) -> Option<&T> {
        let of_route = decided.and_then(|(kind, name, rule)| {
            if self.routes.is_empty() {
                return None;
            }
            let known = self.routes.get(&(kind, name.clone()))?;
            let own = rule.and_then(|rule| known.rules.get(rule));
            own.or(known.whole.as_ref())
        });
        of_route.or(self.here.as_ref())
    }

    /// All that hold for some request.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        let routes = self.routes.values();
        let of_routes = routes.flat_map(|route| route.whole.iter().chain(route.rules.values()));
        self.here.iter().chain(of_routes)
    }
}

/// Lower is more specific.
fn specificity(section: &Section) -> u8 {
    match section {
        Section::Route { rule: Some(_), .. } => 0,
        Section::Route { rule: None, .. } => 1,
        Section::Port(_) | Section::Listener(_) => 2,
        Section::Whole => 3,
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// As its certificate says; empty if nothing does.
    pub identity: &'a str,
    /// Where it asks from.
    pub address: std::net::IpAddr,
}

/// Whether a condition holds.
pub fn holds(condition: &Condition, request: &RequestView<'_>, asker: Asker<'_>) -> bool {
    asked_by(condition, asker) && route::holds(&condition.matched, request)
}

/// Whether a condition asks for nothing but a caller, and this one fits.
pub fn holds_for_connection(condition: &Condition, asker: Asker<'_>) -> bool {
    condition.is_for_connections() && asked_by(condition, asker)
}

fn asked_by(condition: &Condition, asker: Asker<'_>) -> bool {
    let identities = &condition.identities;
    identities.is_empty() || identities.iter().any(|i| i.takes(asker.identity))
}

/// Brings the path of a condition into the form that requests have.
pub fn normalize(condition: &mut Condition) {
    let (PathMatch::Exact(path) | PathMatch::Prefix(path)) = &mut condition.matched.path else {
        return;
    };
    if let Ok(Cow::Owned(normal)) = crate::path::normalize(path.as_str()) {
        *path = normal;
    }
}

#[cfg(test)]
mod tests;
