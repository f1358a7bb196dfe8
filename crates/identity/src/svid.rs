//! An X.509-SVID with its private key, and a key that waits for its certificate.
//!
//! A proxy makes its own key ([`PendingKey`]), has the certificate signed by the control plane and
//! keeps both in one file, so that it can start again while the control plane is away. The private
//! key never leaves the process and that file (mode 0600, replaced atomically).

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use model::SpiffeId;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

pub use crate::file::FileError;
pub use crate::key::KeyError;
use crate::key::KeyPair;
use crate::verify::{Leaf, VerifyError};
use crate::{pem, verify};

/// Why there is no SVID.
#[derive(Debug, thiserror::Error)]
pub enum SvidError {
    /// The key cannot be made or used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The request for a certificate cannot be made.
    #[error("cannot make a certificate request")]
    Request(#[source] rcgen::Error),
    /// The certificate is no X.509-SVID.
    #[error("the certificate is not usable")]
    Certificate(#[source] VerifyError),
    /// The certificate is for another key.
    #[error("the certificate of {0} belongs to another private key")]
    KeyMismatch(SpiffeId),
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file's content is no certificate chain with a key.
    #[error(
        "{path} does not hold a certificate chain and its key: {problem}; \
         remove it and the workload will ask for a new identity"
    )]
    Damaged {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// A key pair that waits for its certificate.
pub struct PendingKey(KeyPair);

impl PendingKey {
    /// Makes an ECDSA P-256 key.
    pub fn generate() -> Result<Self, SvidError> {
        Ok(Self(KeyPair::generate()?))
    }

    /// DER of the certificate signing request. It proves possession of the key and asks for
    /// nothing: who the caller is, the authority knows better.
    pub fn csr_der(&self) -> Result<Vec<u8>, SvidError> {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let request = params
            .serialize_request(&self.0)
            .map_err(SvidError::Request)?;
        Ok(request.der().to_vec())
    }

    #[cfg(test)]
    pub(crate) fn spki(&self) -> Vec<u8> {
        self.0.spki()
    }

    /// Joins the key with its certificate chain (DER, leaf first).
    ///
    /// That the chain leads to a trusted root is for the peers to check.
    pub fn into_svid(self, chain: Vec<Vec<u8>>) -> Result<Svid, SvidError> {
        Svid::new(self.0, chain)
    }
}

impl fmt::Debug for PendingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PendingKey")
    }
}

/// An identity that can be proved: certificate chain and private key.
pub struct Svid {
    leaf: Leaf,
    key: KeyPair,
    certified: Arc<CertifiedKey>,
}

impl Svid {
    pub(crate) fn new(key: KeyPair, chain: Vec<Vec<u8>>) -> Result<Self, SvidError> {
        let chain: Vec<_> = chain.into_iter().map(CertificateDer::from).collect();
        let first = chain
            .first()
            .ok_or(SvidError::Certificate(VerifyError::NoCertificate))?;
        let leaf = verify::leaf(first).map_err(SvidError::Certificate)?;
        if leaf.spki != key.spki() {
            return Err(SvidError::KeyMismatch(leaf.id));
        }
        let certified = Arc::new(CertifiedKey::new(chain, key.rustls()?));
        Ok(Self {
            leaf,
            key,
            certified,
        })
    }

    /// An identity that nobody vouches for: for a process that belongs to no mesh, whose peers must
    /// not trust it.
    pub fn self_signed(id: &SpiffeId) -> Result<Self, SvidError> {
        let key = KeyPair::generate()?;
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let uri = id.as_str().try_into().map_err(SvidError::Request)?;
        params.subject_alt_names = vec![rcgen::SanType::URI(uri)];
        params.is_ca = rcgen::IsCa::ExplicitNoCa;
        params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key).map_err(SvidError::Request)?;
        Self::new(key, vec![certificate.der().to_vec()])
    }

    /// Whose identity it is.
    pub fn id(&self) -> &SpiffeId {
        &self.leaf.id
    }

    /// Valid from here.
    pub fn not_before(&self) -> SystemTime {
        self.leaf.not_before
    }

    /// Valid until here.
    pub fn not_after(&self) -> SystemTime {
        self.leaf.not_after
    }

    /// The chain in DER, leaf first.
    pub fn chain_der(&self) -> Vec<Vec<u8>> {
        self.certified.cert.iter().map(|c| c.to_vec()).collect()
    }

    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }

    /// When to ask for the next one: two thirds of its life, moved by up to a tenth of it either
    /// way. `random` from 0 to 1 chooses where, so that a mesh started at once does not renew at
    /// once.
    pub fn renew_at(&self, random: f64) -> SystemTime {
        let life = self
            .not_after()
            .duration_since(self.not_before())
            .unwrap_or(Duration::ZERO);
        let random = if random.is_finite() {
            random.clamp(0.0, 1.0)
        } else {
            0.5
        };
        self.not_before() + life.mul_f64(2.0 / 3.0 + (random - 0.5) * 0.2)
    }

    /// Writes chain and key into one file that only its owner can read, replacing it atomically.
    pub fn save(&self, path: &Path) -> Result<(), SvidError> {
        let chain = &self.certified.cert;
        let room = chain
            .iter()
            .map(|c| pem::encoded_len(c.len()))
            .sum::<usize>()
            + pem::encoded_len(self.key.pkcs8().len());
        let mut text = Zeroizing::new(String::with_capacity(room));
        for certificate in chain {
            pem::encode_into(&mut text, "CERTIFICATE", certificate);
        }
        pem::encode_into(&mut text, "PRIVATE KEY", self.key.pkcs8());
        Ok(crate::file::replace_private(path, text.as_bytes())?)
    }

    /// Reads what [`save`](Self::save) wrote. It may have expired: see [`not_after`](Self::not_after).
    pub fn load(path: &Path) -> Result<Self, SvidError> {
        let damaged = |problem| SvidError::Damaged {
            path: path.to_owned(),
            problem,
        };
        let text = crate::file::read_private(path)?;
        let chain = pem::certificates(&text).map_err(damaged)?;
        let key = pem::pkcs8(&text).map_err(damaged)?;
        let key = KeyPair::from_pkcs8(key).map_err(|e| damaged(e.to_string()))?;
        Self::new(key, chain).map_err(|e| match e {
            SvidError::Certificate(source) => damaged(source.to_string()),
            e => damaged(e.to_string()),
        })
    }
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid")
            .field("id", self.id())
            .field("not_after", &self.not_after())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_self_signed_identity_names_itself() {
        let id: SpiffeId = "spiffe://mesh.local/ns/a/sa/b".parse().expect("valid");
        let svid = Svid::self_signed(&id).expect("signed");
        assert_eq!(*svid.id(), id);
    }
}
