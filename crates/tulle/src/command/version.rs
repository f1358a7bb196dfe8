//! `tulle version`: of this binary and of the control plane, if there is one.

use std::process::ExitCode;

use serde_json::json;

use crate::ui::{Format, Ui};

/// Print the version.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: the version for a script\n  tulle version -o json")]
pub(crate) struct Version {
    /// Output.
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

impl Version {
    pub(crate) fn execute(self, ui: &Ui) -> anyhow::Result<ExitCode> {
        let version = env!("CARGO_PKG_VERSION");
        match self.output {
            Format::Table => ui.data(&format!("tulle {version}"))?,
            format => ui.value(
                format,
                &json!({"version": version, "os": std::env::consts::OS, "arch": std::env::consts::ARCH}),
            )?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
