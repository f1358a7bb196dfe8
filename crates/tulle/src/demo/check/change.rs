//! The split is changed while requests flow: none fails, none waits.

use std::time::Duration;

use anyhow::bail;
use tokio::time::Instant;

use super::Check;
use super::driver::{none_failed, reviews, shares};
use crate::demo::shop::NAMESPACE;

/// Weights of v1 and v2, one after the other.
const CHANGES: [(u32, u32); 6] = [(0, 100), (100, 0), (0, 100), (50, 50), (100, 0), (10, 90)];
/// How long each change is left in force.
const HOLD: Duration = Duration::from_millis(250);
/// How long a change may take from the command to every request.
const LIMIT: Duration = Duration::from_secs(3);

pub(super) async fn check(cx: &mut Check<'_>) -> anyhow::Result<String> {
    cx.probe.start(reviews(0, 8)).await?;
    let changed = change(cx).await;
    let outcome = cx.probe.stop().await?;
    cx.world.apply(&route(90, 10)).await?;
    let slowest = changed?;
    none_failed(&outcome)?;
    Ok(format!(
        "{} changes during {} requests ({:.0}/s), 0 failed; {}; the slowest was in force for all after {} ms",
        CHANGES.len(),
        outcome.sent,
        outcome.sent as f64 / outcome.seconds,
        shares(&outcome.tally),
        slowest.as_millis()
    ))
}

async fn change(cx: &mut Check<'_>) -> anyhow::Result<Duration> {
    let mut slowest = Duration::ZERO;
    for (first, second) in CHANGES {
        cx.world.apply(&route(first, second)).await?;
        let begun = Instant::now();
        let wanted = match (first, second) {
            (_, 0) => &["v1"][..],
            (0, _) => &["v2"][..],
            _ => &["v1", "v2"][..],
        };
        loop {
            let outcome = cx.probe.send_well(reviews(24, 4)).await?;
            if outcome.tally.keys().eq(wanted.iter()) {
                break;
            }
            if begun.elapsed() > LIMIT {
                bail!(
                    "{first}/{second} was not in force after {} s: {}",
                    LIMIT.as_secs(),
                    shares(&outcome.tally)
                );
            }
        }
        slowest = slowest.max(begun.elapsed());
        tokio::time::sleep(HOLD).await;
    }
    Ok(slowest)
}

/// The reviews' route with these weights.
pub(super) fn route(first: u32, second: u32) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: reviews, namespace: {NAMESPACE}}}
spec:
  parentRefs: [{{group: \"\", kind: Service, name: reviews, port: 80}}]
  rules:
    - matches: [{{headers: [{{name: x-user, value: jason}}]}}]
      backendRefs: [{{name: reviews-v3, port: 80}}]
    - backendRefs:
        - {{name: reviews-v1, port: 80, weight: {first}}}
        - {{name: reviews-v2, port: 80, weight: {second}}}
"
    )
}
