//! Route configurations: a virtual host for each host, its routes in the order in which Tulle's table
//! considers them.

mod change;

use std::collections::{BTreeMap, BTreeSet};

use model::gateway::Listener;
use model::hostname::Hostname;
use model::route::{
    Backend, Filter, Match, Mirror, PathMatch, Route, RouteKind, Rule, Target, ValueMatch,
};
use policy::effective::Effective;
use policy::gateway::tables;
use policy::route::Place;
use prost::Message;

use crate::proto::{core, kind, matcher, route};
use crate::retry::{self, Methods};
use crate::words::{duration, escaped, regex};
use crate::{Resources, View, cluster};

/// A cluster that there never is: no service's name begins with a hyphen.
pub(crate) const NOWHERE: &str = "-";

/// Adds the routes of listeners that share a port and have their own hosts.
pub(crate) fn add(made: &mut Resources, view: &View, name: &str, listeners: &[&Listener]) {
    let mut hosts: BTreeMap<Option<Hostname>, Vec<route::Route>> = BTreeMap::new();
    for listener in listeners {
        for (host, tables) in tables(listener, &view.routes, |_| None) {
            let mut routes = Vec::new();
            for place in tables.iter().flat_map(|table| table.places()) {
                routes.extend(of_place(made, view, listener, &place));
            }
            hosts.entry(host).or_insert(routes);
        }
    }
    // A listener's hosts are its own: what none of its routes takes is not put to another's.
    for listener in listeners {
        hosts.entry(listener.hostname.clone()).or_default();
    }
    let virtual_hosts = hosts.into_iter().map(|(host, routes)| {
        let domain = host.map_or_else(|| "*".to_owned(), |host| host.to_string());
        route::VirtualHost {
            name: domain.clone(),
            domains: vec![domain],
            routes,
        }
    });
    let message = route::RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts: virtual_hosts.collect(),
        ignore_port_in_host_matching: true,
    };
    made.routes.insert(name.to_owned(), message.encode_to_vec());
}

/// One match: one route of Envoy's, or two, where the method decides what may be sent again.
fn of_place(
    made: &mut Resources,
    view: &View,
    listener: &Listener,
    place: &Place<'_>,
) -> Vec<route::Route> {
    let rule = &place.route.rules[place.rule_index];
    let matched = &rule.matches[place.match_index];
    warn(made, place.route, rule);
    let condition = condition(place.route, matched);
    let retry = limits(view, rule).1;
    let told_apart = retry::differs(&retry) && matched.method.is_none();
    let only = match &matched.method {
        Some(method) if !retry::IDEMPOTENT.split('|').any(|m| m == method.as_str()) => {
            Methods::Others
        }
        _ => Methods::Idempotent,
    };
    let mut first = of_methods(view, listener, place, condition.clone(), only);
    if !told_apart || !matches!(first.action, Some(route::route::Action::Route(_))) {
        return vec![first];
    }
    if let Some(condition) = &mut first.r#match {
        condition
            .headers
            .push(header(":method", by_regex(retry::IDEMPOTENT)));
    }
    let second = of_methods(view, listener, place, condition, Methods::Others);
    vec![first, second]
}

fn of_methods(
    view: &View,
    listener: &Listener,
    place: &Place<'_>,
    condition: route::RouteMatch,
    methods: Methods,
) -> route::Route {
    let rule = &place.route.rules[place.rule_index];
    let matched = &rule.matches[place.match_index];
    let mut made = route::Route {
        name: place.name.to_string(),
        r#match: Some(condition),
        ..route::Route::default()
    };
    change::headers(&mut made, &rule.filters);
    made.action = Some(action(view, listener, rule, matched, methods));
    made
}

