//! Where the proxies are, and what their counters say.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::demo::world::World;

const LIMIT: Duration = Duration::from_secs(5);
const ANSWER_LIMIT: u64 = 16 * 1024 * 1024;

/// A workload as `tulle status` knows it.
pub(super) struct Place {
    pub(super) address: IpAddr,
    /// The port on which its program serves.
    pub(super) port: u16,
    pub(super) tunnel: u16,
    pub(super) metrics: u16,
}

/// Where a workload is.
pub(super) async fn place(world: &World, instance: &str) -> anyhow::Result<Place> {
    let status = world.client.get("/api/v1/status").await?;
    let workload = status
        .get("workloads")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .find(|w| w.get("name").and_then(Value::as_str) == Some(instance))
        .with_context(|| format!("the status names no workload {instance}"))?;
    let number = |pointer: &str| {
        workload
            .pointer(pointer)
            .and_then(Value::as_u64)
            .and_then(|n| u16::try_from(n).ok())
            .unwrap_or(0)
    };
    Ok(Place {
        address: workload
            .get("address")
            .and_then(Value::as_str)
            .and_then(|a| a.parse().ok())
            .with_context(|| format!("{instance} has no address"))?,
        port: number("/ports/0"),
        tunnel: number("/tunnelPort"),
        metrics: number("/lease/proxyPorts/metrics"),
    })
}

/// The text of a proxy's `/metrics`.
pub(super) async fn metrics(place: &Place) -> anyhow::Result<String> {
    let address = SocketAddr::new(place.address, place.metrics);
    let answer = exchange(
        address,
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    )
    .await
    .with_context(|| format!("metrics at {address}"))?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| anyhow!("metrics at {address}: no answer"))?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(anyhow!(
            "metrics at {address}: {}",
            head.lines().next().unwrap_or("")
        ));
    }
    Ok(body.to_owned())
}

/// Sends bytes to an address, outside the mesh, and reads until the other side closes.
pub(super) async fn exchange(address: SocketAddr, request: &str) -> anyhow::Result<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_LIMIT).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    tokio::time::timeout(LIMIT, exchange)
        .await
        .map_err(|_| anyhow!("no answer within {} s", LIMIT.as_secs()))?
        .map_err(Into::into)
}

/// The sum of a counter's series that have all these labels.
pub(super) fn sum(text: &str, name: &str, labels: &[(&str, &str)]) -> u64 {
    text.lines()
        .filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (family, rest) = series.split_once('{')?;
            let wanted = family == name
                && labels
                    .iter()
                    .all(|(key, value)| rest.contains(&format!("{key}=\"{value}\"")));
            wanted.then(|| value.parse::<f64>().ok()).flatten()
        })
        .sum::<f64>()
        .round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_summed_by_label() {
        let text = "# TYPE tulle_requests counter\n\
             tulle_requests_total{direction=\"inbound\",source=\"checker\"} 7\n\
             tulle_requests_total{direction=\"inbound\",source=\"load\"} 5\n\
             tulle_requests_total{direction=\"outbound\",source=\"checker\"} 3\n\
             tulle_requests_created{direction=\"inbound\",source=\"checker\"} 99\n";
        let inbound = [("direction", "inbound")];
        assert_eq!(sum(text, "tulle_requests_total", &inbound), 12);
        let checker = [("direction", "inbound"), ("source", "checker")];
        assert_eq!(sum(text, "tulle_requests_total", &checker), 7);
    }
}
