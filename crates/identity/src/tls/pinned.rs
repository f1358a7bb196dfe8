//! First contact: a newcomer trusts no root yet, but its join token names one.

use std::sync::Arc;

use model::SpiffeId;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};

use super::verifier::{into_rustls, no_tls12, schemes, system_time, verify_signature};
use crate::CONTROL_PATH;
use crate::verify::{self, PeerRole, VerifyError};

/// A text that is no pin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is not a root pin: expected the 43 characters that end a join token (`tulle token create` prints one)"
)]
pub struct InvalidPin(String);

/// How a newcomer connects to the control plane: without a certificate of its own, to a server whose
/// chain ends in a root with this pin ([`crate::ca::Authority::root_pin`]).
///
/// The server must be `expected`, or, where the newcomer does not know its trust domain yet, have
/// the control plane's path in whichever trust domain the root vouches for.
pub fn pinned_client_config(
    root_pin: &str,
    expected: Option<SpiffeId>,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, InvalidPin> {
    crate::token::check_pin(root_pin)
        .map_err(|_| InvalidPin(root_pin.chars().take(64).collect()))?;
    let verifier = PinnedVerifier {
        pin: root_pin.to_owned(),
        expected,
    };
    let mut config = ClientConfig::builder_with_provider(super::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has suites and groups of TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = super::protocols(alpn);
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct PinnedVerifier {
    pin: String,
    expected: Option<SpiffeId>,
}

impl PinnedVerifier {
    fn verify(
        &self,
        first: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), VerifyError> {
        verify::check_length(rest)?;
        let id = verify::leaf(first)?.id;
        let root = rest
            .iter()
            .find(|c| {
                verify::parse(c)
                    .is_ok_and(|c| c.is_ca() && crate::key::pin(c.public_key().raw) == self.pin)
            })
            .and_then(crate::trust::anchor)
            .ok_or(VerifyError::PinMismatch)?;
        verify::path(
            first,
            rest,
            &[root],
            PeerRole::Server,
            system_time(now),
            &id,
        )?;
        let (matches, expected) = match &self.expected {
            Some(expected) => (*expected == id, expected.to_string()),
            None => (id.path() == CONTROL_PATH, "the control plane".to_owned()),
        };
        if matches {
            Ok(())
        } else {
            Err(VerifyError::IdentityMismatch {
                expected,
                presented: id,
            })
        }
    }
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, now)
            .map_err(into_rustls)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}
