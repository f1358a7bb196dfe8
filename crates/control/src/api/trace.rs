//! `/api/v1/traces` and `/api/v1/edges`: from the built-in store.

use axum::Json;
use axum::extract::{Path, Query, State};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::apply::bad_query;
use super::{Answer, Api, ApiError};

/// Traces in one answer.
const MOST: usize = 1000;

/// The query of the list of traces.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Parameters {
    limit: Option<usize>,
    service: Option<String>,
}

pub(super) async fn list(
    State(api): State<Api>,
    query: Result<Query<Parameters>, axum::extract::rejection::QueryRejection>,
) -> Answer {
    let Query(parameters) = query.map_err(|error| bad_query(&error))?;
    let limit = parameters.limit.unwrap_or(50).min(MOST);
    let traces = api.0.traces.recent(limit, parameters.service.as_deref());
    Ok(Json(json!({
        "traces": traces,
        "kept": {"spans": api.0.traces.spans(), "bytes": api.0.traces.bytes(), "evicted": api.0.traces.evicted()},
    })))
}

pub(super) async fn get(State(api): State<Api>, Path(id): Path<String>) -> Answer {
    let trace = api.0.traces.trace(&id).ok_or_else(|| {
        ApiError::new(StatusCode::NOT_FOUND, "there is no such trace")
            .hint("only recent ones are kept; GET /api/v1/traces lists them. An id has 32 hexadecimal digits")
    })?;
    Ok(Json(json!(trace)))
}

pub(super) async fn edges(State(api): State<Api>) -> Answer {
    Ok(Json(json!({"edges": api.0.traces.edges()})))
}
