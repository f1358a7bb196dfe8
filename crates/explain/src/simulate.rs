//! One request's way through a configuration, and why it takes no other.
//!
//! A request whose host names a Service of the mesh goes the way that the caller's proxy would send
//! it; every other one that of a Gateway. With several Gateways on its port, that one is looked at
//! whose listener has the most specific hostname for it.

mod backend;
mod gateway;
mod http;
mod mesh;
mod policies;
mod stream;

pub(crate) use backend::nobody;
pub(crate) use http::described;

use model::ServiceName;
use model::gateway::GatewayName;
use model::name::service_of_host;

use crate::report::{Failure, Simulation};
use crate::request::{Caller, Request};
use crate::world::World;

/// Says what becomes of a request. With `gateway`, that it comes to this one.
pub fn simulate(
    world: &World,
    request: &Request,
    caller: &Caller,
    gateway: Option<&GatewayName>,
) -> Simulation {
    let said = Simulation {
        request: request.to_string(),
        ..Simulation::default()
    };
    run(world, request, caller, gateway, said)
}

/// The same without why not, and with all that bounds the request.
pub(crate) fn briefly(
    world: &World,
    request: &Request,
    caller: &Caller,
    gateway: Option<&GatewayName>,
) -> Simulation {
    let said = Simulation {
        brief: true,
        ..Simulation::default()
    };
    run(world, request, caller, gateway, said)
}

fn run(
    world: &World,
    request: &Request,
    caller: &Caller,
    gateway: Option<&GatewayName>,
    mut said: Simulation,
) -> Simulation {
    match way(world, request, caller, gateway) {
        Way::Mesh(name) => mesh::go(world, request, caller, &name, &mut said),
        Way::Gateway => gateway::go(world, request, gateway, &mut said),
        Way::Outside => mesh::outside(world, request, &mut said),
    }
    if !request.is_http() {
        // Connections are closed; there is no response that could have a status.
        let of_backends = said.backends.iter_mut().filter_map(|b| b.failure.as_mut());
        for failure in of_backends.chain(&mut said.failure) {
            failure.status = None;
        }
    }
    policies::note(world, request, caller, &mut said);
    said.served = said.failure.is_none();
    said
}

enum Way {
    Mesh(ServiceName),
    Gateway,
    Outside,
}

fn way(world: &World, request: &Request, caller: &Caller, gateway: Option<&GatewayName>) -> Way {
    if gateway.is_some() {
        return Way::Gateway;
    }
    let host = request.asked_host();
    let name = service_of_host(&host, caller.namespace());
    match name {
        Some(name) if world.services.contains_key(&name) => Way::Mesh(name),
        // `reviews` and `reviews.bookshop.svc` can be nothing else; `example.com` can.
        Some(name) if !policy::host::may_be_outside(&host) => Way::Mesh(name),
        _ if world
            .gateways
            .values()
            .any(|g| g.listeners().next().is_some()) =>
        {
            Way::Gateway
        }
        _ => Way::Outside,
    }
}

impl Simulation {
    fn fail(&mut self, failure: Failure) {
        self.failure.get_or_insert(failure);
    }
}
