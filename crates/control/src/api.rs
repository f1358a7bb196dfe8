//! The HTTP API: resources, status, traces, tokens.
//!
//! The same routes answer on the unix socket and on loopback TCP. Who may do what is decided in
//! [`guard`], before any handler runs. Errors are JSON with a message and, where there is one, a
//! remedy. `openapi.json` describes every route; a test compares the two.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::{StatusCode, header};
use telemetry::store::TraceStore;

use crate::authority::Authority;
use crate::gateways::Children;
use crate::options::Addresses;
use crate::registry::Registry;
use crate::source::files::FileReport;
use crate::state::State;
pub use error::ApiError;

mod apply;
mod error;
mod guard;
mod resource;
pub mod status;
mod token;
mod trace;

#[cfg(test)]
mod tests;

/// Largest body of a request but `apply`'s, which takes what `config` takes.
const BODY: usize = 1 << 20;
/// For a whole request, its body included.
const REQUEST: Duration = Duration::from_mins(1);

const OPENAPI: &str = include_str!("api/openapi.json");
const DASHBOARD: &str = include_str!("api/dashboard.html");

/// What handlers work with. Cheap to clone.
#[derive(Clone)]
pub struct Api(pub Arc<Parts>);

/// What handlers work with.
pub struct Parts {
    /// The objects.
    pub state: State,
    /// The registry.
    pub registry: Registry,
    /// Certificates and tokens.
    pub authority: Arc<Authority>,
    /// The proxies of Gateways that run as children of this process.
    pub children: Children,
    /// Recent traces.
    pub traces: Arc<TraceStore>,
    /// What is wrong with files.
    pub files: Option<FileReport>,
    /// What there is to say of Kubernetes, where objects are from there.
    pub kubernetes: Option<crate::kubernetes::Report>,
    /// Where this control plane listens.
    pub addresses: Addresses,
    /// When it started.
    pub started: SystemTime,
    /// When the certificate that it shows to peers ends.
    pub own_not_after: Box<dyn Fn() -> SystemTime + Send + Sync>,
}

/// Paths and methods, as in `openapi.json`.
#[cfg(test)]
pub(crate) const ROUTES: &[(&str, &[&str])] = &[
    ("/", &["get"]),
    ("/api/openapi.json", &["get"]),
    ("/api/v1/apply", &["post"]),
    ("/api/v1/audit", &["get"]),
    ("/api/v1/edges", &["get"]),
    ("/api/v1/resources/{kind}", &["get"]),
    (
        "/api/v1/resources/{kind}/{namespace}/{name}",
        &["get", "delete"],
    ),
    ("/api/v1/status", &["get"]),
    ("/api/v1/tokens", &["post"]),
    ("/api/v1/traces", &["get"]),
    ("/api/v1/traces/{id}", &["get"]),
    ("/api/v1/trust", &["get"]),
];

/// All routes.
pub fn router(api: Api) -> Router {
    let apply = post(apply::apply).layer(DefaultBodyLimit::max(config::MAX_INPUT_BYTES));
    Router::new()
        .route("/", get(dashboard))
        .route("/api/openapi.json", get(openapi))
        .route("/api/v1/apply", apply)
        .route("/api/v1/audit", get(status::audit))
        .route("/api/v1/edges", get(trace::edges))
        .route("/api/v1/resources/{kind}", get(resource::list))
        .route(
            "/api/v1/resources/{kind}/{namespace}/{name}",
            get(resource::get).delete(resource::delete),
        )
        .route("/api/v1/status", get(status::status))
        .route("/api/v1/tokens", post(token::create))
        .route("/api/v1/traces", get(trace::list))
        .route("/api/v1/traces/{id}", get(trace::get))
        .route("/api/v1/trust", get(token::trust))
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY))
        .layer(axum::middleware::from_fn(in_time))
        .layer(axum::middleware::from_fn(guard::guard))
        .with_state(api)
}

/// Answers what no route does: gRPC clients in their way, the others in JSON.
pub async fn not_found(request: Request) -> Response {
    let grpc = request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|v| v.as_bytes().starts_with(b"application/grpc"));
    if grpc {
        let status = tonic::Status::unimplemented(format!(
            "{} is not served on this listener",
            request.uri().path()
        ));
        return status.into_http::<axum::body::Body>();
    }
    ApiError::new(
        StatusCode::NOT_FOUND,
        format!("there is nothing at {}", request.uri().path()),
    )
    .hint("GET /api/openapi.json lists what there is")
    .into_response()
}

async fn wrong_method(request: Request) -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!(
            "{} does not take {}",
            request.uri().path(),
            request.method()
        ),
    )
    .hint("GET /api/openapi.json lists what each path takes")
}

async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            format!(
                "the request took longer than {} s and was given up",
                REQUEST.as_secs()
            ),
        )
        .into_response(),
    }
}

async fn dashboard() -> Response {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
    let headers = [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, Html(DASHBOARD)).into_response()
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

/// An answer in JSON.
type Answer = Result<Json<serde_json::Value>, ApiError>;
