//! `tulle __exec`: the last step between the supervisor and a child.
//!
//! What must happen in the child before its program starts happens here, in ordinary code,
//! instead of between fork and exec: entering the workload's network namespace, asking the kernel
//! to end the child with its supervisor, and unblocking signals. Then the program takes this
//! process over.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Context as _;
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};

/// Status of a program that was not found, as shells have it.
pub(crate) const NOT_FOUND: u8 = 127;
/// Status of a program that could not be started.
pub(crate) const NOT_STARTED: u8 = 126;

/// Become a program, tied to the supervisor's life.
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(crate) struct Exec {
    /// The supervisor's process.
    #[arg(long)]
    parent: i32,
    /// Network namespace to enter.
    #[arg(long)]
    netns: Option<PathBuf>,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    program: Vec<OsString>,
}

impl Exec {
    pub(crate) fn execute(self) -> anyhow::Result<ExitCode> {
        prctl::set_pdeathsig(Signal::SIGKILL).context("cannot tie this process to its parent")?;
        // The parent may have gone before the line above.
        if nix::unistd::getppid().as_raw() != self.parent {
            return Ok(ExitCode::from(NOT_STARTED));
        }
        // The supervisor has blocked those that it takes from a descriptor; its children have not.
        SigSet::empty()
            .thread_set_mask()
            .context("cannot unblock signals")?;
        if let Some(path) = &self.netns {
            let namespace = File::open(path)
                .with_context(|| format!("network namespace {}", path.display()))?;
            setns(&namespace, CloneFlags::CLONE_NEWNET)
                .with_context(|| format!("entering network namespace {}", path.display()))?;
        }
        let Some((program, arguments)) = self.program.split_first() else {
            return Ok(ExitCode::from(NOT_STARTED));
        };
        // Comes back only with an error.
        let error = Command::new(program).args(arguments).exec();
        eprintln!("tulle run: {}: {error}", program.to_string_lossy());
        Ok(ExitCode::from(
            if error.kind() == std::io::ErrorKind::NotFound {
                NOT_FOUND
            } else {
                NOT_STARTED
            },
        ))
    }
}
