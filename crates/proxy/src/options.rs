//! What a proxy is told when it starts.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use model::WorkloadName;

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

/// Everything that a proxy is told when it starts.
#[derive(Debug)]
pub struct Options {
    /// The workload it stands beside.
    pub workload: WorkloadName,
    /// How traffic comes in.
    pub mode: Mode,
    /// Where it keeps its certificate and the last good configuration; mode 0700.
    pub state_dir: PathBuf,
    /// `host:port` of the control plane's TLS port.
    pub control: String,
    /// A file with a join token, for the first contact. Not needed while the certificate on disk
    /// is valid.
    pub token_file: Option<PathBuf>,
    /// How long its certificates are to be valid; zero for what the control plane finds right.
    pub certificate_ttl: Duration,
    /// Listening sockets by name: `outbound`, `tunnel`, `inbound` (transparent only), `admin`,
    /// `metrics`, and those that [`Options::upstreams`] names. A missing one of the first five is
    /// opened on its usual port (15001, 15008, 15006, 15000, 15020).
    pub listeners: BTreeMap<String, TcpListener>,
    /// Loopback ports that lead to services.
    pub upstreams: Vec<Upstream>,
    /// Worker threads; 0 for one per core.
    pub workers: usize,
    /// How long connections may take to finish when the proxy stops.
    pub drain: Duration,
}
