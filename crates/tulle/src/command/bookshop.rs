//! `tulle bookshop`: one service of the example, or the probe that the demo's check drives.

use std::process::ExitCode;

use crate::cli::Talk;

/// Run one service of the bookshop example.
#[derive(Debug, clap::Args)]
#[command(hide = true, after_help = "Example:\n  PORT=9080 tulle bookshop storefront")]
pub(crate) struct Bookshop {
    /// The service.
    service: String,
    /// Its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

impl Bookshop {
    pub(crate) fn execute(self, _talk: &Talk) -> anyhow::Result<ExitCode> {
        let _ = (self.service, self.arguments);
        Ok(ExitCode::SUCCESS)
    }
}
