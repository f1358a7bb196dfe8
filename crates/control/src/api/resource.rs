//! `/api/v1/resources`: objects as users wrote them, with defaults and status.

use axum::Json;
use axum::extract::{Extension, Path, Query, State};
use config::kind::gateway_class::{CONTROLLER, SUPPORTED_FEATURES};
use config::translate::Condition;
use config::{ObjectKey, ObjectKind};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::apply::bad_query;
use super::error::not_found;
use super::{Answer, Api, ApiError};
use crate::authority::rfc3339;
use crate::caller::Caller;
use crate::change::{Change, ChangeSet, Origin};
use crate::state::Entry;

/// The query of a list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Parameters {
    namespace: Option<String>,
}

pub(super) async fn list(
    State(api): State<Api>,
    Path(kind): Path<String>,
    query: Result<Query<Parameters>, axum::extract::rejection::QueryRejection>,
) -> Answer {
    let Query(parameters) = query.map_err(|error| bad_query(&error))?;
    let kind = kind_of(&kind)?;
    let entries = api.0.state.list(kind, parameters.namespace.as_deref());
    let items: Result<Vec<_>, _> = entries.iter().map(|entry| render(&api, entry)).collect();
    Ok(Json(
        json!({"apiVersion": "v1", "kind": "List", "items": items?}),
    ))
}

pub(super) async fn get(
    State(api): State<Api>,
    Path((kind, namespace, name)): Path<(String, String, String)>,
) -> Answer {
    let key = ObjectKey::new(kind_of(&kind)?, &namespace, &name);
    let entry = api.0.state.find(&key).ok_or_else(|| not_found(&key))?;
    render(&api, &entry).map(Json)
}

pub(super) async fn delete(
    State(api): State<Api>,
    Path((kind, namespace, name)): Path<(String, String, String)>,
    Extension(caller): Extension<Caller>,
) -> Answer {
    let key = ObjectKey::new(kind_of(&kind)?, &namespace, &name);
    let set = ChangeSet {
        changes: vec![Change::Delete {
            key: key.clone(),
            origin: Origin::Api,
        }],
        who: caller.name(),
        ..ChangeSet::default()
    };
    api.0.state.apply(set).await?;
    Ok(Json(json!({
        "deleted": {"kind": key.kind, "namespace": key.namespace, "name": key.name},
    })))
}

fn kind_of(word: &str) -> Result<ObjectKind, ApiError> {
    ObjectKind::from_word(word).ok_or_else(|| {
        let all: Vec<_> = ObjectKind::ALL.iter().map(|k| k.plural()).collect();
        ApiError::new(
            StatusCode::NOT_FOUND,
            format!("there is no kind \"{word}\""),
        )
        .hint(format!("the kinds are {}", all.join(", ")))
    })
}

/// An object with its status.
pub(super) fn render(api: &Api, entry: &Entry) -> Result<Value, ApiError> {
    let object = &*entry.object;
    let mut value = serde_json::to_value(object).map_err(|error| {
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("{} cannot be shown: {error}", object.key),
        )
    })?;
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        let own = &object.metadata;
        if let Some(created) = own.created {
            metadata.insert("creationTimestamp".to_owned(), rfc3339(created).into());
        }
        if let Some(generation) = own.generation {
            metadata.insert("generation".to_owned(), generation.into());
        }
        if let Some(version) = &own.resource_version {
            metadata.insert("resourceVersion".to_owned(), version.clone().into());
        }
    }
    if object.key.kind == ObjectKind::Secret {
        hide(&mut value);
    }
    let status = status(api, entry);
    if let Some(fields) = value.as_object_mut() {
        fields.insert("status".to_owned(), status);
    }
    Ok(value)
}

/// A Secret's values leave the control plane in listeners alone.
fn hide(secret: &mut Value) {
    for field in ["data", "stringData"] {
        let values = secret.get_mut(field).and_then(Value::as_object_mut);
        for (_, value) in values.into_iter().flatten() {
            *value = "(hidden)".into();
        }
    }
}

