//! Requests to try: for each match one that it takes, and some that lie just beside it.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use http::Method;
use model::WorkloadName;
use model::gateway::{GatewayName, Protocol};
use model::hostname::Hostname;
use model::request::{self, Effect};
use model::route::{Match, PathMatch, RouteKind, ValueMatch};
use model::service;
use policy::route::RouteTable;
use wire::Fields;

use super::{MAX_PROBES, sample};
use crate::World;
use crate::request::{Caller, Request, Scheme};
use crate::world::Listener;

/// A request to try.
#[derive(Debug)]
pub(super) struct Probe {
    pub(super) request: Request,
    pub(super) caller: Caller,
    /// The Gateway that it comes to; `None` in the mesh.
    pub(super) gateway: Option<GatewayName>,
    /// What it stands for: `GET http://shop.example/api/*`.
    pub(super) label: String,
}

/// Where requests go.
struct Target<'a> {
    gateway: Option<&'a GatewayName>,
    scheme: Scheme,
    host: String,
    port: u16,
    /// The host as it was written: `*.example.com`.
    shown: String,
    /// The namespace of the clients; in the mesh the service's own, where no route of consumers is.
    clients: &'a str,
    /// The same, where they have routes of their own.
    consumers: Option<&'a str>,
}

/// Requests, no two the same.
#[derive(Default)]
struct Probes {
    list: Vec<Probe>,
    known: HashSet<String>,
    truncated: bool,
}

/// The requests that follow from these configurations, and whether there were too many.
pub(super) fn all(worlds: [&World; 2]) -> (Vec<Probe>, bool) {
    let mut probes = Probes::default();
    for world in worlds {
        for (name, gateway) in &world.gateways {
            for listener in gateway.listeners() {
                let parent = request::Parent::Gateway(name.clone());
                let policies = matches_of(world, &parent, &[]);
                of_listener(name, listener, &policies, &mut probes);
            }
        }
        for (name, destination) in &world.services {
            for (number, port) in &destination.ports {
                let host = match name.import() {
                    Some(_) => name.host(),
                    None => format!("{}.{}", name.name(), name.namespace()),
                };
                let declared = matches!(
                    port.protocol,
                    service::Protocol::Tcp | service::Protocol::Tls
                );
                let bytes = declared || port.all_ways().any(|(_, ways)| ways.stream.is_some());
                let mut target = Target {
                    gateway: None,
                    clients: name.namespace(),
                    consumers: None,
                    scheme: if bytes { Scheme::Tcp } else { Scheme::Http },
                    shown: host.clone(),
                    host,
                    port: *number,
                };
                probes.connection(&target);
                if !bytes {
                    probes.of_table(&target, &port.ways.routes);
                    let parent = request::Parent::Service(name.clone());
                    let behind: Vec<_> = destination.endpoints(*number).collect();
                    let workloads = behind.iter().map(|(endpoint, ..)| &endpoint.workload);
                    let workloads: Vec<_> = workloads.collect();
                    for matched in matches_of(world, &parent, &workloads) {
                        probes.of_match(&target, &matched, RouteKind::Http);
                    }
                }
                for (namespace, ways) in &port.consumers {
                    target.clients = namespace;
                    target.consumers = Some(namespace);
                    probes.connection(&target);
                    if !bytes {
                        probes.of_table(&target, &ways.routes);
                        // What the producer's routes would have done for them.
                        probes.of_table(&target, &port.ways.routes);
                    }
                }
            }
        }
    }
    (probes.list, probes.truncated)
}

/// What the conditions of faults and limits ask of requests to a parent.
fn matches_of(world: &World, parent: &request::Parent, workloads: &[&WorkloadName]) -> Vec<Match> {
    let mut found: Vec<Match> = Vec::new();
    let mut add = |condition: &request::Condition| {
        if !found.contains(&condition.matched) {
            found.push(condition.matched.clone());
        }
    };
    for policy in world.requests.iter().filter(|p| p.parent == *parent) {
        match &policy.effect {
            Effect::Faults(faults) => faults.faults.iter().for_each(|f| add(&f.condition)),
            Effect::Limits(limits) => limits.limits.iter().for_each(|l| add(&l.condition)),
        }
    }
    let workloads = workloads
        .iter()
        .filter_map(|name| world.workloads.get(*name));
    for limits in workloads.flat_map(|workload| &workload.limits) {
        limits.limits.limits.iter().for_each(|l| add(&l.condition));
    }
    found
}

