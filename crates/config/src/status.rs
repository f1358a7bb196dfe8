//! `status` as Gateway API shapes it, of what the translator said and what is known of proxies.
//!
//! [`render`] writes what is to be said now; [`merge`] puts it over what was said before: a time of
//! transition moves only when a condition's status does, and what others have written beside it
//! stays. Both are used wherever status is shown or written, so that it is the same everywhere.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::kind::ObjectKind;
use crate::kind::gateway_class::CONTROLLER;
use crate::object::ObjectKey;
use crate::reference::ParentRef;
use crate::translate::{Condition, Status};

/// As long as Kubernetes takes a message.
const MAX_MESSAGE: usize = 32_768;
/// As many entries as Gateway API allows in `parents`.
const MAX_PARENTS: usize = 32;
/// As many entries as Gateway API allows in `ancestors`.
const MAX_ANCESTORS: usize = 16;

/// What only those know who run proxies.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Live {
    /// Whether proxies have what the object leads to.
    pub programmed: Option<Verdict>,
    /// The same of each listener, by name.
    pub listeners: BTreeMap<String, Verdict>,
    /// `status.addresses`; `None` where nobody says any.
    pub addresses: Option<Vec<Value>>,
    /// `status.supportedFeatures` of a GatewayClass.
    pub features: &'static [&'static str],
}

/// The condition `Programmed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// `True`, `False` or `Unknown`.
    pub status: &'static str,
    /// One word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// What is to be said of an object, without times of transition.
pub fn render(key: &ObjectKey, status: &Status, live: &Live) -> Map<String, Value> {
    let say = Say(status.generation);
    let mut fields = Map::new();
    let own = status.conditions.iter().filter(|c| c.parent.is_none());
    let mut conditions: Vec<Value> = own.map(|c| say.condition(c)).collect();
    if let Some(verdict) = &live.programmed {
        say.programmed(&mut conditions, verdict);
    }
    let parents = by_parent(&status.conditions);
    let entries = |field: &str, most: usize| -> Value {
        let entry = |(parent, conditions): (&&ParentRef, &Vec<&Condition>)| {
            let conditions: Vec<Value> = conditions.iter().map(|c| say.condition(c)).collect();
            json!({field: parent, "controllerName": CONTROLLER, "conditions": conditions})
        };
        let all = parents.iter().map(|(p, c)| entry((p, c)));
        all.take(most).collect()
    };
    match key.kind {
        kind if is_route(kind) => {
            fields.insert("parents".to_owned(), entries("parentRef", MAX_PARENTS));
            if !conditions.is_empty() {
                fields.insert("conditions".to_owned(), conditions.into());
            }
            return fields;
        }
        ObjectKind::GatewayClass => {
            let features = live.features.iter().map(|name| json!({"name": name}));
            let features: Vec<Value> = features.collect();
            if !features.is_empty() {
                fields.insert("supportedFeatures".to_owned(), features.into());
            }
        }
        _ if !parents.is_empty() => {
            fields.insert(
                "ancestors".to_owned(),
                entries("ancestorRef", MAX_ANCESTORS),
            );
        }
        _ => {}
    }
    if let Some(addresses) = &live.addresses {
        fields.insert("addresses".to_owned(), addresses.clone().into());
    }
    if let Some(count) = status.attached_listener_sets {
        fields.insert("attachedListenerSets".to_owned(), count.into());
    }
    if has_listeners(key.kind) {
        let listeners = status.listeners.iter().map(|listener| {
            let own = listener.conditions.iter();
            let mut conditions: Vec<Value> = own.map(|c| say.condition(c)).collect();
            if let Some(verdict) = live.listeners.get(&listener.name) {
                say.programmed(&mut conditions, verdict);
            }
            json!({
                "name": listener.name, "supportedKinds": listener.supported_kinds,
                "attachedRoutes": listener.attached_routes, "conditions": conditions,
            })
        });
        fields.insert("listeners".to_owned(), listeners.collect());
    }
    if !conditions.is_empty() || parents.is_empty() {
        fields.insert("conditions".to_owned(), conditions.into());
    }
    fields
}

/// Whether a kind's status is `parents`.
pub fn is_route(kind: ObjectKind) -> bool {
    matches!(
        kind,
        ObjectKind::HttpRoute
            | ObjectKind::GrpcRoute
            | ObjectKind::TlsRoute
            | ObjectKind::TcpRoute
            | ObjectKind::UdpRoute
    )
}

