//! Slices of endpoints that were written, not selected: of Services, of `ServiceImport`s, or, where
//! a slice has both labels, of both.

use model::resource::Resource;
use model::{ObjectName, SpiffeId};

use super::store::View;
use super::{Condition, Defaults, Output};
use crate::check::Check;
use crate::diagnostic::Severity;
use crate::kind::ObjectKind;
use crate::kind::endpoint_slice::{EndpointSliceSpec, IMPORT_LABEL, SERVICE_LABEL};
use crate::object::{Object, ObjectKey};
use crate::suggest;

/// The labels that say whose endpoints they are.
const LABELS: [(&str, ObjectKind); 2] = [
    (SERVICE_LABEL, ObjectKind::Service),
    (IMPORT_LABEL, ObjectKind::ServiceImport),
];

/// What is wrong, and what to do.
type Fault = (String, String);

pub(super) fn translate(
    object: &Object,
    name: &ObjectName,
    spec: &EndpointSliceSpec,
    view: &mut View<'_>,
    defaults: &Defaults,
    c: &mut Check<'_>,
    output: &mut Output,
) {
    let labels = &object.metadata.labels;
    let mut faults: Vec<Fault> = Vec::new();
    let mut serves = false;
    for (label, kind) in LABELS {
        let Some(service) = labels.get(label) else {
            continue;
        };
        let service = ObjectKey::new(kind, name.namespace(), service);
        match endpoints(name, spec, &service, view, defaults, c) {
            Ok(endpoints) => {
                serves = true;
                output.resources.extend(endpoints);
            }
            Err(fault) => faults.push(fault),
        }
    }
    if !serves && faults.is_empty() {
        let message = format!("the label {SERVICE_LABEL} is missing: nobody is sent here");
        let hint =
            format!("add it to metadata.labels, with the Service's name ({SERVICE_LABEL}: ...)");
        faults.push((message, hint));
    }
    for (message, hint) in &faults {
        c.found(Severity::Warning, message.clone(), hint.clone());
    }
    let condition = match faults.into_iter().next() {
        Some((message, _)) if !serves => Condition::failed("Accepted", "NoMatchingParent", message),
        _ => Condition::accepted(),
    };
    output.conditions.push(condition);
}

/// The slice's endpoints as members of a service.
fn endpoints(
    name: &ObjectName,
    spec: &EndpointSliceSpec,
    service: &ObjectKey,
    view: &mut View<'_>,
    defaults: &Defaults,
    c: &mut Check<'_>,
) -> Result<Vec<Resource>, Fault> {
    let (kind, namespace) = (service.kind, name.namespace());
    let shown = format!("{kind} \"{}\"", service.name);
    let Some(written) = view.ports(service) else {
        let hint = suggest::hint(&service.name, view.names(kind, namespace));
        let message = format!("{shown} does not exist in namespace {namespace}");
        return Err((message, hint));
    };
    let ports = spec.ports_of(written);
    for port in written.iter().filter(|p| !ports.contains_key(&p.port)) {
        let port_name = match port.name.as_str() {
            "" => "without a name".to_owned(),
            name => format!("named \"{name}\""),
        };
        let message = format!(
            "{shown} has a port {port_name}, and the slice has none: its endpoints do not serve port {}",
            port.port
        );
        let hint = "a slice's port belongs to the Service's port of the same name";
        c.at("ports", |c| c.found(Severity::Warning, message, hint));
    }
    // A plain address proves no identity, and none is asked of it.
    let identity = SpiffeId::of_service_account(&defaults.trust_domain, namespace, "default");
    let (Ok(service), Ok(identity)) = (service.service_name(), identity) else {
        return Ok(Vec::new());
    };
    if ports.is_empty() {
        return Ok(Vec::new());
    }
    let endpoints = spec.to_endpoints(name, &service, &ports, &identity);
    Ok(endpoints.into_iter().map(Resource::Endpoint).collect())
}
