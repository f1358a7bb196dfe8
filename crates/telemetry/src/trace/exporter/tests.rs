use std::sync::Mutex;
use std::time::SystemTime;

use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Endpoint, Server};
use tonic::{Response, Status};

use super::*;
use crate::proto::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use crate::proto::collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceResponse};
use crate::trace::{Context, Kind};

/// Answers with the scripted failures first, then takes what comes.
#[derive(Clone, Default)]
struct Collector {
    script: Arc<Mutex<Vec<Status>>>,
    rejects: i64,
    taken: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        if let Some(failure) = self.script.lock().unwrap().pop() {
            return Err(failure);
        }
        self.taken.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse {
            partial_success: Some(ExportTracePartialSuccess {
                rejected_spans: self.rejects,
                error_message: String::new(),
            }),
        }))
    }
}

/// A channel to a server of `collector` over pipes in memory.
fn channel(collector: Collector) -> Channel {
    let (dial, accept) = mpsc::channel::<std::io::Result<DuplexStream>>(4);
    tokio::spawn(
        Server::builder()
            .add_service(TraceServiceServer::new(collector))
            .serve_with_incoming(ReceiverStream::new(accept)),
    );
    let connector = tower::service_fn(move |_| {
        let dial = dial.clone();
        async move {
            let (near, far) = tokio::io::duplex(1 << 16);
            let refused = |_| std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
            dial.send(Ok(far)).await.map_err(refused)?;
            Ok::<_, std::io::Error>(TokioIo::new(near))
        }
    });
    Endpoint::from_static("http://collector").connect_with_connector_lazy(connector)
}

fn span(sampled: bool) -> Span {
    let mut span = Span::new(
        Context::root(sampled),
        Some([3; 8]),
        Kind::Server,
        SystemTime::now(),
    );
    span.set("url.path", "/x");
    span
}

const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn sampled_spans_arrive_in_one_batch_with_their_resource() {
    let collector = Collector::default();
    let resource = vec![("service.name".to_owned(), "reviews".to_owned())];
    let exporter = Exporter::start(channel(collector.clone()), resource);
    for sampled in [true, false, true] {
        exporter.send(span(sampled));
    }
    assert!(exporter.flush(LIMIT).await);
    assert_eq!((exporter.exported(), exporter.dropped()), (2, 0));

    let taken = collector.taken.lock().unwrap();
    assert_eq!(taken.len(), 1);
    let group = &taken[0].resource_spans[0];
    let resource = group.resource.as_ref().expect("set");
    assert_eq!(resource.attributes[0].key, "service.name");
    let spans = &group.scope_spans[0].spans;
    assert_eq!(spans.len(), 2);
    assert_eq!(spans[0].parent_span_id, [3; 8]);
    assert_eq!(spans[0].attributes[0].key, "url.path");
}

#[tokio::test]
async fn a_failure_that_may_pass_is_tried_again() {
    let collector = Collector::default();
    *collector.script.lock().unwrap() =
        vec![Status::unavailable("restarting"), Status::aborted("busy")];
    let exporter = Exporter::start(channel(collector.clone()), Vec::new());
    exporter.send(span(true));
    assert!(exporter.flush(LIMIT).await);
    assert_eq!((exporter.exported(), exporter.dropped()), (1, 0));
    assert_eq!(collector.taken.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_failure_that_stays_drops_the_batch_and_counts_it() {
    let collector = Collector::default();
    *collector.script.lock().unwrap() = vec![Status::permission_denied("not you")];
    let exporter = Exporter::start(channel(collector.clone()), Vec::new());
    exporter.send(span(true));
    exporter.send(span(true));
    assert!(exporter.flush(LIMIT).await);
    assert_eq!((exporter.exported(), exporter.dropped()), (0, 2));
    // The next batch is sent as if nothing had been.
    exporter.send(span(true));
    assert!(exporter.flush(LIMIT).await);
    assert_eq!(exporter.exported(), 1);
}

#[tokio::test]
async fn spans_that_the_collector_rejects_count_as_dropped() {
    let collector = Collector {
        rejects: 1,
        ..Collector::default()
    };
    let exporter = Exporter::start(channel(collector), Vec::new());
    exporter.send(span(true));
    exporter.send(span(true));
    assert!(exporter.flush(LIMIT).await);
    assert_eq!((exporter.exported(), exporter.dropped()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_drops_and_counts() {
    // No collector ever answers: whoever dials waits.
    let connector = tower::service_fn(|_| {
        std::future::pending::<Result<TokioIo<DuplexStream>, std::io::Error>>()
    });
    let channel = Endpoint::from_static("http://nowhere").connect_with_connector_lazy(connector);
    let exporter = Exporter::start(channel, Vec::new());
    // Nothing is taken out of the queue before this task waits.
    for _ in 0..QUEUE + 5 {
        exporter.send(span(true));
    }
    assert_eq!(exporter.dropped(), 5);
    assert!(!exporter.flush(Duration::from_secs(1)).await);
}
