//! Gateways: the ports on which the mesh takes connections from outside, and what is spoken there.
//!
//! A [`Listener`] comes with everything that serving it takes: certificates and their keys, whom
//! its clients must be vouched for by, bounds. HTTP routes attach to it as
//! [`crate::route::Parent::Gateway`], the others as [`StreamRoute`]s.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::hostname::Hostname;
use crate::limits::Limits;
use crate::name::ObjectName;
use crate::route::Target;
use crate::tls::TlsOptions;

/// The name of a Gateway.
pub type GatewayName = ObjectName;

/// One listener of a Gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The Gateway.
    pub gateway: GatewayName,
    /// The GatewayClass, if one proxy serves all Gateways of it.
    pub merged_class: Option<Box<str>>,
    /// Name within the Gateway.
    pub name: String,
    /// Where it is bound; empty for all addresses of the host.
    pub addresses: Vec<IpAddr>,
    /// The port on which it takes connections.
    pub port: u16,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Hosts it is for; `None` for all.
    pub hostname: Option<Hostname>,
    /// What becomes of TLS; always there for [`Protocol::Https`] and [`Protocol::Tls`].
    pub tls: Option<Tls>,
    /// Whether connections begin with a PROXY header that says where they come from.
    pub proxy_protocol: ProxyProtocol,
    /// Proxies in front of it that are believed about whom requests come from and how
    /// (`X-Forwarded-For` and its kin).
    pub trusted_hops: u32,
    /// What it shows to backends that ask for a certificate (BackendTLSPolicy).
    pub backend_identity: BackendIdentity,
    /// Whether and how HTTP/3 is served on the same port, over UDP; only of [`Protocol::Https`].
    pub http3: Option<Http3>,
    /// Bounds for its clients.
    pub limits: Limits,
}

/// What is spoken on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1 and HTTP/2 in the clear.
    Http,
    /// The same inside TLS.
    Https,
    /// TLS, ended here or passed through.
    Tls,
    /// Bytes.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Protocol {
    /// As Gateway API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Https => "HTTPS",
            Self::Tls => "TLS",
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

/// HTTP/3 on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Http3 {
    /// The port that clients are told of: another than the listener's where something before it
    /// translates ports.
    pub port: u16,
    /// How long clients may remember it.
    pub max_age: Duration,
}

/// What becomes of TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    /// It is passed on, and only the server name in its first message is read.
    Passthrough,
    /// It is ended here.
    Terminate(Termination),
}

/// How TLS is ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Termination {
    /// Certificates, at least one; the first that fits a client's server name is shown.
    pub certificates: Vec<Arc<Certificate>>,
    /// Whom clients must be vouched for by; `None`: they are not asked for a certificate.
    pub clients: Option<ClientValidation>,
    /// What is spoken.
    pub options: TlsOptions,
}

/// Which clients a listener takes.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientValidation {
    /// Root certificates in DER, at least one.
    pub roots: Vec<Vec<u8>>,
    /// Whether a client without a valid certificate is taken all the same.
    pub optional: bool,
}

impl fmt::Debug for ClientValidation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientValidation")
            .field("roots", &Counted(&self.roots))
            .field("optional", &self.optional)
            .finish()
    }
}

/// Certificates, of which nobody reads the bytes.
pub(crate) struct Counted<'a>(pub(crate) &'a [Vec<u8>]);

impl fmt::Debug for Counted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => f.write_str("1 certificate"),
            many => write!(f, "{many} certificates"),
        }
    }
}

/// What a Gateway shows to backends that ask for a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum BackendIdentity {
    /// Nothing.
    #[default]
    Nobody,
    /// This certificate.
    Certificate(Arc<Certificate>),
    /// A certificate was asked for that cannot be had, with the reason: no TLS connection to a
    /// backend is made.
    Invalid(Box<str>),
}

/// A certificate with its key.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The chain in DER, the certificate itself first.
    pub chain: Vec<Vec<u8>>,
    /// Its key.
    pub key: PrivateKey,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("chain", &Counted(&self.chain))
            .field("key", &self.key)
            .finish()
    }
}

/// A private key in DER (PKCS#8, PKCS#1 or SEC1). Never shown, and wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey(Vec<u8>);

impl PrivateKey {
    /// A key from its DER form.
    pub fn from_der(der: Vec<u8>) -> Self {
        Self(der)
    }

    /// Its DER form.
    pub fn der(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for PrivateKey {
    fn drop(&mut self) {
        self.0.fill(0);
        // Keeps the writes from being seen as without effect.
        std::hint::black_box(&self.0);
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

/// Whether connections to a listener begin with a PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ProxyProtocol {
    /// They do not.
    #[default]
    Off,
    /// They may.
    Accept,
    /// They must.
    Require,
}

/// The listeners that a route is attached to, and for which hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The listener's name within its Gateway.
    pub listener: String,
    /// Hosts that listener and route have in common; empty for all of the listener's.
    pub hostnames: Vec<Hostname>,
}

/// What a route for bytes or datagrams was written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StreamKind {
    /// `TLSRoute`.
    Tls,
    /// `TCPRoute`.
    Tcp,
    /// `UDPRoute`.
    Udp,
}

impl StreamKind {
    /// The kind as Gateway API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tls => "TLSRoute",
            Self::Tcp => "TCPRoute",
            Self::Udp => "UDPRoute",
        }
    }
}

impl fmt::Display for StreamKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A route for connections or datagrams, as attached to one Gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamRoute {
    /// What it was written as.
    pub kind: StreamKind,
    /// Its own name.
    pub name: ObjectName,
    /// The Gateway.
    pub gateway: GatewayName,
    /// The listeners it is attached to; at least one.
    pub attachments: Vec<Attachment>,
    /// Seconds since 1970 at which it was created: older routes win ties.
    pub created: u64,
    /// Where connections go, by weight.
    pub backends: Vec<StreamBackend>,
}

/// Where a route for connections or datagrams leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamBackend {
    /// The service, or why there is none.
    pub target: Target,
    /// Share of the connections; 0 gets none.
    pub weight: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_not_shown() {
        let certificate = Certificate {
            chain: vec![vec![1, 2, 3]],
            key: PrivateKey::from_der(b"secret".to_vec()),
        };
        let shown = format!("{certificate:?}");
        assert!(!shown.contains("115"), "{shown}");
        assert!(shown.contains("PrivateKey(..)"), "{shown}");
    }
}
