//! TLS to backends that are no members of the mesh: whom to expect there, and who vouches for it.

use std::fmt;

use crate::gateway::Counted;
use crate::hostname::Hostname;
use crate::name::{ObjectName, ServiceName};
use crate::tls::TlsOptions;

/// A `BackendTLSPolicy` as attached to one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendTls {
    /// Its own name.
    pub name: ObjectName,
    /// The service it is attached to.
    pub target: ServiceName,
    /// The service's port; `None` for all.
    pub port: Option<u16>,
    /// Seconds since 1970 at which it was created: older policies win.
    pub created: u64,
    /// The server name that goes out, and that the certificate must have if `names` is empty.
    pub hostname: String,
    /// Names of which the certificate must have one, in place of `hostname`.
    pub names: Vec<SubjectName>,
    /// Who vouches for the certificate.
    pub roots: Roots,
    /// What is spoken.
    pub options: TlsOptions,
}

/// A name in a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SubjectName {
    /// A host.
    Dns(Hostname),
    /// A URI, such as a SPIFFE ID.
    Uri(String),
}

/// Who vouches for a backend's certificate.
#[derive(Clone, PartialEq, Eq)]
pub enum Roots {
    /// Those whom the operating system trusts.
    System,
    /// These, in DER. Without any, no connection is made: it is better to fail than to go on in the
    /// clear.
    Certificates(Vec<Vec<u8>>),
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("System"),
            Self::Certificates(roots) => Counted(roots).fmt(f),
        }
    }
}
