//! Policies: where they are attached, which of two wins, and what a workload demands in the end.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::ObjectName;
use model::resource::Resource;
use model::workload::Mtls;

use super::route::missing_service;
use super::store::{Topic, View};
use super::{Condition, Defaults, Output, mesh_config};
use crate::check::Check;
use crate::diagnostic::Severity;
use crate::kind::ObjectKind;
use crate::kind::authentication_policy::{MtlsSpec, merge};
use crate::kind::mesh_config::MeshConfigSpec;
use crate::kind::service::find_port;
use crate::kind::traffic_policy::TrafficPolicySpec;
use crate::object::{Object, ObjectKey, Spec};
use crate::reference::TargetRef;

/// The older wins, then the one whose name comes first (GEP-713).
pub(super) fn rank(object: &Object) -> (u64, &ObjectKey) {
    (object.metadata.created.unwrap_or(0), &object.key)
}

/// A `TrafficPolicy`: one of the model for each target that exists.
pub(super) fn traffic(
    object: &Object,
    name: &ObjectName,
    spec: &TrafficPolicySpec,
    view: &mut View<'_>,
    c: &mut Check<'_>,
    output: &mut Output,
) {
    c.at("spec", |c| {
        let mut done = BTreeSet::new();
        let attached = c.each("targetRefs", &spec.target_refs, |c, target| {
            let condition = match traffic_target(object, target, view) {
                Ok((service, port)) => {
                    let condition = shadowed(object, spec, target, port, view);
                    if !condition.status {
                        c.found(Severity::Warning, condition.message.clone(), "");
                    }
                    output
                        .conditions
                        .push(condition.about(target.as_ancestor()));
                    return done
                        .insert((service.clone(), port))
                        .then_some((service, port));
                }
                Err((message, hint)) => {
                    c.found(Severity::Warning, message.clone(), hint.clone());
                    Condition::failed("Accepted", "TargetNotFound", joined(&message, &hint))
                }
            };
            output
                .conditions
                .push(condition.about(target.as_ancestor()));
            None
        });
        fallback(object, spec, view, c);
        for (service, port) in attached.into_iter().flatten() {
            let created = object.metadata.created.unwrap_or(0);
            let policy = spec.to_model(name.clone(), service, port, created, c);
            output
                .resources
                .push(Resource::TrafficPolicy(Box::new(policy)));
        }
    });
}

/// Warns of a fallback to what is not there: requests would fail as without it.
fn fallback(object: &Object, spec: &TrafficPolicySpec, view: &mut View<'_>, c: &mut Check<'_>) {
    let backend = spec.fallback.as_ref().and_then(|f| f.backend_ref.as_ref());
    let Some(backend) = backend else { return };
    let (namespace, name) = (object.namespace(), &backend.name);
    let found = match view.service(namespace, name) {
        None => Err(missing_service(namespace, name, view)),
        Some(service) if find_port(&service.ports, Some(backend.port), None).is_none() => {
            let message = format!("Service \"{name}\" has no port {}", backend.port);
            Err((message, String::new()))
        }
        Some(_) => Ok(()),
    };
    if let Err((message, hint)) = found {
        c.at("fallback", |c| {
            c.at("backendRef", |c| c.found(Severity::Warning, message, hint));
        });
    }
}

pub(super) fn joined(message: &str, hint: &str) -> String {
    if hint.is_empty() {
        message.to_owned()
    } else {
        format!("{message}; {hint}")
    }
}

pub(super) type Attachment = (ObjectName, Option<u16>);

pub(super) fn traffic_target(
    object: &Object,
    target: &TargetRef,
    view: &mut View<'_>,
) -> Result<Attachment, (String, String)> {
    let namespace = object.namespace();
    let Some(service) = view.service(namespace, &target.name) else {
        return Err(missing_service(namespace, &target.name, view));
    };
    let name = ObjectName::new(namespace, &target.name)
        .map_err(|error| (error.to_string(), String::new()))?;
    let Some(section) = &target.section_name else {
        return Ok((name, None));
    };
    if let Some(port) = find_port(&service.ports, None, Some(section)) {
        return Ok((name, Some(port.port)));
    }
    let names: Vec<&str> = service.ports.iter().map(|p| p.name.as_str()).collect();
    let message = format!(
        "Service \"{}\" has no port named \"{section}\"",
        target.name
    );
    Err((message, format!("its ports are named {}", names.join(", "))))
}

