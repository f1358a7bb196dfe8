//! `tulle proxy`: the data plane in this process, beside a workload (`tulle run` starts it so) or
//! for the Gateways of a directory.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;
use model::WorkloadName;
use model::workload::Locality;
use net::socket::ListenOptions;
use proxy::{AccessLog, Control, Gateways, Options, Role, Source, Upstream};

use crate::cli::Talk;
use crate::command::token::duration;
use crate::failure::usage;
use crate::standalone::Directory;

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

/// Run a proxy, beside a workload or for the Gateways of a directory.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  Gateways, routes and Services of a directory, with no control plane; a changed file is taken over\n    tulle proxy --static examples/gateway/\n  What `tulle run` does for you\n    tulle proxy --workload bookshop/reviews-v1-0 --mode explicit --xds 127.0.0.1:15012 \\\n      --state-dir /var/lib/tulle/reviews-v1-0 --token-file token"
)]
pub(crate) struct Proxy {
    /// Serve the Gateways, routes, Services, Workloads and policies found in the YAML and JSON
    /// files of DIR, without a control plane. SIGHUP or a changed file reloads.
    #[arg(
        long = "static",
        env = "TULLE_STATIC",
        value_name = "DIR",
        hide_env_values = true
    )]
    directory: Option<PathBuf>,
    /// Where this is: REGION or REGION/ZONE. Beside a workload, what is known of that comes first.
    #[arg(
        long,
        env = "TULLE_LOCALITY",
        value_name = "REGION[/ZONE]",
        value_parser = locality,
        hide_env_values = true
    )]
    locality: Option<Locality>,
    #[command(flatten)]
    outlets: Outlets,
    /// The workload: NAMESPACE/NAME.
    #[arg(
        long,
        env = "TULLE_WORKLOAD",
        value_name = "NS/NAME",
        required_unless_present = "directory",
        hide_env_values = true
    )]
    workload: Option<String>,
    /// How traffic comes in.
    #[arg(
        long,
        env = "TULLE_MODE",
        value_enum,
        required_unless_present = "directory",
        hide_env_values = true
    )]
    mode: Option<Mode>,
    /// The control plane: HOST:PORT of its gRPC listener.
    #[arg(
        long,
        env = "TULLE_XDS",
        value_name = "HOST:PORT",
        required_unless_present = "directory",
        hide_env_values = true
    )]
    xds: Option<String>,
    /// Where certificate and last good configuration are kept.
    #[arg(
        long,
        env = "TULLE_STATE_DIR",
        value_name = "DIR",
        required_unless_present = "directory",
        hide_env_values = true
    )]
    state_dir: Option<PathBuf>,
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
        log(talk, self.log_json);
        let options = match self.directory.clone() {
            Some(directory) => self.standalone(directory)?,
            None => self.sidecar()?,
        };
        proxy::run(options)?;
        Ok(ExitCode::SUCCESS)
    }

    fn sidecar(self) -> anyhow::Result<Options> {
        if self.outlets != Outlets::default() {
            return Err(usage!(
                "--access-log, --admin and --metrics are for --static; beside a workload the supervisor opens them"
            ));
        }
        let (Some(workload), Some(mode), Some(address), Some(state_dir)) =
            (self.workload, self.mode, self.xds, self.state_dir)
        else {
            return Err(usage!(
                "give --workload, --mode, --xds and --state-dir, or --static"
            ));
        };
        let workload = WorkloadName::from_str(&workload)
            .map_err(|_| usage!("--workload \"{workload}\": expected NAMESPACE/NAME"))?;
        let listeners = net::inherit::take().context("inherited listening sockets")?;
        Ok(Options {
            workload,
            role: Role::Sidecar(match mode {
                Mode::Explicit => proxy::Mode::Explicit,
                Mode::Transparent => proxy::Mode::Transparent,
            }),
            locality: self.locality.unwrap_or_default(),
            access_log: Some(AccessLog::File(state_dir.join("access.log"))),
            source: Source::Control(Control {
                address,
                state_dir,
                token_file: self.token_file,
                trust_file: None,
                certificate_ttl: self.certificate_ttl.unwrap_or_default(),
            }),
            listeners,
            upstreams: self.upstream,
            workers: self.workers,
            drain: self.drain,
        })
    }

    /// The Gateways of a directory.
    fn standalone(self, directory: PathBuf) -> anyhow::Result<Options> {
        let access_log = self.outlets.access_log();
        let (directory, first) = Directory::open(directory, access_log.is_some())?;
        let listeners = self.outlets.listeners()?;
        let workload = WorkloadName::new(model::name::DEFAULT_NAMESPACE, "gateway")?;
        Ok(Options {
            workload,
            role: Role::Gateway(Gateways::All),
            locality: self.locality.unwrap_or_default(),
            source: Source::Local(Box::new(move |feed| {
                feed.apply(first);
                tokio::spawn(directory.follow(feed));
            })),
            access_log,
            listeners,
            upstreams: Vec::new(),
            workers: self.workers,
            drain: self.drain,
        })
    }
}

