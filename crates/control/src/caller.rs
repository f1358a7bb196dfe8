//! Who is asking: what a listener knows of its peer, attached to each request as an extension.

use std::net::SocketAddr;

use http::Extensions;
use model::SpiffeId;

/// Who is asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A process of this host, of the control plane's own user or root, as the kernel says.
    Local {
        /// Its user.
        uid: u32,
    },
    /// A workload that proved its identity in the TLS handshake.
    Workload(SpiffeId),
    /// Nobody known: no certificate was shown, or a local process of another user.
    Anonymous,
}

impl Caller {
    /// The caller of a request; nobody, where no listener said who it is.
    pub fn of(extensions: &Extensions) -> Self {
        extensions.get().cloned().unwrap_or(Self::Anonymous)
    }

    /// The name under which the audit log keeps it.
    pub fn name(&self) -> String {
        match self {
            Self::Local { uid } => format!("uid:{uid}"),
            Self::Workload(id) => id.to_string(),
            Self::Anonymous => "anonymous".to_owned(),
        }
    }
}

/// The two ends of the connection, attached beside [`Caller`]; none on the unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Peer {
    /// The peer's address.
    pub remote: Option<SocketAddr>,
    /// The address that it connected to.
    pub local: Option<SocketAddr>,
}

/// The user that this process acts as.
pub fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}
