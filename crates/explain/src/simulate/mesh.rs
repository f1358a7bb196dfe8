//! A request to a Service of the mesh, as the proxy beside the caller sends it.

use model::mesh::OutboundPolicy;
use model::route::Target;
use model::service::Protocol;
use model::workload::{MtlsMode, Tunnel};
use model::{Reason, ServiceName};

use super::{backend, http, stream};
use crate::report::{Failure, Simulation};
use crate::request::{Caller, Request, Scheme};
use crate::world::{Destination, World};

pub(super) fn go(
    world: &World,
    request: &Request,
    caller: &Caller,
    name: &ServiceName,
    said: &mut Simulation,
) {
    let Some(destination) = world.services.get(name) else {
        return said.fail(Failure::new(
            Reason::NoRoute,
            format!("there is no service {name}"),
        ));
    };
    let port = request.port;
    said.service = Some(format!("{name}:{port}"));
    let Some(compiled) = destination.ports.get(&port) else {
        return said.fail(backend::no_port(destination, port));
    };
    let ways = compiled.ways_for(caller.namespace());
    let stream = match request.scheme {
        Scheme::Udp => ways.datagrams.as_ref(),
        _ => ways.stream.as_ref(),
    };
    let declared = matches!(compiled.protocol, Protocol::Tcp | Protocol::Tls);
    let bytes = declared || stream.is_some() || request.scheme != Scheme::Http;
    if bytes && request.is_http() {
        let why = match stream {
            Some(route) => format!("by {} {}", route.kind, route.name),
            None => "as bytes (TLS of the application's own, or a port declared as such): routes do not see it".to_owned(),
        };
        said.notes.push(format!("it is carried {why}"));
    }
    let plain = matches!(caller, Caller::Plain { .. });
    if plain {
        said.notes.push(
            "a client without a proxy asks an endpoint directly: no route applies".to_owned(),
        );
    } else if ways.is_consumers() {
        said.notes.push(format!(
            "clients of namespace {} have routes of their own for this port (consumer routes), in place of those of the service's namespace",
            caller.namespace()
        ));
    }
    match stream {
        Some(route) if !plain => stream::of_service(world, route, said),
        // No route: the service itself is the backend (GAMMA).
        _ if bytes || plain || ways.routes.is_empty() => {
            let target = Target::Service {
                name: name.clone(),
                port,
            };
            let mut taken = backend::taken(world, None, &target, (1, 1), said.brief);
            if plain {
                // They are the caller's proxy's.
                taken.limits.clear();
            }
            said.backends.push(taken);
            backend::judge(said);
        }
        _ => {
            let asked = http::Asked {
                tables: &[&ways.routes],
                whose: format!("service {name}"),
                port,
            };
            http::go(world, request, &asked, said);
        }
    }
    admit(world, caller, destination, port, said);
}

/// A host that is none of the mesh.
pub(super) fn outside(world: &World, request: &Request, said: &mut Simulation) {
    let host = request.asked_host();
    match world.mesh.outbound {
        OutboundPolicy::AllowAny => said.notes.push(format!(
            "{host} is not of this mesh: it is passed on to where DNS says, as outboundPolicy AllowAny has it"
        )),
        OutboundPolicy::RegistryOnly => {
            let details =
                format!("host {host} is not of this mesh, and outboundPolicy is RegistryOnly");
            said.fail(Failure::new(Reason::NoRoute, details));
        }
    }
}

/// Whether the workloads take this caller.
fn admit(
    world: &World,
    caller: &Caller,
    destination: &Destination,
    port: u16,
    said: &mut Simulation,
) {
    if said.failure.is_some() {
        return;
    }
    match caller {
        Caller::Somebody { .. } => {}
        Caller::Identity(id) => {
            let own = world.mesh.trust_domain.as_str();
            let members = destination
                .endpoints(port)
                .any(|(endpoint, ..)| endpoint.tunnel != Tunnel::None);
            if id.trust_domain() != own && members {
                let details = format!(
                    "{} is of another trust domain than this mesh's, {own}",
                    id.as_str()
                );
                said.fail(Failure::new(Reason::TlsFailed, details));
            }
        }
        Caller::Plain { .. } => {
            let strict = destination.endpoints(port).find(|(endpoint, target, _)| {
                let workload = world.workloads.get(&endpoint.workload);
                let mode = workload.map(|w| w.mtls.for_port(*target));
                endpoint.tunnel != Tunnel::None && mode == Some(MtlsMode::Strict)
            });
            if let Some((endpoint, ..)) = strict {
                let details = format!(
                    "workload {} takes callers with an identity of the mesh only (mTLS Strict)",
                    endpoint.workload
                );
                said.fail(Failure::new(Reason::Unauthenticated, details));
            }
        }
    }
}
