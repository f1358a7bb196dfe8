//! Which match of which rule of which route takes a request.
//!
//! Precedence is Gateway API's, over all routes of the service together: exact path, then the
//! longest prefix, then a match on the method, then the most header matches, then the most query
//! matches, then the oldest route, then its `namespace/name`, then the order in the route. What
//! Gateway API leaves open: a regular expression comes after an exact path and before any prefix
//! (as in Envoy Gateway: a catch-all `/` must not hide it), longer expressions first. GRPCRoute's
//! own order (characters of service, of method, headers) is the same list once a service is a
//! prefix and a method without service stands just before `/`.
//!
//! The two kinds are never merged: a gRPC request (`content-type: application/grpc…`) is put to
//! the GRPCRoutes first and to the HTTPRoutes if none takes it; other requests see HTTPRoutes only.
//!
//! [`RouteTable`] is compiled once per change. A decision hashes the path once and walks a tree of
//! path elements; its cost does not grow with the number of routes, except for regular expressions
//! and for matches that share one path. It allocates nothing (but to join repeated headers or to
//! decode query parameters for a regular expression).

mod condition;
mod cover;
mod impossible;
mod index;
mod stream;

use std::borrow::Cow;
use std::cmp::Reverse;
use std::sync::Arc;

use http::Method;
use model::route::{Match, PathMatch, Route, RouteKind, Rule};
use wire::Fields;

use index::Index;

pub use condition::query_value;
pub use impossible::impossible;
pub use stream::stream;

/// What a decision looks at.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path, normalised (see [`crate::path`]), without query.
    pub path: &'a str,
    /// What follows the `?`, still encoded.
    pub query: Option<&'a str>,
    /// What a match on `host` reads where the headers have none, as in HTTP/2.
    pub authority: &'a str,
    /// The headers.
    pub headers: &'a Fields,
}

/// The match that takes a request.
#[derive(Debug, Clone, Copy)]
pub struct Decision<'t> {
    /// The route.
    pub route: &'t Arc<Route>,
    /// Which of its rules.
    pub rule_index: usize,
    /// That rule.
    pub rule: &'t Rule,
    /// Which of the rule's matches.
    pub matched: &'t Match,
    /// `namespace/route/rule` for metrics and logs; the rule by name, or by index without one.
    pub name: &'t Arc<str>,
}

/// What one match made of a request; see [`RouteTable::explain`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The route's kind.
    pub kind: RouteKind,
    /// `namespace/route/rule`.
    pub name: Arc<str>,
    /// Index of the rule in the route.
    pub rule_index: usize,
    /// Index of the match in the rule.
    pub match_index: usize,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a match; see [`RouteTable::explain`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It takes the request.
    Takes,
    /// It would, but one before it does.
    Shadowed,
    /// It does not fit; the text says which condition fails.
    Fails(String),
}

/// One match of one rule of one route in a table.
#[derive(Debug, Clone, Copy)]
pub struct Place<'t> {
    /// The route.
    pub route: &'t Arc<Route>,
    /// Index of the rule in the route.
    pub rule_index: usize,
    /// Index of the match in the rule.
    pub match_index: usize,
    /// `namespace/route/rule`.
    pub name: &'t Arc<str>,
}

/// A match that can never take a request here: one before it takes all that it could.
#[derive(Debug, Clone, Copy)]
pub struct Shadow<'t> {
    /// The match.
    pub of: Place<'t>,
    /// The one before it.
    pub by: Place<'t>,
}

/// The routes of one port of a service, ready to decide.
#[derive(Debug, Default)]
pub struct RouteTable {
    routes: Vec<Arc<Route>>,
    /// All matches; each kind's own best first, GRPCRoutes' before HTTPRoutes'.
    entries: Vec<Entry>,
    grpc: Index,
    http: Index,
}

/// One match of one rule of one route.
#[derive(Debug)]
struct Entry {
    route: usize,
    rule: usize,
    condition: usize,
    name: Arc<str>,
}

