//! Why a control plane could not start or go on.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use identity::ca::{CaError, SignError};

use crate::kubernetes::ConnectError;
use crate::source::files::SourceError;
use crate::store::StoreError;

/// Why a control plane could not start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The data directory cannot be made or written.
    #[error(
        "data directory {}: {source}; choose another with TULLE_DATA_DIR or correct its owner and mode", path.display()
    )]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another control plane has the data directory.
    #[error(
        "data directory {}: in use by another control plane{}; stop it, or choose another directory with TULLE_DATA_DIR",
        path.display(),
        pid.map(|p| format!(" (process {p})")).unwrap_or_default()
    )]
    DataDirInUse {
        /// The directory.
        path: PathBuf,
        /// The other process, where it can be told.
        pid: Option<u32>,
    },
    /// An address cannot be listened on.
    #[error(
        "{what} cannot listen on {address}: {source}; {hint}", hint = listen_hint(source, flag)
    )]
    Listen {
        /// The listener's purpose.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// The option that chooses it.
        flag: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The unix socket cannot be made.
    #[error("socket {}: {source}", path.display())]
    Socket {
        /// The socket's path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The certificate authority cannot be used.
    #[error(transparent)]
    Authority(#[from] CaError),
    /// The control plane's own certificate cannot be made.
    #[error("the control plane's own certificate cannot be made: {0}")]
    OwnCertificate(#[from] SignError),
    /// The proxies of Gateways cannot be supervised.
    #[error(
        "cannot supervise the proxies of Gateways: {0}; run them yourself with --gateways external"
    )]
    Supervisor(#[source] io::Error),
    /// The certificate authority of a cluster cannot be had.
    #[error(transparent)]
    SharedAuthority(#[from] crate::kubernetes::authority::SharedAuthorityError),
    /// Something that runs as long as the control plane ended before it.
    #[error(
        "a part of the control plane ended unexpectedly ({0}); this is a mistake in tulle: please report it with the log"
    )]
    Part(String),
    /// A path of objects cannot be watched.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Objects are to be those of Kubernetes, and there is no way to it.
    #[error(transparent)]
    Cluster(#[from] ConnectError),
}

impl ControlError {
    pub(crate) fn part(ended: Result<(), tokio::task::JoinError>) -> Self {
        Self::Part(ended.map_or_else(
            |error| error.to_string(),
            |()| "without an error".to_owned(),
        ))
    }
}

fn listen_hint(error: &io::Error, flag: &str) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another process has that port (`ss -ltnp` shows which); stop it, or choose another with {flag} HOST:PORT (port 0 takes a free one)"
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!("this host has no such address; choose another with {flag} HOST:PORT")
        }
        io::ErrorKind::PermissionDenied => {
            format!("ports below 1024 need privileges; choose another with {flag} HOST:PORT")
        }
        _ => format!("choose another with {flag} HOST:PORT"),
    }
}
