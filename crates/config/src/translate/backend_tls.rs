//! `BackendTLSPolicy`: one of the model for each Service that it is for.
//!
//! Where its root certificates cannot be found it is in force all the same, with nobody to vouch
//! for the backend: then no connection is made, as Gateway API asks. Its conditions are said once
//! for each Gateway that has a route to one of its Services (`status.ancestors`, GEP-713).

use std::collections::{BTreeMap, BTreeSet};

use model::ObjectName;
use model::backend_tls::{BackendTls, Roots};
use model::resource::Resource;

use super::gateway::tls::root_certificates;
use super::policy::traffic_target;
use super::route::{Fault, parent, resolved_refs};
use super::store::{Topic, View};
use super::{Condition, Output};
use crate::check::Check;
use crate::diagnostic::Severity;
use crate::kind::ObjectKind;
use crate::kind::backend_tls_policy::BackendTlsPolicySpec;
use crate::kind::tls_options;
use crate::object::{Object, ObjectKey, Spec};
use crate::reference::{ParentRef, TargetRef};

/// As many ancestors as a status may name.
const MAX_ANCESTORS: usize = 16;

pub(super) fn translate(
    object: &Object,
    name: &ObjectName,
    spec: &BackendTlsPolicySpec,
    view: &mut View<'_>,
    c: &mut Check<'_>,
    output: &mut Output,
) {
    let (roots, faults) = roots(object, spec, view);
    let nobody = matches!(&roots, Roots::Certificates(roots) if roots.is_empty());
    let mut verdicts: Vec<(&TargetRef, Condition)> = Vec::new();
    c.at("spec", |c| {
        let names = c.at("validation", |c| {
            for fault in &faults {
                c.found(Severity::Warning, fault.message.clone(), fault.hint.clone());
            }
            spec.validation.names(c)
        });
        c.each("targetRefs", &spec.target_refs, |c, target| {
            let accepted = match traffic_target(object, target, view) {
                Ok((service, port)) => {
                    if let Some(other) = older(object, target, view) {
                        let message = format!("{other} is older and for the same target");
                        c.found(Severity::Warning, message.clone(), "take one of them out");
                        Condition::failed("Accepted", "Conflicted", message)
                    } else {
                        output.resources.push(Resource::BackendTls(BackendTls {
                            name: name.clone(),
                            target: service,
                            port,
                            created: object.metadata.created.unwrap_or(0),
                            hostname: spec.validation.hostname.clone(),
                            names: names.clone(),
                            roots: roots.clone(),
                            options: tls_options::to_model(&spec.options),
                        }));
                        in_force(nobody)
                    }
                }
                Err((message, hint)) => {
                    c.found(Severity::Warning, message.clone(), hint);
                    Condition::failed("Accepted", "TargetNotFound", message)
                }
            };
            verdicts.push((target, accepted));
        });
    });
    let resolved = resolved_refs(&faults);
    for (ancestor, accepted, foreign) in ancestors(object, verdicts, view) {
        let said = [accepted, resolved.clone()];
        output.conditions.extend(said.map(|condition| Condition {
            foreign,
            ..condition.about(ancestor.clone())
        }));
    }
}

/// Of a policy that no other stands before.
fn in_force(nobody: bool) -> Condition {
    if nobody {
        let message = "nobody vouches for the backend, so that nothing is sent: see ResolvedRefs";
        Condition::failed("Accepted", "NoValidCACertificate", message)
    } else {
        Condition::accepted()
    }
}

/// Who vouches for the backend, and what is wrong with the references.
fn roots(object: &Object, spec: &BackendTlsPolicySpec, view: &mut View<'_>) -> (Roots, Vec<Fault>) {
    if spec.validation.well_known_ca_certificates.is_some() {
        return (Roots::System, Vec::new());
    }
    let (mut roots, mut faults) = (Vec::new(), Vec::new());
    for reference in &spec.validation.ca_certificate_refs {
        match root_certificates(object, reference, view) {
            Ok(found) => roots.extend(found),
            // The same fault has another name here than at listeners.
            Err(fault) if fault.reason == "InvalidCACertificateKind" => faults.push(Fault {
                reason: "InvalidKind",
                ..fault
            }),
            Err(fault) => faults.push(fault),
        }
    }
    (Roots::Certificates(roots), faults)
}

/// What is said of `Accepted` to whom: to each Gateway with a route to one of the targets, of these
/// the best; where there is none, to the targets themselves.
fn ancestors(
    object: &Object,
    verdicts: Vec<(&TargetRef, Condition)>,
    view: &mut View<'_>,
) -> Vec<(ParentRef, Condition, bool)> {
    let mut gateways: BTreeMap<ObjectKey, Condition> = BTreeMap::new();
    for (target, accepted) in &verdicts {
        for gateway in gateways_to(object, target, view) {
            let said = gateways.entry(gateway).or_insert_with(|| accepted.clone());
            if accepted.status && !said.status {
                *said = accepted.clone();
            }
        }
    }
    if gateways.is_empty() {
        let targets = verdicts.into_iter();
        return targets
            .map(|(t, accepted)| (t.as_ancestor(), accepted, true))
            .collect();
    }
    let said = gateways.into_iter().take(MAX_ANCESTORS);
    said.map(|(gateway, accepted)| {
        let ancestor = ParentRef::gateway(&gateway.namespace, &gateway.name);
        (ancestor, accepted, false)
    })
    .collect()
}

/// The Gateways with a route to a Service.
fn gateways_to(object: &Object, target: &TargetRef, view: &mut View<'_>) -> BTreeSet<ObjectKey> {
    let service = ObjectKey::new(ObjectKind::Service, object.namespace(), &target.name);
    let routes = view.list(Topic::Backs(service));
    let mut found = BTreeSet::new();
    for route in routes {
        for reference in parent::of(route, view).iter() {
            found.extend(parent::gateway_of(route, reference, view));
        }
    }
    found
}

/// A policy that is for the same target and comes first (GEP-713: the older, then by name).
fn older(object: &Object, target: &TargetRef, view: &mut View<'_>) -> Option<ObjectKey> {
    let service = ObjectKey::new(ObjectKind::Service, object.namespace(), &target.name);
    let rank = |o: &Object| (o.metadata.created.unwrap_or(0), o.key.clone());
    let own = rank(object);
    view.list(Topic::Attached(ObjectKind::BackendTlsPolicy, service))
        .into_iter()
        .filter(|other| match &other.spec {
            Spec::BackendTlsPolicy(spec) => spec
                .target_refs
                .iter()
                .any(|t| t.name == target.name && t.section_name == target.section_name),
            _ => false,
        })
        .find(|other| rank(other) < own)
        .map(|other| other.key.clone())
}
