//! The SPIFFE rules as rustls asks for them, and the SVID as rustls wants it.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme,
};

use super::{ClientAuth, Shared};
use crate::verify::{self, Expected, PeerRole, VerifyError};

/// Checks peers against the trust of the moment.
#[derive(Debug)]
pub(super) struct Verifier {
    shared: Arc<Shared>,
    expected: Option<Expected>,
    mandatory: bool,
}

impl Verifier {
    /// Any identity of any trusted domain: what it may do is decided later, by policy.
    pub(super) fn of_clients(shared: &Arc<Shared>, clients: ClientAuth) -> Self {
        Self {
            shared: Arc::clone(shared),
            expected: None,
            mandatory: clients == ClientAuth::Required,
        }
    }

    pub(super) fn of_servers(shared: &Arc<Shared>, expected: Expected) -> Self {
        Self {
            shared: Arc::clone(shared),
            expected: Some(expected),
            mandatory: true,
        }
    }

    fn verify(
        &self,
        first: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        role: PeerRole,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let check = || {
            let anchors = self.shared.anchors.load();
            let id = verify::chain(first, rest, &anchors, role, system_time(now))?;
            match &self.expected {
                Some(expected) => {
                    verify::check_expected(&id, expected, self.shared.svid.load().id())
                }
                None => Ok(()),
            }
        };
        check().map_err(into_rustls)
    }
}

pub(super) fn system_time(time: UnixTime) -> SystemTime {
    verify::system_time(i64::try_from(time.as_secs()).unwrap_or(i64::MAX))
}

/// Times become rustls' own errors, so that the peer receives the alert `certificate_expired`.
pub(super) fn into_rustls(error: VerifyError) -> rustls::Error {
    let unix = |t| UnixTime::since_unix_epoch(verify::since_epoch(t));
    rustls::Error::InvalidCertificate(match error {
        VerifyError::Expired { not_after, now } => CertificateError::ExpiredContext {
            time: unix(now),
            not_after: unix(not_after),
        },
        VerifyError::NotYetValid { not_before, now } => CertificateError::NotValidYetContext {
            time: unix(now),
            not_before: unix(not_before),
        },
        error => CertificateError::Other(OtherError(Arc::new(error))),
    })
}

pub(super) fn verify_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    let algorithms = &super::provider().signature_verification_algorithms;
    rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
}

pub(super) fn schemes() -> Vec<SignatureScheme> {
    super::provider()
        .signature_verification_algorithms
        .supported_schemes()
}

/// Configurations of this module never offer TLS 1.2.
pub(super) fn no_tls12() -> rustls::Error {
    rustls::Error::General("TLS 1.2 was negotiated though it was not offered".to_owned())
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        // The name is a routing hint (SNI); who the server is stands in its SVID.
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, PeerRole::Server, now)?;
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

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, PeerRole::Client, now)?;
        Ok(ClientCertVerified::assertion())
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

/// Shows the SVID of the moment.
#[derive(Debug)]
pub(super) struct Resolver(pub(super) Arc<Shared>);

impl Resolver {
    fn current(&self) -> Arc<CertifiedKey> {
        Arc::clone(self.0.svid.load().certified())
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl ResolvesClientCert for Resolver {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
