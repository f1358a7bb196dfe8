//! `/api/v1/resources`: objects as users wrote them, with defaults and status.

use axum::Json;
use axum::extract::{Extension, Path, Query, State};
use config::status::{self, Verdict};
use config::translate::Condition;
use config::{ObjectKey, ObjectKind};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::apply::bad_query;
use super::error::not_found;
use super::{Answer, Api, ApiError};
use crate::authority::rfc3339;
use crate::caller::Caller;
use crate::change::{Change, ChangeSet, Origin};
use crate::standing::live;
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
    let said = distribution.status(key);
    let mut live = live(&api.0.state, key, &said);
    if live.programmed.is_none() {
        live.programmed = programmed(api, key, &said.conditions);
    }
    let mut status = status::render(key, &said, &live);
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
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
        if let Some(conditions) = conditions.as_array_mut() {
            conditions.push(json!({
                "type": "Ready", "status": truth, "reason": reason, "message": message,
                "observedGeneration": said.generation,
            }));
        }
        status.insert("lease".to_owned(), super::status::lease(&lease));
    }
    let mut findings = distribution.findings(key);
    if let Some(cluster) = &api.0.kubernetes {
        findings.extend(cluster.findings_of(key));
    }
    if !findings.is_empty() {
        status.insert("findings".to_owned(), json!(findings));
    }
    let origin = match &entry.origin {
        Origin::Api => json!({"type": "api"}),
        Origin::Registry => json!({"type": "registry"}),
        Origin::Kubernetes => json!({"type": "kubernetes"}),
        Origin::File(path) => {
            json!({"type": "file", "path": path, "line": entry.object.source.line})
        }
    };
    status.insert("origin".to_owned(), origin);
    status.into()
}

/// What is not accepted is not programmed either, whatever proxies hold of it.
fn programmed(api: &Api, key: &ObjectKey, conditions: &[Condition]) -> Option<Verdict> {
    let accepted = |c: &&Condition| c.kind == "Accepted" && !c.status;
    if let Some(refused) = conditions.iter().find(accepted) {
        return Some(Verdict {
            status: "False",
            reason: "NotAccepted",
            message: refused.message.clone(),
        });
    }
    let programmed = api.0.state.distribution().programmed(key)?;
    Some(Verdict {
        status: programmed.status,
        reason: programmed.reason,
        message: programmed.message,
    })
}
