//! Workloads, and their endpoints: one for each Service of the namespace that selects them.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::resource::Resource;
use model::{ObjectName, SpiffeId};

use super::policy::mtls_of;
use super::rate_limit::limits_of;
use super::store::{Topic, View};
use super::{Condition, Defaults, Output};
use crate::check::Check;
use crate::diagnostic::Severity;
use crate::kind::service::{PortRef, ServiceSpec};
use crate::kind::workload::WorkloadSpec;
use crate::object::{Object, Spec};

pub(super) fn translate(
    object: &Object,
    name: &ObjectName,
    spec: &WorkloadSpec,
    view: &mut View<'_>,
    defaults: &Defaults,
    c: &mut Check<'_>,
    output: &mut Output,
) {
    let domain = &defaults.trust_domain;
    let account = &spec.service_account;
    let identity = match SpiffeId::of_service_account(domain, name.namespace(), account) {
        Ok(identity) => identity,
        Err(error) => {
            let message = error.to_string();
            c.at("spec", |c| {
                c.at("serviceAccount", |c| {
                    c.found(Severity::Error, message.clone(), "");
                });
            });
            output
                .conditions
                .push(Condition::failed("Accepted", "Invalid", message));
            return;
        }
    };
    let labels = &object.metadata.labels;
    let services = selecting(&object.key.namespace, labels, view);
    let mtls = mtls_of(name.namespace(), &services, view, defaults, output);
    let limits = limits_of(&services, spec, view, defaults);
    for service_object in services {
        let Spec::Service(service) = &service_object.spec else {
            continue;
        };
        let Ok(service_name) = ObjectName::new(name.namespace(), &service_object.key.name) else {
            continue;
        };
        warn_of_missing_ports(spec, service_object, service, c);
        let endpoint = spec.to_endpoint(name, labels, &identity, service_name, service);
        output.resources.extend(endpoint.map(Resource::Endpoint));
    }
    let workload = spec.to_model(name.clone(), labels, identity, mtls, limits);
    output.resources.push(Resource::Workload(workload));
    output.conditions.push(Condition::accepted());
}

/// The Services of a namespace that select these labels, each once, by name.
fn selecting<'a>(
    namespace: &Arc<str>,
    labels: &BTreeMap<String, String>,
    view: &mut View<'a>,
) -> Vec<&'a Arc<Object>> {
    // A Service is listed under its selector's first label only, so none is found twice.
    let mut found: Vec<&Arc<Object>> = labels
        .iter()
        .flat_map(|(key, value)| {
            view.list(Topic::Selects(
                Arc::clone(namespace),
                key.clone(),
                value.clone(),
            ))
        })
        .filter(|object| matches!(&object.spec, Spec::Service(s) if s.selects(labels)))
        .collect();
    found.sort_by(|a, b| a.key.cmp(&b.key));
    found
}

fn warn_of_missing_ports(
    spec: &WorkloadSpec,
    service_object: &Object,
    service: &ServiceSpec,
    c: &mut Check<'_>,
) {
    // A workload without ports is a client that happens to carry the labels.
    if spec.ports.is_empty() {
        return;
    }
    for port in &service.ports {
        let target = port.target();
        if spec.resolve_port(&target).is_none() {
            let target = match target {
                PortRef::Number(number) => format!("port {number}"),
                PortRef::Name(name) => format!("a port named \"{name}\""),
            };
            let message = format!(
                "{} sends its port {} to {target}, on which this workload does not serve",
                service_object.key, port.port
            );
            let hint = "add it to `ports`, or change the Service's `targetPort`";
            c.at("spec", |c| {
                c.at("ports", |c| c.found(Severity::Warning, message, hint));
            });
        }
    }
}
