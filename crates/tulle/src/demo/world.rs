//! The demo's mesh: a data directory of its own, a control plane, and the bookshop's programs,
//! each under `tulle run`. What a user would type, done in order.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use config::ObjectKind;
use control::Addresses;
use http::Method;
use serde_json::Value;
use tokio::time::Instant;

use crate::client::{Address, Client};
use crate::command::get::columns::{conditions, text};
use crate::command::get::items;
use crate::command::proxy::Mode;
use crate::demo::process::{Process, children_of};
use crate::kind;
use crate::paths;
use crate::supervisor::program;
use crate::ui::Ui;

/// How long anything may take to come up.
const UP_LIMIT: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(30);
/// How long the programs may take to end by themselves.
const STOP_LIMIT: Duration = Duration::from_secs(8);

/// A program of the mesh.
#[derive(Debug, Clone, Default)]
pub(crate) struct App {
    /// Name of the workload, and of its log file.
    pub(crate) instance: String,
    pub(crate) service: String,
    pub(crate) labels: Vec<(String, String)>,
    /// As `--port` takes them.
    pub(crate) ports: Vec<String>,
    /// As `--upstream` takes them.
    pub(crate) upstreams: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) command: Vec<OsString>,
    /// Whether its stdin and stdout are taken, as those of the probe are.
    pub(crate) talks: bool,
    /// Another mode than the others'.
    pub(crate) mode: Option<Mode>,
}

/// A running mesh.
pub(crate) struct World {
    pub(crate) dir: PathBuf,
    pub(crate) mode: Mode,
    pub(crate) client: Client,
    pub(crate) addresses: Addresses,
    pub(crate) namespace: String,
    pub(crate) control: Process,
    pub(crate) processes: Vec<Process>,
    exe: PathBuf,
    next_port: u16,
}

impl World {
    /// Starts a control plane in a fresh directory.
    pub(crate) async fn start(
        mode: Mode,
        api_port: u16,
        namespace: &str,
        ui: &Ui,
    ) -> anyhow::Result<Self> {
        let dir = fresh_dir()?;
        let exe = paths::this_binary();
        // Workloads in namespaces of their own reach the control plane at the bridge's address.
        let xds_ip = match mode {
            Mode::Explicit => Ipv4Addr::LOCALHOST,
            Mode::Transparent => Ipv4Addr::UNSPECIFIED,
        };
        let addresses = Addresses {
            pid: 0,
            version: String::new(),
            socket: paths::control_socket(&dir),
            xds: SocketAddr::from((xds_ip, 0)),
            api: loopback(api_port),
            metrics: loopback(0),
            otlp: loopback(0),
            insecure_xds: None,
            trust_domain: String::new(),
            root_pin: String::new(),
        };
        let control = start_control(&exe, &dir, &addresses)?;
        let client = Client::new(Address::Unix(addresses.socket.clone()));
        let mut world = Self {
            dir,
            mode,
            client,
            addresses,
            namespace: namespace.to_owned(),
            control,
            processes: Vec::new(),
            exe,
            next_port: 0,
        };
        ui.detail(&format!(
            "everything of this demo is in {}",
            world.dir.display()
        ));
        world.control_answers().await?;
        world.addresses = Addresses::read(&world.dir).context("control.json")?;
        Ok(world)
    }

