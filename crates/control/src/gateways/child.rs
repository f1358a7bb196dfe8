//! One child process: started, ended, and how long to wait before it is started again.

use std::os::unix::process::CommandExt as _;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

/// How soon a dead child is replaced; doubled each time it dies young.
const FIRST: Duration = Duration::from_millis(100);
const LIMIT: Duration = Duration::from_secs(10);
/// One that lived this long did not die of its start.
const GROWN_UP: Duration = Duration::from_secs(10);

/// How long to wait before the next start.
#[derive(Debug)]
pub(super) struct Backoff(Duration);

impl Backoff {
    pub(super) fn new() -> Self {
        Self(FIRST)
    }

    /// The pause after a child that lived so long.
    pub(super) fn after(&mut self, lived: Duration) -> Duration {
        if lived >= GROWN_UP {
            self.0 = FIRST;
        }
        let pause = self.0;
        self.0 = (self.0 * 2).min(LIMIT);
        pause
    }
}

/// Starts a child in a process group of its own, so that Ctrl-C is for the control plane, which
/// then ends its children in order. It is killed when it is dropped.
pub(super) fn spawn(mut command: std::process::Command) -> std::io::Result<Child> {
    command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    Command::from(command).kill_on_drop(true).spawn()
}

/// Asks a child to finish what it has, and ends it when it takes longer than `grace`.
pub(super) async fn end(child: &mut Child, grace: Duration) {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        // It may have ended on its own: then nobody is told, and the wait returns at once.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    if tokio::time::timeout(grace, child.wait()).await.is_err() {
        tracing::warn!(
            pid = child.id(),
            "a Gateway's proxy did not drain in time and is killed"
        );
        let _ = child.kill().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_dies_young_waits_longer_each_time_up_to_a_limit() {
        let mut backoff = Backoff::new();
        let pauses: Vec<u128> = (0..9)
            .map(|_| backoff.after(Duration::ZERO).as_millis())
            .collect();
        assert_eq!(
            pauses,
            [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]
        );
        assert_eq!(backoff.after(GROWN_UP), FIRST);
        assert_eq!(backoff.after(Duration::ZERO), FIRST * 2);
    }
}
