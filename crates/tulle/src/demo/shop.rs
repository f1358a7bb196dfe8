//! The bookshop as programs to run: what the example says of itself, put into `tulle run`'s words.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bookshop::{Protocol, ServiceInfo};

use crate::command::proxy::Mode;
use crate::demo::world::{App, World};
use crate::supervisor::program;

/// The namespace of the example's manifest.
pub(crate) const NAMESPACE: &str = "bookshop";
/// The workload that sends the check's requests.
pub(crate) const CHECKER: &str = "checker";
/// A book that the shop has.
pub(crate) const ISBN: &str = "9780141439518";

/// What `python3` is for, and whether it is there.
pub(crate) enum Ratings {
    /// The service in Python, at this path.
    Python(PathBuf),
    /// The stand-in.
    BuiltIn,
}

impl Ratings {
    /// Writes the service in Python where it can be run.
    pub(crate) fn unpack(dir: &Path) -> anyhow::Result<Self> {
        if program::look_up("python3".as_ref()).is_err() {
            return Ok(Self::BuiltIn);
        }
        let path = dir.join("ratings.py");
        std::fs::write(&path, bookshop::RATINGS_PY)
            .with_context(|| format!("{}", path.display()))?;
        Ok(Self::Python(path))
    }
}

/// Instances of a workload of the bookshop.
pub(crate) fn instances(info: &ServiceInfo) -> u32 {
    // One of the two is killed by the check.
    if info.workload == "reviews-v1" { 2 } else { 1 }
}

/// One instance of a workload of the bookshop.
pub(crate) fn app(
    world: &mut World,
    info: &ServiceInfo,
    index: u32,
    ratings: &Ratings,
) -> anyhow::Result<App> {
    let mut app = App {
        instance: format!("{}-{index}", info.workload),
        service: info.name.to_owned(),
        labels: vec![("version".into(), info.version.into())],
        command: world.this(&["bookshop", info.workload]),
        ..App::default()
    };
    if let ("ratings", Ratings::Python(path)) = (info.workload, ratings) {
        app.command = vec![OsString::from("python3"), path.clone().into_os_string()];
    }
    if info.protocol != Protocol::None {
        let word = info.protocol.as_str();
        app.ports = vec![format!("{word}:{}/{word}", world.port(info.port)?)];
    }
    if world.mode == Mode::Explicit {
        // Everybody shares this host: no need to serve the rest of the network.
        app.environment.push(("HOST".into(), "127.0.0.1".into()));
        if info.calls.contains(&"stock") {
            // Neither HTTP nor anything else that knows of proxies: a loopback port leads there.
            let port = world.port(9070)?;
            app.upstreams = vec![format!("stock.{NAMESPACE}:9070={port}")];
            app.environment
                .push(("STOCK_ADDR".into(), format!("127.0.0.1:{port}")));
        }
    }
    Ok(app)
}

/// Starts every workload of the bookshop that serves something.
pub(crate) fn open(world: &mut World, ratings: &Ratings) -> anyhow::Result<()> {
    for info in bookshop::services() {
        if info.protocol == Protocol::None {
            continue;
        }
        for index in 0..instances(info) {
            let app = app(world, info, index, ratings)?;
            world.run(&app)?;
        }
    }
    Ok(())
}

/// Starts the load generator; its process.
pub(crate) fn customers(world: &mut World, rate: u32) -> anyhow::Result<String> {
    let info = bookshop::services()
        .iter()
        .find(|info| info.workload == "load")
        .context("the bookshop has no load generator")?;
    let mut app = app(world, info, 0, &Ratings::BuiltIn)?;
    app.environment.push(("RATE".into(), rate.to_string()));
    world.run(&app)?;
    Ok(app.instance)
}

/// Starts the workload through whose proxy a browser on this host enters the mesh: always in
/// explicit mode, so that the port is on this host's loopback.
pub(crate) fn front_door(world: &mut World, port: u16) -> anyhow::Result<()> {
    let app = App {
        instance: "visitor".into(),
        service: "visitor".into(),
        upstreams: vec![format!("storefront.{NAMESPACE}:80={port}")],
        command: world.this(&["bookshop", "idle"]),
        mode: Some(Mode::Explicit),
        ..App::default()
    };
    world.run(&app)?;
    Ok(())
}

/// Starts the workload that sends the check's requests.
pub(crate) fn checker(world: &mut World) -> anyhow::Result<()> {
    let app = App {
        instance: CHECKER.into(),
        service: CHECKER.into(),
        command: world.this(&["bookshop", "probe"]),
        talks: true,
        ..App::default()
    };
    world.run(&app)?;
    Ok(())
}
