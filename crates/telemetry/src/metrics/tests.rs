use std::time::Duration;

use model::Reason;
use proptest::prelude::*;

use super::*;

fn labels(destination: &str) -> RequestLabels {
    RequestLabels {
        direction: Direction::Outbound,
        source: "storefront".into(),
        source_principal: "spiffe://mesh.local/ns/bookshop/sa/storefront".into(),
        destination: destination.into(),
        destination_workload: "reviews-v1-0".into(),
        destination_version: "v1".into(),
        protocol: "http",
        route: "bookshop/reviews".into(),
        mtls: true,
    }
}

fn tcp_labels(destination: &str) -> TcpLabels {
    TcpLabels {
        direction: Direction::Inbound,
        source: "orders".into(),
        source_principal: "".into(),
        destination: destination.into(),
        destination_workload: "".into(),
        destination_version: "".into(),
        mtls: false,
    }
}

/// The value of the only sample that begins so.
fn sample(page: &str, start: &str) -> f64 {
    let found: Vec<&str> = page.lines().filter(|l| l.starts_with(start)).collect();
    assert_eq!(found.len(), 1, "{start} in\n{page}");
    let value = found[0].rsplit(' ').next().expect("a value");
    value.parse().expect("a number")
}

fn page_of_one_request(format: Format) -> String {
    let registry = Registry::new();
    let shard = registry.shard();
    shard.requests(&labels("reviews")).record(
        503,
        None,
        Some(Reason::NoEndpoints),
        Duration::from_millis(3),
        0,
        120,
    );
    registry.render(format)
}

