//! Slices of endpoints that were written, not selected: of Services, of `ServiceImport`s, or, where
//! a slice has both labels, of both. Kubernetes names the Pod and the Node behind each endpoint.

use model::resource::Resource;
use model::{ObjectName, SpiffeId};

use super::store::View;
use super::{Condition, Defaults, Output};
use crate::check::Check;
use crate::diagnostic::Severity;
use crate::kind::ObjectKind;
use crate::kind::endpoint_slice::{
    Behind, EndpointSliceSpec, IMPORT_LABEL, SERVICE_LABEL, SliceEndpoint,
};
use crate::kind::pod;
use crate::kind::workload::VERSION_LABEL;
use crate::object::{Object, ObjectKey, Spec};
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
    let nobody = SpiffeId::of_service_account(&defaults.trust_domain, namespace, "default");
    let (Ok(service), Ok(nobody)) = (service.service_name(), nobody) else {
        return Ok(Vec::new());
    };
    if ports.is_empty() {
        return Ok(Vec::new());
    }
    let endpoints = spec.to_endpoints(name, &service, &ports, |endpoint| {
        behind(endpoint, namespace, &nobody, view, defaults)
    });
    Ok(endpoints.into_iter().map(Resource::Endpoint).collect())
}

/// What the Pod and the Node of an endpoint say of it, as far as they are known.
fn behind(
    endpoint: &SliceEndpoint,
    namespace: &str,
    nobody: &SpiffeId,
    view: &mut View<'_>,
    defaults: &Defaults,
) -> Behind {
    let found = endpoint
        .pod()
        .and_then(|name| view.get(&ObjectKey::new(ObjectKind::Pod, namespace, name)));
    let (mut identity, mut version) = (nobody.clone(), String::new());
    let mut node = endpoint.node_name.as_deref();
    if let Some(object) = found
        && let Spec::Pod(pod) = &object.spec
    {
        let account = &pod.service_account_name;
        // One that is none was refused when the Pod was read.
        if let Ok(own) = SpiffeId::of_service_account(&defaults.trust_domain, namespace, account) {
            identity = own;
        }
        let label = object.metadata.labels.get(VERSION_LABEL);
        version = label.cloned().unwrap_or_default();
        node = node.or(pod.node_name.as_deref());
    }
    let node = node.and_then(|name| view.get(&ObjectKey::new(ObjectKind::Node, "", name)));
    Behind {
        identity,
        version,
        locality: node
            .map(|node| pod::locality(&node.metadata.labels))
            .unwrap_or_default(),
    }
}
