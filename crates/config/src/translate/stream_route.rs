//! Routes for connections and datagrams: one of the model for each Gateway or service that is a
//! parent.

use std::collections::BTreeMap;

use model::ObjectName;
use model::gateway::{Attachment, GatewayName, StreamBackend, StreamKind, StreamRoute};
use model::hostname::Hostname;
use model::resource::Resource;
use model::route::{Backend, Match, Parent, Route, RouteKind, Rule, Target, Timeouts};

use super::route::{self, Refusal, Side, merged, once, parent, resolved_refs, side_of};
use super::store::View;
use super::{Condition, Output};
use crate::check::Check;
use crate::diagnostic::Severity;
use crate::kind::backend::BackendTarget;
use crate::kind::stream_route::{StreamRule, backends};
use crate::object::Object;

/// The parts of a route that its kinds have in common.
pub(super) struct Parts<'a> {
    pub(super) kind: StreamKind,
    pub(super) hostnames: &'a [String],
    pub(super) rules: &'a [StreamRule],
}

/// A route's backends with their references followed, and what is said of that.
struct Followed {
    backends: Vec<StreamBackend>,
    condition: Condition,
}

pub(super) fn translate(
    object: &Object,
    name: &ObjectName,
    parts: &Parts<'_>,
    view: &mut View<'_>,
    c: &mut Check<'_>,
    output: &mut Output,
) {
    let parents = parent::of(object, view);
    let has = |side| parents.iter().any(|parent| side_of(parent) == side);
    let mesh = has(Side::Mesh).then(|| follow(object, Side::Mesh, parts, view, c));
    // A route without parents is looked through as one of a Gateway.
    let gateway = (mesh.is_none() || has(Side::Gateway))
        .then(|| follow(object, Side::Gateway, parts, view, c));
    let names = parts.hostnames.iter().filter_map(|h| h.parse().ok());
    let hostnames: Vec<Hostname> = names.collect();
    let created = object.metadata.created.unwrap_or(0);
    let mut gateways: BTreeMap<GatewayName, Vec<Attachment>> = BTreeMap::new();
    c.at("spec", |c| {
        c.each("parentRefs", parents.iter(), |c, reference| {
            let (attached, followed) = match (side_of(reference), &gateway, &mesh) {
                (Side::Mesh, _, Some(mesh)) => {
                    let attached = route::attach(object, reference, view);
                    let attached = attached.map(|(service, port)| {
                        let route = of_service(name, parts, mesh, service, port, created);
                        output.resources.push(Resource::Route(route));
                    });
                    (attached.map_err(Refusal::from), mesh)
                }
                (Side::Gateway, Some(gateway), _) => {
                    let attached = parent::attach(object, reference, &hostnames, view);
                    let attached = attached.map(|attached| {
                        output.attached.extend(attached.counted());
                        let all = gateways.entry(attached.gateway).or_default();
                        all.extend(attached.attachments);
                    });
                    (attached, gateway)
                }
                // What a side has a parent for has been followed.
                _ => return,
            };
            let accepted = attached.map_or_else(
                |refusal| refusal.into_condition(c),
                |()| Condition::accepted(),
            );
            let resolved = Condition {
                foreign: accepted.foreign,
                ..followed.condition.clone()
            };
            output.conditions.push(accepted.about(reference.clone()));
            output.conditions.push(resolved.about(reference.clone()));
        });
    });
    let Some(followed) = gateway else { return };
    for (gateway, attachments) in gateways {
        output.resources.push(Resource::StreamRoute(StreamRoute {
            kind: parts.kind,
            name: name.clone(),
            gateway,
            attachments: merged(attachments),
            created,
            backends: followed.backends.clone(),
        }));
    }
}

/// Follows all references of a route.
fn follow(
    object: &Object,
    side: Side,
    parts: &Parts<'_>,
    view: &mut View<'_>,
    c: &mut Check<'_>,
) -> Followed {
    let mut faults = Vec::new();
    let mut resolve = |c: &mut Check<'_>, target: BackendTarget<'_>| {
        route::resolve(object, side, target, view).unwrap_or_else(|fault| {
            c.found(Severity::Warning, fault.message.clone(), fault.hint.clone());
            let reason = fault.message.as_str().into();
            faults.push(fault);
            Target::Invalid { reason }
        })
    };
    let backends = once(c, |c| {
        c.at("spec", |c| backends(parts.rules, c, &mut resolve))
    });
    Followed {
        backends,
        condition: resolved_refs(&faults),
    }
}

/// The route as one of a service.
fn of_service(
    name: &ObjectName,
    parts: &Parts<'_>,
    followed: &Followed,
    service: ObjectName,
    port: Option<u16>,
    created: u64,
) -> Route {
    let backend = |backend: &StreamBackend| Backend {
        target: backend.target.clone(),
        weight: backend.weight,
        filters: Vec::new(),
    };
    let rule = Rule {
        name: None,
        matches: vec![Match::default()],
        filters: Vec::new(),
        backends: followed.backends.iter().map(backend).collect(),
        timeouts: Timeouts::default(),
        retry: None,
        session: None,
    };
    Route {
        kind: match parts.kind {
            StreamKind::Tls => RouteKind::Tls,
            StreamKind::Tcp => RouteKind::Tcp,
            StreamKind::Udp => RouteKind::Udp,
        },
        name: name.clone(),
        parent: Parent::Service(service),
        port,
        created,
        rules: vec![rule],
    }
}
