//! `tulle demo --check`: drives the mesh and says, for each thing it verified, the figure seen.
//!
//! Each check is a function in a file of its own that gives the figure or the reason why not.
//! They run in order on one mesh; what one changes (a route, an instance) it puts back. The last
//! ones kill what the earlier ones need.

mod change;
mod control;
mod driver;
mod edges;
mod endpoint;
mod load;
mod metrics;
mod plaintext;
mod purchase;
mod ready;
mod scrape;
mod split;
mod trace;

use tokio::time::Instant;

use crate::command::proxy::Mode;
use crate::demo::shop::{self, CHECKER, Ratings};
use crate::demo::world::World;
use crate::ui::{Paint, Ui};
use driver::Probe;

/// What the checks share.
pub(crate) struct Check<'w> {
    world: &'w mut World,
    probe: Probe,
    ratings: Ratings,
    /// The workload that buys books meanwhile.
    customers: String,
    /// Trace of the purchase, for a later check.
    purchase_trace: String,
    ui: &'w Ui,
}

/// Requests a second of the load that runs beside the checks.
const BACKGROUND_RATE: u32 = 15;

/// Runs all checks; whether all held.
pub(crate) async fn run(mode: Mode, ui: &Ui) -> anyhow::Result<bool> {
    let begun = Instant::now();
    ui.say(&format!(
        "tulle demo --check: the bookshop in {} mode, verified",
        mode.as_str()
    ));
    let stop = runtime::signals::stop()?;
    let mut world = World::start(mode, 0, shop::NAMESPACE, ui).await?;
    let outcome = tokio::select! {
        outcome = drive(&mut world, ui) => outcome,
        () = stop.cancelled() => Err(anyhow::anyhow!("interrupted")),
    };
    let held = match &outcome {
        Ok(failed) => *failed == 0,
        Err(error) => {
            ui.clear_status_line();
            ui.error(&format!("{error:#}"));
            false
        }
    };
    if !held {
        ui.say(&format!("the logs are kept in {}", world.logs().display()));
    }
    world.stop(!held).await;
    let seconds = begun.elapsed().as_secs_f64();
    match outcome {
        Ok(0) => ui.data(&format!("all verified in {seconds:.1} s"))?,
        Ok(failed) => ui.data(&format!("{failed} not verified, {seconds:.1} s"))?,
        Err(_) => {}
    }
    Ok(held)
}

macro_rules! checks {
    ($cx:ident, $ui:ident, $failed:ident: $($name:literal => $call:expr;)*) => {
        $(
            $ui.status_line($name);
            let begun = Instant::now();
            let result: anyhow::Result<String> = $call.await;
            $ui.clear_status_line();
            report($ui, $name, &result, begun)?;
            if result.is_err() {
                $failed += 1;
            }
        )*
    };
}

async fn drive(world: &mut World, ui: &Ui) -> anyhow::Result<u32> {
    let mut failed = 0;
    let begun = Instant::now();
    let (mut cx, figure) = ready::prepare(world, ui).await?;
    report(ui, "all workloads ready", &Ok(figure), begun)?;
    let cx = &mut cx;
    checks! { cx, ui, failed:
        "purchase through the shop" => purchase::check(cx);
        "90/10 split" => split::check(cx);
        "route by header" => split::check_header(cx);
        "mutual TLS on each edge" => edges::check(cx);
        "plain text refused" => plaintext::check(cx);
        "metrics equal requests sent" => metrics::check(cx);
        "one trace through all hops" => trace::check(cx);
        "split changed live" => change::check(cx);
        "killed endpoint avoided" => endpoint::check(cx);
        "load beside all this" => load::check(cx);
        "control plane killed" => control::check_killed(cx);
        "proxy killed meanwhile" => control::check_proxy(cx);
        "control plane back" => control::check_back(cx);
    }
    Ok(failed)
}

fn report(
    ui: &Ui,
    name: &str,
    result: &anyhow::Result<String>,
    begun: Instant,
) -> anyhow::Result<()> {
    let (mark, text) = match result {
        Ok(figure) => (ui.paint(Paint::Green, "✓"), figure.clone()),
        Err(error) => (ui.paint(Paint::Red, "✗"), format!("{error:#}")),
    };
    ui.data(&format!("{mark} {name}: {text}"))?;
    ui.detail(&format!("  {:.1} s", begun.elapsed().as_secs_f64()));
    Ok(())
}
