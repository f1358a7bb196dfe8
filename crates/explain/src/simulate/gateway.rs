//! A request that comes to a Gateway: which listener has it, and which routes it is put to.

use std::sync::Arc;

use model::Reason;
use model::gateway::{GatewayName, Protocol, ProxyProtocol, Tls};
use model::hostname::Hostname;
use policy::gateway::{Port, Transport, hosts};
use policy::route::RouteTable;

use super::{http, stream};
use crate::report::{Failure, ListenerTaken, NotTaken, Simulation};
use crate::request::{Request, Scheme};
use crate::world::{Gateway, Listener, World};

/// A listener that takes the request.
struct Found<'w> {
    name: &'w GatewayName,
    gateway: &'w Gateway,
    port: &'w Port<Arc<Listener>>,
    listener: &'w Arc<Listener>,
}

pub(super) fn go(
    world: &World,
    request: &Request,
    only: Option<&GatewayName>,
    said: &mut Simulation,
) {
    let found = match find(world, request, only, said) {
        Ok(found) => found,
        Err(failure) => {
            not_taken(world, request, only, None, said);
            return said.fail(failure);
        }
    };
    let config = &found.listener.config;
    said.listener = Some(taken(config));
    not_taken(world, request, only, Some(&found), said);
    if config.protocol == Protocol::Https && request.scheme == Scheme::Tls {
        let details = format!(
            "listener \"{}\" of Gateway {} ends TLS and reads HTTP from it",
            config.name, config.gateway
        );
        let remedy = "ask for what is sent inside, with https://";
        return said.fail(Failure::no_connection(details, remedy));
    }
    match config.protocol {
        Protocol::Http | Protocol::Https => put_to_routes(world, request, &found, said),
        Protocol::Tls => {
            if request.is_http() && matches!(config.tls, Some(Tls::Passthrough)) {
                let note = "TLS is passed on: what is inside is seen by the backend only";
                said.notes.push(note.to_owned());
            }
            let name = request.server_name();
            stream::go(world, found.listener, name.as_deref(), said);
        }
        Protocol::Tcp | Protocol::Udp => {
            stream::go(world, found.listener, None, said);
        }
    }
}

/// The listener for a request; of those of several Gateways the one with the most specific hostname.
fn find<'w>(
    world: &'w World,
    request: &Request,
    only: Option<&GatewayName>,
    said: &mut Simulation,
) -> Result<Found<'w>, Failure> {
    let mut best: Option<(usize, Found<'w>)> = None;
    let mut also: Vec<&GatewayName> = Vec::new();
    let mut refusal: Option<Failure> = None;
    for (name, gateway) in considered(world, only) {
        match listener(gateway, name, request) {
            Ok((port, listener)) => {
                let rank = rank(listener.config.hostname.as_ref());
                let found = Found {
                    name,
                    gateway,
                    port,
                    listener,
                };
                match &best {
                    Some((other, _)) if *other >= rank => also.push(name),
                    _ => {
                        also.extend(best.take().map(|(_, f)| f.name));
                        best = Some((rank, found));
                    }
                }
            }
            // What is known of a port that is there says more than that another has none.
            Err(Some(failure)) => refusal = refusal.or(Some(failure)),
            Err(None) => {}
        }
    }
    if let Some((_, found)) = best {
        if !also.is_empty() {
            let also: Vec<String> = also.iter().map(ToString::to_string).collect();
            said.notes.push(format!(
                "Gateway {} would take it too; ask with --gateway what becomes of it there",
                also.join(", ")
            ));
        }
        return Ok(found);
    }
    Err(refusal.unwrap_or_else(|| nobody(world, request, only)))
}

fn considered<'w>(
    world: &'w World,
    only: Option<&GatewayName>,
) -> impl Iterator<Item = (&'w GatewayName, &'w Gateway)> {
    let only = only.cloned();
    let all = world.gateways.iter();
    all.filter(move |(name, _)| only.as_ref().is_none_or(|o| o == *name))
}

/// A port, and the listener there that is meant.
type Place<'w> = (&'w Port<Arc<Listener>>, &'w Arc<Listener>);