fn action(
    view: &View,
    listener: &Listener,
    rule: &Rule,
    matched: &Match,
    methods: Methods,
) -> route::route::Action {
    for filter in &rule.filters {
        if let Filter::Redirect(to) = filter {
            let redirect = change::redirect(to, listener, matched);
            return route::route::Action::Redirect(redirect);
        }
    }
    let backends: Vec<&Backend> = rule.backends.iter().filter(|b| b.weight > 0).collect();
    if backends.is_empty() {
        return route::route::Action::DirectResponse(route::DirectResponseAction { status: 500 });
    }
    let (bounds, policy) = limits(view, rule);
    let mut to = route::RouteAction {
        cluster_specifier: Some(route::route_action::ClusterSpecifier::WeightedClusters(
            route::WeightedCluster {
                clusters: backends.iter().map(|backend| weighted(backend)).collect(),
            },
        )),
        cluster_not_found_response_code:
            route::route_action::ClusterNotFoundResponseCode::InternalServerError as i32,
        // Envoy's own bound would be 15 s; zero is none.
        timeout: Some(duration(bounds.request.unwrap_or_default())),
        idle_timeout: bounds.idle.map(duration),
        retry_policy: retry::policy(&policy, bounds.per_try, methods),
        request_mirror_policies: rule.filters.iter().filter_map(copies).collect(),
        hash_policy: hashes(view, &backends),
        ..route::RouteAction::default()
    };
    for filter in &rule.filters {
        if let Filter::Rewrite(rewrite) = filter {
            change::rewrite(&mut to, rewrite, matched);
        }
    }
    route::route::Action::Route(to)
}

/// Bounds on time.
struct Bounds {
    request: Option<std::time::Duration>,
    per_try: Option<std::time::Duration>,
    idle: Option<std::time::Duration>,
}

/// What holds for a rule's requests. In Envoy that is the route's, so where its backends differ the
/// first's holds.
fn limits(view: &View, rule: &Rule) -> (Bounds, model::retry::Policy) {
    let effective = first(view, rule.backends.iter()).unwrap_or_default();
    let limits = effective.limits(Some(rule));
    let bounds = Bounds {
        request: limits.request_timeout,
        per_try: limits.per_try_timeout,
        idle: limits.stream_idle,
    };
    (bounds, limits.retry.clone())
}

/// What holds for the first backend that is one.
fn first<'b>(view: &View, mut backends: impl Iterator<Item = &'b Backend>) -> Option<Effective> {
    backends.find_map(|backend| match &backend.target {
        Target::Service { name, port } => {
            let of = view.destinations.get(name)?;
            Some(Effective::merge(&of.policies, *port))
        }
        Target::Invalid { .. } => None,
    })
}

fn target(target: &Target) -> String {
    match target {
        Target::Service { name, port } => cluster::name(name, *port),
        Target::Invalid { .. } => NOWHERE.to_owned(),
    }
}

fn weighted(backend: &Backend) -> route::weighted_cluster::ClusterWeight {
    let mut made = route::weighted_cluster::ClusterWeight {
        name: target(&backend.target),
        weight: Some(backend.weight),
        ..Default::default()
    };
    let changes = change::Headers::of(&backend.filters);
    made.request_headers_to_add = changes.request.add;
    made.request_headers_to_remove = changes.request.remove;
    made.response_headers_to_add = changes.response.add;
    made.response_headers_to_remove = changes.response.remove;
    for filter in &backend.filters {
        if let Filter::Rewrite(rewrite) = filter
            && let Some(host) = &rewrite.hostname
        {
            made.host_rewrite_specifier = Some(
                route::weighted_cluster::cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(
                    host.clone(),
                ),
            );
        }
    }
    made
}

fn copies(filter: &Filter) -> Option<route::route_action::RequestMirrorPolicy> {
    let Filter::Mirror(Mirror { target: to, share }) = filter else {
        return None;
    };
    // Envoy has denominators of its own; a millionth is the finest.
    let millionths =
        u64::from(share.numerator()) * 1_000_000 / u64::from(share.denominator().max(1));
    Some(route::route_action::RequestMirrorPolicy {
        cluster: target(to),
        runtime_fraction: Some(core::RuntimeFractionalPercent {
            default_value: Some(kind::FractionalPercent {
                numerator: millionths as u32,
                denominator: kind::fractional_percent::DenominatorType::Million as i32,
            }),
        }),
    })
}

