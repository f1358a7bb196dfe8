//! The demo's children: each in a process group of its own, its output in a file, and none left
//! behind however the demo ends.

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

/// A running child.
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) child: Child,
    pub(crate) log: PathBuf,
    pid: Pid,
}

impl Process {
    /// Starts a command with its output in `logs/NAME.log`.
    pub(crate) fn start(
        name: &str,
        mut command: std::process::Command,
        logs: &Path,
        talks: bool,
    ) -> anyhow::Result<Self> {
        let log = logs.join(format!("{name}.log"));
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("{}", log.display()))?;
        command.process_group(0).stderr(file.try_clone()?);
        if talks {
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
        } else {
            command.stdin(Stdio::null()).stdout(file);
        }
        let child = Command::from(command)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let pid = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .map(Pid::from_raw)
            .with_context(|| format!("{name} ended at once; see {}", log.display()))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
            pid,
        })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Whether it still runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills it as a crash would: no warning, no time. Its own children are tied to it and go too.
    pub(crate) async fn crash(&mut self) {
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = self.child.wait().await;
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) {
        if self.child.id().is_some() {
            let _ = kill(self.pid, Signal::SIGTERM);
        }
    }

    /// Waits until it has ended, and ends it after `limit`.
    pub(crate) async fn ended(&mut self, limit: Duration) {
        if tokio::time::timeout(limit, self.child.wait())
            .await
            .is_err()
        {
            let _ = killpg(self.pid, Signal::SIGKILL);
            let _ = self.child.wait().await;
        }
    }

    /// The last lines of its output, for when it did what it should not.
    pub(crate) fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

/// The processes that a process has started and that run still, with their command lines.
pub(crate) fn children_of(pid: i32) -> Vec<(i32, String)> {
    let text =
        std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_ascii_whitespace()
        .filter_map(|child| child.parse().ok())
        .map(|child: i32| {
            let line = std::fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            (child, line.trim().to_owned())
        })
        .collect()
}
