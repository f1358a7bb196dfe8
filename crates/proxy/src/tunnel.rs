//! The wire between proxies: TLS 1.3 with both SPIFFE identities verified.
//!
//! SNI names the workload and its port, `<port>.<workload>.<namespace>.tulle`; ALPN names what
//! follows. Four forms are direct, without a frame around them: HTTP/1.1, HTTP/2, bytes, and
//! datagrams (each behind its length in two bytes). In `tulle-mux` each stream (HTTP/2 CONNECT) is a
//! connection of one of these forms, named in the same way. Plain `h2` is HBONE, as Istio's ztunnel and waypoints speak it.

use model::{Reason, WorkloadName};
use rustls::pki_types::ServerName;

use crate::error::Failure;

/// The suffix of every server name between proxies.
const SUFFIX: &str = ".tulle";

/// What follows the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Form {
    Http1,
    Http2,
    Tcp,
    Udp,
    Mux,
    Hbone,
}

impl Form {
    /// All forms, the preferred first; a client offers only the one it means.
    pub(crate) const ALL: [Self; 6] = [
        Self::Http1,
        Self::Http2,
        Self::Tcp,
        Self::Udp,
        Self::Mux,
        Self::Hbone,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "tulle-h1",
            Self::Http2 => "tulle-h2",
            Self::Tcp => "tulle-tcp",
            Self::Udp => "tulle-udp",
            Self::Mux => "tulle-mux",
            Self::Hbone => "h2",
        }
    }

    pub(crate) fn alpn(self) -> &'static [u8] {
        self.as_str().as_bytes()
    }

    pub(crate) fn of_alpn(alpn: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|form| form.alpn() == alpn)
    }
}

/// The server name under which `port` of a workload is asked for.
pub(crate) fn server_name(
    port: u16,
    workload: &WorkloadName,
) -> Result<ServerName<'static>, Failure> {
    ServerName::try_from(name(port, workload)).map_err(|_| {
        Failure::new(
            Reason::Internal,
            format!("the name of workload {workload} is too long for TLS"),
        )
    })
}

/// The same as text, as streams ask for it.
pub(crate) fn name(port: u16, workload: &WorkloadName) -> String {
    let (name, namespace) = (workload.name(), workload.namespace());
    format!("{port}.{name}.{namespace}{SUFFIX}")
}

/// Port and workload that a server name asks for.
pub(crate) fn parse_server_name(name: &str) -> Option<(u16, WorkloadName)> {
    let (port, rest) = name.strip_suffix(SUFFIX)?.split_once('.')?;
    let (workload, namespace) = rest.rsplit_once('.')?;
    Some((
        port.parse().ok()?,
        WorkloadName::new(namespace, workload).ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_server_name_reads_back(port: u16, name in "[a-z]([a-z0-9-]{0,20}[a-z0-9])?(\\.[a-z]{1,9})?", ns in "[a-z]{1,20}") {
            let workload = WorkloadName::new(&ns, &name).expect("valid");
            let sni = server_name(port, &workload).expect("short enough");
            prop_assert_eq!(parse_server_name(&sni.to_str()), Some((port, workload)));
        }

        #[test]
        fn garbage_is_no_server_name(text in ".{0,64}") {
            // Only that it does not panic: what parses is looked up, not trusted.
            let _ = parse_server_name(&text);
        }
    }
}
