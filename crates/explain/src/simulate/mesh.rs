//! A request to a Service of the mesh, as the proxy beside the caller sends it.

use model::mesh::OutboundPolicy;
use model::route::Target;
use model::service::Protocol;
use model::workload::{MtlsMode, Tunnel};
use model::{Reason, ServiceName};

use super::{backend, http};
use crate::report::{Failure, Simulation};
use crate::request::{Caller, Request};
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
    let bytes = match compiled.protocol {
        Protocol::Tcp | Protocol::Tls => true,
        _ => !matches!(request.scheme, crate::request::Scheme::Http),
    };
    if bytes && request.is_http() {
        said.notes.push(
            "it is carried as bytes (TLS of the application's own, or a port declared as such): routes do not see it"
                .to_owned(),
        );
    }
    let plain = matches!(caller, Caller::Plain { .. });
    if plain {
        said.notes.push(
            "a client without a proxy asks an endpoint directly: no route applies".to_owned(),
        );
    }
    // No route: the service itself is the backend (GAMMA).
    if bytes || plain || compiled.routes.is_empty() {
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
    } else {
        let asked = http::Asked {
            tables: &[&compiled.routes],
            whose: format!("service {name}"),
            port,
        };
        http::go(world, request, &asked, said);
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
