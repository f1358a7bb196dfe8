//! Trace context (W3C, B3), spans with OpenTelemetry's HTTP attributes, and their export.

mod context;
mod exporter;
mod span;

pub use context::{Context, Reservoir, Sampler};
pub use exporter::Exporter;
pub use span::{Http, Kind, Span, Status, Value};
