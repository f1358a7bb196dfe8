//! TLS with the outside, where no SVID is shown: clients of a Gateway, and backends that are no
//! members of the mesh.
//!
//! TLS 1.3 and 1.2, key exchange X25519MLKEM768 before all others. The certificate is chosen by the
//! server name that the client asks for. A configuration is made once for each change; tickets
//! belong to one configuration, so that a session begun under one client policy is never resumed
//! under another.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use model::backend_tls::{BackendTls, Roots, SubjectName};
use model::gateway::{Certificate, ClientValidation, Termination};
use model::tls::{TlsOptions, TlsVersion};
use rustls::SupportedProtocolVersion;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature,
    verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    ServerConfig, SignatureScheme,
};
use x509_parser::extensions::GeneralName;

use crate::verify::parse;

/// Why a listener's TLS cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// A key that cannot be used, or that is of another certificate.
    #[error("a certificate and its key cannot be used together")]
    Key(#[source] Error),
    /// A root certificate that is none.
    #[error("a root certificate cannot be used")]
    Root(#[source] Error),
    /// No root that clients could be verified by.
    #[error("clients' certificates cannot be verified")]
    Clients(#[source] rustls::server::VerifierBuilderError),
    /// Nobody who could vouch for a backend.
    #[error("no root certificate is known that could vouch for the backend")]
    NoRoots,
    /// The versions and suites do not go together.
    #[error("TLS cannot be configured")]
    Config(#[source] Error),
}

/// aws-lc with the groups and suites that the outside speaks, most wanted first.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        use aws_lc_rs::kx_group;
        Arc::new(CryptoProvider {
            kx_groups: vec![
                kx_group::X25519MLKEM768,
                kx_group::X25519,
                kx_group::SECP256R1,
                kx_group::SECP384R1,
            ],
            ..aws_lc_rs::default_provider()
        })
    });
    Arc::clone(&PROVIDER)
}

/// What is spoken of all that is good.
fn narrowed(options: &TlsOptions) -> Arc<CryptoProvider> {
    let all = provider();
    if options.groups.is_empty() && options.suites.is_empty() {
        return all;
    }
    let mut narrowed = CryptoProvider::clone(&all);
    if !options.groups.is_empty() {
        let groups = options.groups.iter().filter_map(|wanted| {
            let of_all = all.kx_groups.iter();
            of_all
                .copied()
                .find(|g| u16::from(g.name()) == wanted.number)
        });
        narrowed.kx_groups = groups.collect();
    }
    if !options.suites.is_empty() {
        narrowed.cipher_suites.retain(|suite| {
            let number = u16::from(suite.suite());
            options.suites.iter().any(|wanted| wanted.number == number)
        });
    }
    Arc::new(narrowed)
}

/// The versions that are spoken; TLS 1.2 only where a suite is left for it.
fn versions(
    options: &TlsOptions,
    provider: &CryptoProvider,
) -> Vec<&'static SupportedProtocolVersion> {
    let has = |version: &SupportedProtocolVersion| {
        let mut suites = provider.cipher_suites.iter();
        suites.any(|suite| suite.version().version == version.version)
    };
    let mut versions = vec![&TLS13];
    if options.min_version == TlsVersion::V1_2 {
        versions.push(&TLS12);
    }
    versions.retain(|version| has(version));
    versions
}

/// How a listener ends TLS. To be kept for as long as the listener is as it is.
pub fn server_config(
    termination: &Termination,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, EdgeError> {
    let provider = narrowed(&termination.options);
    let resolver = Resolver::new(&termination.certificates, &provider)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions(&termination.options, &provider))
        .map_err(EdgeError::Config)?;
    let builder = match &termination.clients {
        None => builder.with_no_client_auth(),
        Some(clients) => builder.with_client_cert_verifier(verifier(clients, provider)?),
    };
    let mut config = builder.with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    // Stateless tickets alone: nothing is kept per client.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(EdgeError::Config)?;
    Ok(Arc::new(config))
}

/// Why a certificate that somebody gave is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The certificate itself.
    #[error("the certificate is damaged, or of no kind that is known")]
    Certificate,
    /// Its key.
    #[error("the key is damaged, or of no kind that is known")]
    Key,
    /// They do not belong together.
    #[error("the key is not that of the certificate")]
    Pair,
}

/// Whether a certificate and its key can be shown to anybody.
pub fn check_certificate(certificate: &Certificate) -> Result<(), Unusable> {
    match certified(certificate, &provider()) {
        Ok(_) => Ok(()),
        Err(EdgeError::Key(Error::InvalidCertificate(_))) => Err(Unusable::Certificate),
        Err(EdgeError::Key(Error::InconsistentKeys(_))) => Err(Unusable::Pair),
        Err(_) => Err(Unusable::Key),
    }
}

