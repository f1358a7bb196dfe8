//! First contact: a newcomer trusts no root yet, but its join token names one, or it was given the
//! roots themselves.

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

/// Certificates that say whom to trust at first contact, and cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRoots {
    /// Not PEM, or a certificate that cannot be read.
    #[error("the root certificates cannot be read: {0}")]
    Unreadable(String),
    /// Nothing in it.
    #[error("there is no certificate in it; the control plane's roots are at /api/v1/trust")]
    Empty,
    /// More than a mesh has, even in the middle of a rotation.
    #[error("there are {0} certificates in it, and at most {MAX_ROOTS} are looked at")]
    TooMany(usize),
}

/// Roots of one mesh at a time: one, or two while they change.
const MAX_ROOTS: usize = 16;

/// How a newcomer connects to the control plane when it was given the mesh's roots as PEM, and not
/// only the pin of one. The rest is as with [`pinned_client_config`].
pub fn anchored_client_config(
    roots_pem: &str,
    expected: Option<SpiffeId>,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, InvalidRoots> {
    let roots = crate::pem::certificates(roots_pem.as_bytes()).map_err(InvalidRoots::Unreadable)?;
    if roots.is_empty() {
        return Err(InvalidRoots::Empty);
    }
    if roots.len() > MAX_ROOTS {
        return Err(InvalidRoots::TooMany(roots.len()));
    }
    let pins = roots
        .iter()
        .map(|root| {
            let root = CertificateDer::from(root.as_slice());
            verify::parse(&root).map(|root| crate::key::pin(root.public_key().raw))
        })
        .collect::<Result<_, _>>()
        .map_err(|error| InvalidRoots::Unreadable(error.to_string()))?;
    Ok(first_contact(PinnedVerifier { pins, expected }, alpn))
}

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
        pins: vec![root_pin.to_owned()],
        expected,
    };
    Ok(first_contact(verifier, alpn))
}

fn first_contact(verifier: PinnedVerifier, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(super::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has suites and groups of TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = super::protocols(alpn);
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

#[derive(Debug)]
struct PinnedVerifier {
    pins: Vec<String>,
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
                verify::parse(c).is_ok_and(|c| {
                    c.is_ca() && self.pins.contains(&crate::key::pin(c.public_key().raw))
                })
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