/// REGION or REGION/ZONE.
pub(crate) fn locality(text: &str) -> Result<Locality, String> {
    let (region, zone) = text.split_once('/').unwrap_or((text, ""));
    if !text.is_empty() && (region.is_empty() || zone.contains('/')) {
        return Err("expected REGION or REGION/ZONE".to_owned());
    }
    Ok(Locality {
        region: region.to_owned(),
        zone: zone.to_owned(),
    })
}

/// Where a Gateway's proxy tells about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, clap::Args)]
pub(crate) struct Outlets {
    /// Of a Gateway's proxy: where a line for each request goes: a file, `-` for stdout, or `off`
    /// [default: off].
    #[arg(long, value_name = "PATH|-|off")]
    access_log: Option<String>,
    /// Of a Gateway's proxy: address of the admin endpoint, on loopback, or `off` [default:
    /// 127.0.0.1:15000].
    #[arg(long, value_name = "ADDR|off")]
    admin: Option<String>,
    /// Of a Gateway's proxy: address of the endpoint for metrics and health [default: off].
    #[arg(long, value_name = "ADDR|off")]
    metrics: Option<String>,
}

impl Outlets {
    pub(crate) fn access_log(&self) -> Option<AccessLog> {
        match self.access_log.as_deref() {
            None | Some("off") => None,
            Some("-") => Some(AccessLog::Stdout),
            Some(path) => Some(AccessLog::File(path.into())),
        }
    }

    /// The sockets, by the names that the proxy knows them by.
    pub(crate) fn listeners(&self) -> anyhow::Result<BTreeMap<String, TcpListener>> {
        let admin = self.admin.as_deref().unwrap_or("127.0.0.1:15000");
        let metrics = self.metrics.as_deref().unwrap_or("off");
        let mut listeners = BTreeMap::new();
        for (name, address) in [("admin", admin), ("metrics", metrics)] {
            if address != "off" {
                listeners.insert(name.to_owned(), listen(name, address)?);
            }
        }
        Ok(listeners)
    }
}

/// Starts logging to stderr.
pub(crate) fn log(talk: &Talk, json: bool) {
    runtime::logging::init(runtime::logging::Verbosity {
        quiet: talk.quiet,
        verbose: talk.verbose,
        json,
    });
}

/// Opens an address of the proxy's own.
fn listen(name: &str, address: &str) -> anyhow::Result<TcpListener> {
    let address: SocketAddr = address.parse().map_err(|_| {
        usage!("--{name} \"{address}\": expected an address such as 127.0.0.1:15000, or off")
    })?;
    if name == "admin" && !address.ip().is_loopback() {
        return Err(usage!(
            "--admin {address}: the admin endpoint is for this host only; use 127.0.0.1, and --metrics for others"
        ));
    }
    let options = ListenOptions {
        reuse_port: false,
        ..ListenOptions::default()
    };
    net::socket::listen(address, &options).with_context(|| {
        format!("--{name} {address}: cannot listen there; give another address, or off")
    })
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
