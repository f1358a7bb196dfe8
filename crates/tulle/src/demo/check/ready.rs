//! The mesh comes up: control plane, bookshop, customers, and the probe.

use anyhow::Context as _;
use tokio::time::Instant;

use super::driver::Probe;
use super::{BACKGROUND_RATE, Check};
use crate::demo::shop::{self, CHECKER, Ratings};
use crate::demo::world::World;
use crate::ui::Ui;

/// Starts everything and waits until all of it is ready.
pub(super) async fn prepare<'w>(
    world: &'w mut World,
    ui: &'w Ui,
) -> anyhow::Result<(Check<'w>, String)> {
    let begun = Instant::now();
    world.apply(bookshop::MANIFEST).await?;
    let ratings = Ratings::unpack(&world.dir)?;
    if matches!(ratings, Ratings::BuiltIn) {
        ui.say("there is no python3: the ratings service is the built-in stand-in");
    }
    shop::open(world, &ratings)?;
    shop::checker(world)?;
    let ready = world.ready(ui).await?;
    let customers = shop::customers(world, BACKGROUND_RATE)?;
    let all = world.ready(ui).await?;
    let probe = Probe::of(world.process(CHECKER)?).context("the probe")?;
    let figure = format!(
        "{} of {} in {:.1} s, one proxy each",
        all.len(),
        ready.len() + 1,
        begun.elapsed().as_secs_f64()
    );
    Ok((
        Check {
            world,
            probe,
            ratings,
            customers,
            purchase_trace: String::new(),
            ui,
        },
        figure,
    ))
}