    /// Waits until the control plane answers.
    async fn control_answers(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let Err(error) = self.client.get("/api/v1/status").await else {
                return Ok(());
            };
            if !self.control.is_alive() {
                bail!("the control plane ended: {}", self.control.last_words());
            }
            if begun.elapsed() > UP_LIMIT {
                return Err(error.context("the control plane did not come up"));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Applies manifests.
    pub(crate) async fn apply(&self, text: &str) -> anyhow::Result<()> {
        let answer = self
            .client
            .send(
                Method::POST,
                "/api/v1/apply",
                "application/yaml",
                text.to_owned(),
            )
            .await?;
        if answer.status.is_success() {
            return Ok(());
        }
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        bail!("the control plane refused the demo's own manifest: {body}")
    }

    /// Starts a program with its proxy.
    pub(crate) fn run(&mut self, app: &App) -> anyhow::Result<usize> {
        let mut command = program::tied(self.exe.as_os_str(), None);
        command
            .args([
                "run",
                "--service",
                &app.service,
                "--namespace",
                &self.namespace,
            ])
            .args([
                "--instance",
                &app.instance,
                "--mode",
                app.mode.unwrap_or(self.mode).as_str(),
            ])
            .arg("--data-dir")
            .arg(&self.dir);
        for (key, value) in &app.labels {
            command.arg("--label").arg(format!("{key}={value}"));
        }
        for port in &app.ports {
            command.arg("--port").arg(port);
        }
        for upstream in &app.upstreams {
            command.arg("--upstream").arg(upstream);
        }
        command
            .envs(app.environment.iter().map(|(k, v)| (k, v)))
            .env_remove("TULLE_CONTROL")
            .env_remove("TULLE_TOKEN_FILE")
            .arg("--")
            .args(&app.command);
        let process = Process::start(&app.instance, command, &self.logs(), app.talks)?;
        self.processes.push(process);
        Ok(self.processes.len() - 1)
    }

    /// The command that runs this binary itself.
    pub(crate) fn this(&self, arguments: &[&str]) -> Vec<OsString> {
        let mut command = vec![self.exe.clone().into_os_string()];
        command.extend(arguments.iter().map(OsString::from));
        command
    }

    /// Where the children's output goes.
    pub(crate) fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    /// A port for a program: one that is free on loopback where all share it.
    pub(crate) fn port(&mut self, usual: u16) -> anyhow::Result<u16> {
        if self.mode == Mode::Transparent {
            return Ok(usual);
        }
        // Beyond the usual ranges of ports that connections take, so that what is free now is
        // free when the program asks for it.
        let first = if self.next_port == 0 {
            20_000 + u16::try_from(std::process::id() % 9_000).unwrap_or(0)
        } else {
            self.next_port
        };
        for port in first..first.saturating_add(500) {
            if TcpListener::bind(loopback(port)).is_ok() {
                self.next_port = port + 1;
                return Ok(port);
            }
        }
        bail!(
            "no free port on loopback between {first} and {}",
            first + 500
        )
    }

    /// The process of an instance.
    pub(crate) fn process(&mut self, instance: &str) -> anyhow::Result<&mut Process> {
        self.processes
            .iter_mut()
            .find(|p| p.name == instance)
            .with_context(|| format!("there is no {instance}"))
    }

    /// The process id of an instance's proxy.
    pub(crate) fn proxy_of(&mut self, instance: &str) -> anyhow::Result<i32> {
        let pid = self.process(instance)?.pid();
        children_of(pid)
            .into_iter()
            .find(|(_, line)| line.contains(" proxy --workload "))
            .map(|(pid, _)| pid)
            .with_context(|| format!("{instance} has no proxy"))
    }

    /// No longer counts on an instance.
    pub(crate) fn forget(&mut self, instance: &str) {
        self.processes.retain(|p| p.name != instance);
    }

    /// Starts the control plane again where it was.
    pub(crate) async fn restart_control(&mut self) -> anyhow::Result<()> {
        self.control = start_control(&self.exe, &self.dir, &self.addresses)?;
        self.control_answers().await
    }

    /// How many proxies have a stream to the control plane.
    pub(crate) async fn connected_proxies(&self) -> anyhow::Result<usize> {
        let status = self.client.get("/api/v1/status").await?;
        Ok(status
            .get("proxies")
            .and_then(Value::as_array)
            .map_or(0, Vec::len))
    }

    /// The workloads as the control plane has them.
    pub(crate) async fn workloads(&self) -> anyhow::Result<Vec<Value>> {
        let path = kind::path(ObjectKind::Workload, Some(&self.namespace), None);
        let answer = self.client.get(&path).await?;
        Ok(items(&answer).into_iter().cloned().collect())
    }

    /// Waits until all these workloads are ready; says which are not when it takes too long.
    pub(crate) async fn ready(&mut self, ui: &Ui) -> anyhow::Result<Vec<String>> {
        let begun = Instant::now();
        loop {
            let known = self.workloads().await?;
            let ready: Vec<String> = known
                .iter()
                .filter(|w| is_ready(w))
                .map(|w| text(w, "/metadata/name"))
                // One that was killed may be known until its lease ends.
                .filter(|name| self.processes.iter().any(|p| p.name == *name))
                .collect();
            let total = self.processes.len();
            let missing: Vec<String> = self
                .processes
                .iter()
                .filter(|p| !ready.contains(&p.name))
                .map(|p| p.name.clone())
                .collect();
            if missing.is_empty() {
                ui.clear_status_line();
                return Ok(ready);
            }
            ui.status_line(&format!(
                "{} of {total} workloads ready; waiting for {}",
                ready.len(),
                missing.join(", ")
            ));
            if let Some(dead) = self.processes.iter_mut().find_map(|p| {
                (!p.is_alive()).then(|| format!("{} ended: {}", p.name, p.last_words()))
            }) {
                ui.clear_status_line();
                bail!(dead);
            }
            if begun.elapsed() > UP_LIMIT {
                ui.clear_status_line();
                bail!(
                    "not ready within {} s: {}; see {}",
                    UP_LIMIT.as_secs(),
                    missing.join(", "),
                    self.logs().display()
                );
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Stops everything: the programs first, each as its user would, then the control plane.
    pub(crate) async fn stop(mut self, keep_logs: bool) {
        for process in &self.processes {
            process.terminate();
        }
        let deadline = Instant::now() + STOP_LIMIT;
        for process in &mut self.processes {
            process
                .ended(deadline.saturating_duration_since(Instant::now()))
                .await;
        }
        self.control.terminate();
        self.control.ended(Duration::from_secs(5)).await;
        if !keep_logs {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// Whether the control plane counts a workload as ready.
fn is_ready(workload: &Value) -> bool {
    conditions(workload)
        .iter()
        .any(|c| text(c, "/type") == "Ready" && text(c, "/status") == "True")
}

fn start_control(exe: &Path, dir: &Path, listen: &Addresses) -> anyhow::Result<Process> {
    let mut command = program::tied(exe.as_os_str(), None);
    command
        .arg("control")
        .arg("--data-dir")
        .arg(dir)
        .args(["--api", &listen.api.to_string()])
        .args(["--xds", &listen.xds.to_string()])
        .args(["--metrics", &listen.metrics.to_string()])
        .args(["--otlp", &listen.otlp.to_string()])
        .env_remove("TULLE_STORE")
        .env_remove("TULLE_TRUST_DOMAIN");
    Process::start("control", command, &dir.join("logs"), false)
}

/// A directory of its own for one demo, beside the data of a real control plane; in the temporary
/// directory where that may not be written, or where the socket's path would be too long for the
/// kernel.
fn fresh_dir() -> anyhow::Result<PathBuf> {
    const LONGEST: usize = 90;
    let name = format!("demo-{}", std::process::id());
    let candidates = [
        paths::data_dir().join(&name),
        std::env::temp_dir().join(format!("tulle-{name}")),
        PathBuf::from("/tmp").join(format!("tulle-{name}")),
    ];
    let mut last = None;
    for dir in candidates {
        if dir.as_os_str().len() > LONGEST {
            continue;
        }
        if let Some(parent) = dir.parent() {
            remove_stale(parent);
        }
        let _ = std::fs::remove_dir_all(&dir);
        match crate::supervisor::state::create(&dir.join("logs")) {
            Ok(()) => return Ok(dir),
            Err(error) => last = Some((dir, error)),
        }
    }
    match last {
        Some((dir, error)) => {
            Err(error).with_context(|| format!("{}: cannot be created", dir.display()))
        }
        None => bail!("no directory with a short enough name; set TULLE_DATA_DIR"),
    }
}

/// Removes what demos that were killed, or failed, left a day ago or earlier.
fn remove_stale(parent: &Path) {
    const KEPT: Duration = Duration::from_hours(24);
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.trim_start_matches("tulle-").strip_prefix("demo-");
        let dead = pid.is_some_and(|pid| {
            pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists()
        });
        let old = entry
            .metadata()
            .and_then(|m| m.modified())
            .is_ok_and(|at| at.elapsed().is_ok_and(|age| age > KEPT));
        if dead && old {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
