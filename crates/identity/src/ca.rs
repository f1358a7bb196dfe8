//! The embedded certificate authority: a root that only ever signs an intermediate, and the
//! intermediate that signs workloads.
//!
//! Both are kept in one file of the data directory, their private keys encrypted (see
//! [`Passphrase`]). A file that is damaged, of another trust domain or not to be opened is an error
//! and stays as it is: a new root would cut every workload off, so only a person may decide it.
//!
//! What a certificate says is decided here. Of a signing request only the public key is used, and
//! the signature that proves possession of it.

mod store;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use model::mesh::TrustBundle;
use model::{SpiffeId, TrustDomain, session};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::key::{self, KeyPair};
use crate::svid::{KeyError, Svid, SvidError};
use crate::verify::{rfc3339, since_epoch, system_time};

pub use self::store::{CaError, Passphrase};
use self::store::{Material, Store};

/// Life of an SVID unless asked otherwise.
pub const DEFAULT_TTL: Duration = Duration::from_hours(1);
/// Longest life of an SVID.
pub const MAX_TTL: Duration = Duration::from_hours(24);

/// Validity begins this much before now, for clocks that are behind; less for SVIDs shorter than
/// [`DEFAULT_TTL`], in proportion.
const BACKDATE: Duration = Duration::from_mins(5);
const DAY: Duration = Duration::from_hours(24);
const ROOT_LIFE: Duration = Duration::from_hours(3652 * 24);
const INTERMEDIATE_LIFE: Duration = Duration::from_hours(365 * 24);

/// Largest signing request looked at; a P-384 request has about 400 bytes.
const MAX_CSR: usize = 16 * 1024;

