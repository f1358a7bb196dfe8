//! What a proxy is told when it starts.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use model::WorkloadName;
use model::gateway::GatewayName;
use model::workload::Locality;
pub use telemetry::access_log::Target as AccessLog;
use xds::local::Feed;

/// The mark on the proxy's own connections, by which interception leaves them alone.
pub const MARK: u32 = 1337;

/// How the application's traffic comes to the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The application is told to use the proxy (`HTTP_PROXY`, loopback ports). Needs no
    /// privileges. The application is reached on loopback.
    Explicit,
    /// The network namespace redirects the application's connections here; where they were going
    /// is asked of the kernel. The application is reached at the workload's own address.
    Transparent,
}

/// A loopback port that leads to a service, for applications that speak something other than HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Host, as the mesh names it.
    pub host: String,
    /// The service's port.
    pub port: u16,
    /// Name of its listening socket in [`Options::listeners`].
    pub listener: String,
}

/// What a proxy stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// One workload, beside which it stands.
    Sidecar(Mode),
    /// Gateways: traffic from outside.
    Gateway(Gateways),
}

/// Which Gateways a proxy serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gateways {
    /// All that its source knows.
    All,
    /// This one.
    One(GatewayName),
    /// Those of this GatewayClass, whose Gateways share a proxy.
    Class(String),
}

/// Where a proxy's configuration comes from.
pub enum Source {
    /// From a control plane.
    Control(Control),
    /// From within the process: the function is called once, in the proxy's runtime, and changes
    /// the configuration through what it is given for as long as it likes. The proxy belongs to no
    /// mesh then, and proves no identity.
    Local(Box<dyn FnOnce(Feed) + Send>),
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Control(control) => control.fmt(f),
            Self::Local(_) => f.write_str("Local"),
        }
    }
}

/// How the control plane is reached.
#[derive(Debug, Clone)]
pub struct Control {
    /// `host:port` of its TLS port.
    pub address: String,
    /// Where the proxy keeps its certificate and the last good configuration; mode 0700.
    pub state_dir: PathBuf,
    /// A file with a join token, for the first contact. Not needed while the certificate on disk
    /// is valid. With a [`trust_file`](Self::trust_file) it may be a service account's token of
    /// Kubernetes, which is read anew each time, since Kubernetes replaces it.
    pub token_file: Option<PathBuf>,
    /// PEM with the mesh's roots, by which the control plane is believed at first contact; without
    /// it, the root that the join token names.
    pub trust_file: Option<PathBuf>,
    /// How long its certificates are to be valid; zero for what the control plane finds right.
    pub certificate_ttl: Duration,
}

/// Everything that a proxy is told when it starts.
#[derive(Debug)]
pub struct Options {
    /// The workload it stands beside, or its own name.
    pub workload: WorkloadName,
    /// What it stands for.
    pub role: Role,
    /// Where it is; beside a workload, what is known of the workload comes first.
    pub locality: Locality,
    /// Where its configuration comes from.
    pub source: Source,
    /// Where a line for each request goes; `None` for nowhere.
    pub access_log: Option<AccessLog>,
    /// Listening sockets by name: `outbound`, `tunnel`, `inbound` (transparent only), `admin`,
    /// `metrics`, and those that [`Options::upstreams`] names. Beside a workload a missing one of
    /// the first five is opened on its usual port (15001, 15008, 15006, 15000, 15020).
    pub listeners: BTreeMap<String, TcpListener>,
    /// Loopback ports that lead to services.
    pub upstreams: Vec<Upstream>,
    /// Worker threads; 0 for one per core.
    pub workers: usize,
    /// How long connections may take to finish when the proxy stops.
    pub drain: Duration,
}

impl Options {
    /// How the application's traffic comes in; a Gateway has no application.
    pub(crate) fn mode(&self) -> Mode {
        match self.role {
            Role::Sidecar(mode) => mode,
            Role::Gateway(_) => Mode::Explicit,
        }
    }
}
