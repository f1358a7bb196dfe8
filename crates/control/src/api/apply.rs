//! `POST /api/v1/apply`: objects as YAML or JSON, all of them or none.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Extension, Query, State};
use config::Diagnostic;
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::{Answer, Api, ApiError};
use crate::aside::aside;
use crate::caller::Caller;
use crate::change::{Change, ChangeSet, Origin};

/// The query of `apply`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Parameters {
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
}

pub(super) async fn apply(
    State(api): State<Api>,
    query: Result<Query<Parameters>, axum::extract::rejection::QueryRejection>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let Query(parameters) = query.map_err(|error| bad_query(&error))?;
    let body = body.map_err(|error| bad_body(&error))?;
    let objects = aside(|| read(&body))?;
    let set = ChangeSet {
        changes: objects
            .objects
            .into_iter()
            .map(|object| Change::Put {
                object: Arc::new(object),
                origin: Origin::Api,
            })
            .collect(),
        who: caller.name(),
        dry_run: parameters.dry_run,
        ..ChangeSet::default()
    };
    let applied = api.0.state.apply(set).await?;
    let actions: Vec<_> = applied
        .actions
        .iter()
        .map(|(key, action)| {
            json!({
                "kind": key.kind, "namespace": key.namespace, "name": key.name, "action": action,
            })
        })
        .collect();
    let mut warnings = objects.diagnostics;
    for warning in applied.warnings {
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
    Ok(Json(json!({
        "applied": actions, "warnings": warnings, "dryRun": parameters.dry_run,
    })))
}

/// The objects of a body, if all of it is right; the diagnostics left are warnings.
fn read(body: &[u8]) -> Result<config::Parsed, ApiError> {
    let text = std::str::from_utf8(body).map_err(|error| {
        ApiError::new(
            StatusCode::BAD_REQUEST,
            format!("the body is not UTF-8 text (byte {})", error.valid_up_to()),
        )
        .hint("send YAML or JSON")
    })?;
    let mut parsed = config::parse("", text);
    if parsed.has_errors() {
        parsed.diagnostics.retain(Diagnostic::is_error);
        return Err(ApiError::refused(parsed.diagnostics));
    }
    if parsed.objects.is_empty() {
        return Err(
            ApiError::new(StatusCode::BAD_REQUEST, "there is no object in the body")
                .hint("send at least one with `apiVersion`, `kind` and `metadata.name`"),
        );
    }
    Ok(parsed)
}

/// A query that is not understood.
pub(super) fn bad_query(error: &axum::extract::rejection::QueryRejection) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, error.body_text())
        .hint("GET /api/openapi.json lists the parameters")
}

/// A body that is too large or broke off.
pub(super) fn bad_body(error: &BytesRejection) -> ApiError {
    let status = error.status();
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        return ApiError::new(status, "the body is larger than this path takes")
            .hint("split it: `apply` takes 16 MiB at once, the other paths 1 MiB");
    }
    ApiError::new(status, error.body_text())
}
