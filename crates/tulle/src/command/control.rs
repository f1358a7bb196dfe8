//! `tulle control`: the control plane in this process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use control::kubernetes::gateways::{ServiceType, Settings};
use control::{Gateways, Listen, Options, Program, StoreUrl};
use model::TrustDomain;

use crate::cli::Talk;
use crate::failure::usage;
use crate::paths;
use crate::ui::Ui;

/// Run the control plane.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tulle control\n  tulle control -f mesh/ -f routes.yaml      # watched for changes\n  tulle control --data-dir ./state --api 127.0.0.1:18080\n  tulle control --insecure-xds               # for Envoys, on 127.0.0.1:15010\n  tulle control --store kubernetes           # objects from the API server of KUBECONFIG"
)]
pub(crate) struct Control {
    /// File or directory of YAML or JSON to serve and to watch; may be repeated.
    #[arg(long = "filename", short = 'f', value_name = "FILE|DIR")]
    files: Vec<PathBuf>,
    /// Where everything it keeps lies [default: ~/.local/state/tulle, as root /var/lib/tulle].
    #[arg(
        long,
        env = "TULLE_DATA_DIR",
        value_name = "DIR",
        hide_env_values = true
    )]
    data_dir: Option<PathBuf>,
    /// Where objects are kept: sqlite:PATH, or kubernetes [default: control.db in the data directory].
    #[arg(long, env = "TULLE_STORE", value_name = "URL", hide_env_values = true)]
    store: Option<String>,
    /// Trust domain of the identities it issues; fixed at the first start.
    #[arg(
        long,
        env = "TULLE_TRUST_DOMAIN",
        value_name = "DOMAIN",
        default_value = "mesh.local",
        hide_env_values = true
    )]
    trust_domain: String,
    /// Where proxies connect: gRPC over mutual TLS.
    #[arg(
        long,
        env = "TULLE_XDS_LISTEN",
        value_name = "ADDRESS",
        default_value = "0.0.0.0:15012",
        hide_env_values = true
    )]
    xds: SocketAddr,
    /// HTTP API and dashboard.
    #[arg(
        long,
        env = "TULLE_API_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:15080",
        hide_env_values = true
    )]
    api: SocketAddr,
    /// Metrics and health.
    #[arg(
        long,
        env = "TULLE_METRICS_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:15014",
        hide_env_values = true
    )]
    metrics: SocketAddr,
    /// Spans over OTLP without TLS.
    #[arg(
        long,
        env = "TULLE_OTLP_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:4317",
        hide_env_values = true
    )]
    otlp: SocketAddr,
    /// Serve Envoys too: standard xDS without TLS. Whoever reaches it gets the keys of Gateways'
    /// certificates, so it is on loopback unless an address is given.
    #[arg(
        long,
        env = "TULLE_INSECURE_XDS",
        value_name = "ADDRESS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "127.0.0.1:15010",
        hide_env_values = true
    )]
    insecure_xds: Option<SocketAddr>,
    /// Who runs the proxies of Gateways: `external`, whoever starts `tulle gateway`; `spawn`, this
    /// control plane, a child process for each Gateway that nobody else serves.
    #[arg(
        long,
        env = "TULLE_GATEWAYS",
        value_enum,
        value_name = "WHO",
        default_value_t = Runner::External,
        hide_env_values = true
    )]
    gateways: Runner,
    /// On Kubernetes, with --gateways spawn: image of the Gateways' pods, whose entry point is tulle.
    #[arg(
        long,
        env = "TULLE_GATEWAY_IMAGE",
        value_name = "IMAGE",
        hide_env_values = true
    )]
    gateway_image: Option<String>,
    /// Where these pods reach this control plane.
    #[arg(
        long = "gateway-control",
        env = "TULLE_GATEWAY_CONTROL",
        value_name = "HOST:PORT",
        default_value = "tulle-control.tulle-system.svc:15012",
        hide_env_values = true
    )]
    reached_at: String,
    /// Type of their Services.
    #[arg(
        long,
        env = "TULLE_GATEWAY_SERVICE",
        value_enum,
        value_name = "TYPE",
        default_value_t = Service::LoadBalancer,
        hide_env_values = true
    )]
    gateway_service: Service,
    /// Log as JSON, one object a line.
    #[arg(long)]
    log_json: bool,
}

/// Who runs the proxies of Gateways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Runner {
    /// Whoever starts `tulle gateway`.
    External,
    /// The control plane.
    Spawn,
}

/// Types of Services, as Kubernetes spells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Service {
    #[value(name = "LoadBalancer")]
    LoadBalancer,
    #[value(name = "ClusterIP")]
    ClusterIp,
}

impl Control {
    pub(crate) fn execute(self, talk: &Talk, _ui: &Ui) -> anyhow::Result<ExitCode> {
        runtime::logging::init(runtime::logging::Verbosity {
            quiet: talk.quiet,
            // A server that says nothing when it is ready leaves people guessing.
            verbose: talk.verbose.saturating_add(1),
            json: self.log_json,
        });
        let options = self.options(talk)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let stop = runtime::signals::stop().context("cannot take signals")?;
            control::run(options, async move { stop.cancelled().await }).await?;
            Ok(ExitCode::SUCCESS)
        })
    }

    /// How Gateways are served on Kubernetes.
    fn settings(&self) -> anyhow::Result<Settings> {
        let image = self.gateway_image.clone().ok_or_else(|| {
            usage!(
                "--gateways spawn: on Kubernetes the Gateways' pods need an image; give --gateway-image, or --gateways external"
            )
        })?;
        Ok(Settings {
            image,
            control: self.reached_at.clone(),
            service_type: match self.gateway_service {
                Service::LoadBalancer => ServiceType::LoadBalancer,
                Service::ClusterIp => ServiceType::ClusterIp,
            },
        })
    }

    fn options(self, talk: &Talk) -> anyhow::Result<Options> {
        let store = match &self.store {
            Some(url) => url.parse::<StoreUrl>().map_err(|e| usage!("{e}"))?,
            None => StoreUrl::Default,
        };
        let gateways = match (self.gateways, &store) {
            (Runner::External, _) => Gateways::External,
            (Runner::Spawn, StoreUrl::Kubernetes) => Gateways::Deploy(self.settings()?),
            (Runner::Spawn, _) => Gateways::Spawn(own_program(talk)),
        };
        for file in &self.files {
            if !file.exists() {
                return Err(usage!("-f {}: no such file or directory", file.display()));
            }
        }
        Ok(Options {
            data_dir: self.data_dir.unwrap_or_else(paths::data_dir),
            sources: self.files,
            listen: Listen {
                xds: self.xds,
                api: self.api,
                metrics: self.metrics,
                otlp: self.otlp,
                insecure_xds: self.insecure_xds,
            },
            trust_domain: TrustDomain::new(&self.trust_domain).map_err(|_| {
                usage!(
                    "--trust-domain \"{}\": expected up to 255 of a-z, 0-9, '.', '-' and '_', for example mesh.local",
                    self.trust_domain
                )
            })?,
            store,
            gateways,
        })
    }
}

/// This executable, tied to the life of this process by `tulle __exec`, and as talkative.
fn own_program(talk: &Talk) -> Program {
    let path = paths::this_binary();
    let own = path.to_string_lossy().into_owned();
    let mut arguments: Vec<String> = ["__exec", "--parent", "{pid}", "--"]
        .map(str::to_owned)
        .to_vec();
    arguments.push(own);
    arguments.extend(talk.arguments());
    Program { path, arguments }
}
