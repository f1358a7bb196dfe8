//! A backend: what bounds requests to it, which endpoints it has, and whether they can be served.

use model::route::{Rule, Target};
use model::workload::Tunnel;
use model::{Reason, ServiceName};

use crate::report::{BackendTaken, EndpointTaken, Failure, Simulation};
use crate::words;
use crate::world::{Destination, World};

/// What a share (weight, of all) of the requests finds; with `all` that bounds them.
pub(super) fn taken(
    world: &World,
    rule: Option<&Rule>,
    target: &Target,
    (weight, total): (u32, u64),
    all: bool,
) -> BackendTaken {
    let mut taken = BackendTaken {
        service: None,
        percent: f64::from(weight) * 100.0 / total.max(1) as f64,
        weight,
        request: None,
        headers: None,
        filters: Vec::new(),
        limits: Vec::new(),
        endpoints: Vec::new(),
        failure: None,
    };
    match target {
        Target::Service { name, port } => {
            taken.service = Some(format!("{name}:{port}"));
            of_service(world, rule, (name, *port), all, &mut taken);
        }
        Target::Invalid { reason } => {
            let failure = Failure::no_backend(&**reason);
            taken.failure =
                Some(failure.remedy("correct the backendRef; `tulle analyze` says where"));
        }
    }
    taken
}

fn of_service(
    world: &World,
    rule: Option<&Rule>,
    (name, port): (&ServiceName, u16),
    all: bool,
    taken: &mut BackendTaken,
) {
    let Some(destination) = world.services.get(name) else {
        let details = format!("backend service {name} does not exist");
        taken.failure = Some(Failure::no_backend(details));
        return;
    };
    let Some(compiled) = destination.ports.get(&port) else {
        taken.failure = Some(no_port(destination, port));
        return;
    };
    let policy = &compiled.policy;
    let limits = words::limits(policy, &policy.limits(rule), all);
    taken.limits = limits
        .into_iter()
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    if destination.service.near && policy.balancer.locality.is_none() {
        let told = "load balancing: the nearest first, as the Service's trafficDistribution says";
        taken.limits.push(told.to_owned());
    }
    let outside = destination
        .endpoints(port)
        .any(|(endpoint, ..)| endpoint.tunnel == Tunnel::None);
    if let Some(tls) = destination.tls(port).filter(|_| outside) {
        let told = format!(
            "TLS, as BackendTLSPolicy {} says: {}",
            tls.name, tls.hostname
        );
        taken.limits.push(told);
    }
    taken.endpoints = endpoints(destination, port);
    taken.failure = nobody(destination, port);
}

/// A port that a service does not have.
pub(super) fn no_port(destination: &Destination, port: u16) -> Failure {
    let ports: Vec<String> = destination.ports.keys().map(u16::to_string).collect();
    let name = &destination.service.name;
    let details = format!(
        "service {name} has no port {port}, but {}",
        ports.join(", ")
    );
    Failure::new(Reason::NoRoute, details).remedy("name one of the Service's ports")
}

/// Why no endpoint of a port may be chosen, if that is so.
pub(crate) fn nobody(destination: &Destination, port: u16) -> Option<Failure> {
    let name = &destination.service.name;
    let (mut all, mut usable) = (0, 0);
    for (.., healthy) in destination.endpoints(port) {
        all += 1;
        usable += usize::from(healthy);
    }
    match (all, usable) {
        (0, _) => {
            let details = format!("service {name} has no workload on port {port}");
            Some(Failure::new(Reason::NoEndpoints, details))
        }
        (_, 0) => {
            let details = format!("none of the {all} workloads of service {name} may be chosen");
            Some(Failure::new(Reason::NoHealthyEndpoints, details))
        }
        _ => None,
    }
}

pub(super) fn endpoints(destination: &Destination, port: u16) -> Vec<EndpointTaken> {
    let all = destination.endpoints(port);
    all.map(|(endpoint, target, healthy)| EndpointTaken {
        workload: endpoint.workload.to_string(),
        address: match endpoint.addresses.first() {
            Some(address) => std::net::SocketAddr::new(*address, target).to_string(),
            None => format!(":{target}"),
        },
        state: if healthy {
            "usable".to_owned()
        } else {
            format!("{:?}", endpoint.health).to_lowercase()
        },
    })
    .collect()
}

/// Whether requests are served, all of them: a backend that gets a share and cannot serve it fails
/// those that go there.
pub(super) fn judge(said: &mut Simulation) {
    let failing = said
        .backends
        .iter()
        .find(|b| b.weight > 0 && b.failure.is_some());
    let Some(failing) = failing else {
        return;
    };
    if let Some(mut failure) = failing.failure.clone() {
        if failing.percent < 100.0 {
            let share = words::percent(failing.percent);
            failure.details = format!("{share} of such requests: {}", failure.details);
        }
        said.failure = Some(failure);
    }
}