fn hashes(view: &View, backends: &[&Backend]) -> Vec<route::route_action::HashPolicy> {
    use model::balancing::HashKey;
    use route::route_action::hash_policy as hash;
    let effective = first(view, backends.iter().copied()).unwrap_or_default();
    let keys = effective.balancer.hash.iter().map(|key| {
        let specifier = match key {
            HashKey::Header(name) => hash::PolicySpecifier::Header(hash::Header {
                header_name: name.as_str().to_owned(),
            }),
            HashKey::Cookie(cookie) => hash::PolicySpecifier::Cookie(hash::Cookie {
                name: cookie.name.clone(),
                ttl: cookie.ttl.map(duration),
                path: cookie.path.clone(),
            }),
            HashKey::Query(name) => {
                hash::PolicySpecifier::QueryParameter(hash::QueryParameter { name: name.clone() })
            }
            HashKey::SourceIp => {
                hash::PolicySpecifier::ConnectionProperties(hash::ConnectionProperties {
                    source_ip: true,
                })
            }
        };
        route::route_action::HashPolicy {
            // The first that a request has counts.
            terminal: true,
            policy_specifier: Some(specifier),
        }
    });
    keys.collect()
}

fn condition(of: &Route, matched: &Match) -> route::RouteMatch {
    use route::route_match::PathSpecifier;
    let path = match &matched.path {
        PathMatch::Exact(path) => PathSpecifier::Path(path.clone()),
        PathMatch::Prefix(prefix) if prefix == "/" => PathSpecifier::Prefix("/".to_owned()),
        PathMatch::Prefix(prefix) if prefix.contains(['?', '#']) => {
            PathSpecifier::SafeRegex(regex(format!("{}(/.*)?", escaped(prefix))))
        }
        PathMatch::Prefix(prefix) => PathSpecifier::PathSeparatedPrefix(prefix.clone()),
        PathMatch::Regex(pattern) => PathSpecifier::SafeRegex(regex(pattern.source())),
        PathMatch::GrpcMethod(name) => {
            PathSpecifier::SafeRegex(regex(format!("(/.*)?/{}", escaped(name))))
        }
    };
    let mut headers: Vec<_> = matched
        .headers
        .iter()
        .map(|h| header(h.name.as_str(), text(&h.value)))
        .collect();
    if let Some(method) = &matched.method {
        headers.push(header(":method", exact(method.as_str())));
    }
    let query = matched.query.iter().map(|q| route::QueryParameterMatcher {
        name: q.name.clone(),
        query_parameter_match_specifier: Some(
            route::query_parameter_matcher::QueryParameterMatchSpecifier::StringMatch(text(
                &q.value,
            )),
        ),
    });
    route::RouteMatch {
        path_specifier: Some(path),
        headers,
        query_parameters: query.collect(),
        grpc: (of.kind == RouteKind::Grpc).then_some(route::route_match::GrpcRouteMatchOptions {}),
    }
}

fn header(name: &str, value: matcher::StringMatcher) -> route::HeaderMatcher {
    route::HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(route::header_matcher::HeaderMatchSpecifier::StringMatch(
            value,
        )),
    }
}

fn text(value: &ValueMatch) -> matcher::StringMatcher {
    match value {
        ValueMatch::Exact(text) => exact(text),
        ValueMatch::Regex(pattern) => by_regex(pattern.source()),
    }
}

fn exact(text: &str) -> matcher::StringMatcher {
    matcher::StringMatcher {
        match_pattern: Some(matcher::string_matcher::MatchPattern::Exact(
            text.to_owned(),
        )),
    }
}

fn by_regex(expression: &str) -> matcher::StringMatcher {
    matcher::StringMatcher {
        match_pattern: Some(matcher::string_matcher::MatchPattern::SafeRegex(regex(
            expression,
        ))),
    }
}

/// Says what of a rule is left out.
fn warn(made: &mut Resources, of: &Route, rule: &Rule) {
    let mut left: BTreeSet<&str> = BTreeSet::new();
    if rule.session.is_some() {
        left.insert("session persistence");
    }
    for filter in &rule.filters {
        if matches!(filter, Filter::Cors(_)) {
            left.insert("the filter CORS");
        }
    }
    for filter in rule.backends.iter().flat_map(|backend| &backend.filters) {
        match filter {
            Filter::RequestHeaders(_) | Filter::ResponseHeaders(_) => {}
            Filter::Rewrite(rewrite) if rewrite.path.is_none() => {}
            _ => {
                left.insert("a backend's filter other than changes of headers and host");
            }
        }
    }
    for what in left {
        made.warnings.insert(format!(
            "{} {}: {what} is not served to Envoy and left out",
            of.kind, of.name
        ));
    }
}