/// Whether somebody can be verified by a root certificate.
pub fn check_root(root: &[u8]) -> Result<(), Unusable> {
    let added = RootCertStore::empty().add(CertificateDer::from(root));
    added.map_err(|_| Unusable::Certificate)
}

/// A certificate and its key as PEM, for nobody: what stands where the real ones are not shown.
pub fn stand_in() -> (&'static str, &'static str) {
    static PAIR: LazyLock<(String, String)> = LazyLock::new(|| {
        let made = rcgen::generate_simple_self_signed(["hidden.invalid".to_owned()]);
        // Without randomness there is nothing that reads as a certificate.
        made.map_or_else(
            |_| (String::new(), String::new()),
            |made| (made.cert.pem(), made.signing_key.serialize_pem()),
        )
    });
    (&PAIR.0, &PAIR.1)
}

/// Whether a certificate is the one of [`stand_in`].
pub fn is_stand_in(certificate: &[u8]) -> bool {
    let own = crate::pem::certificates(stand_in().0.as_bytes());
    own.is_ok_and(|own| own.first().is_some_and(|own| own == certificate))
}

/// Chooses a certificate by server name.
#[derive(Debug)]
struct Resolver {
    /// Several for one name: of different kinds of keys.
    exact: HashMap<Box<str>, Vec<Arc<CertifiedKey>>>,
    /// By what follows `*.`; one label stands for the asterisk (RFC 9525 6.3).
    below: HashMap<Box<str>, Vec<Arc<CertifiedKey>>>,
    all: Vec<Arc<CertifiedKey>>,
}

impl Resolver {
    fn new(
        certificates: &[Arc<Certificate>],
        provider: &CryptoProvider,
    ) -> Result<Self, EdgeError> {
        let mut resolver = Self {
            exact: HashMap::new(),
            below: HashMap::new(),
            all: Vec::new(),
        };
        for certificate in certificates {
            let key = Arc::new(certified(certificate, provider)?);
            for name in key.cert.first().map(names).unwrap_or_default() {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(suffix) => (&mut resolver.below, suffix),
                    None => (&mut resolver.exact, name.as_str()),
                };
                map.entry(name.into()).or_default().push(Arc::clone(&key));
            }
            resolver.all.push(key);
        }
        Ok(resolver)
    }

    fn find(&self, name: Option<&str>) -> &[Arc<CertifiedKey>] {
        let Some(name) = name else { return &self.all };
        let name = name.to_ascii_lowercase();
        let below = || self.below.get(name.split_once('.')?.1);
        self.exact
            .get(name.as_str())
            .or_else(below)
            .unwrap_or(&self.all)
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let found = self.find(hello.server_name());
        let usable =
            |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        found.iter().find(usable).or_else(|| found.first()).cloned()
    }
}

