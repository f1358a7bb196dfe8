//! Gateways: one resource of the model for each listener that can serve.

pub(super) mod listener;
pub(super) mod merge;
mod overlap;
pub(super) mod policy;
pub(super) mod set;
pub(super) mod tls;

use model::ObjectName;

use self::listener::Owner;
use super::route::{Fault, resolved_refs};
use super::store::View;
use super::{Condition, Defaults, Output};
use crate::check::Check;
use crate::diagnostic::Severity;
use crate::kind::ObjectKind;
use crate::kind::gateway::{FrontendMode, GatewaySpec, IP_ADDRESS};
use crate::kind::gateway_class::{BUILT_IN, CONTROLLER, GatewayClassSpec, merges_gateways};
use crate::object::{Object, ObjectKey, Spec};

/// Of a class: whether Tulle serves it.
pub(super) fn class_conditions(spec: &GatewayClassSpec) -> Vec<Condition> {
    if !spec.is_ours() {
        let message = format!("its controllerName is not {CONTROLLER}: somebody else serves it");
        return vec![Condition::failed("Accepted", "Waiting", message).foreign()];
    }
    // The list of features goes with the version: nobody has to look at the CRDs for that.
    vec![match &spec.parameters_ref {
        None => Condition::accepted(),
        Some(parameters) => {
            let message = format!(
                "parametersRef: parameters of kind {} are not served",
                parameters.kind
            );
            Condition::failed("Accepted", "InvalidParameters", message)
        }
    }]
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

/// The class, if one proxy serves all its Gateways.
pub(super) fn merged_class<'a>(spec: &'a GatewaySpec, view: &mut View<'_>) -> Option<&'a str> {
    let class = spec.gateway_class_name.as_str();
    let key = ObjectKey::new(ObjectKind::GatewayClass, "", class);
    merges_gateways(view.get(&key)?).then_some(class)
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
        return not_served(message, c, output);
    }
    let refused = refusal(spec);
    let merged = merge::merged(object, spec, view);
    let (identity, identity_fault) = tls::backend_identity(object, spec, view);
    let owner = Owner {
        object,
        gateway: object,
        name: name.clone(),
        spec,
        merged: &merged,
        identity,
        refused: refused.as_ref().map(|fault| {
            let message = format!("the Gateway is not accepted: {}", fault.message);
            Condition::failed("Accepted", "Invalid", message)
        }),
    };
    let mut served = 0;
    c.at("spec", |c| {
        report(refused.as_ref(), identity_fault.as_ref(), c);
        let listeners = spec.listeners.iter().zip(merged.of(&object.key));
        c.each("listeners", listeners, |c, (spec, conflict)| {
            let conflict = conflict.as_ref();
            let taken = listener::translate(&owner, spec, conflict, view, defaults, c, output);
            served += usize::from(taken);
        });
    });
    if spec.tls.as_ref().is_some_and(|tls| tls.backend.is_some()) {
        let faults: Vec<Fault> = identity_fault.into_iter().collect();
        output.conditions.push(resolved_refs(&faults));
    }
    if spec
        .tls
        .as_ref()
        .is_some_and(|tls| tls.any(FrontendMode::AllowInsecureFallback))
    {
        output.conditions.push(Condition::holds(
            "InsecureFrontendValidationMode",
            "ConfigurationChanged",
            "clients without a valid certificate are taken: see `tls.frontend`",
        ));
    }
    let accepted = match refused {
        Some(fault) => Condition::failed("Accepted", fault.reason, fault.message),
        None => accepted_by_listeners(served, spec.listeners.len()),
    };
    if !accepted.status {
        output.conditions.push(Condition {
            reason: "Invalid".to_owned(),
            ..accepted.unprogrammed()
        });
    }
    output.conditions.push(accepted);
    output.attached_listener_sets = Some(0);
}

fn not_served(message: String, c: &mut Check<'_>, output: &mut Output) {
    c.at("spec", |c| {
        c.at("gatewayClassName", |c| {
            let hint = format!("write `gatewayClassName: {BUILT_IN}`");
            c.found(Severity::Warning, message.clone(), hint);
        });
    });
    let condition = Condition::failed("Accepted", "InvalidParameters", message);
    output.conditions.push(condition.foreign());
}

/// Reports what is wrong with a Gateway as a whole; the check stands at `spec`.
fn report(refused: Option<&Fault>, identity: Option<&Fault>, c: &mut Check<'_>) {
    if let Some(fault) = refused {
        c.found(Severity::Warning, fault.message.clone(), fault.hint.clone());
    }
    if let Some(fault) = identity {
        c.at("tls", |c| {
            c.at("backend", |c| {
                c.at("clientCertificateRef", |c| {
                    c.found(Severity::Warning, fault.message.clone(), fault.hint.clone());
                });
            });
        });
    }
}

/// Why a Gateway is not accepted, whatever its listeners.
fn refusal(spec: &GatewaySpec) -> Option<Fault> {
    let infrastructure = spec.infrastructure.as_ref();
    if let Some(parameters) = infrastructure.and_then(|i| i.parameters_ref.as_ref()) {
        return Some(Fault {
            reason: "InvalidParameters",
            message: format!(
                "infrastructure.parametersRef: parameters of kind {} are not served",
                parameters.kind
            ),
            hint: "take it out".to_owned(),
        });
    }
    let unsupported = spec
        .addresses
        .iter()
        .find(|a| a.address_type != IP_ADDRESS)?;
    Some(Fault {
        reason: "UnsupportedAddress",
        message: format!(
            "addresses of type {} are not served",
            unsupported.address_type
        ),
        hint: format!("write the address itself, with `type: {IP_ADDRESS}`"),
    })
}

/// `Accepted` of a Gateway or `ListenerSet` with this many listeners, of which these are accepted.
fn accepted_by_listeners(accepted: usize, all: usize) -> Condition {
    const REASON: &str = "ListenersNotValid";
    match accepted {
        0 => Condition::failed("Accepted", REASON, "no listener is valid"),
        _ if accepted < all => Condition::holds("Accepted", REASON, "not every listener is valid"),
        _ => Condition::accepted(),
    }
}