/// Which of a policy's settings an older one makes for the same target.
fn shadowed(
    object: &Object,
    spec: &TrafficPolicySpec,
    target: &TargetRef,
    port: Option<u16>,
    view: &mut View<'_>,
) -> Condition {
    let key = ObjectKey::new(ObjectKind::Service, object.namespace(), &target.name);
    let own = spec.settings();
    let mut overridden: Vec<&str> = Vec::new();
    let mut winners: BTreeSet<&str> = BTreeSet::new();
    let service = view.service(object.namespace(), &target.name);
    let mut attached = view.list(Topic::Attached(ObjectKind::TrafficPolicy, key));
    attached.sort_by_key(|policy| rank(policy));
    for other in attached {
        let Spec::TrafficPolicy(theirs) = &other.spec else {
            continue;
        };
        let same_place = theirs.target_refs.iter().any(|t| {
            let section = t.section_name.as_deref();
            let their_port = section.map(|s| {
                service
                    .and_then(|x| find_port(&x.ports, None, Some(s)))
                    .map(|p| p.port)
            });
            t.name == target.name && their_port == port.map(Some)
        });
        if !same_place || rank(other) >= rank(object) {
            continue;
        }
        for setting in theirs.settings() {
            if own.contains(&setting) && !overridden.contains(&setting) {
                overridden.push(setting);
                winners.insert(&other.key.name);
            }
        }
    }
    if overridden.is_empty() {
        return Condition::accepted();
    }
    let winners: Vec<&str> = winners.into_iter().collect();
    let message = format!(
        "older TrafficPolicy {} on the same target decides {}",
        winners.join(", "),
        overridden.join(", ")
    );
    if overridden.len() == own.len() {
        Condition::failed("Accepted", "Conflicted", message)
    } else {
        Condition::holds("Accepted", "Accepted", &message)
    }
}

/// An `AuthenticationPolicy`: its conditions. Its effect is in the workloads.
pub(super) fn authentication(
    object: &Object,
    targets: &[TargetRef],
    view: &mut View<'_>,
    c: &mut Check<'_>,
    output: &mut Output,
) {
    c.at("spec", |c| {
        c.each("targetRefs", targets, |c, target| {
            let condition = authentication_target(object, target, view, c);
            output
                .conditions
                .push(condition.about(target.as_ancestor()));
        });
    });
}

fn authentication_target(
    object: &Object,
    target: &TargetRef,
    view: &mut View<'_>,
    c: &mut Check<'_>,
) -> Condition {
    let Some(kind) = ObjectKind::ALL
        .into_iter()
        .find(|k| k.as_str() == target.kind)
    else {
        return Condition::failed(
            "Accepted",
            "Invalid",
            format!("{} is no target", target.kind),
        );
    };
    let key = ObjectKey::new(kind, object.namespace(), &target.name);
    if kind == ObjectKind::Service && view.get(&key).is_none() {
        let (message, hint) = missing_service(object.namespace(), &target.name, view);
        c.found(Severity::Warning, message.clone(), hint.clone());
        return Condition::failed("Accepted", "TargetNotFound", joined(&message, &hint));
    }
    match oldest(&view.list(Topic::Attached(ObjectKind::AuthenticationPolicy, key))) {
        Some(winner) if winner.key != object.key => {
            let message = format!("older {} on the same target decides", winner.key);
            c.found(Severity::Warning, message.clone(), "take one of them out");
            Condition::failed("Accepted", "Conflicted", message)
        }
        _ => Condition::accepted(),
    }
}

fn oldest<'a>(policies: &[&'a Arc<Object>]) -> Option<&'a Arc<Object>> {
    policies.iter().copied().min_by_key(|p| rank(p))
}

fn attached<'a>(view: &mut View<'a>, key: ObjectKey) -> Option<&'a Arc<Object>> {
    oldest(&view.list(Topic::Attached(ObjectKind::AuthenticationPolicy, key)))
}

/// What a workload demands of its callers: the policies of the Services that select it, of its
/// namespace and of the mesh. Losers among several Services are reported.
pub(super) fn mtls_of(
    namespace: &str,
    services: &[&Arc<Object>],
    view: &mut View<'_>,
    defaults: &Defaults,
    output: &mut Output,
) -> Mtls {
    let of_services: Vec<&Arc<Object>> = services
        .iter()
        .filter_map(|service| attached(view, service.key.clone()))
        .collect();
    let winner = oldest(&of_services);
    for loser in of_services
        .iter()
        .filter(|p| Some(p.key.clone()) != winner.map(|w| w.key.clone()))
    {
        if let Some(winner) = winner {
            let message = format!(
                "does not hold for workloads that another Service selects too: there older {} decides",
                winner.key
            );
            let finding = loser.finding(Severity::Warning, message, String::new());
            if !output.diagnostics.contains(&finding) {
                output.diagnostics.push(finding);
            }
        }
    }
    let of_namespace = attached(view, ObjectKey::new(ObjectKind::Namespace, "", namespace));
    let of_mesh = attached(view, ObjectKey::new(ObjectKind::MeshConfig, "", "default"));
    let default = mesh_config(view, defaults).map_or_else(
        || MeshConfigSpec::default().mtls_mode(),
        MeshConfigSpec::mtls_mode,
    );
    merge(
        [winner, of_namespace, of_mesh]
            .into_iter()
            .flatten()
            .filter_map(|policy| mtls_spec(policy)),
        default,
    )
}

fn mtls_spec(policy: &Object) -> Option<&MtlsSpec> {
    match &policy.spec {
        Spec::AuthenticationPolicy(spec) => spec.mtls.as_ref(),
        _ => None,
    }
}
