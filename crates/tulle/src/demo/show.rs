//! `tulle demo`: the mesh to look at, until Ctrl-C.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use serde_json::Value;

use crate::command::proxy::Mode;
use crate::demo::shop::{self, NAMESPACE, Ratings};
use crate::demo::world::World;
use crate::ui::{Paint, Ui};

/// Requests a second of the load generator.
const RATE: u32 = 20;
const REFRESH: Duration = Duration::from_secs(1);

/// Runs the demo until it is told to stop.
pub(crate) async fn run(mode: Mode, port_base: u16, ui: &Ui) -> anyhow::Result<()> {
    let dashboard = free_or_any(port_base, "the dashboard", ui)?;
    let storefront = free_or_any(port_base.saturating_add(1), "the storefront", ui)?;
    let stop = runtime::signals::stop()?;
    ui.say(&format!(
        "starting the bookshop in {} mode ...",
        mode.as_str()
    ));
    let mut world = World::start(mode, dashboard, NAMESPACE, ui).await?;
    let outcome = tokio::select! {
        outcome = live(&mut world, storefront, ui) => outcome,
        () = stop.cancelled() => Ok(()),
    };
    ui.clear_status_line();
    ui.say("stopping everything this demo started ...");
    world.stop(outcome.is_err()).await;
    outcome
}

async fn live(world: &mut World, storefront: u16, ui: &Ui) -> anyhow::Result<()> {
    world.apply(bookshop::MANIFEST).await?;
    let ratings = Ratings::unpack(&world.dir)?;
    if matches!(ratings, Ratings::BuiltIn) {
        ui.say("there is no python3: the ratings service is the built-in stand-in");
    }
    shop::open(world, &ratings)?;
    shop::front_door(world, storefront)?;
    world.ready(ui).await?;
    shop::customers(world, RATE)?;
    let ready = world.ready(ui).await?;
    ui.data(&introduction(world, storefront, ready.len(), ui))?;
    loop {
        tokio::time::sleep(REFRESH).await;
        if let Ok(status) = world.client.get("/api/v1/status").await {
            ui.status_line(&status_line(&status));
        }
    }
}

fn introduction(world: &World, storefront: u16, workloads: usize, ui: &Ui) -> String {
    let dir = world.dir.display();
    let bold = |text: String| ui.paint(Paint::Bold, &text);
    format!(
        "
{workloads} workloads, each with a proxy and an identity; every hop between them is mutual TLS.

  bookshop   {}   through a proxy of the mesh
  dashboard  {}

Try, in another terminal:
  export TULLE_DATA_DIR={dir}
  tulle status
  tulle get httproutes -n {NAMESPACE}
  tulle run --service me -n {NAMESPACE} -- curl -s http://reviews.{NAMESPACE}/reviews/{}
  tulle get httproute reviews -n {NAMESPACE} -o yaml    # change the weights, then: tulle apply -f -

Ctrl-C stops everything.
",
        bold(format!("http://127.0.0.1:{storefront}/")),
        bold(format!("http://{}/", world.addresses.api)),
        shop::ISBN,
    )
}

fn status_line(status: &Value) -> String {
    let list = |name: &str| {
        status
            .get(name)
            .and_then(Value::as_array)
            .map_or(&[][..], Vec::as_slice)
    };
    let flag = |value: &Value, name: &str| value.get(name).and_then(Value::as_bool) == Some(true);
    let ready = list("workloads")
        .iter()
        .filter(|w| flag(w, "ready"))
        .count();
    let synced = list("proxies").iter().filter(|p| flag(p, "synced")).count();
    let spans = status
        .pointer("/traces/spans")
        .and_then(Value::as_u64)
        .unwrap_or(0);
    format!(
        "{ready}/{} workloads ready   {synced}/{} proxies up to date   {spans} spans kept",
        list("workloads").len(),
        list("proxies").len(),
    )
}

/// This port, or any free one, said.
fn free_or_any(port: u16, what: &str, ui: &Ui) -> anyhow::Result<u16> {
    if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
        return Ok(port);
    }
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port();
    ui.say(&format!(
        "port {port} is taken: {what} gets {free} (--port-base chooses)"
    ));
    Ok(free)
}
