//! Without the mesh's certificate nobody gets in, and is told why.

use std::net::SocketAddr;

use anyhow::bail;

use super::Check;
use super::scrape::{exchange, place};
use crate::command::proxy::Mode;

const INSTANCE: &str = "reviews-v1-0";

pub(super) async fn check(cx: &mut Check<'_>) -> anyhow::Result<String> {
    let place = place(cx.world, INSTANCE).await?;
    let mut ports = vec![("the proxy's tunnel port", place.tunnel)];
    if cx.world.mode == Mode::Transparent {
        // The program's own port is captured on its way in.
        ports.push(("the program's port", place.port));
    }
    let mut seen = Vec::new();
    for (what, port) in ports {
        let address = SocketAddr::new(place.address, port);
        let request =
            format!("GET /reviews/1 HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        let answer = exchange(address, &request).await?;
        let head = answer.split("\r\n\r\n").next().unwrap_or("");
        let status = head.lines().next().unwrap_or("");
        let reason = head
            .lines()
            .find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("proxy-status")
                    .then(|| value.trim())
            })
            .unwrap_or("");
        if !status.starts_with("HTTP/1.1 403") || !reason.contains("unauthenticated") {
            bail!(
                "{what}, {address}, answered \"{status}\" with Proxy-Status \"{reason}\" instead of 403 unauthenticated"
            );
        }
        seen.push(format!("{what}: 403, {reason}"));
    }
    Ok(seen.join("; "))
}
