//! Without the control plane: what runs goes on, what dies comes back, and what was missed is
//! made up for when it returns.

use std::time::Duration;

use anyhow::bail;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::Instant;

use super::Check;
use super::driver::{none_failed, reviews};
use super::purchase::buy;

/// Its proxy has callers and callees.
const VICTIM: &str = "storefront-0";
const LIMIT: Duration = Duration::from_secs(15);

/// The control plane is killed; requests go on.
pub(super) async fn check_killed(cx: &mut Check<'_>) -> anyhow::Result<String> {
    // What was started again a moment ago must be there before nobody is left to ask.
    cx.world.ready(cx.ui).await?;
    cx.world.control.crash().await;
    if cx.world.client.get("/api/v1/status").await.is_ok() {
        bail!("the control plane still answers after kill -9");
    }
    let outcome = cx.probe.send(reviews(500, 8)).await?;
    none_failed(&outcome)?;
    cx.probe.one(buy("check-without-control")).await?;
    Ok(format!(
        "kill -9; then {} requests and a purchase, 0 failed",
        outcome.sent
    ))
}

/// A proxy is killed, too, and must start from what it has on disk.
pub(super) async fn check_proxy(cx: &mut Check<'_>) -> anyhow::Result<String> {
    let before = cx.world.proxy_of(VICTIM)?;
    kill(Pid::from_raw(before), Signal::SIGKILL)?;
    let begun = Instant::now();
    let after = loop {
        match cx.world.proxy_of(VICTIM) {
            Ok(pid) if pid != before => break pid,
            _ if begun.elapsed() > LIMIT => {
                bail!(
                    "{VICTIM}'s supervisor started no new proxy within {} s",
                    LIMIT.as_secs()
                )
            }
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    // The supervisor holds the listening sockets: the request waits and is not refused.
    cx.probe.one(buy("check-restarted-proxy")).await?;
    let served = begun.elapsed();
    let outcome = cx.probe.send_well({
        let mut plan = buy("check-restarted-proxy-again");
        plan.count = 20;
        plan.concurrency = 2;
        plan
    });
    let outcome = outcome.await?;
    Ok(format!(
        "proxy {before} of {VICTIM} killed, {after} serves {} ms later from its state on disk; {} purchases through it, 0 failed",
        served.as_millis(),
        outcome.sent + 1
    ))
}

/// The control plane comes back; all workloads are its again.
pub(super) async fn check_back(cx: &mut Check<'_>) -> anyhow::Result<String> {
    let begun = Instant::now();
    cx.world.restart_control().await?;
    cx.world.ready(cx.ui).await?;
    let all = cx.world.processes.len();
    let connected = loop {
        let connected = cx.world.connected_proxies().await?;
        if connected >= all {
            break connected;
        }
        if begun.elapsed() > LIMIT {
            bail!("only {connected} of {all} proxies came back");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    cx.world.apply(&super::change::route(0, 100)).await?;
    let limit = Instant::now() + LIMIT;
    loop {
        let outcome = cx.probe.send_well(reviews(20, 4)).await?;
        if outcome.tally.keys().eq(["v2"].iter()) {
            break;
        }
        if Instant::now() > limit {
            bail!("a change after the return does not reach the proxies");
        }
    }
    Ok(format!(
        "{all} workloads ready and {connected} proxies connected again after {:.1} s; a change reaches them",
        begun.elapsed().as_secs_f64()
    ))
}