fn of_listener(
    gateway: &GatewayName,
    listener: &Arc<Listener>,
    policies: &[Match],
    probes: &mut Probes,
) {
    let config = &listener.config;
    let mut target = Target {
        gateway: Some(gateway),
        scheme: match config.protocol {
            Protocol::Http => Scheme::Http,
            Protocol::Https => Scheme::Https,
            Protocol::Tls => Scheme::Tls,
            Protocol::Tcp => Scheme::Tcp,
            Protocol::Udp => Scheme::Udp,
        },
        host: String::new(),
        port: config.port,
        shown: String::new(),
        clients: model::name::DEFAULT_NAMESPACE,
        consumers: None,
    };
    target.set_host(config.hostname.as_ref());
    probes.connection(&target);
    for (host, tables) in &listener.tables {
        target.set_host(host.as_ref());
        probes.connection(&target);
        probes.of_table(&target, tables.own().table());
        for matched in policies {
            probes.of_match(&target, matched, RouteKind::Http);
        }
    }
    let streams = listener.streams.values().flat_map(|r| &r.attachments);
    let hosts: BTreeSet<&Hostname> = streams
        .filter(|a| a.listener == config.name)
        .flat_map(|a| &a.hostnames)
        .collect();
    for host in hosts {
        target.set_host(Some(host));
        probes.connection(&target);
    }
}

impl Target<'_> {
    fn set_host(&mut self, host: Option<&Hostname>) {
        (self.host, self.shown) = match host {
            None => ("any.example".to_owned(), "*".to_owned()),
            Some(Hostname::Exact(host)) => (host.to_string(), host.to_string()),
            Some(below @ Hostname::Below(suffix)) => (format!("any.{suffix}"), below.to_string()),
        };
    }

    fn authority(&self, host: &str) -> String {
        let usual = matches!(
            (self.scheme, self.port),
            (Scheme::Http, 80) | (Scheme::Https, 443)
        );
        if usual {
            host.to_owned()
        } else {
            format!("{host}:{}", self.port)
        }
    }
}

/// What is sent, and what stands for it in the label.
struct Sent<'a> {
    method: &'a Method,
    path: &'a str,
    shown: &'a str,
    headers: &'a [(String, String)],
    query: &'a [(String, String)],
}

impl Probes {
    /// A connection, or the plainest of requests; in the mesh also one in plain text.
    fn connection(&mut self, target: &Target<'_>) {
        let sent = Sent {
            method: &Method::GET,
            path: "/",
            shown: "/",
            headers: &[],
            query: &[],
        };
        self.add(target, &sent, false);
        if target.gateway.is_none() && target.consumers.is_none() {
            self.add(target, &sent, true);
        }
    }

    fn of_table(&mut self, target: &Target<'_>, table: &RouteTable) {
        for place in table.places() {
            let rule = &place.route.rules[place.rule_index];
            self.of_match(target, &rule.matches[place.match_index], place.route.kind);
        }
    }

    fn of_match(&mut self, target: &Target<'_>, condition: &Match, kind: RouteKind) {
        let mut headers: Vec<(String, String)> = condition
            .headers
            .iter()
            .filter_map(|h| Some((h.name.to_string(), value(&h.value)?)))
            .collect();
        let query: Vec<(String, String)> = condition
            .query
            .iter()
            .filter_map(|q| Some((q.name.clone(), value(&q.value)?)))
            .collect();
        if kind == RouteKind::Grpc && !headers.iter().any(|(name, _)| name == "content-type") {
            headers.push(("content-type".to_owned(), "application/grpc".to_owned()));
        }
        let usual = match kind {
            RouteKind::Grpc => Method::POST,
            _ => Method::GET,
        };
        let method = condition.method.as_ref().unwrap_or(&usual);
        for (path, shown) in paths(&condition.path) {
            let sent = Sent {
                method,
                path: &path,
                shown: &shown,
                headers: &headers,
                query: &query,
            };
            self.add(target, &sent, false);
        }
        let Some((path, shown)) = paths(&condition.path).into_iter().next() else {
            return;
        };
        let mut beside = |method: &Method, headers: &[_], query: &[_]| {
            let sent = Sent {
                method,
                path: &path,
                shown: &shown,
                headers,
                query,
            };
            self.add(target, &sent, false);
        };
        if condition.method.is_some() {
            let other = if *method == Method::GET {
                Method::POST
            } else {
                Method::GET
            };
            beside(&other, &headers, &query);
        }
        for headers in variants(&headers) {
            beside(method, &headers, &query);
        }
        for query in variants(&query) {
            beside(method, &headers, &query);
        }
    }

