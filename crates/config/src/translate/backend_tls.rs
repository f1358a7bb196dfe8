//! `BackendTLSPolicy`: one of the model for each Service that it is for.
//!
//! Where its root certificates cannot be found it is in force all the same, with nobody to vouch
//! for the backend: then no connection is made, as Gateway API asks.

use model::ObjectName;
use model::backend_tls::{BackendTls, Roots};
use model::resource::Resource;

use super::gateway::tls::root_certificates;
use super::policy::traffic_target;
use super::route::resolved_refs;
use super::store::{Topic, View};
use super::{Condition, Output};
use crate::check::Check;
use crate::diagnostic::Severity;
use crate::kind::ObjectKind;
use crate::kind::backend_tls_policy::BackendTlsPolicySpec;
use crate::object::{Object, ObjectKey, Spec};
use crate::reference::TargetRef;

pub(super) fn translate(
    object: &Object,
    name: &ObjectName,
    spec: &BackendTlsPolicySpec,
    view: &mut View<'_>,
    c: &mut Check<'_>,
    output: &mut Output,
) {
    let validation = &spec.validation;
    let mut faults = Vec::new();
    let roots = if validation.well_known_ca_certificates.is_some() {
        Roots::System
    } else {
        let mut roots = Vec::new();
        for reference in &validation.ca_certificate_refs {
            match root_certificates(object, reference, view) {
                Ok(found) => roots.extend(found),
                Err(fault) => faults.push(fault),
            }
        }
        Roots::Certificates(roots)
    };
    c.at("spec", |c| {
        c.at("validation", |c| {
            for fault in &faults {
                c.found(Severity::Warning, fault.message.clone(), fault.hint.clone());
            }
        });
        let names = c.at("validation", |c| validation.names(c));
        let resolved = resolved_refs(&faults);
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
                            hostname: validation.hostname.clone(),
                            names: names.clone(),
                            roots: roots.clone(),
                        }));
                        Condition::accepted()
                    }
                }
                Err((message, hint)) => {
                    c.found(Severity::Warning, message.clone(), hint);
                    Condition::failed("Accepted", "TargetNotFound", message)
                }
            };
            output.conditions.push(accepted.about(target.as_ancestor()));
            output
                .conditions
                .push(resolved.clone().about(target.as_ancestor()));
        });
    });
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