/// The listener of one Gateway; without a failure if nothing listens on the port.
fn listener<'w>(
    gateway: &'w Gateway,
    name: &GatewayName,
    request: &Request,
) -> Result<Place<'w>, Option<Failure>> {
    let ports = match request.scheme {
        Scheme::Udp => &gateway.datagrams,
        _ => &gateway.ports,
    };
    let number = request.port;
    let port = ports.get(&number).ok_or(None)?;
    let speaks = port.transport();
    let fits = match request.scheme {
        Scheme::Http => speaks == Transport::Http,
        Scheme::Https | Scheme::Tls => speaks == Transport::Tls,
        Scheme::Tcp => speaks == Transport::Tcp,
        Scheme::Udp => speaks == Transport::Udp,
    };
    if !fits {
        let (what, scheme) = match speaks {
            Transport::Http => ("HTTP in the clear", "http://"),
            Transport::Tls => ("TLS", "https:// or tls://"),
            Transport::Tcp => ("bytes of any kind", "tcp://"),
            Transport::Udp => ("datagrams", "udp://"),
        };
        let details = format!("port {number} of Gateway {name} is for {what}");
        let remedy = format!("ask with {scheme}, or name another port");
        return Err(Some(Failure::no_connection(details, remedy)));
    }
    let host = match request.scheme {
        Scheme::Http => Some(request.asked_host()),
        Scheme::Https | Scheme::Tls => request.server_name(),
        Scheme::Tcp | Scheme::Udp => None,
    };
    let found = port.listener(host.as_deref());
    let listener = found.ok_or_else(|| {
        let details = match (&host, request.scheme) {
            (Some(host), Scheme::Http) => {
                format!("no listener on port {number} is for host \"{host}\"")
            }
            (Some(host), _) => format!("no listener is for the server name \"{host}\""),
            (None, _) => "no listener is for clients that send no server name".to_owned(),
        };
        let remedy =
            "add the host to a listener's hostname, or a listener without hostname for all hosts";
        let failure = Failure::new(Reason::NoRoute, details).remedy(remedy);
        Some(Failure {
            // Where TLS does not begin there is no response.
            status: failure.status.filter(|_| request.scheme == Scheme::Http),
            ..failure
        })
    })?;
    Ok((port, listener))
}

fn nobody(world: &World, request: &Request, only: Option<&GatewayName>) -> Failure {
    let mut ports: Vec<u16> = considered(world, only)
        .flat_map(|(_, g)| g.listeners().map(|l| l.config.port))
        .collect();
    ports.sort_unstable();
    ports.dedup();
    let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
    match (only, ports.is_empty()) {
        (Some(name), true) => Failure::no_connection(
            format!("Gateway {name} does not exist, or none of its listeners can be served"),
            "see `tulle analyze` for what is wrong with it",
        ),
        (_, true) => Failure::no_connection(
            "no Gateway has a listener that can be served",
            "see `tulle analyze` for what is wrong with them",
        ),
        (_, false) => Failure::no_connection(
            format!("nothing listens on port {}", request.port),
            format!(
                "the ports are {}; write one behind the host",
                ports.join(", ")
            ),
        ),
    }
}

/// How specific the hostname of a listener is.
fn rank(hostname: Option<&Hostname>) -> usize {
    match hostname {
        None => 0,
        Some(Hostname::Below(suffix)) => 1 + suffix.len(),
        Some(Hostname::Exact(_)) => usize::MAX,
    }
}

fn taken(config: &model::gateway::Listener) -> ListenerTaken {
    ListenerTaken {
        gateway: config.gateway.to_string(),
        name: config.name.clone(),
        protocol: config.protocol.as_str().to_owned(),
        port: config.port,
        hostname: shown(config.hostname.as_ref()),
        settings: settings(config),
    }
}

fn settings(config: &model::gateway::Listener) -> Vec<String> {
    let mut said = Vec::new();
    if let Some(tls) = &config.tls {
        let (what, clients) = match tls {
            Tls::Passthrough => ("passed through", None),
            Tls::Terminate(termination) => ("ended here", termination.clients.as_ref()),
        };
        said.push(format!("TLS: {what}"));
        if let Some(clients) = clients {
            let asked = if clients.optional {
                "asked for"
            } else {
                "required"
            };
            said.push(format!("client certificates: {asked}"));
        }
    }
    if config.proxy_protocol != ProxyProtocol::Off {
        said.push(format!("PROXY header: {:?}", config.proxy_protocol));
    }
    if config.trusted_hops > 0 {
        said.push(format!("trusted hops: {}", config.trusted_hops));
    }
    if let Some(http3) = &config.http3 {
        said.push(format!("HTTP/3: announced on port {}", http3.port));
    }
    said
}

