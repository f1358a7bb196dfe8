//! Counters of both sides' proxies against the requests that were really sent.

use std::time::Duration;

use anyhow::bail;
use tokio::time::Instant;

use super::driver::reviews;
use super::scrape::{metrics, place, sum};
use super::{CHECKER, Check};

const REQUESTS: u64 = 300;
const COUNTER: &str = "tulle_requests_total";
/// The workloads that serve the reviews.
const SERVERS: [&str; 4] = [
    "reviews-v1-0",
    "reviews-v1-1",
    "reviews-v2-0",
    "reviews-v3-0",
];

pub(super) async fn check(cx: &mut Check<'_>) -> anyhow::Result<String> {
    let before = count(cx).await?;
    cx.probe.send_well(reviews(REQUESTS, 8)).await?;
    let limit = Instant::now() + Duration::from_secs(3);
    loop {
        // A request is counted when its response has gone: the last may be a moment away.
        let after = count(cx).await?;
        let (client, server) = (after.0 - before.0, after.1 - before.1);
        if (client, server) == (REQUESTS, REQUESTS) {
            return Ok(format!(
                "{REQUESTS} sent; {client} counted by the client's proxy, {server} by the servers' proxies"
            ));
        }
        if Instant::now() > limit {
            bail!(
                "{REQUESTS} sent, but {client} counted by the client's proxy and {server} by the servers' proxies"
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Requests from the checker: as its own proxy counts them, and as the servers' proxies do.
async fn count(cx: &Check<'_>) -> anyhow::Result<(u64, u64)> {
    let client = metrics(&place(cx.world, CHECKER).await?).await?;
    let mut servers = 0;
    for server in SERVERS {
        let text = metrics(&place(cx.world, server).await?).await?;
        servers += sum(
            &text,
            COUNTER,
            &[
                ("direction", "inbound"),
                ("source", CHECKER),
                ("response_code", "200"),
            ],
        );
    }
    let client = sum(
        &client,
        COUNTER,
        &[("direction", "outbound"), ("response_code", "200")],
    );
    Ok((client, servers))
}