impl RouteTable {
    /// Compiles the routes that are attached to `port` or to all ports of the service; the order
    /// of `routes` does not matter. Paths are brought into the normal form that requests have.
    ///
    /// Consumer routes among them must be those of one namespace, that of the clients whose
    /// requests the table is for. Where there are any, they alone are in the table: consumers'
    /// and producer's routes are never merged (GEP-1426, Multiple routes for a Service).
    pub fn compile(routes: &[Arc<Route>], port: u16) -> Self {
        let mut table = Self {
            routes: stream::in_force(routes, port, false)
                .filter(|route| route.kind.is_http())
                .map(with_normal_paths)
                .collect(),
            ..Self::default()
        };
        table.entries = entries(&table.routes);
        for (at, entry) in table.entries.iter().enumerate() {
            let route = &table.routes[entry.route];
            let path = &route.rules[entry.rule].matches[entry.condition].path;
            match route.kind {
                RouteKind::Grpc => table.grpc.insert(path, at),
                _ => table.http.insert(path, at),
            }
        }
        table
    }

    /// Whether no route is attached: then (GAMMA) requests go to the service itself. Where a table
    /// that is not empty has no match, the answer is 404.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// The routes in the table.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// The match that takes the request; `None` when none does.
    pub fn decide<'t>(&'t self, request: &RequestView<'_>) -> Option<Decision<'t>> {
        let fits = |at: usize| condition::others_hold(self.condition(at), request);
        let grpc = if is_grpc(request.headers) {
            self.grpc.find(request.path, fits, |at| self.regex(at))
        } else {
            None
        };
        let at = grpc.or_else(|| self.http.find(request.path, fits, |at| self.regex(at)))?;
        let entry = &self.entries[at];
        let route = &self.routes[entry.route];
        let rule = &route.rules[entry.rule];
        Some(Decision {
            route,
            rule_index: entry.rule,
            rule,
            matched: &rule.matches[entry.condition],
            name: &entry.name,
        })
    }

    /// What each match makes of the request, in the order in which they are considered.
    pub fn explain(&self, request: &RequestView<'_>) -> Vec<Explanation> {
        let grpc = is_grpc(request.headers);
        let mut taken = false;
        let explain = |(at, entry): (usize, &Entry)| {
            let kind = self.routes[entry.route].kind;
            let failure = if kind == RouteKind::Grpc && !grpc {
                Some("the request is not gRPC: its content-type is not application/grpc".to_owned())
            } else {
                condition::failure(self.condition(at), request)
            };
            let outcome = match failure {
                Some(why) => Outcome::Fails(why),
                None if taken => Outcome::Shadowed,
                None => {
                    taken = true;
                    Outcome::Takes
                }
            };
            Explanation {
                kind,
                name: entry.name.clone(),
                rule_index: entry.rule,
                match_index: entry.condition,
                outcome,
            }
        };
        self.entries.iter().enumerate().map(explain).collect()
    }

    /// All matches, in the order in which they are considered.
    pub fn places(&self) -> impl Iterator<Item = Place<'_>> {
        (0..self.entries.len()).map(|at| self.place(at))
    }

    /// The matches that can never take a request, as far as that is certain: what one expression takes
    /// of another's texts is not worked out. Its cost grows with the number of matches, not with its
    /// square.
    pub fn shadows(&self) -> Vec<Shadow<'_>> {
        let mut found = Vec::new();
        for kind in [RouteKind::Grpc, RouteKind::Http] {
            let mut seen = cover::Seen::default();
            let own = |at: &usize| self.routes[self.entries[*at].route].kind == kind;
            for at in (0..self.entries.len()).filter(own) {
                let condition = self.condition(at);
                if let Some(by) = seen.covering(condition, |at| self.condition(at)) {
                    found.push(Shadow {
                        of: self.place(at),
                        by: self.place(by),
                    });
                } else {
                    seen.add(condition, at);
                }
            }
        }
        found
    }

    fn place(&self, at: usize) -> Place<'_> {
        let entry = &self.entries[at];
        Place {
            route: &self.routes[entry.route],
            rule_index: entry.rule,
            match_index: entry.condition,
            name: &entry.name,
        }
    }

    fn condition(&self, at: usize) -> &Match {
        let entry = &self.entries[at];
        &self.routes[entry.route].rules[entry.rule].matches[entry.condition]
    }

    fn regex(&self, at: usize) -> Option<&model::pattern::Pattern> {
        match &self.condition(at).path {
            PathMatch::Regex(pattern) => Some(pattern),
            _ => None,
        }
    }
}

