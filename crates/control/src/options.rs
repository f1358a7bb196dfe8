//! What a control plane is told at start, and what it tells others about itself.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use model::TrustDomain;
use serde::{Deserialize, Serialize};

use crate::gateways::Gateways;

/// What a control plane is told at start.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where everything it keeps lies; made when missing, with mode 0700.
    pub data_dir: PathBuf,
    /// Files and directories of YAML or JSON that are watched.
    pub sources: Vec<PathBuf>,
    /// Where it listens.
    pub listen: Listen,
    /// The trust domain of the identities it issues. Fixed once the authority exists.
    pub trust_domain: TrustDomain,
    /// Where objects are kept.
    pub store: StoreUrl,
    /// Who runs the proxies of Gateways.
    pub gateways: Gateways,
}

impl Options {
    /// Everything as the contract has it, in this data directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            sources: Vec::new(),
            listen: Listen::default(),
            trust_domain: TrustDomain::default(),
            store: StoreUrl::default(),
            gateways: Gateways::default(),
        }
    }
}

/// Where a control plane listens; port 0 takes a free one, written to `control.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    /// gRPC over TLS: xDS, certificates, registry, spans.
    pub xds: SocketAddr,
    /// HTTP API and dashboard; loopback.
    pub api: SocketAddr,
    /// Metrics and health.
    pub metrics: SocketAddr,
    /// OTLP over gRPC, without TLS; loopback.
    pub otlp: SocketAddr,
    /// xDS for Envoys, without TLS: whoever reaches it gets a Gateway's keys. `None`: nowhere.
    pub insecure_xds: Option<SocketAddr>,
}

impl Default for Listen {
    fn default() -> Self {
        let at = |ip: Ipv4Addr, port| SocketAddr::new(IpAddr::V4(ip), port);
        Self {
            xds: at(Ipv4Addr::UNSPECIFIED, 15012),
            api: at(Ipv4Addr::LOCALHOST, 15080),
            metrics: at(Ipv4Addr::LOCALHOST, 15014),
            otlp: at(Ipv4Addr::LOCALHOST, 4317),
            insecure_xds: None,
        }
    }
}

impl Listen {
    /// Free ports everywhere, on loopback only: for demos and tests.
    pub fn free_ports() -> Self {
        let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        Self {
            xds: any,
            api: any,
            metrics: any,
            otlp: any,
            insecure_xds: None,
        }
    }
}

/// Where objects are kept: `sqlite:PATH`, the API server of Kubernetes (`kubernetes`), or the
/// default, `control.db` in the data directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum StoreUrl {
    /// `control.db` in the data directory.
    #[default]
    Default,
    /// An SQLite database.
    Sqlite(PathBuf),
    /// Objects are in Kubernetes; `control.db` in the data directory keeps a copy, with which to
    /// start while the API server is away, and what Kubernetes does not have.
    Kubernetes,
}

/// A `--store` that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreUrlError {
    /// Planned, not there.
    #[error("--store {0}: this store is not supported yet; use sqlite:PATH or kubernetes")]
    NotYet(String),
    /// Not understood.
    #[error(
        "--store {0}: expected sqlite:PATH, for example sqlite:/var/lib/tulle/control.db, or kubernetes"
    )]
    Unknown(String),
}

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(s: &str) -> Result<Self, StoreUrlError> {
        match s.split_once(':') {
            Some(("sqlite", path)) if !path.is_empty() => Ok(Self::Sqlite(PathBuf::from(
                path.strip_prefix("//").unwrap_or(path),
            ))),
            Some(("etcd", _)) => Err(StoreUrlError::NotYet(s.to_owned())),
            None if s == "kubernetes" => Ok(Self::Kubernetes),
            _ => Err(StoreUrlError::Unknown(s.to_owned())),
        }
    }
}

impl StoreUrl {
    /// The database's path.
    pub fn path(&self, data_dir: &Path) -> PathBuf {
        match self {
            Self::Default | Self::Kubernetes => data_dir.join("control.db"),
            Self::Sqlite(path) => path.clone(),
        }
    }
}

/// How others find a running control plane: `control.json` in its data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// Its process.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// The unix socket for commands of the same user.
    pub socket: PathBuf,
    /// gRPC over TLS.
    pub xds: SocketAddr,
    /// HTTP API and dashboard.
    pub api: SocketAddr,
    /// Metrics and health.
    pub metrics: SocketAddr,
    /// OTLP.
    pub otlp: SocketAddr,
    /// xDS for Envoys, where it is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub insecure_xds: Option<SocketAddr>,
    /// The trust domain.
    pub trust_domain: String,
    /// base64url(sha256(SPKI)) of the root certificate.
    pub root_pin: String,
}

impl Addresses {
    /// The file in a data directory.
    pub fn file(data_dir: &Path) -> PathBuf {
        data_dir.join("control.json")
    }

    /// The unix socket of a data directory.
    pub fn socket(data_dir: &Path) -> PathBuf {
        data_dir.join("control.sock")
    }

    /// Reads what a control plane wrote when it was ready. The file outlives a killed process:
    /// only an answer on the socket proves that one runs.
    pub fn read(data_dir: &Path) -> io::Result<Self> {
        let text = std::fs::read(Self::file(data_dir))?;
        serde_json::from_slice(&text).map_err(io::Error::other)
    }
}
