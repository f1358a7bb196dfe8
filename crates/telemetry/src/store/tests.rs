use super::*;
use crate::proto::common::v1::AnyValue;
use crate::proto::trace::v1::{ResourceSpans, ScopeSpans, Status};

fn span(trace: u8, id: u8, parent: u8, start: u64) -> WireSpan {
    WireSpan {
        trace_id: vec![trace; 16],
        span_id: vec![id; 8],
        parent_span_id: if parent == 0 { vec![] } else { vec![parent; 8] },
        name: format!("span {id}"),
        kind: SpanKind::Server as i32,
        start_time_unix_nano: start * 1000,
        end_time_unix_nano: (start + 10) * 1000,
        attributes: vec![text("url.path", "/x")],
        ..WireSpan::default()
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(any_value::Value::StringValue(value.to_owned())),
        }),
        ..KeyValue::default()
    }
}

fn request(service: &str, spans: Vec<WireSpan>) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![text("service.name", service)],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }
}

#[test]
fn a_trace_is_put_together_from_several_senders() {
    let store = TraceStore::default();
    let mut failed = span(7, 2, 1, 105);
    failed.status = Some(Status {
        message: "no_endpoints".to_owned(),
        code: StatusCode::Error as i32,
    });
    store.ingest(request("reviews", vec![failed]));
    store.ingest(request("storefront", vec![span(7, 1, 0, 100)]));
    // An exporter that tries again changes nothing.
    let again = store.ingest(request("storefront", vec![span(7, 1, 0, 100)]));
    assert_eq!(again.accepted, 1);
    assert_eq!(store.spans(), 2);

    let trace = store.trace(&"07".repeat(16)).expect("there");
    let json = serde_json::to_value(&trace).expect("JSON");
    assert_eq!(json["start_us"], 100);
    assert_eq!(json["duration_us"], 15);
    assert_eq!(json["spans"][0]["service"], "storefront");
    assert_eq!(json["spans"][1]["parent_span_id"], "0101010101010101");
    assert_eq!(json["spans"][1]["attributes"]["url.path"], "/x");
    assert_eq!(json["spans"][1]["message"], "no_endpoints");

    let recent = store.recent(10, None);
    assert_eq!(recent.len(), 1);
    assert_eq!(recent[0].root_service, "storefront");
    assert_eq!(recent[0].errors, 1);
    assert_eq!(recent[0].services, ["reviews", "storefront"]);

    let edges = store.edges();
    assert_eq!(edges.len(), 1);
    assert_eq!(edges[0].source, "storefront");
    assert_eq!(edges[0].destination, "reviews");
    assert_eq!((edges[0].calls, edges[0].errors), (1, 1));
}

#[test]
fn the_newest_traces_are_listed_first_and_filtered_by_service() {
    let store = TraceStore::default();
    store.ingest(request("a", vec![span(1, 1, 0, 1)]));
    store.ingest(request("b", vec![span(2, 1, 0, 2)]));
    store.ingest(request("a", vec![span(3, 1, 0, 3)]));
    let ids = |limit, service| -> Vec<String> {
        let list = store.recent(limit, service);
        list.into_iter()
            .map(|s| s.trace_id[..2].to_owned())
            .collect()
    };
    assert_eq!(ids(2, None), ["03", "02"]);
    assert_eq!(ids(10, Some("a")), ["03", "01"]);
}

#[test]
fn the_oldest_traces_make_room_by_spans_and_by_bytes() {
    let by_spans = TraceStore::new(Limits {
        spans: 10,
        bytes: usize::MAX,
    });
    let by_bytes = TraceStore::new(Limits {
        spans: usize::MAX,
        bytes: 5000,
    });
    for store in [&by_spans, &by_bytes] {
        for trace in 1..=50 {
            store.ingest(request(
                "a",
                vec![span(trace, 1, 0, 1), span(trace, 2, 1, 1)],
            ));
        }
        assert!(store.spans() <= 10 || store.bytes() <= 5000);
        assert!(store.evicted() > 30);
        assert!(
            store.trace(&"32".repeat(16)).is_some(),
            "the newest is kept"
        );
        assert!(store.trace(&"01".repeat(16)).is_none());
    }
    assert_eq!(by_spans.spans(), 10);
    assert!(by_bytes.bytes() <= 5000);
}

#[test]
fn spans_without_valid_ids_are_rejected_and_counted() {
    let store = TraceStore::default();
    let mut no_trace = span(1, 1, 0, 1);
    no_trace.trace_id.clear();
    let zero_span = span(1, 0, 0, 1);
    let mut backwards = span(2, 1, 0, 100);
    backwards.end_time_unix_nano = 0;
    backwards.kind = 99;
    let ingested = store.ingest(request("a", vec![no_trace, zero_span, backwards]));
    assert_eq!((ingested.accepted, ingested.rejected), (1, 2));
    assert_eq!(store.recent(1, None)[0].duration_us, 0);
    for id in ["", "zz", &"02".repeat(15), "ü"] {
        assert!(store.trace(id).is_none(), "{id}");
    }
}
