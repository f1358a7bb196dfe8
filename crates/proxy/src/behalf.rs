//! For whom a connection to an endpoint is made, where the endpoint is told: with a PROXY header it
//! belongs to one client, with a Gateway's certificate to that Gateway. Such a connection is never
//! used for another (see [`crate::pool`]).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::gateway::{BackendIdentity, Certificate, GatewayName};
use model::traffic::ProxyVersion;
use net::proxy_protocol::{Header, Version};

/// The two ends of a client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    /// Where it connected to, where that is known.
    pub(crate) local: Option<SocketAddr>,
}

/// What a Gateway shows to backends that ask for a certificate.
#[derive(Debug)]
pub(crate) struct Shown {
    /// Never used twice.
    id: u64,
    gateway: GatewayName,
    identity: BackendIdentity,
}

impl Shown {
    /// `None` where nothing is to be shown.
    pub(crate) fn new(gateway: &GatewayName, identity: &BackendIdentity) -> Option<Arc<Self>> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        if *identity == BackendIdentity::Nobody {
            return None;
        }
        Some(Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            gateway: gateway.clone(),
            identity: identity.clone(),
        }))
    }

    /// Whether it is for this Gateway as it is now.
    pub(crate) fn is_for(&self, gateway: &GatewayName, identity: &BackendIdentity) -> bool {
        self.gateway == *gateway && self.identity == *identity
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The certificate, or why there is none.
    pub(crate) fn certificate(&self) -> Result<&Certificate, String> {
        match &self.identity {
            BackendIdentity::Certificate(certificate) => Ok(certificate),
            BackendIdentity::Nobody => Err("there is none".to_owned()),
            BackendIdentity::Invalid(why) => Err(format!(
                "Gateway {} has no client certificate to show (spec.tls.backend.clientCertificateRef): {why}",
                self.gateway
            )),
        }
    }
}

/// For whom a connection is made.
#[derive(Debug, Clone, Default)]
pub(crate) struct Behalf {
    /// Announced by a PROXY header.
    pub(crate) client: Option<(ProxyVersion, Client)>,
    pub(crate) shown: Option<Arc<Shown>>,
}

impl Behalf {
    /// `None` where nobody is told.
    pub(crate) fn of(
        version: Option<ProxyVersion>,
        client: Client,
        shown: Option<&Arc<Shown>>,
    ) -> Option<Self> {
        if version.is_none() && shown.is_none() {
            return None;
        }
        Some(Self {
            client: version.map(|version| (version, client)),
            shown: shown.cloned(),
        })
    }

    /// The PROXY header for a connection to `endpoint`; that stands in where it is not known what the
    /// client connected to.
    pub(crate) fn header(&self, endpoint: SocketAddr) -> Option<Vec<u8>> {
        let (version, client) = self.client?;
        let header = Header::proxied(client.address, client.local.unwrap_or(endpoint));
        Some(header.encode(match version {
            ProxyVersion::V1 => Version::V1,
            ProxyVersion::V2 => Version::V2,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_names_both_ends_of_the_clients_connection() {
        let at = |text: &str| text.parse().expect("an address");
        let endpoint = at("10.0.0.9:80");
        let mut client = Client {
            address: at("192.0.2.7:4711"),
            local: Some(at("192.0.2.1:443")),
        };
        for (local, line) in [
            (client.local, "PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n"),
            (None, "PROXY TCP4 192.0.2.7 10.0.0.9 4711 80\r\n"),
        ] {
            client.local = local;
            let behalf = Behalf::of(Some(ProxyVersion::V1), client, None).expect("one");
            let header = behalf.header(endpoint).expect("a header");
            assert_eq!(String::from_utf8_lossy(&header), line);
        }
        assert!(Behalf::of(None, client, None).is_none());
    }

    #[test]
    fn a_certificate_that_cannot_be_had_is_not_the_same_as_none() {
        let gateway: GatewayName = "shop/web".parse().expect("a name");
        assert!(Shown::new(&gateway, &BackendIdentity::Nobody).is_none());
        let invalid = BackendIdentity::Invalid("Secret \"a\" does not exist".into());
        let shown = Shown::new(&gateway, &invalid).expect("something");
        let why = shown.certificate().expect_err("none");
        assert!(
            why.contains("shop/web") && why.contains("Secret \"a\""),
            "{why}"
        );
    }
}
