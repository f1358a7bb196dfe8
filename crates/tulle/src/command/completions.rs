//! `tulle completions`: scripts that complete the command line.

use std::process::ExitCode;

use clap::CommandFactory as _;

use crate::cli::Cli;
use crate::ui::Ui;

/// Print the completion script of a shell.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: complete in this bash and in those to come\n  tulle completions bash > ~/.local/share/bash-completion/completions/tulle"
)]
pub(crate) struct Completions {
    /// The shell.
    shell: clap_complete::Shell,
}

impl Completions {
    pub(crate) fn execute(self, ui: &Ui) -> anyhow::Result<ExitCode> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "tulle", &mut script);
        ui.data(&String::from_utf8_lossy(&script))?;
        Ok(ExitCode::SUCCESS)
    }
}
