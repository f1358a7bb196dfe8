//! `tulle bookshop`: one service of the example, or a helper of the demo.

use std::process::ExitCode;

use crate::cli::Talk;
use crate::command::block_on;
use crate::demo::probe;

/// Run one service of the bookshop example.
#[derive(Debug, clap::Args)]
#[command(
    hide = true,
    after_help = "Example:\n  PORT=9080 tulle bookshop storefront"
)]
pub(crate) struct Bookshop {
    /// The service; or `probe`, which sends requests as it is told on stdin; or `idle`.
    service: String,
}

impl Bookshop {
    pub(crate) fn execute(self, talk: &Talk) -> anyhow::Result<ExitCode> {
        runtime::logging::init(runtime::logging::Verbosity {
            quiet: talk.quiet,
            verbose: talk.verbose,
            json: false,
        });
        block_on(async {
            match self.service.as_str() {
                "probe" => probe::serve().await,
                "idle" => {
                    runtime::signals::stop()?.cancelled().await;
                    Ok(())
                }
                service => bookshop::run(service).await,
            }
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
