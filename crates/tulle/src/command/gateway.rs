//! `tulle gateway`: the proxy of one Gateway, or of those of a class that share one, fed by the
//! control plane.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;
use config::kind::authentication_policy::SYSTEM_NAMESPACE;
use model::gateway::GatewayName;
use model::workload::Locality;
use proxy::{Control, Gateways, Options, Role, Source};

use crate::cli::Talk;
use crate::command::proxy::{Outlets, locality, log};
use crate::command::token::duration;
use crate::failure::usage;

/// Run the proxy of a Gateway, or of all Gateways of a class, fed by the control plane.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: as the service account of the Gateway's name, whose proxies alone get its keys\n  tulle token create -n shop --service-account web > token\n  tulle gateway --name shop/web --xds 127.0.0.1:15012 --state-dir /var/lib/tulle/web --token-file token"
)]
pub(crate) struct Gateway {
    /// The Gateway: NAMESPACE/NAME.
    #[arg(
        long,
        env = "TULLE_GATEWAY",
        value_name = "NS/NAME",
        required_unless_present = "class",
        conflicts_with = "class",
        hide_env_values = true
    )]
    name: Option<String>,
    /// Instead of one Gateway, all of this GatewayClass, which has the annotation
    /// `tulle.dev/merge-gateways: "true"`; as the service account of the class's name in the namespace
    /// tulle-system.
    #[arg(
        long,
        env = "TULLE_GATEWAY_CLASS",
        value_name = "NAME",
        hide_env_values = true
    )]
    class: Option<String>,
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
    /// A token for the first contact: a join token, or with --trust-file also one of a Kubernetes
    /// service account for the audience `tulle`.
    #[arg(
        long,
        env = "TULLE_TOKEN_FILE",
        value_name = "FILE",
        hide_env_values = true
    )]
    token_file: Option<PathBuf>,
    /// PEM with the mesh's roots, by which the control plane is believed at first contact.
    #[arg(
        long,
        env = "TULLE_TRUST_FILE",
        value_name = "FILE",
        requires = "token_file",
        hide_env_values = true
    )]
    trust_file: Option<PathBuf>,
    /// Where this is: REGION or REGION/ZONE.
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

impl Gateway {
    pub(crate) fn execute(self, talk: &Talk) -> anyhow::Result<ExitCode> {
        log(talk, self.log_json);
        let (workload, gateways) = self.serves()?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.state_dir)
            .with_context(|| format!("--state-dir {}", self.state_dir.display()))?;
        proxy::run(Options {
            workload,
            role: Role::Gateway(gateways),
            locality: self.locality.unwrap_or_default(),
            source: Source::Control(Control {
                address: self.xds,
                state_dir: self.state_dir,
                token_file: self.token_file,
                trust_file: self.trust_file,
                certificate_ttl: self.certificate_ttl.unwrap_or_default(),
            }),
            access_log: self.outlets.access_log(),
            listeners: self.outlets.listeners()?,
            upstreams: Vec::new(),
            workers: self.workers,
            drain: self.drain,
        })?;
        Ok(ExitCode::SUCCESS)
    }

    /// What it serves, and as what workload.
    fn serves(&self) -> anyhow::Result<(GatewayName, Gateways)> {
        if let Some(class) = &self.class {
            let workload = GatewayName::new(SYSTEM_NAMESPACE, class)
                .map_err(|_| usage!("--class \"{class}\": expected the name of a GatewayClass"))?;
            return Ok((workload, Gateways::Class(class.clone())));
        }
        let name = self.name.as_deref().unwrap_or_default();
        let name = GatewayName::from_str(name)
            .map_err(|_| usage!("--name \"{name}\": expected NAMESPACE/NAME"))?;
        Ok((name.clone(), Gateways::One(name)))
    }
}
