//! Spans over OTLP, into the built-in store.
//!
//! Proxies send theirs over mutual TLS; programs of this host may use the loopback port.

use std::sync::Arc;

use telemetry::metrics::Counter;
use telemetry::proto::collector::trace::v1::trace_service_server::TraceService;
use telemetry::proto::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use telemetry::store::TraceStore;
use tonic::{Request, Response, Status};

use crate::caller::{Caller, Peer};
use crate::listen::Via;
use crate::metrics::Metrics;

/// The receiver.
#[derive(Clone)]
pub(crate) struct SpanReceiver {
    store: Arc<TraceStore>,
    accepted: Counter,
    rejected: Counter,
}

impl SpanReceiver {
    pub(crate) fn new(store: Arc<TraceStore>, metrics: &Metrics) -> Self {
        let registry = &metrics.registry;
        Self {
            store,
            accepted: registry.counter("tulle_spans_accepted_total", "Spans taken in over OTLP."),
            rejected: registry.counter(
                "tulle_spans_rejected_total",
                "Spans that came over OTLP without a valid id.",
            ),
        }
    }
}

/// Whoever is known may send, and every program of this host may to the loopback port.
fn allowed(extensions: &http::Extensions) -> bool {
    match (Caller::of(extensions), extensions.get::<Via>()) {
        (Caller::Local { .. } | Caller::Workload(_), _) => true,
        (Caller::Anonymous, Some(Via::Plain)) => extensions
            .get::<Peer>()
            .and_then(|p| p.remote)
            .is_some_and(|a| a.ip().to_canonical().is_loopback()),
        (Caller::Anonymous, _) => false,
    }
}

#[tonic::async_trait]
impl TraceService for SpanReceiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        if !allowed(request.extensions()) {
            return Err(Status::unauthenticated(
                "spans are taken from workloads with a certificate of this mesh, and on the loopback port 4317",
            ));
        }
        let ingested = self.store.ingest(request.into_inner());
        self.accepted.add(ingested.accepted as u64);
        self.rejected.add(ingested.rejected as u64);
        let partial_success = (ingested.rejected > 0).then(|| ExportTracePartialSuccess {
            rejected_spans: ingested.rejected as i64,
            error_message: "spans without a valid trace id or span id".to_owned(),
        });
        Ok(Response::new(ExportTraceServiceResponse {
            partial_success,
        }))
    }
}