fn shown(hostname: Option<&Hostname>) -> String {
    hostname.map_or_else(|| "*".to_owned(), ToString::to_string)
}

fn put_to_routes(world: &World, request: &Request, found: &Found<'_>, said: &mut Simulation) {
    let host = request.asked_host();
    let config = &found.listener.config;
    if request.scheme == Scheme::Https {
        let meant = found.port.listener(Some(&host));
        if meant.is_none_or(|meant| !Arc::ptr_eq(meant, found.listener)) {
            // RFC 9110 7.4.
            let details = format!("host \"{host}\" is not served on this connection");
            let failure = Failure::with_status(Reason::NoRoute, 421, details);
            return said.fail(failure.remedy("connect anew, with the host as server name"));
        }
    }
    let routes = if said.brief {
        &[][..]
    } else {
        &found.gateway.routes[..]
    };
    for route in routes {
        let name = format!("{} {}", route.kind, route.name);
        let attached = hosts(route, config);
        if attached.is_empty() {
            let why = format!("is attached to other listeners than \"{}\"", config.name);
            said.not_taken.push(NotTaken::new(name, why));
        } else if !attached
            .iter()
            .any(|h| h.as_ref().is_none_or(|h| h.takes(&host)))
        {
            let own: Vec<String> = attached.iter().map(|h| shown(h.as_ref())).collect();
            let why = format!("is for {}, not for {host}", own.join(", "));
            said.not_taken.push(NotTaken::new(name, why));
        }
    }
    let Some(tables) = found.listener.hosts.find(&host) else {
        let details = format!("no route of Gateway {} is for host \"{host}\"", found.name);
        return said
            .fail(Failure::new(Reason::NoRoute, details).remedy(
                "add the host to a route's hostnames, or attach a route without hostnames",
            ));
    };
    let tables: Vec<&RouteTable> = tables.iter().map(Arc::as_ref).collect();
    let asked = http::Asked {
        tables: &tables,
        whose: format!("Gateway {}", found.name),
        port: config.port,
    };
    http::go(world, request, &asked, said);
}

/// The listeners that do not have it, and the routes that would have been put to it had they been
/// accepted.
fn not_taken(
    world: &World,
    request: &Request,
    only: Option<&GatewayName>,
    found: Option<&Found<'_>>,
    said: &mut Simulation,
) {
    if said.brief {
        return;
    }
    for (name, gateway) in considered(world, only) {
        if found.is_some_and(|f| f.name != name) {
            continue;
        }
        for listener in gateway.listeners() {
            if found.is_some_and(|f| Arc::ptr_eq(f.listener, listener)) {
                continue;
            }
            let config = &listener.config;
            let what = format!("listener \"{}\" of Gateway {name}", config.name);
            let why = if config.port == request.port {
                format!(
                    "is for {} and {}",
                    config.protocol.as_str(),
                    shown(config.hostname.as_ref())
                )
            } else {
                format!("is on port {}", config.port)
            };
            said.not_taken.push(NotTaken::new(what, why));
        }
        for (refused, conflict) in &gateway.refused {
            let what = format!("listener \"{}\" of Gateway {name}", refused.name);
            said.not_taken
                .push(NotTaken::new(what, format!("is not served: {conflict}")));
        }
        refused_routes(world, name, said);
    }
}

/// Routes that name the Gateway and are not attached to it.
fn refused_routes(world: &World, gateway: &GatewayName, said: &mut Simulation) {
    for key in world.objects().keys() {
        for condition in world.conditions(key) {
            let Some(parent) = &condition.parent else {
                continue;
            };
            let namespace = parent.namespace.as_deref().unwrap_or(&key.namespace);
            let here = parent.kind == "Gateway"
                && *gateway.name() == *parent.name
                && namespace == gateway.namespace()
                && key.kind != config::ObjectKind::Gateway;
            if here && condition.kind == "Accepted" && !condition.status {
                let why = format!("is not attached: {}", condition.message);
                said.not_taken.push(NotTaken::new(key.to_string(), why));
            }
        }
    }
}