#[test]
fn a_request_is_exposed_as_the_contract_names_it() {
    let page = page_of_one_request(Format::Text);
    let set = r#"direction="outbound",source="storefront",source_principal="spiffe://mesh.local/ns/bookshop/sa/storefront",destination="reviews",destination_workload="reviews-v1-0",destination_version="v1",protocol="http",route="bookshop/reviews",mtls="true",response_code="503",grpc_status="",reason="no_endpoints""#;
    let want = format!(
        "# HELP tulle_requests_total Requests finished.
# TYPE tulle_requests_total counter
tulle_requests_total{{{set}}} 1
# HELP tulle_request_duration_seconds Time from a request's arrival to the end of its response.
# TYPE tulle_request_duration_seconds histogram
tulle_request_duration_seconds_bucket{{{set},le=\"0.0005\"}} 0
tulle_request_duration_seconds_bucket{{{set},le=\"0.001\"}} 0
tulle_request_duration_seconds_bucket{{{set},le=\"0.0025\"}} 0
tulle_request_duration_seconds_bucket{{{set},le=\"0.005\"}} 1
"
    );
    assert!(page.starts_with(&want), "{page}");
    let want = format!(
        "tulle_request_duration_seconds_bucket{{{set},le=\"+Inf\"}} 1
tulle_request_duration_seconds_sum{{{set}}} 0.003
tulle_request_duration_seconds_count{{{set}}} 1
# HELP tulle_request_bytes Size of request bodies.
# TYPE tulle_request_bytes histogram
tulle_request_bytes_bucket{{{set},le=\"100.0\"}} 1
"
    );
    assert!(page.contains(&want), "{page}");
    assert!(page.contains(&format!("tulle_response_bytes_sum{{{set}}} 120\n")));
}

#[test]
fn openmetrics_names_families_without_total_and_ends_in_eof() {
    let page = page_of_one_request(Format::OpenMetrics);
    assert!(
        page.contains("# TYPE tulle_requests counter\ntulle_requests_total{"),
        "{page}"
    );
    assert!(page.contains("# UNIT tulle_request_duration_seconds seconds\n"));
    assert!(
        page.contains("# TYPE tulle_tcp_sent_bytes counter\n# UNIT tulle_tcp_sent_bytes bytes\n")
    );
    assert!(page.ends_with("# EOF\n"));
}

#[test]
fn the_format_follows_the_accept_header() {
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
    assert_eq!(Format::negotiate(Some(accept)), Format::OpenMetrics);
    assert_eq!(Format::negotiate(Some("text/plain")), Format::Text);
    assert_eq!(Format::negotiate(None), Format::Text);
}

#[test]
fn label_values_are_escaped() {
    let registry = Registry::new();
    registry
        .gauge_with("tulle_x", "Line\nbreak \\ \"q\".", &[("a", "q\"b\\n\nx")])
        .set(-3);
    let page = registry.render(Format::Text);
    assert!(
        page.contains("tulle_x{a=\"q\\\"b\\\\n\\nx\"} -3\n"),
        "{page}"
    );
    assert!(
        page.contains("# HELP tulle_x Line\\nbreak \\\\ \"q\".\n"),
        "{page}"
    );
    let page = registry.render(Format::OpenMetrics);
    assert!(
        page.contains("# HELP tulle_x Line\\nbreak \\\\ \\\"q\\\".\n"),
        "{page}"
    );
}

#[test]
fn shards_are_summed_and_survive_their_worker() {
    let registry = Registry::new();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let shard = registry.shard();
                let series = shard.requests(&labels("reviews"));
                let tcp = shard.tcp(&tcp_labels("stock"));
                for i in 0..1000 {
                    series.record(200, None, None, Duration::from_micros(i * 10), 10, 1000);
                    tcp.opened();
                    tcp.sent(7);
                }
                tcp.closed(None);
                tcp.closed(Some(Reason::Internal));
            });
        }
    });
    let page = registry.render(Format::Text);
    assert!((sample(&page, "tulle_requests_total{") - 3000.0).abs() < f64::EPSILON);
    let sum = sample(&page, "tulle_request_duration_seconds_sum{");
    assert!((sum - 3.0 * 4.995).abs() < 1e-9, "{sum}");
    assert!((sample(&page, "tulle_request_bytes_sum{") - 30_000.0).abs() < f64::EPSILON);
    assert!((sample(&page, "tulle_tcp_sent_bytes_total{") - 21_000.0).abs() < f64::EPSILON);
    assert_eq!(page.matches("reason=\"internal\"} 3\n").count(), 1);
    assert_eq!(page.matches("reason=\"\"} 3\n").count(), 1);
}

#[test]
fn the_same_labels_are_the_same_series() {
    let registry = Registry::new();
    let shard = registry.shard();
    let one = shard.requests(&labels("a"));
    assert!(std::rc::Rc::ptr_eq(&one, &shard.requests(&labels("a"))));
    assert!(!std::rc::Rc::ptr_eq(&one, &shard.requests(&labels("b"))));
}

#[test]
fn series_beyond_the_cap_are_folded_and_counted() {
    let registry = Registry::with_limits(Limits {
        series: 2,
        outcomes: 48,
    });
    let shard = registry.shard();
    let record = |s: &RequestSeries| s.record(200, None, None, Duration::ZERO, 0, 0);
    let held: Vec<_> = ["a", "b", "c", "d"]
        .map(|name| shard.requests(&labels(name)))
        .into();
    for series in &held {
        record(series);
    }
    let page = registry.render(Format::Text);
    assert_eq!(page.matches("tulle_requests_total{").count(), 3, "{page}");
    let folded = page
        .lines()
        .find(|l| l.starts_with("tulle_requests_total{") && l.contains("destination=\"other\""));
    assert!(folded.is_some_and(|l| l.ends_with(" 2")), "{page}");
    assert_eq!(registry.folded(), 2);
    assert!(page.contains("tulle_metrics_folded_total 2\n"));

    // Another worker may still use the label sets that are known.
    let other = registry.shard();
    record(&other.requests(&labels("a")));
    assert_eq!(registry.folded(), 2);
}

#[test]
fn series_that_nobody_holds_make_room() {
    let registry = Registry::with_limits(Limits {
        series: 2,
        outcomes: 48,
    });
    let shard = registry.shard();
    let kept = shard.requests(&labels("kept"));
    drop(shard.requests(&labels("gone")));
    let new = shard.requests(&labels("new"));
    for series in [&kept, &new] {
        series.record(200, None, None, Duration::ZERO, 0, 0);
    }
    let page = registry.render(Format::Text);
    assert!(page.contains("destination=\"new\""), "{page}");
    assert!(!page.contains("destination=\"gone\""), "{page}");
    assert_eq!(registry.folded(), 0);
}

#[test]
fn outcomes_beyond_the_cap_are_folded() {
    let registry = Registry::with_limits(Limits {
        series: 10,
        outcomes: 3,
    });
    let shard = registry.shard();
    let series = shard.requests(&labels("a"));
    for status in 200..300 {
        series.record(status, None, None, Duration::ZERO, 0, 0);
    }
    let page = registry.render(Format::Text);
    assert_eq!(page.matches("tulle_requests_total{").count(), 4, "{page}");
    assert!(page.contains("response_code=\"other\",grpc_status=\"other\",reason=\"other\"} 97\n"));
}

#[test]
fn process_metrics_are_shared_by_name() {
    let registry = Registry::new();
    registry.counter("tulle_a_total", "A.").inc();
    registry.counter("tulle_a_total", "A.").add(2);
    registry.gauge_fn("tulle_b", "B.", &[], || 1.5);
    let histogram = registry.histogram("tulle_c_seconds", "C.", &[], &[0.1, 1.0]);
    histogram.observe(0.1);
    histogram.observe(2.0);
    // Another type under a known name is not shown, and harms nothing.
    registry.gauge("tulle_a_total", "A.").set(9);
    registry.gauge("tulle bad", "Bad.").set(9);
    let page = registry.render(Format::Text);
    for want in [
        "tulle_a_total 3\n",
        "tulle_b 1.5\n",
        "tulle_c_seconds_bucket{le=\"0.1\"} 1\n",
        "tulle_c_seconds_bucket{le=\"1.0\"} 1\n",
        "tulle_c_seconds_bucket{le=\"+Inf\"} 2\n",
        "tulle_c_seconds_sum 2.1\ntulle_c_seconds_count 2\n",
    ] {
        assert!(page.contains(want), "{want} in\n{page}");
    }
    assert!(!page.contains("bad"));
}

proptest! {
    #[test]
    fn count_and_buckets_agree_whatever_is_recorded(
        requests in proptest::collection::vec((any::<u16>(), any::<Option<u8>>(), any::<u64>(), any::<u64>()), 0..80)
    ) {
        let registry = Registry::new();
        let shard = registry.shard();
        let series = shard.requests(&labels("a"));
        for (status, grpc, nanos, bytes) in &requests {
            series.record(*status, *grpc, None, Duration::from_nanos(*nanos), *bytes, *bytes);
        }
        let page = registry.render(Format::Text);
        let total = |start: &str| -> f64 {
            page.lines()
                .filter(|l| l.starts_with(start))
                .map(|l| l.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
                .sum()
        };
        let want = requests.len() as f64;
        for name in [
            "tulle_requests_total{",
            "tulle_request_duration_seconds_count{",
            "tulle_request_bytes_count{",
            "tulle_response_bytes_count{",
        ] {
            prop_assert!((total(name) - want).abs() < 0.5, "{}", name);
        }
    }
}