fn certified(
    certificate: &Certificate,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, EdgeError> {
    let chain: Vec<_> = certificate
        .chain
        .iter()
        .map(|der| CertificateDer::from(der.clone()))
        .collect();
    let key = PrivateKeyDer::try_from(certificate.key.der().to_vec())
        .map_err(|why| EdgeError::Key(Error::General(why.to_owned())))?;
    CertifiedKey::from_der(chain, key, provider).map_err(EdgeError::Key)
}

fn verifier(
    clients: &ClientValidation,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, EdgeError> {
    let mut roots = RootCertStore::empty();
    for root in &clients.roots {
        roots
            .add(CertificateDer::from(root.as_slice()))
            .map_err(EdgeError::Root)?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let strict = builder.build().map_err(EdgeError::Clients)?;
    Ok(if clients.optional {
        Arc::new(Lenient(strict))
    } else {
        strict
    })
}

/// Takes clients whose certificate cannot be verified all the same, as the user has asked
/// (`AllowInsecureFallback`, GEP-91). Whoever shows a certificate must have its key.
#[derive(Debug)]
struct Lenient(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Lenient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.0
            .verify_client_cert(certificate, intermediates, now)
            .or_else(|_| Ok(ClientCertVerified::assertion()))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// How to connect to backends that are no members of the mesh, with what to show to those that ask
/// for a certificate. To be kept for as long as both are as they are: sessions are resumed within
/// one configuration alone.
pub fn client_config(
    policy: &BackendTls,
    shown: Option<&Certificate>,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, EdgeError> {
    let provider = narrowed(&policy.options);
    let verifier = Backend {
        roots: roots(&policy.roots)?,
        hostname: policy.hostname.clone(),
        names: policy.names.clone(),
        algorithms: provider.signature_verification_algorithms,
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions(&policy.options, &provider))
        .map_err(EdgeError::Config)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some(certificate) => {
            let key = certified(certificate, &provider)?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)))
        }
    };
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    Ok(Arc::new(config))
}

/// Where operating systems keep whom they trust, as one file.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

fn roots(wanted: &Roots) -> Result<RootCertStore, EdgeError> {
    let mut store = RootCertStore::empty();
    match wanted {
        Roots::Certificates(roots) => {
            for root in roots {
                store
                    .add(CertificateDer::from(root.as_slice()))
                    .map_err(EdgeError::Root)?;
            }
        }
        Roots::System => {
            let text = SYSTEM_ROOTS
                .iter()
                .find_map(|path| std::fs::read(path).ok());
            let found = crate::pem::certificates(&text.unwrap_or_default()).unwrap_or_default();
            // Some that are trusted are of kinds that rustls does not take.
            store.add_parsable_certificates(found.into_iter().map(CertificateDer::from));
        }
    }
    if store.is_empty() {
        return Err(EdgeError::NoRoots);
    }
    Ok(store)
}

/// Verifies a backend: its chain, and that it has one of the expected names (`subjectAltNames`), or
/// without any the host name.
#[derive(Debug)]
struct Backend {
    roots: RootCertStore,
    hostname: String,
    names: Vec<SubjectName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Backend {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        if self.names.is_empty() {
            let name = ServerName::try_from(self.hostname.as_str())
                .map_err(|_| Error::InvalidCertificate(CertificateError::NotValidForName))?;
            verify_server_name(&parsed, &name)?;
        } else if !self.names.iter().any(|name| has_name(certificate, name)) {
            return Err(Error::InvalidCertificate(CertificateError::NotValidForName));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Whether a certificate has a name. A wildcard that is expected is one in the certificate; one in
/// the certificate stands for one label of an expected host.
fn has_name(certificate: &CertificateDer<'_>, wanted: &SubjectName) -> bool {
    match wanted {
        SubjectName::Uri(uri) => uris(certificate).contains(uri),
        SubjectName::Dns(host) => {
            let host = host.to_string();
            names(certificate).iter().any(|name| {
                let wild = name.strip_prefix("*.");
                *name == host || (wild.is_some() && wild == host.split_once('.').map(|(_, s)| s))
            })
        }
    }
}

fn uris(certificate: &CertificateDer<'_>) -> Vec<String> {
    alternative_names(certificate, |name| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    })
}

/// The DNS names of a certificate, lower case.
fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    alternative_names(certificate, |name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    })
}

fn alternative_names(
    certificate: &CertificateDer<'_>,
    take: impl Fn(&GeneralName<'_>) -> Option<String>,
) -> Vec<String> {
    let Ok(certificate) = parse(certificate) else {
        return Vec::new();
    };
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    names.value.general_names.iter().filter_map(take).collect()
}

#[cfg(test)]
mod tests {
    use model::gateway::PrivateKey;

    use super::*;

    fn certificate(names: &[&str]) -> Arc<Certificate> {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).expect("made");
        Arc::new(Certificate {
            chain: vec![made.cert.der().to_vec()],
            key: PrivateKey::from_der(made.signing_key.serialize_der()),
        })
    }

    #[test]
    fn the_certificate_is_the_one_for_the_server_name() {
        let [a, b, wild] = [["a.com"], ["b.com"], ["*.b.com"]].map(|names| certificate(&names));
        let all = [Arc::clone(&a), Arc::clone(&b), Arc::clone(&wild)];
        let resolver = Resolver::new(&all, &provider()).expect("usable");
        for (name, want) in [
            (Some("a.com"), &a),
            (Some("B.com"), &b),
            (Some("x.b.com"), &wild),
            (Some("x.y.b.com"), &a),
            (Some("other.com"), &a),
            (None, &a),
        ] {
            let found = resolver.find(name).first().expect("one");
            assert_eq!(found.cert[0].as_ref(), want.chain[0].as_slice(), "{name:?}");
        }
    }

    #[test]
    fn a_backend_has_one_of_the_expected_names() {
        let der = certificate(&["*.b.com", "a.com"]).chain[0].clone();
        let der = CertificateDer::from(der);
        for (name, has) in [
            ("a.com", true),
            ("x.b.com", true),
            ("*.b.com", true),
            ("b.com", false),
            ("x.y.b.com", false),
            ("*.a.com", false),
        ] {
            let wanted = SubjectName::Dns(name.parse().expect("valid"));
            assert_eq!(has_name(&der, &wanted), has, "{name}");
        }
        assert!(!has_name(
            &der,
            &SubjectName::Uri("https://a.com".to_owned())
        ));
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let (a, b) = (certificate(&["a.com"]), certificate(&["b.com"]));
        let mixed = Arc::new(Certificate {
            chain: a.chain.clone(),
            key: b.key.clone(),
        });
        let termination = Termination {
            certificates: vec![mixed],
            clients: None,
            options: TlsOptions::default(),
        };
        assert!(matches!(
            server_config(&termination, &[b"h2"]),
            Err(EdgeError::Key(_))
        ));
    }
}
