//! `ListenerPolicy`: what several of them add up to for a listener, and whether each has a target.

use std::cmp::Reverse;

use model::gateway::{Listener, Protocol};

use crate::check::Check;
use crate::diagnostic::Severity;
use crate::kind::ObjectKind;
use crate::kind::listener_policy::ListenerPolicySpec;
use crate::object::{Object, ObjectKey, Spec};
use crate::suggest;
use crate::translate::store::{Topic, View};
use crate::translate::{Condition, Output};

/// Applies the policies that are attached to a listener, the weakest first: one for the listener
/// wins over one for the Gateway, of equals the older, then the one whose name comes first
/// (GEP-713), setting by setting.
pub(super) fn apply(gateway: &Object, listener: &mut Listener, view: &mut View<'_>) {
    let topic = Topic::Attached(ObjectKind::ListenerPolicy, gateway.key.clone());
    let mut ranked = Vec::new();
    for object in view.list(topic) {
        let Spec::ListenerPolicy(spec) = &object.spec else {
            continue;
        };
        let specific = spec
            .target_refs
            .iter()
            .filter(|t| *t.name == *gateway.key.name)
            .filter(|t| t.section_name.as_ref().is_none_or(|s| *s == listener.name))
            .map(|t| t.section_name.is_some())
            .max();
        if let Some(specific) = specific {
            let created = object.metadata.created.unwrap_or(0);
            ranked.push(((Reverse(specific), created, &object.key), spec));
        }
    }
    ranked.sort_by(|(a, _), (b, _)| b.cmp(a));
    for (_, spec) in ranked {
        if let Some(limits) = &spec.limits {
            limits.apply(&mut listener.limits);
        }
        if let Some(http3) = &spec.http3
            && listener.protocol == Protocol::Https
        {
            listener.http3 = http3.to_model(listener.port);
        }
        if let Some(proxy) = spec.proxy_protocol {
            listener.proxy_protocol = proxy.mode.into();
        }
        if let Some(hops) = spec.num_trusted_hops {
            listener.trusted_hops = hops;
        }
    }
}

/// Conditions of a policy: whether its targets exist.
pub(in crate::translate) fn conditions(
    object: &Object,
    spec: &ListenerPolicySpec,
    view: &mut View<'_>,
    c: &mut Check<'_>,
    output: &mut Output,
) {
    c.at("spec", |c| {
        c.each("targetRefs", &spec.target_refs, |c, target| {
            let namespace = object.namespace();
            let key = ObjectKey::new(ObjectKind::Gateway, namespace, &target.name);
            let found = view.get(&key).map(|gateway| &gateway.spec);
            let missing = if let Some(Spec::Gateway(gateway)) = found {
                let section = target.section_name.as_deref();
                let listener = section.and_then(|s| gateway.listeners.iter().find(|l| l.name == s));
                if spec.http3.is_some()
                    && let Some(listener) = listener
                    && listener.protocol() != Some(Protocol::Https)
                {
                    let (name, protocol) = (&listener.name, &listener.protocol);
                    let message = format!(
                        "http3 changes nothing: listener \"{name}\" is for {protocol}, not HTTPS"
                    );
                    c.found(Severity::Warning, message, "name an HTTPS listener");
                }
                let has = |s: &str| gateway.listeners.iter().any(|l| l.name == s);
                section.filter(|s| !has(s)).map(|section| {
                    let names = gateway.listeners.iter().map(|l| l.name.as_str());
                    let hint = suggest::hint(section, names);
                    let name = &target.name;
                    let message = format!("Gateway \"{name}\" has no listener \"{section}\"");
                    (message, hint)
                })
            } else {
                let siblings = view.list(Topic::Kind(ObjectKind::Gateway, namespace.into()));
                let names = siblings.iter().map(|object| &*object.key.name);
                let hint = suggest::hint(&target.name, names);
                let name = &target.name;
                let message =
                    format!("target Gateway \"{name}\" does not exist in namespace {namespace}");
                Some((message, hint))
            };
            let condition = match missing {
                None => Condition::accepted(),
                Some((message, hint)) => {
                    c.found(Severity::Warning, message.clone(), hint);
                    Condition::failed("Accepted", "TargetNotFound", message)
                }
            };
            output
                .conditions
                .push(condition.about(target.as_ancestor()));
        });
    });
}
