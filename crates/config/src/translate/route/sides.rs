//! The two sides that a route's parents may be on, and what is made of the route for each.

use std::collections::BTreeMap;

use model::ServiceName;
use model::gateway::{Attachment, GatewayName};
use model::hostname::Hostname;
use model::resource::Resource;
use model::route::Target;

use super::{Refusal, backend, parent, resolved_refs, service};
use crate::check::{Check, Problem};
use crate::diagnostic::Severity;
use crate::kind::backend::{BackendTarget, Resolve};
use crate::object::Object;
use crate::reference::ParentRef;
use crate::translate::store::View;
use crate::translate::{Condition, Output};

/// Whose requests the references of a route are followed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::translate) enum Side {
    /// Those that come in through a Gateway: a Service of another namespace must have been opened
    /// to the route by a `ReferenceGrant`.
    Gateway,
    /// Those of clients in the mesh, which could ask every Service by themselves: no grant is
    /// needed (GEP-1426, Namespace boundaries).
    Mesh,
}

impl Side {
    fn of(parent: &ParentRef) -> Self {
        if parent.is_service() {
            Self::Mesh
        } else {
            Self::Gateway
        }
    }
}

/// A route with its references followed, for each side that it has a parent on.
pub(in crate::translate) struct Sides<'r, T> {
    object: &'r Object,
    parents: &'r [ParentRef],
    gateway: Option<Followed<T>>,
    mesh: Option<Followed<T>>,
}

struct Followed<T> {
    /// The route's rules, or its backends.
    made: T,
    /// What is said of the references.
    condition: Condition,
}

impl<'r, T> Sides<'r, T> {
    /// Follows all references; of a route without parents as of one of the side `otherwise`.
    pub(in crate::translate) fn follow(
        object: &'r Object,
        parents: &'r [ParentRef],
        otherwise: Side,
        view: &mut View<'_>,
        c: &mut Check<'_>,
        make: impl Fn(&mut Check<'_>, &mut Resolve<'_>) -> T,
    ) -> Self {
        let mut follow = |side| {
            let has = parents.iter().any(|parent| Side::of(parent) == side)
                || parents.is_empty() && side == otherwise;
            has.then(|| Followed::new(object, side, view, c, &make))
        };
        Self {
            object,
            parents,
            gateway: follow(Side::Gateway),
            mesh: follow(Side::Mesh),
        }
    }

    /// Attaches the route to each of its parents and says how that went: puts what `of_service` and
    /// `of_gateway` make of it into the output.
    pub(in crate::translate) fn attach(
        &self,
        hostnames: &[String],
        view: &mut View<'_>,
        c: &mut Check<'_>,
        output: &mut Output,
        of_service: impl Fn(&T, ServiceName, Option<u16>) -> Resource,
        of_gateway: impl Fn(&T, GatewayName, Vec<Attachment>) -> Resource,
    ) {
        let object = self.object;
        let hostnames: Vec<Hostname> = hostnames.iter().filter_map(|h| h.parse().ok()).collect();
        let mut gateways: BTreeMap<GatewayName, Vec<Attachment>> = BTreeMap::new();
        c.each("parentRefs", self.parents.iter(), |c, parent| {
            let (attached, followed) = match (Side::of(parent), &self.gateway, &self.mesh) {
                (Side::Mesh, _, Some(mesh)) => {
                    let attached = service(object, parent, view).map(|(service, port)| {
                        let resource = of_service(&mesh.made, service, port);
                        output.resources.push(resource);
                    });
                    (attached.map_err(Refusal::from), mesh)
                }
                (Side::Gateway, Some(gateway), _) => {
                    let attached = parent::attach(object, parent, &hostnames, view);
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
            output.conditions.push(accepted.about(parent.clone()));
            output.conditions.push(resolved.about(parent.clone()));
        });
        let Some(followed) = &self.gateway else {
            return;
        };
        for (gateway, attachments) in gateways {
            let resource = of_gateway(&followed.made, gateway, merged(attachments));
            output.resources.push(resource);
        }
    }
}

impl<T> Followed<T> {
    fn new(
        object: &Object,
        side: Side,
        view: &mut View<'_>,
        c: &mut Check<'_>,
        make: impl Fn(&mut Check<'_>, &mut Resolve<'_>) -> T,
    ) -> Self {
        let mut faults = Vec::new();
        let mut resolve = |c: &mut Check<'_>, target: BackendTarget<'_>| {
            backend(object, side, target, view).unwrap_or_else(|fault| {
                c.found(Severity::Warning, fault.message.clone(), fault.hint.clone());
                let reason = fault.message.as_str().into();
                faults.push(fault);
                Target::Invalid { reason }
            })
        };
        let made = once(c, |c| make(c, &mut resolve));
        Self {
            made,
            condition: resolved_refs(&faults),
        }
    }
}

/// Does something that may find what was found before: for the other side.
fn once<T>(c: &mut Check<'_>, act: impl FnOnce(&mut Check<'_>) -> T) -> T {
    let reported = c.problems.len();
    let result = act(c);
    for problem in c.problems.split_off(reported) {
        let same = |p: &Problem| p.field == problem.field && p.message == problem.message;
        if !c.problems.iter().any(same) {
            c.problems.push(problem);
        }
    }
    result
}

/// A route may name several listeners of one Gateway, and one more than once.
fn merged(mut attachments: Vec<Attachment>) -> Vec<Attachment> {
    attachments.sort_by(|a, b| a.listener.cmp(&b.listener));
    attachments.dedup_by(|a, b| a.listener == b.listener);
    attachments
}
