//! Traces as the HTTP API shows them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

/// A trace with its spans.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trace {
    /// In hexadecimal.
    pub trace_id: String,
    /// Microseconds since 1970 at which its first span began.
    pub start_us: u64,
    /// From the beginning of its first span to the end of its last, in microseconds.
    pub duration_us: u64,
    /// By the time at which they began.
    pub spans: Vec<Arc<Span>>,
}

/// A span.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Span {
    /// In hexadecimal.
    pub span_id: String,
    /// The span above it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_span_id: Option<String>,
    /// `service.name` of who sent it.
    pub service: Arc<str>,
    /// What was done.
    pub name: String,
    /// `server`, `client`, `producer`, `consumer` or `internal`.
    pub kind: &'static str,
    /// Microseconds since 1970.
    pub start_us: u64,
    /// Microseconds.
    pub duration_us: u64,
    /// Whether it failed.
    pub error: bool,
    /// Why.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// More about it.
    pub attributes: BTreeMap<String, Attribute>,
}

/// Value of an attribute.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Attribute {
    /// Text.
    Text(String),
    /// Number.
    Int(i64),
    /// Number.
    Float(f64),
    /// Yes or no.
    Bool(bool),
}

/// A line in a list of traces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// In hexadecimal.
    pub trace_id: String,
    /// Service and name of the span that began first.
    pub root_service: String,
    /// Its name.
    pub root_name: String,
    /// Microseconds since 1970.
    pub start_us: u64,
    /// Microseconds.
    pub duration_us: u64,
    /// Number of spans.
    pub spans: usize,
    /// Number of spans that failed.
    pub errors: usize,
    /// Who took part, by name.
    pub services: Vec<String>,
}

/// Calls from one service to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Edge {
    /// Who called.
    pub source: String,
    /// Who was called.
    pub destination: String,
    /// How often.
    pub calls: u64,
    /// How often it failed.
    pub errors: u64,
    /// Of all calls together, in microseconds.
    pub duration_us: u64,
}

impl Trace {
    pub(super) fn new(trace_id: String, mut spans: Vec<Arc<Span>>) -> Self {
        spans.sort_by(|a, b| (a.start_us, &a.span_id).cmp(&(b.start_us, &b.span_id)));
        let (start_us, duration_us) = extent(spans.iter());
        Self {
            trace_id,
            start_us,
            duration_us,
            spans,
        }
    }
}

impl Summary {
    pub(super) fn new<'a>(
        trace_id: &[u8; 16],
        spans: impl Iterator<Item = &'a Arc<Span>> + Clone,
    ) -> Self {
        let (start_us, duration_us) = extent(spans.clone());
        // A root, else whatever began first; its parent may be an application's.
        let root = spans
            .clone()
            .min_by_key(|span| (span.parent_span_id.is_some(), span.start_us));
        let mut services: Vec<String> = spans.clone().map(|s| s.service.to_string()).collect();
        services.sort_unstable();
        services.dedup();
        Self {
            trace_id: crate::hex::text(trace_id),
            root_service: root.map(|s| s.service.to_string()).unwrap_or_default(),
            root_name: root.map(|s| s.name.clone()).unwrap_or_default(),
            start_us,
            duration_us,
            spans: spans.clone().count(),
            errors: spans.filter(|s| s.error).count(),
            services,
        }
    }
}

impl Span {
    /// Estimate of the memory it takes.
    pub(super) fn size(&self) -> usize {
        let attributes: usize = self
            .attributes
            .iter()
            .map(|(key, value)| {
                let text = match value {
                    Attribute::Text(text) => text.len(),
                    _ => 0,
                };
                key.len() + text + 64
            })
            .sum();
        320 + self.name.len() + self.message.len() + attributes
    }
}

/// When the first span began, and how long until the last one ended.
fn extent<'a>(spans: impl Iterator<Item = &'a Arc<Span>>) -> (u64, u64) {
    let (start, end) = spans.fold((u64::MAX, 0), |(start, end), span| {
        (
            start.min(span.start_us),
            end.max(span.start_us.saturating_add(span.duration_us)),
        )
    });
    if start == u64::MAX {
        return (0, 0);
    }
    (start, end.saturating_sub(start))
}

/// A span whose parent was sent by another service is a call from that one.
pub(super) fn edges<'a>(
    traces: impl Iterator<Item = &'a BTreeMap<[u8; 8], Arc<Span>>>,
) -> Vec<Edge> {
    let mut edges: BTreeMap<(Arc<str>, Arc<str>), Edge> = BTreeMap::new();
    for spans in traces {
        for span in spans.values() {
            let parent = span
                .parent_span_id
                .as_deref()
                .and_then(|id| crate::hex::read(id, false))
                .and_then(|id: [u8; 8]| spans.get(&id));
            let Some(parent) = parent.filter(|parent| parent.service != span.service) else {
                continue;
            };
            let key = (Arc::clone(&parent.service), Arc::clone(&span.service));
            let edge = edges.entry(key).or_insert_with(|| Edge {
                source: parent.service.to_string(),
                destination: span.service.to_string(),
                calls: 0,
                errors: 0,
                duration_us: 0,
            });
            edge.calls += 1;
            edge.errors += u64::from(span.error);
            edge.duration_us = edge.duration_us.saturating_add(span.duration_us);
        }
    }
    edges.into_values().collect()
}