fn status(api: &Api, entry: &Entry) -> Value {
    let key = &entry.object.key;
    let distribution = api.0.state.distribution();
    let generation = entry.object.metadata.generation;
    let shown = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "observedGeneration": generation,
        })
    };
    let mut own = Vec::new();
    let mut parents: Vec<(&config::reference::ParentRef, Vec<Value>)> = Vec::new();
    let said = distribution.status(key);
    let value = |condition: &Condition| {
        let truth = truth(condition.status);
        shown(
            &condition.kind,
            truth,
            &condition.reason,
            &condition.message,
        )
    };
    for condition in &said.conditions {
        let value = value(condition);
        match &condition.parent {
            None => own.push(value),
            Some(parent) => match parents.iter_mut().find(|(p, _)| *p == parent) {
                Some((_, list)) => list.push(value),
                None => parents.push((parent, vec![value])),
            },
        }
    }
    let decided = |c: &Condition| c.kind == "Programmed" && c.parent.is_none();
    if !said.conditions.iter().any(decided)
        && let Some(programmed) = programmed(api, key, &said.conditions)
    {
        own.push(shown(
            "Programmed",
            programmed.0,
            programmed.1,
            &programmed.2,
        ));
    }
    let mut status = Map::new();
    if key.kind == ObjectKind::Workload
        && let Some(lease) = api
            .0
            .registry
            .lease(&format!("{}/{}", key.namespace, key.name))
    {
        let (truth, reason, message) = if lease.lease.ready {
            ("True", "Ready", "the program takes requests")
        } else {
            (
                "False",
                "NotReady",
                "the program does not take requests yet, or not any more",
            )
        };
        own.push(shown("Ready", truth, reason, message));
        status.insert("lease".to_owned(), super::status::lease(&lease));
    }
    status.insert("conditions".to_owned(), own.into());
    if matches!(key.kind, ObjectKind::Gateway | ObjectKind::ListenerSet) {
        let listeners = said.listeners.iter().map(|listener| {
            let mut conditions: Vec<Value> = listener.conditions.iter().map(value).collect();
            if let Some(resource) = &listener.resource {
                let p = distribution.programmed_resources(std::slice::from_ref(resource));
                conditions.push(shown("Programmed", p.status, p.reason, &p.message));
            }
            json!({
                "name": listener.name,
                "supportedKinds": listener.supported_kinds,
                "attachedRoutes": listener.attached_routes,
                "conditions": conditions,
            })
        });
        status.insert("listeners".to_owned(), listeners.collect());
    }
    if let Some(sets) = said.attached_listener_sets {
        status.insert("attachedListenerSets".to_owned(), sets.into());
    }
    if key.kind == ObjectKind::GatewayClass && said.conditions.iter().any(|c| !c.foreign) {
        let features = SUPPORTED_FEATURES.iter().map(|name| json!({"name": name}));
        status.insert("supportedFeatures".to_owned(), features.collect());
    }
    if !parents.is_empty() {
        // Gateway API's words: routes have parents, policies ancestors (GEP-713).
        let (list, reference) = match key.kind {
            ObjectKind::HttpRoute
            | ObjectKind::GrpcRoute
            | ObjectKind::TlsRoute
            | ObjectKind::TcpRoute
            | ObjectKind::UdpRoute => ("parents", "parentRef"),
            _ => ("ancestors", "ancestorRef"),
        };
        let parents = parents.into_iter().map(|(parent, conditions)| {
            json!({
                reference: parent, "controllerName": CONTROLLER, "conditions": conditions,
            })
        });
        status.insert(list.to_owned(), parents.collect());
    }
    let findings = distribution.findings(key);
    if !findings.is_empty() {
        status.insert("findings".to_owned(), json!(findings));
    }
    let origin = match &entry.origin {
        Origin::Api => json!({"type": "api"}),
        Origin::Registry => json!({"type": "registry"}),
        Origin::File(path) => {
            json!({"type": "file", "path": path, "line": entry.object.source.line})
        }
    };
    status.insert("origin".to_owned(), origin);
    status.into()
}

fn truth(holds: bool) -> &'static str {
    if holds { "True" } else { "False" }
}

/// What is not accepted is not programmed either, whatever proxies hold of it.
fn programmed(
    api: &Api,
    key: &ObjectKey,
    conditions: &[Condition],
) -> Option<(&'static str, &'static str, String)> {
    let accepted = |c: &&Condition| c.kind == "Accepted" && !c.status;
    if let Some(refused) = conditions.iter().find(accepted) {
        return Some(("False", "NotAccepted", refused.message.clone()));
    }
    let programmed = api.0.state.distribution().programmed(key)?;
    Some((programmed.status, programmed.reason, programmed.message))
}
