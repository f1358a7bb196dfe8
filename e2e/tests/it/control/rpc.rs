//! gRPC over TLS to a control plane, as whoever the test wants to be.

use std::io;
use std::sync::Arc;

use identity::svid::PendingKey;
use rustls::ClientConfig;
use testkit::certs::{Forged, anonymous_client_config};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::Channel;
use xds::client::{BoxedIo, CertificateAuthorityClient, Dial, RegistryClient};
use xds::proto::v1::SignRequest;

use super::*;

pub(super) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// Connections with this certificate, or none.
pub(super) fn dial(address: SocketAddr, who: Option<&Forged>) -> Dial {
    let config: Arc<ClientConfig> = match who {
        Some(who) => who.client_config(&[b"h2"]),
        None => anonymous_client_config(&[b"h2"]),
    };
    Arc::new(move || {
        let config = Arc::clone(&config);
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            let name = "control.tulle".try_into().map_err(io::Error::other)?;
            let stream = TlsConnector::from(config).connect(name, stream).await?;
            Ok(Box::new(stream) as BoxedIo)
        })
    })
}

pub(super) fn channel(plane: &Plane, who: Option<&Forged>) -> Channel {
    xds::client::channel(dial(plane.address("xds"), who))
}

pub(super) fn signer(plane: &Plane, who: Option<&Forged>) -> CertificateAuthorityClient<Channel> {
    CertificateAuthorityClient::new(channel(plane, who))
}

pub(super) fn registry(plane: &Plane, who: Option<&Forged>) -> RegistryClient<Channel> {
    RegistryClient::new(channel(plane, who))
}

/// A proper request for a certificate with this token.
pub(super) fn request(token: &str) -> SignRequest {
    let key = PendingKey::generate().expect("a key");
    SignRequest {
        csr_der: key.csr_der().expect("a request"),
        requested_ttl: None,
        join_token: Some(token.to_owned()),
    }
}
