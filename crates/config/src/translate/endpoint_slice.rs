//! Slices of endpoints that were written, not selected.

use model::resource::Resource;
use model::{ObjectName, SpiffeId};

use super::store::View;
use super::{Condition, Defaults, Output};
use crate::check::Check;
use crate::diagnostic::Severity;
use crate::kind::endpoint_slice::{EndpointSliceSpec, SERVICE_LABEL};
use crate::object::Object;
use crate::suggest;

pub(super) fn translate(
    object: &Object,
    name: &ObjectName,
    spec: &EndpointSliceSpec,
    view: &mut View<'_>,
    defaults: &Defaults,
    c: &mut Check<'_>,
    output: &mut Output,
) {
    let mut fail = |c: &mut Check<'_>, message: String, hint: String| {
        c.found(Severity::Warning, message.clone(), hint);
        let condition = Condition::failed("Accepted", "NoMatchingParent", message);
        output.conditions.push(condition);
    };
    let Some(service) = object.metadata.labels.get(SERVICE_LABEL) else {
        let message = format!("the label {SERVICE_LABEL} is missing: nobody is sent here");
        let hint =
            format!("add it to metadata.labels, with the Service's name ({SERVICE_LABEL}: ...)");
        return fail(c, message, hint);
    };
    let namespace = name.namespace();
    let Some(service_spec) = view.service(namespace, service) else {
        let hint = suggest::hint(service, view.service_names(namespace));
        let message = format!("Service \"{service}\" does not exist in namespace {namespace}");
        return fail(c, message, hint);
    };
    let ports = spec.ports_of(service_spec);
    for port in service_spec
        .ports
        .iter()
        .filter(|p| !ports.contains_key(&p.port))
    {
        let port_name = match port.name.as_str() {
            "" => "without a name".to_owned(),
            name => format!("named \"{name}\""),
        };
        let message = format!(
            "Service \"{service}\" has a port {port_name}, and the slice has none: its endpoints do not serve port {}",
            port.port
        );
        let hint = "a slice's port belongs to the Service's port of the same name";
        c.at("ports", |c| c.found(Severity::Warning, message, hint));
    }
    // A plain address proves no identity, and none is asked of it.
    let identity = SpiffeId::of_service_account(&defaults.trust_domain, namespace, "default");
    if let (Ok(service), Ok(identity)) = (ObjectName::new(namespace, service), identity)
        && !ports.is_empty()
    {
        let endpoints = spec.to_endpoints(name, &service, &ports, &identity);
        output
            .resources
            .extend(endpoints.into_iter().map(Resource::Endpoint));
    }
    output.conditions.push(Condition::accepted());
}
