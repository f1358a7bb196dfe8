//! A purchase passes through the shop's services, over HTTP, gRPC and TCP.

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::Check;
use crate::demo::probe::Plan;
use crate::demo::shop::{ISBN, NAMESPACE};

pub(super) async fn check(cx: &mut Check<'_>) -> anyhow::Result<String> {
    cx.purchase_trace = format!("{:032x}", rand::random::<u128>() | 1);
    let traceparent = format!("00-{}-00000000000000a1-01", cx.purchase_trace);
    let answer = cx
        .probe
        .one(buy("check-purchase").with_header("traceparent", &traceparent))
        .await?;
    let body: Value = serde_json::from_str(&answer.body)
        .with_context(|| format!("the storefront answered {}", answer.body))?;
    let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).unwrap_or("");
    // Each answer could only be made with the help of the service named.
    let price = body
        .pointer("/order/total_cents")
        .and_then(Value::as_u64)
        .unwrap_or(0);
    let seen = [
        ("storefront", !text("/instance").is_empty()),
        ("catalogue (gRPC)", price > 0),
        ("orders", !text("/order/instance").is_empty()),
        (
            "payments (gRPC)",
            !text("/order/payments_instance").is_empty(),
        ),
        ("stock (TCP)", !text("/order/stock").is_empty()),
    ];
    let through: Vec<&str> = seen.iter().filter(|(_, s)| *s).map(|(n, _)| *n).collect();
    if through.len() < seen.len() {
        bail!("only {} took part: {}", through.join(", "), answer.body);
    }
    Ok(format!(
        "order {} for {}.{:02} € through {} services: {}",
        text("/order/id"),
        price / 100,
        price % 100,
        through.len(),
        through.join(", ")
    ))
}

/// A purchase of one book.
pub(super) fn buy(key: &str) -> Plan {
    Plan {
        method: "POST".into(),
        url: format!("http://storefront.{NAMESPACE}/api/purchase"),
        body: json!({"isbn": ISBN, "quantity": 1}).to_string(),
        ..Plan::default()
    }
    .with_header("content-type", "application/json")
    .with_header("idempotency-key", key)
}
