//! The control plane's store of recent traces, in memory.
//!
//! Bounded by spans and by bytes: when either is used up, the oldest traces go, whole. Spans come
//! as OTLP sends them; one that arrives twice (exporters try again) is kept once.

mod view;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::hex;
use crate::proto::collector::trace::v1::ExportTraceServiceRequest;
use crate::proto::common::v1::{KeyValue, any_value};
use crate::proto::resource::v1::Resource;
use crate::proto::trace::v1::Span as WireSpan;
use crate::proto::trace::v1::span::SpanKind;
use crate::proto::trace::v1::status::StatusCode;

pub use view::{Attribute, Edge, Span, Summary, Trace};

/// Bounds on what is kept.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Spans of all traces together.
    pub spans: usize,
    /// Bytes, estimated, of all traces together.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            spans: 100_000,
            bytes: 64 << 20,
        }
    }
}

/// How many spans a request brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ingested {
    /// Kept, or known already.
    pub accepted: usize,
    /// Without a valid trace or span id.
    pub rejected: usize,
}

/// Recent traces.
pub struct TraceStore {
    limits: Limits,
    inner: Mutex<Inner>,
}

type TraceId = [u8; 16];
type SpanId = [u8; 8];

#[derive(Default)]
struct Inner {
    traces: HashMap<TraceId, Stored>,
    /// The oldest first.
    order: VecDeque<TraceId>,
    spans: usize,
    bytes: usize,
    evicted: u64,
}

#[derive(Default)]
struct Stored {
    spans: BTreeMap<SpanId, Arc<Span>>,
    bytes: usize,
}

impl Default for TraceStore {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl TraceStore {
    /// An empty store.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            inner: Mutex::default(),
        }
    }

    /// Takes in what an exporter sent.
    pub fn ingest(&self, request: ExportTraceServiceRequest) -> Ingested {
        let mut ingested = Ingested::default();
        for group in request.resource_spans {
            let service: Arc<str> = service_name(group.resource.as_ref()).into();
            let spans = group.scope_spans.into_iter().flat_map(|scope| scope.spans);
            for wire in spans {
                match decode(wire, &service) {
                    Some((trace, id, span)) => {
                        ingested.accepted += 1;
                        self.keep(trace, id, span);
                    }
                    None => ingested.rejected += 1,
                }
            }
        }
        ingested
    }

    /// The trace with this id, given in hexadecimal.
    pub fn trace(&self, id: &str) -> Option<Trace> {
        let key: TraceId = hex::read(id, true)?;
        let inner = self.lock();
        let stored = inner.traces.get(&key)?;
        let spans: Vec<_> = stored.spans.values().cloned().collect();
        drop(inner);
        Some(Trace::new(id.to_ascii_lowercase(), spans))
    }

    /// Summaries of the newest traces, the newest first; only those that `service` took part in,
    /// if one is given.
    pub fn recent(&self, limit: usize, service: Option<&str>) -> Vec<Summary> {
        let inner = self.lock();
        inner
            .order
            .iter()
            .rev()
            .filter_map(|id| inner.traces.get(id).map(|stored| (id, stored)))
            .filter(|(_, stored)| {
                service.is_none_or(|name| stored.spans.values().any(|s| &*s.service == name))
            })
            .take(limit)
            .map(|(id, stored)| Summary::new(id, stored.spans.values()))
            .collect()
    }

    /// Who called whom in the traces that are kept, by name.
    pub fn edges(&self) -> Vec<Edge> {
        let inner = self.lock();
        view::edges(inner.traces.values().map(|stored| &stored.spans))
    }

    /// Spans kept.
    pub fn spans(&self) -> usize {
        self.lock().spans
    }

    /// Estimate of the bytes kept.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Traces that made room for newer ones.
    pub fn evicted(&self) -> u64 {
        self.lock().evicted
    }

    fn keep(&self, trace: TraceId, id: SpanId, span: Span) {
        let size = span.size();
        let mut guard = self.lock();
        let inner = &mut *guard;
        let stored = inner.traces.entry(trace).or_insert_with(|| {
            inner.order.push_back(trace);
            Stored::default()
        });
        if stored.spans.contains_key(&id) {
            return;
        }
        stored.spans.insert(id, Arc::new(span));
        stored.bytes += size;
        inner.spans += 1;
        inner.bytes += size;
        while inner.spans > self.limits.spans || inner.bytes > self.limits.bytes {
            let Some(oldest) = inner.order.pop_front() else {
                break;
            };
            if let Some(gone) = inner.traces.remove(&oldest) {
                inner.spans -= gone.spans.len();
                inner.bytes -= gone.bytes;
                inner.evicted += 1;
            }
        }
    }

    /// Nothing runs under the lock that can leave the sums wrong.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn service_name(resource: Option<&Resource>) -> String {
    resource
        .into_iter()
        .flat_map(|r| &r.attributes)
        .find(|pair| pair.key == "service.name")
        .and_then(|pair| match pair.value.as_ref()?.value.as_ref()? {
            any_value::Value::StringValue(name) => Some(name.clone()),
            _ => None,
        })
        .unwrap_or_else(|| "unknown".to_owned())
}

fn decode(wire: WireSpan, service: &Arc<str>) -> Option<(TraceId, SpanId, Span)> {
    let trace: TraceId = wire.trace_id.as_slice().try_into().ok()?;
    let id: SpanId = wire.span_id.as_slice().try_into().ok()?;
    if trace == [0; 16] || id == [0; 8] {
        return None;
    }
    let status = wire.status.unwrap_or_default();
    let span = Span {
        span_id: crate::hex::text(&id),
        parent_span_id: <SpanId>::try_from(wire.parent_span_id.as_slice())
            .ok()
            .filter(|id| *id != [0; 8])
            .map(|id| crate::hex::text(&id)),
        service: Arc::clone(service),
        name: wire.name,
        kind: match SpanKind::try_from(wire.kind) {
            Ok(SpanKind::Server) => "server",
            Ok(SpanKind::Client) => "client",
            Ok(SpanKind::Producer) => "producer",
            Ok(SpanKind::Consumer) => "consumer",
            _ => "internal",
        },
        start_us: wire.start_time_unix_nano / 1000,
        duration_us: wire
            .end_time_unix_nano
            .saturating_sub(wire.start_time_unix_nano)
            / 1000,
        error: status.code == StatusCode::Error as i32,
        message: status.message,
        attributes: attributes(wire.attributes),
    };
    Some((trace, id, span))
}

fn attributes(pairs: Vec<KeyValue>) -> BTreeMap<String, Attribute> {
    pairs
        .into_iter()
        .filter_map(|pair| {
            let value = match pair.value?.value? {
                any_value::Value::StringValue(text) => Attribute::Text(text),
                any_value::Value::BoolValue(b) => Attribute::Bool(b),
                any_value::Value::IntValue(n) => Attribute::Int(n),
                any_value::Value::DoubleValue(n) => Attribute::Float(n),
                any_value::Value::ArrayValue(list) => {
                    Attribute::Text(format!("({} values)", list.values.len()))
                }
                any_value::Value::KvlistValue(list) => {
                    Attribute::Text(format!("({} pairs)", list.values.len()))
                }
                any_value::Value::BytesValue(bytes) => {
                    Attribute::Text(format!("({} bytes)", bytes.len()))
                }
                any_value::Value::StringValueStrindex(_) => return None,
            };
            Some((pair.key, value))
        })
        .collect()
}

#[cfg(test)]
mod tests;
