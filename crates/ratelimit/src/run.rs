//! The service as a process: its ports, its files, its end.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::response::IntoResponse;
use axum::routing::get;
use http::{StatusCode, header};
use runtime::Drain;
use telemetry::metrics::Format;
use tonic::service::Routes;
use xds::proto::ratelimit::rate_limit_service_server::RateLimitServiceServer;

use crate::config::Source;
use crate::error::RateLimitError;
use crate::listen;
use crate::metrics::Metrics;
use crate::service::Service;
use crate::store::Store;

/// Bytes of a question.
const QUESTION: usize = 1 << 20;

/// What is served, and where.
#[derive(Debug, Clone)]
pub struct Options {
    /// gRPC, without TLS.
    pub listen: SocketAddr,
    /// Metrics and health.
    pub metrics: SocketAddr,
    /// `memory`, or the URL of a Redis.
    pub store: String,
    /// Files with limits, and directories of such.
    pub config: Vec<PathBuf>,
    /// Whether answers have headers for clients.
    pub headers: bool,
    /// For connections to end.
    pub drain: Duration,
}

/// Serves until `shutdown`.
pub async fn run(
    options: Options,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RateLimitError> {
    let store = Arc::new(Store::open(&options.store)?);
    let source = Source::new(options.config);
    let (config, texts) = source.load()?;
    let grpc = listen::bind(options.listen, "--listen").await?;
    let health = listen::bind(options.metrics, "--metrics").await?;
    let addresses = (grpc.local_addr().ok(), health.local_addr().ok());

    let metrics = Metrics::default();
    if let Store::Memory(_) = &*store {
        let store = Arc::clone(&store);
        metrics.registry.gauge_fn(
            "tulle_ratelimit_counts",
            "Counts that are remembered.",
            &[],
            move || match &*store {
                Store::Memory(memory) => memory.len() as f64,
                Store::Redis(_) => 0.0,
            },
        );
    }
    let domains = config.domains();
    let config = Arc::new(ArcSwap::from_pointee(config));
    let drain = Drain::new();
    let service = Service {
        config: Arc::clone(&config),
        store: Arc::clone(&store),
        metrics: metrics.clone(),
        headers: options.headers,
    };
    let service = RateLimitServiceServer::new(service).max_decoding_message_size(QUESTION);
    let router = Routes::new(service).into_axum_router();
    let serving = tokio::spawn(listen::serve(grpc, router, drain.clone()));
    let pages = tokio::spawn(listen::serve(
        health,
        pages(&metrics, &drain),
        drain.clone(),
    ));
    let watching = tokio::spawn(source.watch(texts, config, metrics));
    let (grpc, health) = addresses;
    if let (Some(grpc), Some(health)) = (grpc, health) {
        tracing::info!(%grpc, metrics = %health, %store, domains, "rate limit service is ready");
    }

    shutdown.await;
    let cut = drain.finish(options.drain).await;
    tracing::info!(cut, "rate limit service has stopped");
    for task in [serving, pages, watching] {
        task.abort();
    }
    Ok(())
}

fn pages(metrics: &Metrics, drain: &Drain) -> Router {
    let registry = metrics.registry.clone();
    let exposition = move |headers: http::HeaderMap| {
        let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
        let format = Format::negotiate(accept);
        let body = registry.render(format);
        async move { ([(header::CONTENT_TYPE, format.content_type())], body) }
    };
    let drain = drain.clone();
    let readiness = move || {
        let draining = drain.has_begun();
        async move {
            if draining {
                (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response()
            } else {
                "ready\n".into_response()
            }
        }
    };
    Router::new()
        .route("/metrics", get(exposition))
        .route("/healthz/ready", get(readiness))
        .route("/healthz/live", get(|| async { "alive\n" }))
}
