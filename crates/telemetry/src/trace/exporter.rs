//! Export of spans over OTLP/gRPC.
//!
//! Spans wait in a bounded queue, leave in batches, and are tried a few times when the collector
//! says that trying again may help (OTLP specification, "Failures"). What cannot be sent is dropped
//! and counted: telemetry never holds up a request, nor grows without bound.

mod encode;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::transport::Channel;
use tonic::{Code, Request};

use super::Span;
use crate::proto::collector::trace::v1::ExportTraceServiceRequest;
use crate::proto::collector::trace::v1::trace_service_client::TraceServiceClient;
use crate::proto::resource::v1::Resource;
use crate::proto::trace::v1::{ResourceSpans, ScopeSpans, Span as WireSpan};

/// Spans that may wait.
const QUEUE: usize = 4096;
/// Spans sent at once.
const BATCH: usize = 512;
/// How long the first span of a batch waits for others.
const LINGER: Duration = Duration::from_millis(500);
/// Times that a batch is tried.
const TRIES: u32 = 4;
/// For one try.
const TRY_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause before the second try; doubled for each later one.
const BACKOFF: Duration = Duration::from_millis(100);

/// The way to the collector; cheap to clone. Its task ends when the last clone is gone.
#[derive(Clone)]
pub struct Exporter {
    queue: mpsc::Sender<Message>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    dropped: AtomicU64,
    exported: AtomicU64,
}

enum Message {
    Span(Box<Span>),
    Flush(oneshot::Sender<()>),
}

impl Exporter {
    /// Starts sending over `channel`, in the current tokio runtime. `resource` says who sends:
    /// `service.name` and so on.
    pub fn start(channel: Channel, resource: Vec<(String, String)>) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let counts = Arc::new(Counts::default());
        let sender = Sender {
            client: TraceServiceClient::new(channel),
            resource: encode::resource(resource),
            counts: Arc::clone(&counts),
        };
        tokio::spawn(sender.run(waiting));
        Self { queue, counts }
    }

    /// Sends nothing anywhere.
    pub fn none() -> Self {
        let (queue, _) = mpsc::channel(1);
        Self {
            queue,
            counts: Arc::default(),
        }
    }

    /// Queues a span; never waits. A span that is not sampled is ignored.
    pub fn send(&self, span: Span) {
        if !span.context.sampled || self.queue.is_closed() {
            return;
        }
        if self.queue.try_send(Message::Span(Box::new(span))).is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits, at most `limit`, until all spans queued before are sent or dropped. Whether they were.
    pub async fn flush(&self, limit: Duration) -> bool {
        let (done, wait) = oneshot::channel();
        let flushed =
            async { self.queue.send(Message::Flush(done)).await.is_ok() && wait.await.is_ok() };
        timeout(limit, flushed).await.unwrap_or(false)
    }

    /// Spans dropped: the queue was full, or the collector failed too often.
    pub fn dropped(&self) -> u64 {
        self.counts.dropped.load(Ordering::Relaxed)
    }

    /// Spans that the collector took.
    pub fn exported(&self) -> u64 {
        self.counts.exported.load(Ordering::Relaxed)
    }
}

struct Sender {
    client: TraceServiceClient<Channel>,
    resource: Resource,
    counts: Arc<Counts>,
}

impl Sender {
    async fn run(mut self, mut queue: mpsc::Receiver<Message>) {
        let mut batch = Vec::new();
        while let Some(message) = queue.recv().await {
            let mut waiting = take(message, &mut batch);
            let deadline = Instant::now() + LINGER;
            while batch.len() < BATCH && waiting.is_none() {
                match timeout_at(deadline, queue.recv()).await {
                    Ok(Some(message)) => waiting = take(message, &mut batch),
                    Ok(None) | Err(_) => break,
                }
            }
            if !batch.is_empty() {
                self.deliver(std::mem::take(&mut batch)).await;
            }
            if let Some(done) = waiting {
                let _ = done.send(());
            }
        }
    }

    async fn deliver(&mut self, spans: Vec<WireSpan>) {
        let count = spans.len() as u64;
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![ScopeSpans {
                    scope: Some(encode::scope()),
                    spans,
                    schema_url: String::new(),
                }],
                schema_url: String::new(),
            }],
        };
        let mut pause = BACKOFF;
        for left in (0..TRIES).rev() {
            let failure = match self.attempt(request.clone()).await {
                Ok(rejected) => {
                    let rejected = rejected.min(count);
                    self.counts
                        .exported
                        .fetch_add(count - rejected, Ordering::Relaxed);
                    self.counts.dropped.fetch_add(rejected, Ordering::Relaxed);
                    return;
                }
                Err(failure) => failure,
            };
            if left == 0 || !may_help(failure.code()) {
                tracing::debug!(spans = count, %failure, "spans dropped: the collector failed");
                break;
            }
            sleep(pause.mul_f64(rand::random_range(0.5..1.5))).await;
            pause *= 2;
        }
        self.counts.dropped.fetch_add(count, Ordering::Relaxed);
    }

    /// How many of the spans the collector refused.
    async fn attempt(&mut self, request: ExportTraceServiceRequest) -> Result<u64, tonic::Status> {
        let mut request = Request::new(request);
        request.set_timeout(TRY_TIMEOUT);
        let response = timeout(TRY_TIMEOUT, self.client.export(request))
            .await
            .map_err(|_| tonic::Status::deadline_exceeded("no answer in time"))??;
        let partial = response.into_inner().partial_success;
        Ok(partial.map_or(0, |p| p.rejected_spans.max(0) as u64))
    }
}

/// Whether trying again may help, as the OTLP specification lists the codes.
fn may_help(code: Code) -> bool {
    matches!(
        code,
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss
            // What tonic makes of a connection that broke.
            | Code::Unknown
    )
}

fn take(message: Message, batch: &mut Vec<WireSpan>) -> Option<oneshot::Sender<()>> {
    match message {
        Message::Span(span) => {
            batch.push(encode::span(*span));
            None
        }
        Message::Flush(done) => Some(done),
    }
}

#[cfg(test)]
mod tests;
