//! What went wrong, as clients see it.

use axum::Json;
use axum::response::{IntoResponse, Response};
use config::Diagnostic;
use http::StatusCode;
use serde_json::{Value, json};

use crate::change::ApplyError;

/// An answer other than success: `{"error": {"message": ..., "hint": ...}}`.
#[derive(Debug, Clone)]
pub struct ApiError {
    status: StatusCode,
    message: String,
    hint: Option<String>,
    errors: Option<Vec<Diagnostic>>,
}

impl ApiError {
    /// With a status and a message.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            hint: None,
            errors: None,
        }
    }

    /// With a remedy.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// For objects that were refused: `{"errors": [Diagnostic, ...], "error": ...}`.
    pub fn refused(errors: Vec<Diagnostic>) -> Self {
        let message = match errors.as_slice() {
            [one] => one.to_string(),
            [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
            [] => "refused".to_owned(),
        };
        Self {
            errors: Some(errors),
            ..Self::new(StatusCode::BAD_REQUEST, message)
                .hint("nothing was applied; correct what is listed and apply again")
        }
    }
}

impl From<ApplyError> for ApiError {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Conflict(conflict) => Self::new(
                StatusCode::CONFLICT,
                format!("{}: {}", conflict.key, conflict.message),
            )
            .hint(conflict.hint),
            ApplyError::NotFound(key) => not_found(&key),
            ApplyError::TokenSpent => Self::new(StatusCode::CONFLICT, error.to_string()),
            ApplyError::Exhausted(_) => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, error.to_string())
            }
            ApplyError::Store(_) | ApplyError::Stopping => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
            }
        }
    }
}

/// For an object that is not there.
pub(super) fn not_found(key: &config::ObjectKey) -> ApiError {
    let list = key.kind.plural();
    ApiError::new(StatusCode::NOT_FOUND, format!("{key} does not exist"))
        .hint(format!("`tulle get {list} -A` lists those that do"))
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut error = json!({"message": self.message});
        if let Some(hint) = self.hint {
            error["hint"] = Value::String(hint);
        }
        let mut body = json!({"error": error});
        if let Some(errors) = self.errors {
            body["errors"] = json!(errors);
        }
        (self.status, Json(body)).into_response()
    }
}
