//! `POST /api/v1/tokens` and `GET /api/v1/trust`.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header};
use model::name::{DEFAULT_NAMESPACE, is_label};
use serde::Deserialize;
use serde_json::json;

use super::apply::bad_body;
use super::{Answer, Api, ApiError};
use crate::authority::{DEFAULT_TOKEN_TTL, MAX_TOKEN_TTL, rfc3339};
use crate::caller::Caller;

/// What a token is to be good for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    namespace: Option<String>,
    service_account: String,
    ttl_seconds: Option<u64>,
}

pub(super) async fn create(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let body = body.map_err(|error| bad_body(&error))?;
    let bad = |message: String| {
        ApiError::new(StatusCode::BAD_REQUEST, message).hint(
            "send {\"namespace\": ..., \"service_account\": ..., \"ttl_seconds\": ...} as JSON",
        )
    };
    let wanted: Wanted = serde_json::from_slice(&body)
        .map_err(|error| bad(format!("the body is wrong: {error}")))?;
    let namespace = wanted.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    for (what, text) in [
        ("namespace", namespace),
        ("service_account", &wanted.service_account),
    ] {
        if !is_label(text) {
            return Err(bad(format!(
                "{what}: use 1 to 63 lower-case letters, digits and '-', beginning and ending with a letter or digit"
            )));
        }
    }
    let ttl = wanted
        .ttl_seconds
        .map_or(DEFAULT_TOKEN_TTL, Duration::from_secs);
    if ttl.is_zero() || ttl > MAX_TOKEN_TTL {
        return Err(bad(format!(
            "ttl_seconds: must be from 1 to {}",
            MAX_TOKEN_TTL.as_secs()
        )));
    }
    let (token, record) = api
        .0
        .authority
        .issue_token(namespace, &wanted.service_account, ttl, &caller.name())
        .await
        .map_err(|error| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    tracing::info!(
        id = record.id,
        namespace,
        service_account = wanted.service_account,
        by = caller.name(),
        "join token issued"
    );
    Ok(Json(json!({
        "token": token.to_string(),
        "id": record.id,
        "namespace": namespace,
        "service_account": wanted.service_account,
        "expires": rfc3339(record.expires),
    })))
}

pub(super) async fn trust(State(api): State<Api>) -> Response {
    let bundle = api.0.authority.signer().trust_bundle();
    let headers = [(header::CONTENT_TYPE, "application/x-pem-file")];
    (headers, identity::trust::to_pem(&bundle)).into_response()
}
