//! Certificates as attackers, other meshes and slow clocks make them.
//!
//! A [`Forge`] is an authority that signs whatever it is told, well-formed or not; its identities can
//! be put to work as a TLS client or server that believes everybody. Genuine certificates, also
//! expired ones, come from `identity::ca::Authority::issue` with another `now`.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use model::TrustDomain;
use model::mesh::TrustBundle;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName as Subject, ServerConfig};
use rustls::{Error, SignatureScheme, SupportedProtocolVersion};

/// Half an hour ago until in half an hour.
pub fn around_now() -> (SystemTime, SystemTime) {
    let half_hour = Duration::from_mins(30);
    let now = SystemTime::now();
    (now - half_hour, now + half_hour)
}

/// An authority with a root and one intermediate that signs whatever it is told.
pub struct Forge {
    domain: TrustDomain,
    root: CertificateDer<'static>,
    intermediate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Forge {
    /// Founds an authority for a trust domain.
    pub fn new(domain: &str) -> Self {
        let day = Duration::from_hours(24);
        let valid = (SystemTime::now() - 30 * day, SystemTime::now() + 30 * day);
        Self::with_intermediate(domain, valid, &[KeyUsagePurpose::KeyCertSign])
    }

    /// As [`new`](Self::new), with an intermediate of these dates and usages.
    pub fn with_intermediate(
        domain: &str,
        (from, until): (SystemTime, SystemTime),
        usages: &[KeyUsagePurpose],
    ) -> Self {
        let year = Duration::from_hours(365 * 24);
        let mut params = authority("forged root");
        params.not_before = (SystemTime::now() - year).into();
        params.not_after = (SystemTime::now() + year).into();
        let root_key = KeyPair::generate().expect("randomness");
        let root = params.self_signed(&root_key).expect("valid parameters");
        let root_issuer = Issuer::new(params, root_key);

        let mut params = authority("forged intermediate");
        params.not_before = from.into();
        params.not_after = until.into();
        params.key_usages = usages.to_vec();
        let key = KeyPair::generate().expect("randomness");
        let intermediate = params
            .signed_by(&key, &root_issuer)
            .expect("valid parameters");
        Self {
            domain: TrustDomain::new(domain).expect("a trust domain"),
            root: root.der().clone(),
            intermediate: intermediate.der().clone(),
            issuer: Issuer::new(params, key),
        }
    }

    /// Its root, as whoever trusts it has it.
    pub fn trust_bundle(&self) -> TrustBundle {
        TrustBundle {
            roots: [(self.domain.clone(), vec![self.root.to_vec()])].into(),
        }
    }

    /// Its root in DER.
    pub fn root_der(&self) -> &[u8] {
        &self.root
    }

    /// A well-formed certificate of this identity, valid [around now](around_now).
    pub fn svid(&self, uri: &str) -> Forged {
        self.sign(&Leaf::of(uri))
    }

    /// Any certificate.
    pub fn sign(&self, leaf: &Leaf) -> Forged {
        let key = KeyPair::generate().expect("randomness");
        let certificate = leaf
            .params
            .signed_by(&key, &self.issuer)
            .expect("parameters that can be encoded");
        Forged {
            chain: vec![certificate.der().clone(), self.intermediate.clone()],
            key: key.serialize_der(),
        }
    }
}

impl fmt::Debug for Forge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Forge").field(&self.domain).finish()
    }
}

/// What a certificate should say: a proper X.509-SVID, until told otherwise.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// Everything, for what has no method here.
    pub params: CertificateParams,
}

impl Leaf {
    /// A proper X.509-SVID, valid [around now](around_now).
    pub fn of(uri: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let leaf = Self { params }.uri(uri);
        let (from, until) = around_now();
        leaf.valid(from, until)
    }

    /// One more URI name.
    pub fn uri(mut self, uri: &str) -> Self {
        let name = SanType::URI(uri.try_into().expect("ASCII"));
        self.params.subject_alt_names.push(name);
        self
    }

