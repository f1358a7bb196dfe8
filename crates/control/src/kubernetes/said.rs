//! What is to be said of an object of the cluster, as far as it is Tulle's to say.
//!
//! Gateways of others' classes, routes to others' Gateways and what does not exist are left to
//! others: the translator marks what it says of these as foreign. Of an object that the model
//! refuses it says nothing; then it is said here that it was refused, and why.

use config::kind::TULLE_GROUP;
use config::kind::gateway_class::{BUILT_IN, CONTROLLER};
use config::reference::ParentRef;
use config::status::{is_route, render};
use config::translate::{Condition, Status};
use config::{Diagnostic, ObjectKey, ObjectKind};
use serde_json::{Map, Value};

use super::report::{Refused, Report};
use super::seen::{Seen, SeenObjects};
use crate::standing::live;
use crate::state::State;

/// `None` where there is nothing to say, or not yet.
pub(super) fn said(
    state: &State,
    objects: &SeenObjects,
    report: &Report,
    key: &ObjectKey,
    seen: &Seen,
) -> Option<Map<String, Value>> {
    let refused = {
        let report = report.lock();
        // What is in force under this name is somebody else's.
        if report.conflicts.contains_key(key) {
            return None;
        }
        report.refused.get(key).cloned()
    };
    if let Some(refused) = refused.filter(|refused| refused.generation == seen.generation) {
        return refusal(objects, key, seen, &refused);
    }
    let mut status = state.distribution().status(key);
    // The translation of what was seen is still to come, and marks the object when it does.
    if status.generation != seen.generation {
        return None;
    }
    status.conditions.retain(|condition| !condition.foreign);
    // Of a Gateway or a class nothing is left where it is another's.
    if !has_entries(key.kind) && status.conditions.is_empty() {
        return None;
    }
    let live = live(state, key, &status);
    Some(render(key, &status, &live))
}

/// Whether several controllers write the status of a kind, each an entry of its own.
fn has_entries(kind: ObjectKind) -> bool {
    is_route(kind)
        || !matches!(
            kind,
            ObjectKind::GatewayClass | ObjectKind::Gateway | ObjectKind::ListenerSet
        )
}

fn refusal(
    objects: &SeenObjects,
    key: &ObjectKey,
    seen: &Seen,
    refused: &Refused,
) -> Option<Map<String, Value>> {
    let reason = match key.kind {
        kind if is_route(kind) => "UnsupportedValue",
        ObjectKind::GatewayClass => "InvalidParameters",
        _ => "Invalid",
    };
    let condition = Condition {
        kind: "Accepted".to_owned(),
        status: false,
        reason: reason.to_owned(),
        message: text(&refused.diagnostics),
        parent: None,
        foreign: false,
    };
    let conditions = if key.kind.group() == TULLE_GROUP {
        // Who has read what it is attached to is not known: it is said of the object itself.
        vec![condition]
    } else if has_entries(key.kind) {
        let about = parents(seen).into_iter();
        let own = about.filter(|parent| is_own(objects, key, parent));
        let entry = |parent| Condition {
            parent: Some(parent),
            ..condition.clone()
        };
        own.map(entry).collect()
    } else if is_served(objects, key, seen) {
        let programmed = Condition {
            kind: "Programmed".to_owned(),
            ..condition.clone()
        };
        match key.kind {
            ObjectKind::GatewayClass => vec![condition],
            _ => vec![condition, programmed],
        }
    } else {
        return None;
    };
    let status = Status {
        generation: seen.generation,
        conditions,
        ..Status::default()
    };
    let mut fields = render(key, &status, &config::status::Live::default());
    // What was said of listeners holds for the version that is in force.
    fields.remove("listeners");
    if let Some(listeners) = seen.status.get("listeners") {
        fields.insert("listeners".to_owned(), listeners.clone());
    }
    Some(fields)
}

fn text(findings: &[Diagnostic]) -> String {
    let mut lines: Vec<String> = findings
        .iter()
        .filter(|finding| finding.is_error())
        .take(5)
        .map(|finding| {
            let hint = Some(&finding.hint).filter(|hint| !hint.is_empty());
            let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
            format!("{}: {}{hint}", finding.field, finding.message)
        })
        .collect();
    lines.push("the last valid version stays in force".to_owned());
    lines.join("; ")
}

/// The parents of a route as it was written, whatever else may be wrong with it.
fn parents(seen: &Seen) -> Vec<ParentRef> {
    let all = seen.spec.get("parentRefs").and_then(Value::as_array);
    let read = |value: &Value| serde_json::from_value(value.clone()).ok();
    all.into_iter().flatten().filter_map(read).collect()
}

