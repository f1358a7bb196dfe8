//! The purchase's trace: spans of every hop's both proxies, joined to one tree.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::bail;
use serde_json::Value;
use tokio::time::Instant;

use super::Check;
use crate::demo::shop::NAMESPACE;

/// Whose proxies take part in a purchase over HTTP and gRPC.
const SERVICES: [&str; 5] = ["checker", "storefront", "catalogue", "orders", "payments"];
/// The span that the probe said it came from.
const ROOT: &str = "00000000000000a1";

pub(super) async fn check(cx: &mut Check<'_>) -> anyhow::Result<String> {
    let path = format!("/api/v1/traces/{}", cx.purchase_trace);
    let limit = Instant::now() + Duration::from_secs(10);
    loop {
        let problem = match cx.world.client.get(&path).await {
            Ok(trace) => match judge(&trace) {
                Ok(figure) => return Ok(figure),
                Err(error) => error,
            },
            Err(error) => error,
        };
        if Instant::now() > limit {
            return Err(problem.context(format!("trace {}", cx.purchase_trace)));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn judge(trace: &Value) -> anyhow::Result<String> {
    let spans: Vec<&Value> = trace
        .get("spans")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .collect();
    let text = |span: &Value, name: &str| {
        span.get(name)
            .and_then(Value::as_str)
            .unwrap_or("")
            .to_owned()
    };
    let services: BTreeSet<String> = spans.iter().map(|s| text(s, "service")).collect();
    let missing: Vec<&str> = SERVICES
        .into_iter()
        .filter(|s| !services.contains(&format!("{s}.{NAMESPACE}")))
        .collect();
    if !missing.is_empty() {
        bail!("no span of {}", missing.join(", "));
    }
    let ids: BTreeSet<String> = spans.iter().map(|s| text(s, "span_id")).collect();
    let lost = spans.iter().find(|s| {
        let parent = text(s, "parent_span_id");
        parent != ROOT && !ids.contains(&parent)
    });
    if let Some(lost) = lost {
        bail!(
            "the span {} of {} hangs on {}, which nobody has",
            text(lost, "name"),
            text(lost, "service"),
            text(lost, "parent_span_id")
        );
    }
    Ok(format!(
        "{} spans of {} services in one tree, {:.1} ms",
        spans.len(),
        services.len(),
        trace
            .get("duration_us")
            .and_then(Value::as_f64)
            .unwrap_or(0.0)
            / 1e3
    ))
}
