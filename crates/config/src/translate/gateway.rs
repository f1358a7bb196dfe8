//! Gateways: one resource of the model for each listener that can serve.

pub(super) mod policy;
pub(super) mod tls;

use model::ObjectName;
use model::gateway::{BackendIdentity, Listener, Protocol, ProxyProtocol};
use model::resource::Resource;

use super::route::{Fault, resolved_refs};
use super::store::View;
use super::{Condition, Defaults, Output, mesh_config};
use crate::check::Check;
use crate::diagnostic::Severity;
use crate::kind::gateway::{GatewaySpec, ListenerSpec};
use crate::kind::gateway_class::{BUILT_IN, CONTROLLER, GatewayClassSpec};
use crate::kind::{GATEWAY_GROUP, ObjectKind};
use crate::object::{Object, ObjectKey, Spec};
use crate::reference::ParentRef;

/// Of a class: whether Tulle serves it.
pub(super) fn class_condition(spec: &GatewayClassSpec) -> Condition {
    if spec.is_ours() {
        Condition::accepted()
    } else {
        let message = format!("its controllerName is not {CONTROLLER}: somebody else serves it");
        Condition::failed("Accepted", "Waiting", message)
    }
}

/// Whether a Gateway is one that Tulle serves; the text says why not.
pub(super) fn is_served(spec: &GatewaySpec, view: &mut View<'_>) -> Result<(), String> {
    let class = &spec.gateway_class_name;
    let key = ObjectKey::new(ObjectKind::GatewayClass, "", class);
    match view.get(&key).map(|object| &object.spec) {
        Some(Spec::GatewayClass(class)) if class.is_ours() => Ok(()),
        Some(_) => Err(format!(
            "the GatewayClass \"{class}\" is not served by Tulle: its controllerName is not {CONTROLLER}"
        )),
        None if class == BUILT_IN => Ok(()),
        None => Err(format!("there is no GatewayClass \"{class}\"")),
    }
}

pub(super) fn translate(
    object: &Object,
    name: &ObjectName,
    spec: &GatewaySpec,
    view: &mut View<'_>,
    defaults: &Defaults,
    c: &mut Check<'_>,
    output: &mut Output,
) {
    if let Err(message) = is_served(spec, view) {
        c.at("spec", |c| {
            c.at("gatewayClassName", |c| {
                c.found(
                    Severity::Warning,
                    message.clone(),
                    format!("write `gatewayClassName: {BUILT_IN}`"),
                );
            });
        });
        let condition = Condition::failed("Accepted", "InvalidParameters", message);
        output.conditions.push(condition);
        return;
    }
    let mut served = 0;
    let (identity, fault) = tls::backend_identity(object, spec, view);
    c.at("spec", |c| {
        if let Some(fault) = &fault {
            c.at("tls", |c| {
                c.at("backend", |c| {
                    c.at("clientCertificateRef", |c| {
                        c.found(Severity::Warning, fault.message.clone(), fault.hint.clone());
                    });
                });
            });
        }
        c.each("listeners", &spec.listeners, |c, listener| {
            let about = about(object, listener);
            let (mut model, faults) = to_model(object, name, spec, listener, view, defaults);
            if let Ok(model) = &mut model {
                model.backend_identity = identity.clone();
            }
            for fault in &faults {
                c.found(Severity::Warning, fault.message.clone(), fault.hint.clone());
            }
            let resolved = resolved_refs(&faults);
            output.conditions.push(resolved.about(about.clone()));
            match model {
                Ok(mut model) => {
                    if let Some(why) = without_http3(&mut model, spec) {
                        let hint = "HTTP/1 and HTTP/2 are served; see docs/gateway.md";
                        c.found(Severity::Warning, why, hint);
                    }
                    served += 1;
                    output.resources.push(Resource::Listener(model));
                    let accepted = Condition::holds("Accepted", "Accepted", "valid and in force");
                    output.conditions.push(accepted.about(about));
                }
                Err((reason, message)) => {
                    c.found(Severity::Warning, message.clone(), "");
                    let failed = Condition::failed("Accepted", reason, message);
                    output.conditions.push(failed.about(about));
                }
            }
        });
    });
    if spec.tls.as_ref().is_some_and(|tls| tls.backend.is_some()) {
        let faults: Vec<Fault> = fault.into_iter().collect();
        output.conditions.push(resolved_refs(&faults));
    }
    let all = served == spec.listeners.len();
    output.conditions.push(match served {
        0 => Condition::failed("Accepted", "ListenersNotValid", "no listener is valid"),
        _ if !all => Condition::holds(
            "Accepted",
            "ListenersNotValid",
            "not every listener is valid",
        ),
        _ => Condition::accepted(),
    });
}

/// Takes HTTP/3 back where it cannot be served beside what else is asked for; says why.
fn without_http3(listener: &mut Listener, gateway: &GatewaySpec) -> Option<String> {
    listener.http3?;
    let port = listener.port;
    let datagrams = |l: &&ListenerSpec| l.port == port && l.protocol() == Some(Protocol::Udp);
    let why = if listener.proxy_protocol == ProxyProtocol::Off {
        let other = gateway.listeners.iter().find(datagrams)?;
        format!(
            "HTTP/3 is not served: UDP port {port} is taken by listener \"{}\"",
            other.name
        )
    } else {
        "HTTP/3 is not served together with proxyProtocol: its datagrams carry no PROXY header"
            .to_owned()
    };
    listener.http3 = None;
    Some(why)
}

/// A listener, as conditions name it.
fn about(object: &Object, listener: &ListenerSpec) -> ParentRef {
    ParentRef {
        group: GATEWAY_GROUP.to_owned(),
        kind: "Gateway".to_owned(),
        namespace: None,
        name: object.key.name.to_string(),
        section_name: Some(listener.name.clone()),
        port: None,
    }
}

/// The listener, or why there is none, and what is wrong with its references.
fn to_model(
    object: &Object,
    name: &ObjectName,
    spec: &GatewaySpec,
    listener: &ListenerSpec,
    view: &mut View<'_>,
    defaults: &Defaults,
) -> (Result<Listener, (&'static str, String)>, Vec<Fault>) {
    let Some(protocol) = listener.protocol() else {
        let message = format!("listeners for {} are not served", listener.protocol);
        return (Err(("UnsupportedProtocol", message)), Vec::new());
    };
    let (tls, faults) = tls::resolve(object, spec, listener, view);
    if tls.is_none() && listener.tls.is_some() {
        let message = "it has nothing to end TLS with: see ResolvedRefs".to_owned();
        return (Err(("Invalid", message)), faults);
    }
    let limits = mesh_config(view, defaults)
        .map_or_else(Default::default, |mesh| mesh.to_model(defaults).limits);
    let mut listener = Listener {
        gateway: name.clone(),
        name: listener.name.clone(),
        addresses: spec.bound_to(),
        port: listener.port,
        protocol,
        hostname: listener.hostname(),
        tls,
        proxy_protocol: ProxyProtocol::Off,
        trusted_hops: 0,
        backend_identity: BackendIdentity::Nobody,
        http3: None,
        limits,
    };
    policy::apply(object, &mut listener, view);
    (Ok(listener), faults)
}