/// Why a request was not signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The bytes are no PKCS#10 request.
    #[error("the certificate signing request cannot be read: {0}")]
    Malformed(String),
    /// Whoever asks does not have the private key.
    #[error("the certificate signing request is not signed by its own key")]
    NotSignedByItsKey,
    /// A kind of key that is not accepted.
    #[error(
        "the certificate signing request has a key of a kind that is not accepted: use ECDSA P-256 or P-384"
    )]
    KeyKind,
    /// An identity of another trust domain.
    #[error("{id} is not of trust domain \"{domain}\": this authority cannot speak for others")]
    ForeignId {
        /// The identity wanted.
        id: SpiffeId,
        /// The authority's own domain.
        domain: TrustDomain,
    },
    /// The intermediate certificate's time is over.
    #[error(
        "the authority's intermediate certificate expired at {}: restart the control plane, which renews it, and check the clock",
        rfc3339(*.0)
    )]
    AuthorityExpired(SystemTime),
    /// A key could not be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The certificate could not be encoded or signed.
    #[error("the certificate could not be made")]
    Encode(#[source] rcgen::Error),
    /// The new certificate is not what it should be.
    #[error("the new certificate is not usable")]
    Svid(#[source] Box<SvidError>),
}

/// The mesh's certificate authority. Signing takes no lock.
pub struct Authority {
    domain: TrustDomain,
    root: Vec<u8>,
    root_pin: String,
    store: Mutex<Store>,
    intermediate: ArcSwap<Intermediate>,
}

struct Intermediate {
    der: Vec<u8>,
    not_before: SystemTime,
    not_after: SystemTime,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Opens the authority of a directory, or founds one where there is none.
    ///
    /// The passphrase comes from `TULLE_CA_PASSPHRASE` or the file that `TULLE_CA_PASSPHRASE_FILE`
    /// names; with neither, the keys are encrypted with a key kept in a file beside them. Blocks
    /// for about a tenth of a second when there is a passphrase.
    pub fn load_or_create(
        dir: &Path,
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<Self, CaError> {
        Self::open(dir, trust_domain, Passphrase::from_env()?, now)
    }

    /// As [`load_or_create`](Self::load_or_create), with the passphrase given.
    pub fn open(
        dir: &Path,
        trust_domain: &TrustDomain,
        passphrase: Option<Passphrase>,
        now: SystemTime,
    ) -> Result<Self, CaError> {
        let store = Store::new(dir, trust_domain, passphrase);
        let material = match store.load()? {
            Some(material) => material,
            None => store.create(found(trust_domain, now)?)?,
        };
        let intermediate = Intermediate::from_material(&material, &store)?;
        let authority = Self {
            domain: trust_domain.clone(),
            root_pin: key::pin(&material.root_key.spki()),
            root: material.root,
            store: Mutex::new(store),
            intermediate: ArcSwap::from_pointee(intermediate),
        };
        authority.renew_if_due(now)?;
        Ok(authority)
    }

    /// The trust domain it speaks for.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// Its root, as proxies need it.
    pub fn trust_bundle(&self) -> TrustBundle {
        TrustBundle {
            roots: [(self.domain.clone(), vec![self.root.clone()])].into(),
        }
    }

    /// The root certificate in DER.
    pub fn root_der(&self) -> &[u8] {
        &self.root
    }

    /// The root's pin, for join tokens: base64url of the SHA-256 of its public key.
    pub fn root_pin(&self) -> String {
        self.root_pin.clone()
    }

    /// The key for tokens of sessions. It follows from the root's key, so that it is the same after
    /// a restart and in every control plane with this authority; the root's does not follow from it.
    pub fn session_key(&self) -> Result<session::Key, CaError> {
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        let material = store.load()?.ok_or_else(|| store.vanished())?;
        let root = hmac::Key::new(hmac::HMAC_SHA256, material.root_key.pkcs8());
        let tag = hmac::sign(&root, b"tulle.dev/session/v1");
        let mut key = [0; session::Key::LENGTH];
        key.copy_from_slice(tag.as_ref());
        Ok(session::Key::new(key))
    }

    /// When the intermediate in use expires.
    pub fn intermediate_not_after(&self) -> SystemTime {
        self.intermediate.load().not_after
    }

    /// Renews the intermediate when less than a third of its life is left; `true` when it did.
    ///
    /// Certificates signed by the old one stay good: they carry it with them. Call it once a day.
    pub fn renew_if_due(&self, now: SystemTime) -> Result<bool, CaError> {
        if !self.intermediate.load().is_due(now) {
            return Ok(false);
        }
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.intermediate.load().is_due(now) {
            return Ok(false);
        }
        let mut material = store.load()?.ok_or_else(|| store.vanished())?;
        if material.root != self.root {
            return Err(store.vanished());
        }
        let (der, key) = intermediate(&self.domain, &material.root, &material.root_key, now)?;
        material.intermediate = der;
        material.intermediate_key = key;
        store.replace(&material)?;
        let renewed = Intermediate::from_material(&material, &store)?;
        self.intermediate.store(Arc::new(renewed));
        Ok(true)
    }

    /// Signs a workload's certificate: chain in DER, leaf and intermediate.
    ///
    /// The certificate says `id` and nothing that the request asks for. `ttl` zero means
    /// [`DEFAULT_TTL`]; more than [`MAX_TTL`], or than the authority itself has left, is cut.
    pub fn sign(
        &self,
        csr_der: &[u8],
        id: &SpiffeId,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Vec<Vec<u8>>, SignError> {
        let key = requested_key(csr_der)?;
        self.certify(&key, id, ttl, now)
    }

    /// Makes a key and its certificate at once, for the control plane itself. The chain ends with the
    /// root, which a newcomer who has only its pin needs to see.
    pub fn issue(&self, id: &SpiffeId, ttl: Duration, now: SystemTime) -> Result<Svid, SignError> {
        let key = KeyPair::generate()?;
        let mut chain = self.certify(&key, id, ttl, now)?;
        chain.push(self.root.clone());
        Svid::new(key, chain).map_err(|e| SignError::Svid(Box::new(e)))
    }

    fn certify(
        &self,
        key: &impl PublicKeyData,
        id: &SpiffeId,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Vec<Vec<u8>>, SignError> {
        if id.trust_domain() != self.domain.as_str() {
            return Err(SignError::ForeignId {
                id: id.clone(),
                domain: self.domain.clone(),
            });
        }
        let ttl = match ttl {
            Duration::ZERO => DEFAULT_TTL,
            ttl => ttl.clamp(Duration::from_secs(1), MAX_TTL),
        };
        let intermediate = self.intermediate.load();
        if now >= intermediate.not_after {
            return Err(SignError::AuthorityExpired(intermediate.not_after));
        }
        let backdate = BACKDATE.min(ttl / 12);
        let mut params = CertificateParams::default();
        params.not_before = date((now - backdate).max(intermediate.not_before));
        params.not_after = date((now + ttl).min(intermediate.not_after));
        params.serial_number = Some(serial()?);
        params.distinguished_name = name(None);
        params.subject_alt_names = vec![uri(id.as_str()).map_err(SignError::Encode)?];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        let leaf = params
            .signed_by(key, &intermediate.issuer)
            .map_err(SignError::Encode)?;
        Ok(vec![leaf.der().to_vec(), intermediate.der.clone()])
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("domain", &self.domain)
            .field("root_pin", &self.root_pin)
            .finish_non_exhaustive()
    }
}

impl Intermediate {
    fn from_material(material: &Material, store: &Store) -> Result<Self, CaError> {
        let key = KeyPair::from_pkcs8(material.intermediate_key.pkcs8().to_vec().into())?;
        let der = CertificateDer::from(material.intermediate.as_slice());
        let damaged = |e: String| store.damaged(format!("its intermediate certificate: {e}"));
        let certificate = crate::verify::parse(&der).map_err(|e| damaged(e.to_string()))?;
        let validity = certificate.validity();
        Ok(Self {
            not_before: system_time(validity.not_before.timestamp()),
            not_after: system_time(validity.not_after.timestamp()),
            issuer: Issuer::from_ca_cert_der(&der, key).map_err(|e| damaged(e.to_string()))?,
            der: material.intermediate.clone(),
        })
    }

    fn is_due(&self, now: SystemTime) -> bool {
        let life = self
            .not_after
            .duration_since(self.not_before)
            .unwrap_or(Duration::ZERO);
        now + life / 3 >= self.not_after
    }
}

/// Checks a request and gives its public key.
fn requested_key(csr_der: &[u8]) -> Result<SubjectPublicKeyInfo, SignError> {
    if csr_der.len() > MAX_CSR {
        return Err(SignError::Malformed(format!(
            "it has {} bytes, at most {MAX_CSR} are looked at",
            csr_der.len()
        )));
    }
    let csr = match X509CertificationRequest::from_der(csr_der) {
        Ok(([], csr)) => csr,
        Ok(_) => return Err(SignError::Malformed("bytes follow it".to_owned())),
        Err(e) => return Err(SignError::Malformed(e.to_string())),
    };
    let spki = &csr.certification_request_info.subject_pki;
    let key = SubjectPublicKeyInfo::from_der(spki.raw).map_err(|_| SignError::KeyKind)?;
    let accepted = [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
    ];
    if !accepted.contains(&key.algorithm()) {
        return Err(SignError::KeyKind);
    }
    csr.verify_signature()
        .map_err(|_| SignError::NotSignedByItsKey)?;
    Ok(key)
}

/// A new root with its first intermediate.
fn found(domain: &TrustDomain, now: SystemTime) -> Result<Material, CaError> {
    let root_key = KeyPair::generate()?;
    let mut params = authority_params(domain, "root", BasicConstraints::Constrained(1))?;
    // A day, because nothing can be repaired later about a root that is not valid yet.
    params.not_before = date(now - DAY);
    params.not_after = date(now + ROOT_LIFE);
    let root = params.self_signed(&root_key).map_err(CaError::Encode)?;
    let root = root.der().to_vec();
    let (intermediate, intermediate_key) = intermediate(domain, &root, &root_key, now)?;
    Ok(Material {
        root,
        root_key,
        intermediate,
        intermediate_key,
    })
}

fn intermediate(
    domain: &TrustDomain,
    root: &[u8],
    root_key: &KeyPair,
    now: SystemTime,
) -> Result<(Vec<u8>, KeyPair), CaError> {
    let root = CertificateDer::from(root);
    let root_end = crate::verify::parse(&root)
        .map(|c| system_time(c.validity().not_after.timestamp()))
        .map_err(CaError::Root)?;
    if now >= root_end {
        return Err(CaError::RootExpired(root_end));
    }
    let key = KeyPair::generate()?;
    let mut params = authority_params(domain, "intermediate", BasicConstraints::Constrained(0))?;
    params.not_before = date(now - DAY);
    params.not_after = date((now + INTERMEDIATE_LIFE).min(root_end));
    let issuer = Issuer::from_ca_cert_der(&root, root_key).map_err(CaError::Encode)?;
    let certificate = params.signed_by(&key, &issuer).map_err(CaError::Encode)?;
    Ok((certificate.der().to_vec(), key))
}

fn authority_params(
    domain: &TrustDomain,
    role: &str,
    constraints: BasicConstraints,
) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    params.serial_number = Some(serial()?);
    params.distinguished_name = name(Some(format!("Tulle {role} of {domain}")));
    // X.509-SVID 3.1: a signing certificate names its trust domain.
    params.subject_alt_names = vec![uri(&format!("spiffe://{domain}")).map_err(CaError::Encode)?];
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn name(common: Option<String>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Tulle");
    if let Some(common) = common {
        name.push(DnType::CommonName, common);
    }
    name
}

fn uri(text: &str) -> Result<SanType, rcgen::Error> {
    Ok(SanType::URI(text.try_into()?))
}

/// RFC 5280 4.1.2.2: positive, at most 20 bytes; 127 random bits here.
fn serial() -> Result<SerialNumber, KeyError> {
    let mut bytes = [0; 16];
    key::random(&mut bytes)?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// Whole seconds, as certificates have them; the year 9999 at most.
fn date(time: SystemTime) -> OffsetDateTime {
    let seconds = since_epoch(time).as_secs().min(253_402_300_799) as i64;
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests;
