//! The commands, one file each.

pub(crate) mod analyze;
pub(crate) mod apply;
pub(crate) mod bookshop;
pub(crate) mod cert;
pub(crate) mod completions;
pub(crate) mod control;
pub(crate) mod delete;
pub(crate) mod demo;
pub(crate) mod describe;
pub(crate) mod diff;
pub(crate) mod exec;
pub(crate) mod gateway;
pub(crate) mod get;
pub(crate) mod proxy;
pub(crate) mod ratelimit;
pub(crate) mod run;
pub(crate) mod simulate;
pub(crate) mod status;
pub(crate) mod token;
pub(crate) mod version;

use std::process::ExitCode;

use crate::cli::{Command, Talk};
use crate::ui::Ui;

impl Command {
    /// Does what was asked for.
    pub(crate) fn execute(self, talk: &Talk, ui: &Ui) -> anyhow::Result<ExitCode> {
        match self {
            Self::Demo(command) => command.execute(talk, ui),
            Self::Control(command) => command.execute(talk, ui),
            Self::Run(command) => command.execute(talk, ui),
            Self::Proxy(command) => command.execute(talk),
            Self::Gateway(command) => command.execute(talk),
            Self::Ratelimit(command) => command.execute(talk),
            Self::Apply(command) => command.execute(ui),
            Self::Get(command) => command.execute(ui),
            Self::Describe(command) => command.execute(ui),
            Self::Delete(command) => command.execute(ui),
            Self::Simulate(command) => command.execute(ui),
            Self::Diff(command) => command.execute(ui),
            Self::Analyze(command) => command.execute(ui),
            Self::Status(command) => command.execute(ui),
            Self::Token(command) => command.execute(ui),
            Self::Cert(command) => command.execute(ui),
            Self::Completions(command) => command.execute(ui),
            Self::Version(command) => command.execute(ui),
            Self::Bookshop(command) => command.execute(talk),
            Self::Exec(command) => command.execute(),
        }
    }
}

/// Drives a short task on this thread.
pub(crate) fn block_on<T>(task: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(task)
}
