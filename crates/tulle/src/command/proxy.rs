//! `tulle proxy`: the data plane in this process. `tulle run` starts it; by hand it is for those
//! who supervise it with something else.

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;
use model::WorkloadName;
use proxy::{Options, Upstream};

use crate::cli::Talk;
use crate::command::token::duration;
use crate::failure::usage;

/// How an application's traffic comes to its proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// Captured in a network namespace of its own; needs root on Linux.
    Transparent,
    /// Through HTTP_PROXY and loopback ports; needs no privileges.
    Explicit,
}

impl Mode {
    /// The word on the command line.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Transparent => "transparent",
            Self::Explicit => "explicit",
        }
    }
}

/// Run a proxy beside a workload that is registered already.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: what `tulle run` does for you\n  tulle proxy --workload bookshop/reviews-v1-0 --mode explicit --xds 127.0.0.1:15012 \\\n    --state-dir /var/lib/tulle/reviews-v1-0 --token-file token"
)]
pub(crate) struct Proxy {
    /// The workload: NAMESPACE/NAME.
    #[arg(
        long,
        env = "TULLE_WORKLOAD",
        value_name = "NS/NAME",
        hide_env_values = true
    )]
    workload: String,
    /// How traffic comes in.
    #[arg(long, env = "TULLE_MODE", value_enum, hide_env_values = true)]
    mode: Mode,
    /// The control plane: HOST:PORT of its gRPC listener.
    #[arg(
        long,
        env = "TULLE_XDS",
        value_name = "HOST:PORT",
        hide_env_values = true
    )]
    xds: String,
    /// Where certificate and last good configuration are kept.
    #[arg(
        long,
        env = "TULLE_STATE_DIR",
        value_name = "DIR",
        hide_env_values = true
    )]
    state_dir: PathBuf,
    /// A join token for the first contact.
    #[arg(
        long,
        env = "TULLE_TOKEN_FILE",
        value_name = "FILE",
        hide_env_values = true
    )]
    token_file: Option<PathBuf>,
    /// A loopback port that leads to a service: HOST:PORT=LISTENER, the name of an inherited
    /// socket.
    #[arg(long, value_name = "HOST:PORT=LISTENER", value_parser = upstream)]
    upstream: Vec<Upstream>,
    /// Worker threads; 0 for one per core.
    #[arg(
        long,
        env = "TULLE_WORKERS",
        value_name = "N",
        default_value_t = 0,
        hide_env_values = true
    )]
    workers: usize,
    /// How long connections may take to finish when the proxy stops.
    #[arg(long, env = "TULLE_DRAIN", value_name = "DURATION", default_value = "30s", value_parser = duration, hide_env_values = true)]
    drain: Duration,
    /// How long its certificates are valid [default: what the control plane finds right, an hour].
    #[arg(long, env = "TULLE_CERTIFICATE_TTL", value_name = "DURATION", value_parser = duration, hide_env_values = true)]
    certificate_ttl: Option<Duration>,
    /// Log as JSON, one object a line.
    #[arg(long, env = "TULLE_LOG_JSON")]
    log_json: bool,
}

impl Proxy {
    pub(crate) fn execute(self, talk: &Talk) -> anyhow::Result<ExitCode> {
        runtime::logging::init(runtime::logging::Verbosity {
            quiet: talk.quiet,
            verbose: talk.verbose,
            json: self.log_json,
        });
        let workload = WorkloadName::from_str(&self.workload)
            .map_err(|_| usage!("--workload \"{}\": expected NAMESPACE/NAME", self.workload))?;
        let listeners = net::inherit::take().context("inherited listening sockets")?;
        proxy::run(Options {
            workload,
            mode: match self.mode {
                Mode::Explicit => proxy::Mode::Explicit,
                Mode::Transparent => proxy::Mode::Transparent,
            },
            state_dir: self.state_dir,
            control: self.xds,
            token_file: self.token_file,
            listeners,
            upstreams: self.upstream,
            certificate_ttl: self.certificate_ttl.unwrap_or_default(),
            workers: self.workers,
            drain: self.drain,
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

fn upstream(text: &str) -> Result<Upstream, String> {
    let expected = "expected HOST:PORT=LISTENER";
    let (target, listener) = text.rsplit_once('=').ok_or(expected)?;
    let (host, port) = target.rsplit_once(':').ok_or(expected)?;
    let port = port.parse().map_err(|_| expected)?;
    if host.is_empty() || listener.is_empty() {
        return Err(expected.into());
    }
    Ok(Upstream {
        host: host.into(),
        port,
        listener: listener.into(),
    })
}
