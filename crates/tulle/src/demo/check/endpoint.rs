//! One of two instances is killed, program and proxy at once, while requests flow.

use std::time::Duration;

use anyhow::{Context as _, bail};

use super::change::route;
use super::driver::{none_failed, reviews};
use super::{Check, shop};
use crate::demo::probe::Plan;

const VICTIM: &str = "reviews-v1-1";
/// How long requests flow after the kill: longer than a lease would take to be missed by chance.
const AFTER: Duration = Duration::from_secs(2);

pub(super) async fn check(cx: &mut Check<'_>) -> anyhow::Result<String> {
    cx.world.apply(&route(100, 0)).await?;
    let by_instance = || Plan {
        tally: "/instance".into(),
        ..reviews(60, 6)
    };
    let before = cx.probe.send_well(by_instance()).await?;
    let v1: Vec<_> = before
        .tally
        .keys()
        .filter(|k| k.starts_with("reviews-v1"))
        .collect();
    if v1.len() != 2 {
        bail!(
            "before the kill {} instances of v1 answered instead of 2",
            v1.len()
        );
    }
    cx.probe
        .start(Plan {
            tally: "/instance".into(),
            ..reviews(0, 8)
        })
        .await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    cx.world.process(VICTIM)?.crash().await;
    tokio::time::sleep(AFTER).await;
    let outcome = cx.probe.stop().await?;
    let after = cx.probe.send_well(by_instance()).await?;
    // Another takes its place; the registry forgets the dead one when its lease ends.
    cx.world.forget(VICTIM);
    let info = bookshop::services()
        .iter()
        .find(|info| info.workload == "reviews-v1")
        .context("the bookshop has no reviews-v1")?;
    let app = shop::app(cx.world, info, 2, &cx.ratings)?;
    cx.world.run(&app)?;
    cx.world.apply(&route(90, 10)).await?;
    none_failed(&outcome)?;
    if after.tally.len() != 1 {
        bail!(
            "after the kill {} instances answered instead of 1",
            after.tally.len()
        );
    }
    Ok(format!(
        "kill -9 of {VICTIM} and its proxy during {} requests, 0 failed; afterwards only {} answers",
        outcome.sent,
        after.tally.keys().next().map_or("", String::as_str)
    ))
}