    fn add(&mut self, target: &Target<'_>, sent: &Sent<'_>, plain: bool) {
        if self.list.len() >= MAX_PROBES {
            self.truncated = true;
            return;
        }
        let (full, label) = (
            with_query(sent.path, sent.query),
            with_query(sent.shown, sent.query),
        );
        let mut headers = Fields::new();
        for (name, value) in sent.headers {
            headers.append(name, value.as_bytes());
        }
        let request = Request {
            scheme: target.scheme,
            host: target.host.clone(),
            port: target.port,
            method: sent.method.clone(),
            target: full,
            authority: target.authority(&target.host),
            headers,
        };
        let consumers = target.consumers;
        let key = format!(
            "{:?} {request} {:?} {plain} {consumers:?}",
            target.gateway, sent.headers
        );
        if !self.known.insert(key) {
            return;
        }
        let mut label = if request.is_http() {
            let (scheme, authority) = (target.scheme.as_str(), target.authority(&target.shown));
            format!("{} {scheme}://{authority}{label}", sent.method)
        } else {
            format!(
                "{}://{}:{}",
                target.scheme.as_str(),
                target.shown,
                target.port
            )
        };
        for (at, (name, value)) in sent.headers.iter().enumerate() {
            label.push_str(if at == 0 { " with " } else { ", " });
            label.extend([name.as_str(), ": ", value.as_str()]);
        }
        if plain {
            label.push_str(" from a client without a proxy");
        }
        if let Some(namespace) = consumers {
            label.push_str(" from namespace ");
            label.push_str(namespace);
        }
        let namespace = target.clients.to_owned();
        self.list.push(Probe {
            request,
            caller: if plain {
                Caller::Plain { namespace }
            } else {
                Caller::Somebody { namespace }
            },
            gateway: target.gateway.cloned(),
            label,
        });
    }
}

fn with_query(path: &str, query: &[(String, String)]) -> String {
    let mut text = path.to_owned();
    for (at, (name, value)) in query.iter().enumerate() {
        text.push(if at == 0 { '?' } else { '&' });
        text.push_str(&escaped(name));
        text.push('=');
        text.push_str(&escaped(value));
    }
    text
}

fn escaped(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~');
    let bytes = text.bytes();
    bytes
        .map(|b| {
            if plain(b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

/// Paths that a condition takes, the first of them, and some beside them; with what stands for each.
fn paths(condition: &PathMatch) -> Vec<(String, String)> {
    let same = |path: String| (path.clone(), path);
    match condition {
        PathMatch::Exact(path) => vec![
            same(path.clone()),
            (format!("{path}/below"), format!("{path}/*")),
            same(format!("{path}x")),
        ],
        PathMatch::Prefix(prefix) => {
            let base = prefix.trim_end_matches('/');
            let below = (format!("{base}/below"), format!("{base}/*"));
            if base.is_empty() {
                vec![same("/".to_owned()), below]
            } else {
                vec![same(base.to_owned()), below, same(format!("{base}x"))]
            }
        }
        PathMatch::Regex(pattern) => sample::path(pattern).map(same).into_iter().collect(),
        PathMatch::GrpcMethod(method) => {
            vec![(format!("/any.Service/{method}"), format!("/*/{method}"))]
        }
    }
}

fn value(wanted: &ValueMatch) -> Option<String> {
    match wanted {
        ValueMatch::Exact(text) => Some(text.clone()),
        ValueMatch::Regex(pattern) => sample::value(pattern),
    }
}

/// Each of the pairs left out, and each with another value.
fn variants(pairs: &[(String, String)]) -> Vec<Vec<(String, String)>> {
    let mut all = Vec::new();
    for at in 0..pairs.len() {
        let mut without = pairs.to_vec();
        without.remove(at);
        all.push(without);
        let mut other = pairs.to_vec();
        other[at].1.push_str("-other");
        all.push(other);
    }
    all
}
