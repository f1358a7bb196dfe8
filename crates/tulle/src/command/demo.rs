//! `tulle demo`: a whole mesh, from nothing but this binary.

use std::process::ExitCode;

use crate::cli::Talk;
use crate::command::block_on;
use crate::command::proxy::Mode;
use crate::demo::{check, show};
use crate::supervisor::network;
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
    pub(crate) fn execute(self, talk: &Talk, ui: &Ui) -> anyhow::Result<ExitCode> {
        runtime::logging::init(runtime::logging::Verbosity {
            quiet: talk.quiet,
            verbose: talk.verbose,
            json: false,
        });
        let mode = network::choose(self.mode, ui)?;
        // One thread: children are tied to the life of the thread that starts them.
        block_on(async {
            if self.check {
                let held = check::run(mode, ui).await?;
                return Ok(ExitCode::from(u8::from(!held)));
            }
            show::run(mode, self.port_base, ui).await?;
            Ok(ExitCode::SUCCESS)
        })
    }
}
