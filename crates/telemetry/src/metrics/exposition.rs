//! Prometheus text format 0.0.4 and OpenMetrics 1.0.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::Ordering;

use model::Reason;

use super::histogram::{BYTES_BOUNDS, DURATION_BOUNDS, Sum};
use super::labels::{RequestLabels, TcpLabels};
use super::process::{Family, Kind, Sample};
use super::series::Outcome;
use super::{Shared, lock};

/// How metrics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Prometheus text format 0.0.4.
    #[default]
    Text,
    /// OpenMetrics text format 1.0.
    OpenMetrics,
}

impl Format {
    /// What a request's `Accept` asks for; the older text format when it does not say.
    pub fn negotiate(accept: Option<&str>) -> Self {
        match accept {
            Some(accept) if accept.contains("application/openmetrics-text") => Self::OpenMetrics,
            _ => Self::Text,
        }
    }

    /// The response's `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Sums of one outcome over all shards.
#[derive(Default)]
struct CellSum {
    durations: Sum,
    request_bytes: Sum,
    response_bytes: Sum,
}

#[derive(Default)]
struct TcpSum {
    opened: u64,
    sent: u64,
    received: u64,
    closed: [u64; Reason::ALL.len() + 1],
}

pub(super) fn render(shared: &Shared, format: Format) -> String {
    let mut page = Page {
        out: String::with_capacity(16 * 1024),
        format,
    };
    render_requests(&mut page, &sum_requests(shared));
    render_tcp(&mut page, &sum_tcp(shared));
    page.family(
        "tulle_metrics_folded_total",
        Kind::Counter,
        "Times that a series went into `other` because there were too many.",
    );
    let folded = shared.folded.load(Ordering::Relaxed);
    page.sample("tulle_metrics_folded_total", "", folded as f64);
    for (name, family) in &*lock(&shared.process) {
        render_process(&mut page, name, family);
    }
    if format == Format::OpenMetrics {
        page.out.push_str("# EOF\n");
    }
    page.out
}

/// Sorted by rendered labels, so that a page's order is stable.
fn sum_requests(shared: &Shared) -> BTreeMap<String, CellSum> {
    let mut sums: BTreeMap<String, CellSum> = BTreeMap::new();
    for shard in &*lock(&shared.shards) {
        for (labels, cells) in &*lock(&shard.requests) {
            let base = request_labels(labels);
            for cell in &*lock(&cells.0) {
                let mut key = base.clone();
                outcome_labels(&mut key, cell.outcome);
                let sum = sums.entry(key).or_default();
                cell.durations.add_to(&mut sum.durations);
                cell.request_bytes.add_to(&mut sum.request_bytes);
                cell.response_bytes.add_to(&mut sum.response_bytes);
            }
        }
    }
    sums
}

fn sum_tcp(shared: &Shared) -> BTreeMap<String, TcpSum> {
    let mut sums: BTreeMap<String, TcpSum> = BTreeMap::new();
    for shard in &*lock(&shared.shards) {
        for (labels, cells) in &*lock(&shard.tcp) {
            let sum = sums.entry(tcp_labels(labels)).or_default();
            sum.opened += cells.opened.read();
            sum.sent += cells.sent.read();
            sum.received += cells.received.read();
            for (mine, theirs) in sum.closed.iter_mut().zip(&cells.closed) {
                *mine += theirs.read();
            }
        }
    }
    sums
}

fn render_requests(page: &mut Page, sums: &BTreeMap<String, CellSum>) {
    page.family("tulle_requests_total", Kind::Counter, "Requests finished.");
    for (labels, sum) in sums {
        let count: u64 = sum.durations.buckets.iter().sum();
        page.sample("tulle_requests_total", labels, count as f64);
    }
    page.family(
        "tulle_request_duration_seconds",
        Kind::Histogram,
        "Time from a request's arrival to the end of its response.",
    );
    for (labels, sum) in sums {
        let total = sum.durations.sum as f64 / 1e9;
        page.histogram(
            "tulle_request_duration_seconds",
            labels,
            &DURATION_BOUNDS,
            &sum.durations.buckets,
            total,
        );
    }
    page.family(
        "tulle_request_bytes",
        Kind::Histogram,
        "Size of request bodies.",
    );
    for (labels, sum) in sums {
        let h = &sum.request_bytes;
        page.histogram(
            "tulle_request_bytes",
            labels,
            &BYTES_BOUNDS,
            &h.buckets,
            h.sum as f64,
        );
    }
    page.family(
        "tulle_response_bytes",
        Kind::Histogram,
        "Size of response bodies.",
    );
    for (labels, sum) in sums {
        let h = &sum.response_bytes;
        page.histogram(
            "tulle_response_bytes",
            labels,
            &BYTES_BOUNDS,
            &h.buckets,
            h.sum as f64,
        );
    }
}

fn render_tcp(page: &mut Page, sums: &BTreeMap<String, TcpSum>) {
    let name = "tulle_tcp_connections_opened_total";
    page.family(name, Kind::Counter, "TCP connections opened.");
    for (labels, sum) in sums {
        page.sample(name, labels, sum.opened as f64);
    }
    let name = "tulle_tcp_connections_closed_total";
    page.family(name, Kind::Counter, "TCP connections closed.");
    for (labels, sum) in sums {
        let reasons = std::iter::once("").chain(Reason::ALL.iter().map(|r| r.as_str()));
        for (reason, count) in reasons.zip(sum.closed) {
            if count > 0 {
                let mut labels = labels.clone();
                label(&mut labels, "reason", reason);
                page.sample(name, &labels, count as f64);
            }
        }
    }
    let name = "tulle_tcp_sent_bytes_total";
    page.family(name, Kind::Counter, "Bytes sent to the destination.");
    for (labels, sum) in sums {
        page.sample(name, labels, sum.sent as f64);
    }
    let name = "tulle_tcp_received_bytes_total";
    page.family(name, Kind::Counter, "Bytes received from the destination.");
    for (labels, sum) in sums {
        page.sample(name, labels, sum.received as f64);
    }
}

fn render_process(page: &mut Page, name: &str, family: &Family) {
    if family.samples.is_empty() {
        return;
    }
    page.family(name, family.kind, &family.help);
    for (labels, sample) in &family.samples {
        let mut text = String::new();
        for (key, value) in labels {
            label(&mut text, key, value);
        }
        match sample {
            Sample::Counter(counter) => page.sample(name, &text, counter.value() as f64),
            Sample::Gauge(gauge) => page.sample(name, &text, gauge.value() as f64),
            Sample::Computed(value) => page.sample(name, &text, value()),
            Sample::Histogram(histogram) => {
                let buckets = histogram.buckets();
                let counts: Vec<u64> = buckets
                    .counts
                    .iter()
                    .map(|count| count.load(Ordering::Relaxed))
                    .collect();
                let sum = buckets.sum.load(Ordering::Relaxed) as f64 / 1e6;
                page.histogram(name, &text, &buckets.bounds, &counts, sum);
            }
        }
    }
}

fn request_labels(labels: &RequestLabels) -> String {
    let mut out = String::with_capacity(256);
    label(&mut out, "direction", labels.direction.as_str());
    label(&mut out, "source", &labels.source);
    label(&mut out, "source_principal", &labels.source_principal);
    label(&mut out, "destination", &labels.destination);
    let workload = &labels.destination_workload;
    label(&mut out, "destination_workload", workload);
    label(&mut out, "destination_version", &labels.destination_version);
    label(&mut out, "protocol", labels.protocol);
    label(&mut out, "route", &labels.route);
    label(&mut out, "mtls", if labels.mtls { "true" } else { "false" });
    out
}

fn tcp_labels(labels: &TcpLabels) -> String {
    let mut out = String::with_capacity(256);
    label(&mut out, "direction", labels.direction.as_str());
    label(&mut out, "source", &labels.source);
    label(&mut out, "source_principal", &labels.source_principal);
    label(&mut out, "destination", &labels.destination);
    let workload = &labels.destination_workload;
    label(&mut out, "destination_workload", workload);
    label(&mut out, "destination_version", &labels.destination_version);
    label(&mut out, "protocol", "tcp");
    label(&mut out, "mtls", if labels.mtls { "true" } else { "false" });
    out
}

fn outcome_labels(out: &mut String, outcome: Outcome) {
    match outcome {
        Outcome::Of {
            status,
            grpc_status,
            reason,
        } => {
            label(out, "response_code", &status.to_string());
            let grpc = grpc_status.map(|s| s.to_string()).unwrap_or_default();
            label(out, "grpc_status", &grpc);
            label(out, "reason", reason.map_or("", Reason::as_str));
        }
        Outcome::Other => {
            for name in ["response_code", "grpc_status", "reason"] {
                label(out, name, "other");
            }
        }
    }
}

/// Appends `name="value"`, with a comma before it unless it is the first.
fn label(out: &mut String, name: &str, value: &str) {
    if !out.is_empty() {
        out.push(',');
    }
    out.push_str(name);
    out.push_str("=\"");
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// A page being written.
struct Page {
    out: String,
    format: Format,
}

impl Page {
    fn family(&mut self, name: &str, kind: Kind, help: &str) {
        // OpenMetrics names a counter's family without the suffix of its sample.
        let name = match (self.format, kind) {
            (Format::OpenMetrics, Kind::Counter) => name.strip_suffix("_total").unwrap_or(name),
            _ => name,
        };
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let mut escaped = help.replace('\\', "\\\\").replace('\n', "\\n");
        if self.format == Format::OpenMetrics {
            escaped = escaped.replace('"', "\\\"");
        }
        let _ = writeln!(self.out, "# HELP {name} {escaped}\n# TYPE {name} {kind}");
        if self.format == Format::OpenMetrics {
            let unit = ["seconds", "bytes", "ratio"]
                .into_iter()
                .find(|unit| name.strip_suffix(unit).is_some_and(|n| n.ends_with('_')));
            if let Some(unit) = unit {
                let _ = writeln!(self.out, "# UNIT {name} {unit}");
            }
        }
    }

    fn sample(&mut self, name: &str, labels: &str, value: f64) {
        self.out.push_str(name);
        if !labels.is_empty() {
            let _ = write!(self.out, "{{{labels}}}");
        }
        let _ = writeln!(self.out, " {value}");
    }

    fn histogram(&mut self, name: &str, labels: &str, bounds: &[f64], counts: &[u64], sum: f64) {
        let mut total = 0;
        let comma = if labels.is_empty() { "" } else { "," };
        let braces = if labels.is_empty() {
            String::new()
        } else {
            format!("{{{labels}}}")
        };
        for (i, count) in counts.iter().enumerate() {
            total += count;
            let _ = match bounds.get(i) {
                // OpenMetrics wants the canonical form, which has a fraction.
                Some(le) if le.fract() == 0.0 => writeln!(
                    self.out,
                    "{name}_bucket{{{labels}{comma}le=\"{le:.1}\"}} {total}"
                ),
                Some(le) => writeln!(
                    self.out,
                    "{name}_bucket{{{labels}{comma}le=\"{le}\"}} {total}"
                ),
                None => writeln!(
                    self.out,
                    "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {total}"
                ),
            };
        }
        let _ = writeln!(
            self.out,
            "{name}_sum{braces} {sum}\n{name}_count{braces} {total}"
        );
    }
}
