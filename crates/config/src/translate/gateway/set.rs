//! `ListenerSet`s (GEP-1713): listeners of a Gateway that are written elsewhere.

use std::sync::Arc;

use model::ObjectName;

use super::listener::{self, Owner};
use super::{accepted_by_listeners, merge, refusal, tls};
use crate::check::Check;
use crate::diagnostic::Severity;
use crate::kind::gateway::GatewaySpec;
use crate::kind::listener_set::ListenerSetSpec;
use crate::object::{Object, Spec};
use crate::translate::store::View;
use crate::translate::{Condition, Defaults, Output};

/// Why a set adds nothing to a Gateway.
pub(in crate::translate) enum NoParent {
    /// Its Gateway does not exist, or somebody else serves it.
    Foreign(String),
    /// The Gateway does not allow it.
    NotAllowed(String),
}

/// The Gateway that a set adds listeners to.
pub(in crate::translate) fn parent<'a>(
    object: &Object,
    spec: &ListenerSetSpec,
    view: &mut View<'a>,
) -> Result<(&'a Arc<Object>, &'a GatewaySpec), NoParent> {
    let Some(key) = spec.gateway(object.namespace()) else {
        let message = format!("its parent is a {}, not a Gateway", spec.parent_ref.kind);
        return Err(NoParent::Foreign(message));
    };
    let found = view.get(&key);
    let Some((gateway, Spec::Gateway(gateway_spec))) = found.map(|g| (g, &g.spec)) else {
        return Err(NoParent::Foreign(format!("its {key} does not exist")));
    };
    if let Err(why) = super::is_served(gateway_spec, view) {
        return Err(NoParent::Foreign(format!("its {key}: {why}")));
    }
    let merged = merge::merged(gateway, gateway_spec, view);
    if !merged.has(&object.key) {
        return Err(NoParent::NotAllowed(format!(
            "its {key} does not allow ListenerSets of namespace {}",
            object.namespace()
        )));
    }
    Ok((gateway, gateway_spec))
}

pub(in crate::translate) fn translate(
    object: &Object,
    spec: &ListenerSetSpec,
    view: &mut View<'_>,
    defaults: &Defaults,
    c: &mut Check<'_>,
    output: &mut Output,
) {
    let (gateway, gateway_spec) = match parent(object, spec, view) {
        Ok(found) => found,
        Err(why) => return no_parent(why, c, output),
    };
    let merged = merge::merged(gateway, gateway_spec, view);
    let Ok(name) = ObjectName::new(gateway.namespace(), &gateway.key.name) else {
        return;
    };
    let refused = refusal(gateway_spec).map(|fault| {
        let message = format!("its {} is not accepted: {}", gateway.key, fault.message);
        Condition::failed("Accepted", "ParentNotAccepted", message)
    });
    let (identity, _) = tls::backend_identity(gateway, gateway_spec, view);
    let owner = Owner {
        object,
        gateway,
        name,
        spec: gateway_spec,
        merged: &merged,
        identity,
        refused,
    };
    let conflicts = merged.of(&object.key);
    let mut served = 0;
    c.at("spec", |c| {
        let listeners = spec.listeners.iter().zip(conflicts);
        c.each("listeners", listeners, |c, (spec, conflict)| {
            let conflict = conflict.as_ref();
            let taken = listener::translate(&owner, spec, conflict, view, defaults, c, output);
            served += usize::from(taken);
        });
    });
    let accepted = match owner.refused {
        Some(refused) => refused,
        None => accepted_by_listeners(served, spec.listeners.len()),
    };
    if accepted.status {
        output.attached.insert((gateway.key.clone(), None));
    } else {
        output.conditions.push(accepted.unprogrammed());
    }
    output.conditions.push(accepted);
}

fn no_parent(why: NoParent, c: &mut Check<'_>, output: &mut Output) {
    let (condition, message, hint) = match why {
        NoParent::Foreign(message) => {
            let condition = Condition::failed("Accepted", "Invalid", message.clone());
            (condition.foreign(), message, "")
        }
        NoParent::NotAllowed(message) => {
            let condition = Condition::failed("Accepted", "NotAllowed", message.clone());
            (
                condition,
                message,
                "let the Gateway's `allowedListeners` take them",
            )
        }
    };
    c.at("spec", |c| {
        c.at("parentRef", |c| c.found(Severity::Warning, message, hint));
    });
    output.conditions.push(condition.unprogrammed());
    output.conditions.push(condition);
}
