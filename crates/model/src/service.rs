//! Services: what a client asks for, and the ports it may ask for.

use std::net::IpAddr;

use crate::name::ServiceName;

/// A service of the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub name: ServiceName,
    /// Virtual addresses: what the mesh's DNS answers, and what an intercepted connection to the
    /// service was sent to. Empty for headless services.
    pub addresses: Vec<IpAddr>,
    /// Ports, by number, no number twice.
    pub ports: Vec<Port>,
    /// `None` for an ordinary service; clients of a headless one reach its endpoints' addresses.
    pub headless: bool,
    /// Whether clients go to the nearest endpoints where no policy says otherwise
    /// (`trafficDistribution`).
    pub near: bool,
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Name, unique within the service; empty only if it is the only one.
    pub name: String,
    /// Number that clients use.
    pub number: u16,
    /// What is spoken there.
    pub protocol: Protocol,
}

/// What is spoken on a port. From `appProtocol`, else from the port's name (`http-web`), as Istio
/// reads it; otherwise [`Protocol::Detect`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Protocol {
    /// Not declared: the proxy looks at the first bytes, and never waits for them when the server
    /// may be the one to speak first.
    #[default]
    Detect,
    /// HTTP/1.1, or HTTP/2 where the client begins with its preface.
    Http,
    /// HTTP/2 without TLS (`kubernetes.io/h2c`).
    Http2,
    /// gRPC.
    Grpc,
    /// TLS that the proxy passes through.
    Tls,
    /// Bytes.
    Tcp,
}

impl Protocol {
    /// Reads `appProtocol`, or the part of a port's name before the first hyphen; unknown words
    /// are [`Protocol::Detect`].
    pub fn from_declared(word: &str) -> Self {
        match word.to_ascii_lowercase().as_str() {
            "http" | "http1" | "http/1.1" | "kubernetes.io/ws" | "ws" => Self::Http,
            "http2" | "h2c" | "kubernetes.io/h2c" => Self::Http2,
            "grpc" | "grpc-web" => Self::Grpc,
            "https" | "tls" | "kubernetes.io/wss" | "wss" => Self::Tls,
            // Datagrams are taken on every port; connections to such a port are bytes.
            "tcp" | "udp" | "mysql" | "redis" | "mongo" | "postgresql" | "smtp" => Self::Tcp,
            _ => Self::Detect,
        }
    }

    /// The word used in metrics and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Detect => "detect",
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Tls => "tls",
            Self::Tcp => "tcp",
        }
    }

    /// Whether the port speaks some form of HTTP.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc)
    }
}

impl Service {
    /// The port with this number.
    pub fn port(&self, number: u16) -> Option<&Port> {
        self.ports.iter().find(|p| p.number == number)
    }
}
