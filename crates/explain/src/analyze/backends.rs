//! Services that nobody serves.

use std::collections::BTreeMap;

use config::{ObjectKey, ObjectKind, Spec};
use model::balancing::{Algorithm, LocalityMode};
use model::route::{Route, Target};
use model::workload::{Locality, Tunnel};
use model::{Reason, ServiceName};

use super::{Notes, Said, Severity};
use crate::simulate::nobody;
use crate::world::{Destination, World};

/// As many routes are named that lead to a Service.
const NAMED: usize = 3;

pub(super) fn look(notes: &mut Notes<'_>) {
    let world = notes.world;
    let instances = [ObjectKind::Workload, ObjectKind::EndpointSlice];
    let known = world
        .objects()
        .keys()
        .any(|key| instances.contains(&key.kind));
    if !known {
        // Workloads register themselves: files need not name any.
        return;
    }
    let used = used(world);
    for (name, destination) in &world.services {
        tls_to_members(notes, destination);
        let key = ObjectKey::of_service(name);
        if destination.endpoints.is_empty() {
            let said = without_endpoints(notes, &key, used.get(name));
            notes.add(key, said);
        } else {
            ports(notes, &key, destination, used.get(name));
            balancing(notes, &key, destination);
        }
    }
}

/// Policies for TLS to backends, where all are members of the mesh and known by their identity.
fn tls_to_members(notes: &mut Notes<'_>, destination: &Destination) {
    let endpoints = &destination.endpoints;
    let members = endpoints.iter().all(|e| e.tunnel != Tunnel::None);
    if endpoints.is_empty() || !members {
        return;
    }
    for policy in &destination.tls {
        let (namespace, name) = (policy.name.namespace(), policy.name.name());
        let said = Said {
            severity: Severity::Info,
            check: "without-effect",
            field: "spec.targetRefs".to_owned(),
            message: format!("has no effect on Service {}", destination.service.name),
            why: "all its workloads are members of the mesh: they are known by their identity"
                .to_owned(),
            remedy: "take the target out".to_owned(),
        };
        notes.add(
            ObjectKey::new(ObjectKind::BackendTlsPolicy, namespace, name),
            said,
        );
    }
}

fn without_endpoints(notes: &Notes<'_>, key: &ObjectKey, used: Option<&Vec<String>>) -> Said {
    let selector = notes
        .world
        .object(key)
        .and_then(|object| match &object.spec {
            Spec::Service(spec) if !spec.selector.is_empty() => {
                let labels = spec.selector.iter().map(|(k, v)| format!("{k}={v}"));
                Some(labels.collect::<Vec<_>>().join(", "))
            }
            _ => None,
        });
    let (field, why, remedy) = match selector {
        Some(labels) => (
            "spec.selector",
            format!("no Workload of the namespace has the labels {labels}"),
            "correct the selector or the Workload's labels, or start one with these labels",
        ),
        None if key.kind == ObjectKind::ServiceImport => (
            "spec",
            "no EndpointSlice names it".to_owned(),
            "add an EndpointSlice with the label multicluster.kubernetes.io/service-name",
        ),
        None => (
            "spec",
            "it has no selector, and no EndpointSlice names it".to_owned(),
            "add a selector, or an EndpointSlice with the label kubernetes.io/service-name",
        ),
    };
    Said {
        severity: Severity::Warning,
        check: "no-endpoints",
        field: field.to_owned(),
        message: format!("nothing serves it{}", sent(used)),
        why,
        remedy: remedy.to_owned(),
    }
}