    /// One more DNS name.
    pub fn dns(mut self, name: &str) -> Self {
        let name = SanType::DnsName(name.try_into().expect("ASCII"));
        self.params.subject_alt_names.push(name);
        self
    }

    /// No names at all.
    pub fn nameless(mut self) -> Self {
        self.params.subject_alt_names.clear();
        self
    }

    /// Other dates.
    pub fn valid(mut self, from: SystemTime, until: SystemTime) -> Self {
        self.params.not_before = from.into();
        self.params.not_after = until.into();
        self
    }

    /// The certificate of an authority.
    pub fn authority(mut self) -> Self {
        self.params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        self
    }

    /// Other key usages.
    pub fn key_usages(mut self, usages: &[KeyUsagePurpose]) -> Self {
        self.params.key_usages = usages.to_vec();
        self
    }

    /// Other extended key usages.
    pub fn extended_key_usages(mut self, usages: &[ExtendedKeyUsagePurpose]) -> Self {
        self.params.extended_key_usages = usages.to_vec();
        self
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, name.to_owned());
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

/// A forged identity with its key.
#[derive(Clone)]
pub struct Forged {
    /// Leaf first. Change it at will.
    pub chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
}

impl Forged {
    /// Takes certificate chain and private key out of a file that `identity::svid::Svid::save` wrote,
    /// for instance to steal an identity.
    pub fn from_pem(text: &[u8]) -> Self {
        use rustls::pki_types::pem::PemObject;
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from_pem_slice(text).expect("a key");
        Self {
            chain: CertificateDer::pem_slice_iter(text)
                .collect::<Result<_, _>>()
                .expect("certificates"),
            key: key.secret_pkcs8_der().to_vec(),
        }
    }

    /// The key in PKCS#8.
    pub fn key_der(&self) -> &[u8] {
        &self.key
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone().into())
    }

    /// A TLS client that shows this identity and believes every server.
    pub fn client_config(&self, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        let mut config = ClientConfig::builder_with_provider(identity::tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider speaks TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Credulous))
            .with_client_auth_cert(self.chain.clone(), self.private_key())
            .expect("the key belongs to the certificate");
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        Arc::new(config)
    }

    /// A TLS server that shows this identity and believes every client.
    pub fn server_config(&self, alpn: &[&[u8]]) -> Arc<ServerConfig> {
        let mut config = ServerConfig::builder_with_provider(identity::tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider speaks TLS 1.3")
            .with_client_cert_verifier(Arc::new(Credulous))
            .with_single_cert(self.chain.clone(), self.private_key())
            .expect("the key belongs to the certificate");
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        Arc::new(config)
    }
}

impl fmt::Debug for Forged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Forged")
    }
}

/// A TLS client without a certificate that believes every server.
pub fn anonymous_client_config(alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let provider = identity::tls::provider();
    let mut config = credulous_client(provider, &rustls::version::TLS13);
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    Arc::new(config)
}

/// The same for a client that speaks one version and knows one group (IANA's number).
pub fn narrow_client_config(
    version: &'static SupportedProtocolVersion,
    group: u16,
) -> Arc<ClientConfig> {
    let mut provider = CryptoProvider::clone(&identity::edge::provider());
    provider
        .kx_groups
        .retain(|one| u16::from(one.name()) == group);
    Arc::new(credulous_client(Arc::new(provider), version))
}

fn credulous_client(
    provider: Arc<CryptoProvider>,
    version: &'static SupportedProtocolVersion,
) -> ClientConfig {
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .expect("the provider speaks it")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous))
        .with_no_client_auth()
}

/// Believes every certificate, though not a wrong signature.
#[derive(Debug)]
struct Credulous;

impl Credulous {
    fn signature(
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let provider = identity::tls::provider();
        let algorithms = &provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn schemes() -> Vec<SignatureScheme> {
        identity::tls::provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let provider = identity::edge::provider();
        let algorithms = &provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Self::schemes()
    }
}

impl ClientCertVerifier for Credulous {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[Subject] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("only TLS 1.3 is offered".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Self::schemes()
    }
}
