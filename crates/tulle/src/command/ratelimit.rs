//! `tulle ratelimit`: counts for limits that are the whole mesh's.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use ratelimit::{Options, RateLimitError};

use crate::cli::Talk;
use crate::command::token::duration;
use crate::failure::usage;

/// Run the rate limit service: it counts for limits that are the whole mesh's, also for Envoy.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tulle run --service ratelimit --port 8081/grpc -- tulle ratelimit   # as a service of the mesh\n  tulle ratelimit --store redis://127.0.0.1:6379                     # counts shared by several\n  tulle ratelimit --config limits/ --listen 0.0.0.0:8081             # limits from files, for Envoy"
)]
pub(crate) struct Ratelimit {
    /// Where it is asked: gRPC (envoy.service.ratelimit.v3) without TLS.
    #[arg(
        long,
        env = "TULLE_RATELIMIT_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8081",
        hide_env_values = true
    )]
    listen: SocketAddr,
    /// Metrics and health.
    #[arg(
        long,
        env = "TULLE_RATELIMIT_METRICS_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:6070",
        hide_env_values = true
    )]
    metrics: SocketAddr,
    /// Where counts are: memory, or redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], which several
    /// processes may share.
    #[arg(
        long,
        env = "TULLE_RATELIMIT_STORE",
        value_name = "URL",
        default_value = "memory",
        hide_env_values = true
    )]
    store: String,
    /// File or directory of limits in the format of envoyproxy/ratelimit, watched for changes; may be
    /// repeated. Limits of a RateLimitPolicy need none.
    #[arg(long = "config", value_name = "FILE|DIR")]
    config: Vec<PathBuf>,
    /// Tell those who ask what to tell their clients: RateLimit-Policy, RateLimit and Retry-After.
    #[arg(long)]
    response_headers: bool,
    /// How long connections may take to finish when it stops.
    #[arg(long, env = "TULLE_DRAIN", value_name = "DURATION", default_value = "5s", value_parser = duration, hide_env_values = true)]
    drain: Duration,
    /// Log as JSON, one object a line.
    #[arg(long)]
    log_json: bool,
}

impl Ratelimit {
    pub(crate) fn execute(self, talk: &Talk) -> anyhow::Result<ExitCode> {
        runtime::logging::init(runtime::logging::Verbosity {
            quiet: talk.quiet,
            verbose: talk.verbose,
            json: self.log_json,
        });
        runtime::limits::raise_open_files();
        let options = Options {
            listen: self.listen,
            metrics: self.metrics,
            store: self.store,
            config: self.config,
            headers: self.response_headers,
            drain: self.drain,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("cannot start threads")?;
        runtime.block_on(async {
            let stop = runtime::signals::stop().context("cannot listen for signals")?;
            match ratelimit::run(options, stop.cancelled_owned()).await {
                Ok(()) => Ok(ExitCode::SUCCESS),
                Err(error @ RateLimitError::Listen { .. }) => Err(error.into()),
                // What is written on the command line, or in files that it names.
                Err(error) => Err(usage!("{error}")),
            }
        })
    }
}