/// Whether a match holds for a request, whatever others do.
pub fn holds(matched: &Match, request: &RequestView<'_>) -> bool {
    condition::path_holds(&matched.path, request.path) && condition::others_hold(matched, request)
}

/// The route itself, or a copy with the paths that requests really have: `/%7Ebob` is `/~bob`.
fn with_normal_paths(route: &Arc<Route>) -> Arc<Route> {
    let mut route = Arc::clone(route);
    for rule in 0..route.rules.len() {
        for at in 0..route.rules[rule].matches.len() {
            let normal = match &route.rules[rule].matches[at].path {
                PathMatch::Exact(path) => changed_by_normalizing(path).map(PathMatch::Exact),
                PathMatch::Prefix(path) => changed_by_normalizing(path).map(PathMatch::Prefix),
                PathMatch::Regex(_) | PathMatch::GrpcMethod(_) => None,
            };
            if let Some(normal) = normal {
                Arc::make_mut(&mut route).rules[rule].matches[at].path = normal;
            }
        }
    }
    route
}

/// A path that cannot be normalised stays: no request has it.
fn changed_by_normalizing(path: &str) -> Option<String> {
    match crate::path::normalize(path) {
        Ok(Cow::Owned(normal)) => Some(normal),
        Ok(Cow::Borrowed(_)) | Err(_) => None,
    }
}

/// All matches in order of precedence.
fn entries(routes: &[Arc<Route>]) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (route_at, route) in routes.iter().enumerate() {
        for (rule_at, rule) in route.rules.iter().enumerate() {
            let name: Arc<str> = match &rule.name {
                Some(name) => format!("{}/{name}", route.name),
                None => format!("{}/{rule_at}", route.name),
            }
            .into();
            entries.extend((0..rule.matches.len()).map(|condition| Entry {
                route: route_at,
                rule: rule_at,
                condition,
                name: name.clone(),
            }));
        }
    }
    entries.sort_by_cached_key(|e| {
        let route = &routes[e.route];
        let condition = &route.rules[e.rule].matches[e.condition];
        (
            Reverse(route.kind),
            Reverse(rank(&condition.path)),
            Reverse(condition.method.is_some()),
            Reverse(condition.headers.len()),
            Reverse(condition.query.len()),
            route.created,
            route.name.clone(),
            (e.rule, e.condition),
        )
    });
    entries
}

/// How specific a path is: its class, then its length in characters.
fn rank(path: &PathMatch) -> (u8, usize) {
    match path {
        PathMatch::Exact(path) => (4, path.chars().count()),
        PathMatch::Regex(pattern) => (3, pattern.source().chars().count()),
        PathMatch::Prefix(prefix) if prefix != "/" => (2, prefix.chars().count()),
        PathMatch::GrpcMethod(method) => (1, method.chars().count()),
        PathMatch::Prefix(_) => (0, 1),
    }
}

/// Whether a request is gRPC, from its content type (gRPC over HTTP/2, Requests).
fn is_grpc(headers: &Fields) -> bool {
    const TYPE: &[u8] = b"application/grpc";
    headers
        .get("content-type")
        .and_then(|v| v.split_at_checked(TYPE.len()))
        .is_some_and(|(start, rest)| {
            start.eq_ignore_ascii_case(TYPE)
                && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
        })
}

#[cfg(test)]
mod tests;
