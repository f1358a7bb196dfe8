//! The shop's customers, who looked and bought during all that went before.

use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::Check;

pub(super) async fn check(cx: &mut Check<'_>) -> anyhow::Result<String> {
    let name = cx.customers.clone();
    let process = cx.world.process(&name)?;
    process.terminate();
    process.ended(Duration::from_secs(10)).await;
    let text = std::fs::read_to_string(&process.log).unwrap_or_default();
    let summary: Value = text
        .lines()
        .rev()
        .find_map(|line| serde_json::from_str(line).ok())
        .with_context(|| {
            format!(
                "the load generator left no summary: {}",
                process.last_words()
            )
        })?;
    let number = |name: &str| summary.get(name).and_then(Value::as_u64).unwrap_or(0);
    cx.world.forget(&name);
    if number("failed") > 0 || number("skipped") > 0 || number("succeeded") == 0 {
        bail!(
            "{} of the customers' requests failed, {} were not sent: {}",
            number("failed"),
            number("skipped"),
            summary.get("failures").unwrap_or(&Value::Null)
        );
    }
    Ok(format!(
        "{} requests of customers, {} orders, 0 failed, mean {:.1} ms",
        number("succeeded"),
        number("orders"),
        summary
            .get("mean_ms")
            .and_then(Value::as_f64)
            .unwrap_or(0.0)
    ))
}