fn has_listeners(kind: ObjectKind) -> bool {
    matches!(kind.as_str(), "Gateway" | "ListenerSet")
}

/// Conditions about something, by what they are about, in the order in which that was written.
fn by_parent(conditions: &[Condition]) -> Vec<(&ParentRef, Vec<&Condition>)> {
    let mut parents: Vec<(&ParentRef, Vec<&Condition>)> = Vec::new();
    for condition in conditions {
        let Some(parent) = &condition.parent else {
            continue;
        };
        match parents.iter_mut().find(|(known, _)| *known == parent) {
            Some((_, list)) => list.push(condition),
            None => parents.push((parent, vec![condition])),
        }
    }
    parents
}

/// Writes conditions of one generation.
struct Say(Option<u64>);

impl Say {
    fn condition(&self, condition: &Condition) -> Value {
        let status = if condition.status { "True" } else { "False" };
        self.of(
            &condition.kind,
            status,
            &condition.reason,
            &condition.message,
        )
    }

    /// Adds `Programmed`, unless it is there already because it was certain.
    fn programmed(&self, conditions: &mut Vec<Value>, verdict: &Verdict) {
        if conditions.iter().all(|c| c["type"] != "Programmed") {
            let Verdict {
                status,
                reason,
                message,
            } = verdict;
            conditions.push(self.of("Programmed", status, reason, message));
        }
    }

    fn of(&self, kind: &str, status: &str, reason: &str, message: &str) -> Value {
        let mut end = message.len().min(MAX_MESSAGE);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        let mut condition = json!({
            "type": kind, "status": status, "reason": reason, "message": &message[..end],
        });
        if let Some(generation) = self.0 {
            condition["observedGeneration"] = generation.into();
        }
        condition
    }
}

/// What is to be said over what was said: times of transition are carried over where a condition's
/// status is what it was, otherwise they are `now`; entries of other controllers stay.
pub fn merge(old: &Value, new: Map<String, Value>, now: &str) -> Value {
    let mut merged = new;
    if let Some(conditions) = merged.get_mut("conditions") {
        date(old.get("conditions"), conditions, now);
    }
    date_entries(old, &mut merged, "listeners", "name", now);
    for (field, about, most) in [
        ("parents", "parentRef", MAX_PARENTS),
        ("ancestors", "ancestorRef", MAX_ANCESTORS),
    ] {
        date_entries(old, &mut merged, field, about, now);
        keep_others(old, &mut merged, field, most);
    }
    merged.into()
}

/// Dates the conditions of each entry of a list by those of the old entry for the same thing.
fn date_entries(old: &Value, new: &mut Map<String, Value>, field: &str, about: &str, now: &str) {
    let before = list(old.get(field));
    for entry in new
        .get_mut(field)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        let same = |o: &&Value| o.get(about) == entry.get(about) && is_ours(o);
        let conditions = before
            .iter()
            .find(same)
            .and_then(|o| o.get("conditions"))
            .cloned();
        if let Some(own) = entry.get_mut("conditions") {
            date(conditions.as_ref(), own, now);
        }
    }
}

fn date(old: Option<&Value>, new: &mut Value, now: &str) {
    let before = list(old);
    for condition in new.as_array_mut().into_iter().flatten() {
        let since = before
            .iter()
            .find(|o| {
                o.get("type") == condition.get("type") && o.get("status") == condition.get("status")
            })
            .and_then(|o| o.get("lastTransitionTime"));
        condition["lastTransitionTime"] = since.cloned().unwrap_or_else(|| now.into());
    }
}

fn keep_others(old: &Value, new: &mut Map<String, Value>, field: &str, most: usize) {
    let others: Vec<Value> = list(old.get(field))
        .iter()
        .filter(|entry| !is_ours(entry))
        .cloned()
        .collect();
    if others.is_empty() {
        return;
    }
    let own = new.remove(field);
    let room = most.saturating_sub(others.len());
    let own = list(own.as_ref()).iter().take(room).cloned();
    new.insert(field.to_owned(), others.into_iter().chain(own).collect());
}

/// An entry without a controller is one of a list that has a single author.
fn is_ours(entry: &Value) -> bool {
    entry
        .get("controllerName")
        .is_none_or(|name| name == CONTROLLER)
}

fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests;
