//! Spans as OTLP has them.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::proto::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use crate::proto::resource::v1::Resource;
use crate::proto::trace::v1::span::SpanKind;
use crate::proto::trace::v1::status::StatusCode;
use crate::proto::trace::v1::{Span as WireSpan, Status as WireStatus};
use crate::trace::{Kind, Span, Status, Value};

pub(super) fn resource(attributes: Vec<(String, String)>) -> Resource {
    Resource {
        attributes: attributes
            .into_iter()
            .map(|(key, value)| pair(&key, any_value::Value::StringValue(value)))
            .collect(),
        ..Resource::default()
    }
}

pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "tulle".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

pub(super) fn span(span: Span) -> WireSpan {
    WireSpan {
        trace_id: span.context.trace_id.to_vec(),
        span_id: span.context.span_id.to_vec(),
        trace_state: span
            .context
            .tracestate
            .map(String::from)
            .unwrap_or_default(),
        parent_span_id: span.parent.map(|id| id.to_vec()).unwrap_or_default(),
        flags: u32::from(span.context.sampled),
        name: span.name.into_owned(),
        kind: match span.kind {
            Kind::Internal => SpanKind::Internal,
            Kind::Server => SpanKind::Server,
            Kind::Client => SpanKind::Client,
        } as i32,
        start_time_unix_nano: nanos(span.start),
        end_time_unix_nano: nanos(span.end),
        attributes: span
            .attributes
            .into_iter()
            .map(|(key, value)| pair(key, any(value)))
            .collect(),
        status: match span.status {
            Status::Unset => None,
            Status::Error(message) => Some(WireStatus {
                message: message.into_owned(),
                code: StatusCode::Error as i32,
            }),
        },
        ..WireSpan::default()
    }
}

fn any(value: Value) -> any_value::Value {
    match value {
        Value::Text(text) => any_value::Value::StringValue(text.to_string()),
        Value::Word(text) => any_value::Value::StringValue(text.to_owned()),
        Value::Int(n) => any_value::Value::IntValue(n),
        Value::Float(n) => any_value::Value::DoubleValue(n),
        Value::Bool(b) => any_value::Value::BoolValue(b),
    }
}

fn pair(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

/// Nanoseconds since 1970, which last until 2554.
fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