/// Ports that no endpoint has, or none that may be chosen.
fn ports(
    notes: &mut Notes<'_>,
    key: &ObjectKey,
    destination: &Destination,
    used: Option<&Vec<String>>,
) {
    for (at, number) in destination
        .service
        .ports
        .iter()
        .map(|p| p.number)
        .enumerate()
    {
        let Some(failure) = nobody(destination, number) else {
            continue;
        };
        let absent = failure.reason.as_deref() == Some(Reason::NoEndpoints.as_str());
        let (message, remedy) = if absent {
            (
                format!("no workload serves port {number}{}", sent(used)),
                "add the port to the Workloads, or correct targetPort",
            )
        } else {
            (
                format!("no workload of port {number} may be chosen{}", sent(used)),
                "see why they are not ready",
            )
        };
        let said = Said {
            severity: Severity::Warning,
            check: "no-endpoints",
            field: format!("spec.ports[{at}]"),
            message,
            why: String::new(),
            remedy: remedy.to_owned(),
        };
        notes.add(key.clone(), said);
    }
}

/// Ways to choose an endpoint that cannot come to anything.
fn balancing(notes: &mut Notes<'_>, key: &ObjectKey, destination: &Destination) {
    let endpoints = &destination.endpoints;
    let nowhere = endpoints.iter().all(|e| e.locality == Locality::default());
    let mut said = |check, port: u16, message: String, why: &str, remedy: &str| {
        let at = destination
            .service
            .ports
            .iter()
            .position(|p| p.number == port);
        let said = Said {
            severity: Severity::Warning,
            check,
            field: at.map_or_else(String::new, |at| format!("spec.ports[{at}]")),
            message,
            why: why.to_owned(),
            remedy: remedy.to_owned(),
        };
        notes.add(key.clone(), said);
    };
    for (port, compiled) in &destination.ports {
        let policy = &compiled.policy;
        let mode = policy.locality(&destination.service);
        if nowhere && *mode != LocalityMode::None {
            said(
                "without-effect",
                *port,
                format!("locality {} has no effect on port {port}", mode.as_str()),
                "of no workload behind it is known where it is",
                "start them with --locality, or give the Workloads, EndpointSlices or Nodes a zone",
            );
        }
        if let Algorithm::Maglev { table } = policy.balancer.algorithm
            && endpoints.len() > table as usize / 100
        {
            said(
                "uneven",
                *port,
                format!(
                    "Maglev's table of {table} entries is small for {} workloads",
                    endpoints.len()
                ),
                "with fewer than a hundred entries each they get uneven shares",
                "make `loadBalancer.tableSize` larger: a prime",
            );
        }
    }
}

/// `, and HTTPRoute shop/a leads there`.
fn sent(used: Option<&Vec<String>>) -> String {
    let Some(routes) = used else {
        return String::new();
    };
    let named: Vec<&str> = routes.iter().take(NAMED).map(String::as_str).collect();
    let more = match routes.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let lead = if routes.len() == 1 { "leads" } else { "lead" };
    format!(", and {}{more} {lead} there", named.join(", "))
}

/// Which routes lead to a service.
fn used(world: &World) -> BTreeMap<ServiceName, Vec<String>> {
    let mut used: BTreeMap<ServiceName, Vec<String>> = BTreeMap::new();
    let mut note = |target: &Target, route: &dyn Fn() -> String| {
        if let Target::Service { name, .. } = target {
            let routes = used.entry(name.clone()).or_default();
            let route = route();
            if !routes.contains(&route) && routes.len() <= NAMED {
                routes.push(route);
            }
        }
    };
    let mut of_route = |route: &Route| {
        for backend in route.rules.iter().flat_map(|r| &r.backends) {
            note(&backend.target, &|| {
                format!("{} {}", route.kind, route.name)
            });
        }
    };
    for gateway in world.gateways.values() {
        for route in &gateway.routes {
            of_route(route);
        }
    }
    for port in world.services.values().flat_map(|s| s.ports.values()) {
        for route in port.all_ways().flat_map(|(_, ways)| ways.all()) {
            of_route(route);
        }
    }
    for route in world.gateways.values().flat_map(|g| &g.streams) {
        for backend in &route.backends {
            note(&backend.target, &|| {
                format!("{} {}", route.kind, route.name)
            });
        }
    }
    used
}