/// Whether a parent is Tulle's.
fn is_own(objects: &SeenObjects, route: &ObjectKey, parent: &ParentRef) -> bool {
    let namespace = parent.namespace.as_deref().unwrap_or(&route.namespace);
    let Some(kind) = ObjectKind::ALL
        .into_iter()
        .find(|kind| kind.as_str() == parent.kind && kind.group() == parent.group)
    else {
        return false;
    };
    let key = ObjectKey::new(kind, namespace, &parent.name);
    objects
        .find(&key)
        .is_some_and(|seen| is_served(objects, &key, &seen))
}

/// Whether a class, a Gateway or a `ListenerSet` is Tulle's.
fn is_served(objects: &SeenObjects, key: &ObjectKey, seen: &Seen) -> bool {
    let text = |field: &str| seen.spec.get(field).and_then(Value::as_str);
    match key.kind {
        ObjectKind::GatewayClass => text("controllerName") == Some(CONTROLLER),
        ObjectKind::Gateway => {
            let Some(name) = text("gatewayClassName") else {
                return false;
            };
            let class = ObjectKey::new(ObjectKind::GatewayClass, "", name);
            match objects.find(&class) {
                Some(seen) => is_served(objects, &class, &seen),
                None => name == BUILT_IN,
            }
        }
        ObjectKind::ListenerSet => seen
            .spec
            .get("parentRef")
            .and_then(|parent| serde_json::from_value::<ParentRef>(parent.clone()).ok())
            .is_some_and(|parent| parent.kind == "Gateway" && is_own(objects, key, &parent)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn note(
        objects: &SeenObjects,
        kind: ObjectKind,
        name: &str,
        spec: &Value,
    ) -> (ObjectKey, Seen) {
        let mut whole = json!({
            "apiVersion": kind.api_version(), "kind": kind.as_str(),
            "metadata": {"name": name, "generation": 2}, "spec": spec,
        });
        if kind.namespaced() {
            whole["metadata"]["namespace"] = "shop".into();
        }
        let object = serde_json::from_value(whole).expect("an object");
        let key = ObjectKey::new(kind, "shop", name);
        objects.set(&key, &object);
        (key, Seen::of(&object))
    }

    fn refused() -> Refused {
        let parsed = config::parse(
            "",
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\nspec: {wrong: 1}\n",
        );
        Refused {
            generation: Some(2),
            diagnostics: parsed.diagnostics,
        }
    }

    #[test]
    fn a_refused_route_says_so_to_its_own_parents_alone() {
        let objects = SeenObjects::default();
        for (class, controller) in [("ours", CONTROLLER), ("theirs", "example.com/gateway")] {
            note(
                &objects,
                ObjectKind::GatewayClass,
                class,
                &json!({"controllerName": controller}),
            );
            note(
                &objects,
                ObjectKind::Gateway,
                class,
                &json!({"gatewayClassName": class}),
            );
        }
        let spec = json!({"parentRefs": [
            {"name": "ours"}, {"name": "theirs"}, {"name": "missing"}, {"group": "", "kind": "Service", "name": "x"},
        ]});
        let (key, seen) = note(&objects, ObjectKind::HttpRoute, "cart", &spec);
        let said = refusal(&objects, &key, &seen, &refused()).expect("something");
        let parents = said["parents"].as_array().expect("parents");
        assert_eq!(parents.len(), 1);
        assert_eq!(parents[0]["parentRef"]["name"], "ours");
        let accepted = &parents[0]["conditions"][0];
        assert_eq!(accepted["status"], "False");
        assert_eq!(accepted["observedGeneration"], 2);
        let message = accepted["message"].as_str().expect("text");
        assert!(message.starts_with("spec.wrong: "), "{message}");
    }

    #[test]
    fn of_a_refused_policy_it_is_said_on_the_policy() {
        let objects = SeenObjects::default();
        let spec = json!({"targetRefs": [{"kind": "Service", "name": "cart"}]});
        let (key, seen) = note(&objects, ObjectKind::TrafficPolicy, "slow", &spec);
        let said = refusal(&objects, &key, &seen, &refused()).expect("something");
        let accepted = &said["conditions"][0];
        assert_eq!(accepted["type"], "Accepted");
        assert_eq!(accepted["status"], "False");
        assert!(said.get("ancestors").is_none(), "{said:?}");
    }

    #[test]
    fn of_a_gateway_that_is_anothers_nothing_is_said() {
        let objects = SeenObjects::default();
        note(
            &objects,
            ObjectKind::GatewayClass,
            "theirs",
            &json!({"controllerName": "example.com/x"}),
        );
        let (key, seen) = note(
            &objects,
            ObjectKind::Gateway,
            "a",
            &json!({"gatewayClassName": "theirs"}),
        );
        assert_eq!(refusal(&objects, &key, &seen, &refused()), None);
        // The class that is there without being written.
        let (key, seen) = note(
            &objects,
            ObjectKind::Gateway,
            "b",
            &json!({"gatewayClassName": BUILT_IN}),
        );
        assert!(refusal(&objects, &key, &seen, &refused()).is_some());
    }
}
