//! Limits on requests: who counts those of the whole mesh, and how many requests a workload takes.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::ObjectName;
use model::request::{Limits, RateLimitService, Scope};
use model::workload::PortLimits;

use super::policy::rank;
use super::request::targets;
use super::store::{Topic, View};
use super::{Defaults, mesh_config};
use crate::check::Check;
use crate::diagnostic::Severity;
use crate::kind::ObjectKind;
use crate::kind::rate_limit_policy::RateLimitPolicySpec;
use crate::kind::service::find_port;
use crate::kind::workload::WorkloadSpec;
use crate::object::{Object, ObjectKey, Spec};

/// What a policy says, with who counts for it; the check stands at `spec`.
pub(super) fn of_policy(
    object: &Object,
    spec: &RateLimitPolicySpec,
    view: &mut View<'_>,
    defaults: &Defaults,
    c: &mut Check<'_>,
) -> Limits {
    let mut limits = spec.to_model(object.namespace(), c);
    if limits.has_global() && limits.service.is_none() {
        let mut unheard = Check::translating(&object.source.places);
        let of_mesh = mesh_config(view, defaults).and_then(|mesh| mesh.rate_limit.as_ref());
        limits.service = of_mesh.and_then(|service| service.to_model(None, &mut unheard));
    }
    limits
}

/// Warns of a service that does not count: its limits then hold nobody up, or everybody.
pub(super) fn look(
    object: &Object,
    spec: &RateLimitPolicySpec,
    limits: &Limits,
    view: &mut View<'_>,
    c: &mut Check<'_>,
) {
    if !limits.has_global() {
        return;
    }
    let said = match &limits.service {
        None => Some((
            "nobody counts for `scope: Global`: requests are passed or refused as failureMode says"
                .to_owned(),
            "run `tulle ratelimit` behind a Service and name that in the MeshConfig: \
             `rateLimit: {backendRef: {name: ratelimit, namespace: default, port: 8081}}`"
                .to_owned(),
        )),
        Some(service) => absent(service, view),
    };
    if let Some((message, hint)) = said {
        let (field, inner) = match &spec.service {
            Some(_) => ("service", Some("backendRef")),
            None => ("limits", None),
        };
        c.at(field, |c| match inner {
            Some(inner) => c.at(inner, |c| c.found(Severity::Warning, message, hint)),
            None => c.found(Severity::Warning, message, hint),
        });
    }
    let Some(service) = &limits.service else {
        return;
    };
    c.each("targetRefs", &spec.target_refs, |c, target| {
        if target.kind == "Service" && is_it(service, object.namespace(), &target.name) {
            let message = format!("{service} counts itself and cannot be asked about its own requests: what is Global does not hold there");
            c.found(Severity::Warning, message, "limit it with `scope: Local`");
        }
    });
}

/// Why a service cannot be asked, and what to do.
fn absent(service: &RateLimitService, view: &mut View<'_>) -> Option<(String, String)> {
    let (namespace, name) = (service.name.namespace(), service.name.name());
    let Some(spec) = view.service(namespace, name) else {
        let message = format!(
            "Service \"{name}\", which counts, does not exist in namespace {namespace}: requests are passed or refused as failureMode says"
        );
        let names = view.names(ObjectKind::Service, namespace);
        return Some((message, crate::suggest::hint(name, names)));
    };
    find_port(&spec.ports, Some(service.port), None)
        .is_none()
        .then(|| {
            let ports: Vec<String> = spec.ports.iter().map(|p| p.port.to_string()).collect();
            let message = format!(
                "Service \"{name}\", which counts, has no port {}",
                service.port
            );
            (message, format!("it has {}", ports.join(", ")))
        })
}

fn is_it(service: &RateLimitService, namespace: &str, name: &str) -> bool {
    service.name.namespace() == namespace && service.name.name() == name
}

/// How many requests a workload takes: for each port of each Service that selects it what the most
/// specific policy says, the oldest of several.
///
/// Whoever counts for the mesh is not asked about its own requests: that would never end.
pub(super) fn limits_of(
    services: &[&Arc<Object>],
    workload: &WorkloadSpec,
    view: &mut View<'_>,
    defaults: &Defaults,
) -> Vec<PortLimits> {
    let mut found: BTreeMap<(ObjectKey, ObjectKey), PortLimits> = BTreeMap::new();
    for service in services {
        let topic = Topic::Attached(ObjectKind::RateLimitPolicy, service.key.clone());
        let mut policies = view.list(topic);
        policies.sort_by_key(|policy| rank(policy));
        let Spec::Service(spec) = &service.spec else {
            continue;
        };
        for port in &spec.ports {
            let own = |policy: &&&Arc<Object>, section: Option<&str>| {
                let mut targets = targets(&policy.spec).iter();
                targets.any(|target| {
                    target.kind == "Service"
                        && *target.name == *service.key.name
                        && target.section_name.as_deref() == section
                })
            };
            let policy = policies
                .iter()
                .find(|policy| !port.name.is_empty() && own(policy, Some(&port.name)))
                .or_else(|| policies.iter().find(|policy| own(policy, None)));
            let Some(policy) = policy else {
                continue;
            };
            let Spec::RateLimitPolicy(spec) = &policy.spec else {
                continue;
            };
            let name = ObjectName::new(policy.namespace(), &policy.key.name);
            let of = service.key.service_name();
            let target = workload.resolve_port(&port.target());
            let (Some(target), Ok(name), Ok(of)) = (target, name, of) else {
                continue;
            };
            let key = (policy.key.clone(), service.key.clone());
            let entry = found.entry(key).or_insert_with(|| {
                let mut unheard = Check::translating(&policy.source.places);
                let mut limits = of_policy(policy, spec, view, defaults, &mut unheard);
                if let Some(counter) = &limits.service {
                    let mut all = services.iter();
                    if all.any(|s| is_it(counter, s.namespace(), &s.key.name)) {
                        limits.limits.retain(|limit| limit.scope == Scope::Local);
                        limits.service = None;
                    }
                }
                PortLimits {
                    policy: name,
                    service: of,
                    ports: Vec::new(),
                    limits,
                }
            });
            if !entry.ports.contains(&target) {
                entry.ports.push(target);
                entry.ports.sort_unstable();
            }
        }
    }
    found.into_values().collect()
}
