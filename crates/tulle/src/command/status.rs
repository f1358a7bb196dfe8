//! `tulle status`: who is in the mesh, and whether the proxies have what they should.

use std::process::ExitCode;

use serde_json::Value;

use crate::cli::Connection;
use crate::client::Client;
use crate::command::block_on;
use crate::ui::{Format, Ui};

/// Show the state of the mesh.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  tulle status\n  tulle status -o json | jq .proxies")]
pub(crate) struct Status {
    /// Output.
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    connection: Connection,
}

impl Status {
    pub(crate) fn execute(self, ui: &Ui) -> anyhow::Result<ExitCode> {
        let client = Client::of(&self.connection)?;
        let status: Value = block_on(client.get("/api/v1/status"))?;
        ui.value(self.output, &status)?;
        Ok(ExitCode::SUCCESS)
    }
}
