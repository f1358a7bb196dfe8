//! The proxy as a child: started, waited for, started again when it dies, drained at the end.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::command::proxy::Mode;
use crate::command::run::Upstream;
use crate::paths;
use crate::supervisor::listeners::Listeners;
use crate::supervisor::program;
use crate::ui::Ui;

/// How soon a dead proxy is replaced; doubled each time it dies young.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_LIMIT: Duration = Duration::from_secs(5);
/// A proxy that lived this long did not die of its start.
const GROWN_UP: Duration = Duration::from_secs(10);
/// How long a proxy may take to become ready for the first time.
const READY_LIMIT: Duration = Duration::from_mins(1);
const READY_POLL: Duration = Duration::from_millis(15);

/// What a proxy is started with, each time.
pub(crate) struct Recipe {
    pub(crate) workload: String,
    pub(crate) mode: Mode,
    /// `host:port` of the control plane.
    pub(crate) xds: String,
    pub(crate) state_dir: PathBuf,
    pub(crate) token_file: PathBuf,
    pub(crate) upstreams: Vec<Upstream>,
    pub(crate) netns: Option<PathBuf>,
    /// Where `/healthz/ready` answers.
    pub(crate) health: SocketAddr,
    /// Repeated for the proxy: `--quiet`, `-v`.
    pub(crate) talk: Vec<String>,
    pub(crate) drain: Duration,
}

/// A proxy that is kept alive.
pub(crate) struct Sidecar {
    recipe: Recipe,
    listeners: Listeners,
    child: Child,
    started: Instant,
    backoff: Duration,
}

impl Sidecar {
    /// Starts the first proxy.
    pub(crate) fn start(recipe: Recipe, listeners: Listeners) -> anyhow::Result<Self> {
        let child = spawn(&recipe, &listeners)?;
        Ok(Self {
            recipe,
            listeners,
            child,
            started: Instant::now(),
            backoff: BACKOFF_FIRST,
        })
    }

    /// Waits until the proxy says that it is ready; replaces it when it dies meanwhile.
    pub(crate) async fn ready(&mut self, ui: &Ui) -> anyhow::Result<()> {
        let begun = Instant::now();
        let mut said = begun;
        let mut deaths = 0;
        loop {
            let missing = match probe(self.recipe.health).await {
                Ok(Health::Ready) => return Ok(()),
                Ok(Health::NotReady(missing)) => missing,
                Err(_) => "it does not answer yet".to_owned(),
            };
            if let Some(status) = self.child.try_wait()? {
                deaths += 1;
                if deaths >= 3 {
                    bail!(
                        "the proxy ended {deaths} times before it was ready ({status}); what it said is above, or see it with -v"
                    );
                }
                self.restart().await?;
            }
            if begun.elapsed() > READY_LIMIT {
                bail!(
                    "the proxy was not ready within {} s: {missing}",
                    READY_LIMIT.as_secs()
                );
            }
            if said.elapsed() > Duration::from_secs(5) {
                ui.say(&format!("tulle run: waiting for the proxy: {missing}"));
                said = Instant::now();
            }
            tokio::time::sleep(READY_POLL).await;
        }
    }

    /// Replaces the proxy whenever it dies; never ends.
    pub(crate) async fn keep(&mut self, ui: &Ui) -> anyhow::Result<std::convert::Infallible> {
        loop {
            let status = self.child.wait().await.context("waiting for the proxy")?;
            ui.say(&format!(
                "tulle run: the proxy ended ({status}); starting another, connections wait"
            ));
            self.restart().await?;
        }
    }

    async fn restart(&mut self) -> anyhow::Result<()> {
        if self.started.elapsed() > GROWN_UP {
            self.backoff = BACKOFF_FIRST;
        }
        tokio::time::sleep(self.backoff).await;
        self.backoff = (self.backoff * 2).min(BACKOFF_LIMIT);
        self.child = spawn(&self.recipe, &self.listeners)?;
        self.started = Instant::now();
        Ok(())
    }

    /// Asks the proxy to finish what it has, and ends it when it takes too long.
    pub(crate) async fn stop(mut self) {
        signal(&self.child, Signal::SIGTERM);
        // The proxy cuts what is left after its own limit; this one is for a proxy that hangs.
        let limit = self.recipe.drain + Duration::from_secs(2);
        if tokio::time::timeout(limit, self.child.wait())
            .await
            .is_err()
        {
            let _ = self.child.kill().await;
        }
    }
}

/// Sends a signal to a child that has not been waited for yet.
pub(crate) fn signal(child: &Child, signal: Signal) {
    if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()) {
        // Gone already is as good.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

fn spawn(recipe: &Recipe, listeners: &Listeners) -> anyhow::Result<Child> {
    let this = paths::this_binary();
    let mut command = program::tied(this.as_os_str(), recipe.netns.as_deref());
    command
        .args(&recipe.talk)
        .arg("proxy")
        .args(["--workload", &recipe.workload])
        .args(["--mode", recipe.mode.as_str()])
        .args(["--xds", &recipe.xds])
        .arg("--state-dir")
        .arg(&recipe.state_dir)
        .arg("--token-file")
        .arg(&recipe.token_file)
        .arg(format!("--drain={}s", recipe.drain.as_secs()));
    for upstream in &recipe.upstreams {
        command.arg("--upstream").arg(format!(
            "{}:{}={}",
            upstream.host,
            upstream.port,
            upstream.listener()
        ));
    }
    net::inherit::pass(&mut command, &listeners.sockets()).context("handing over sockets")?;
    // A group of its own: Ctrl-C is for the program, the proxy outlives it.
    command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    Command::from(command)
        .kill_on_drop(true)
        .spawn()
        .context("cannot start the proxy")
}

enum Health {
    Ready,
    NotReady(String),
}

/// One `GET /healthz/ready`, by hand: this runs every few milliseconds while a program waits.
async fn probe(address: SocketAddr) -> std::io::Result<Health> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream
            .write_all(
                b"GET /healthz/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            )
            .await?;
        let mut answer = Vec::new();
        stream.take(16 * 1024).read_to_end(&mut answer).await?;
        Ok(parse(&String::from_utf8_lossy(&answer)))
    };
    match tokio::time::timeout(Duration::from_secs(1), exchange).await {
        Ok(result) => result,
        Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
    }
}

fn parse(answer: &str) -> Health {
    if answer.starts_with("HTTP/1.1 200") {
        return Health::Ready;
    }
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let line = body
        .lines()
        .find(|l| !l.trim().is_empty())
        .unwrap_or("it is not ready");
    Health::NotReady(line.trim().chars().take(200).collect())
}
