//! The authority's file: certificates in the open, private keys under AES-256-GCM.
//!
//! `authority.json` holds root and intermediate together, so that they are replaced together. The
//! key that encrypts the keys is either derived from a passphrase (PBKDF2-HMAC-SHA256), or random
//! and kept in `authority.key` beside it, mode 0600: that protects a copy of the one file (a
//! backup, a mistaken commit), not against who can read the directory. The certificate and its
//! role are authenticated with each key, so that none can be exchanged.

use std::fmt;
use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::pbkdf2;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::TrustDomain;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::file::{self, FileError};
use crate::key::{self, KeyPair};
use crate::svid::KeyError;
use crate::verify::{VerifyError, parse, rfc3339};

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The directory cannot be made.
    #[error("cannot create the authority's directory {path}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what was written.
    #[error(
        "the certificate authority in {path} is damaged: {problem}; restore it from a backup \
         (moving it away founds a new mesh, which every workload must join again)"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// It belongs to another mesh.
    #[error(
        "the certificate authority in {path} is of trust domain \"{found}\", not \"{wanted}\"; \
         set the trust domain back, or use another data directory"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its trust domain.
        found: String,
        /// The one configured.
        wanted: TrustDomain,
    },
    /// It was written by a later version.
    #[error(
        "the certificate authority in {path} has format {version}, this version of tulle knows 1; use the newer tulle"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its format.
        version: u32,
    },
    /// The key file is gone.
    #[error(
        "the certificate authority in {path} is encrypted with {key}, which is missing; restore that file from a backup"
    )]
    KeyMissing {
        /// The authority's file.
        path: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// It wants a passphrase.
    #[error(
        "the certificate authority in {path} is protected by a passphrase; set TULLE_CA_PASSPHRASE or TULLE_CA_PASSPHRASE_FILE"
    )]
    PassphraseMissing {
        /// The authority's file.
        path: PathBuf,
    },
    /// It has none.
    #[error(
        "a passphrase is set, but the certificate authority in {path} was founded without one; unset TULLE_CA_PASSPHRASE and TULLE_CA_PASSPHRASE_FILE"
    )]
    PassphraseUnexpected {
        /// The authority's file.
        path: PathBuf,
    },
    /// The key or passphrase is another one, or the file was changed.
    #[error("the {role} key of the certificate authority in {path} cannot be decrypted: {hint}")]
    Undecryptable {
        /// The authority's file.
        path: PathBuf,
        /// `root` or `intermediate`.
        role: &'static str,
        /// The likely cause.
        hint: &'static str,
    },
    /// The passphrase cannot be had.
    #[error("TULLE_CA_PASSPHRASE_FILE: cannot read {path}")]
    PassphraseFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The passphrase protects nothing.
    #[error(
        "the passphrase of the certificate authority is empty or no text; set TULLE_CA_PASSPHRASE to at least one word, or unset it"
    )]
    PassphraseEmpty,
    /// The root's time is over.
    #[error("the root certificate expired at {}; move the authority's directory away to found a new one, and check the clock", rfc3339(*.0))]
    RootExpired(SystemTime),
    /// The root cannot be read.
    #[error("the root certificate cannot be read")]
    Root(#[source] VerifyError),
    /// A key could not be made or used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A certificate could not be made.
    #[error("a certificate of the authority could not be made")]
    Encode(#[source] rcgen::Error),
}

/// What protects the authority's keys, instead of a key file.
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// Takes a passphrase; empty ones are refused.
    pub fn new(text: &str) -> Result<Self, CaError> {
        if text.is_empty() {
            return Err(CaError::PassphraseEmpty);
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// From `TULLE_CA_PASSPHRASE`, or the file that `TULLE_CA_PASSPHRASE_FILE` names (without its last
    /// line break).
    pub fn from_env() -> Result<Option<Self>, CaError> {
        if let Some(text) = std::env::var_os("TULLE_CA_PASSPHRASE") {
            let text = text.into_string().map_err(|_| CaError::PassphraseEmpty)?;
            return Self::new(&Zeroizing::new(text)).map(Some);
        }
        let Some(path) = std::env::var_os("TULLE_CA_PASSPHRASE_FILE") else {
            return Ok(None);
        };
        let path = PathBuf::from(path);
        let text = fs::read_to_string(&path)
            .map(Zeroizing::new)
            .map_err(|source| CaError::PassphraseFile { path, source })?;
        Self::new(text.trim_end_matches(['\r', '\n'])).map(Some)
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase")
    }
}

/// The authority, decrypted.
pub(super) struct Material {
    pub(super) root: Vec<u8>,
    pub(super) root_key: KeyPair,
    pub(super) intermediate: Vec<u8>,
    pub(super) intermediate_key: KeyPair,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    trust_domain: String,
    protection: Protection,
    root: Pair,
    intermediate: Pair,
}

/// Where the key that encrypts the keys comes from.
#[derive(Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "lowercase", deny_unknown_fields)]
enum Protection {
    File,
    Passphrase {
        salt: String,
        iterations: NonZeroU32,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    certificate: String,
    nonce: String,
    key: String,
}

const VERSION: u32 = 1;
/// OWASP's advice for PBKDF2-HMAC-SHA256.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(600_000).expect("not zero");
const MAX_ITERATIONS: u32 = 10_000_000;
const ROLES: [&str; 2] = ["root", "intermediate"];

/// The place where the authority is kept.
pub(super) struct Store {
    path: PathBuf,
    key_path: PathBuf,
    domain: TrustDomain,
    passphrase: Option<Passphrase>,
}

impl Store {
    pub(super) fn new(dir: &Path, domain: &TrustDomain, passphrase: Option<Passphrase>) -> Self {
        Self {
            path: dir.join("authority.json"),
            key_path: dir.join("authority.key"),
            domain: domain.clone(),
            passphrase,
        }
    }

    pub(super) fn damaged(&self, problem: impl Into<String>) -> CaError {
        CaError::Damaged {
            path: self.path.clone(),
            problem: problem.into(),
        }
    }

    pub(super) fn vanished(&self) -> CaError {
        self.damaged("it was removed or replaced while in use")
    }

    /// Reads and decrypts; `None` when there is no file.
    pub(super) fn load(&self) -> Result<Option<Material>, CaError> {
        let bytes = match file::read_private(&self.path) {
            Ok(bytes) => bytes,
            Err(e) if e.is_not_found() => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let document: Document =
            serde_json::from_slice(&bytes).map_err(|e| match version_of(&bytes) {
                Some(version) if version != VERSION => self.unknown_version(version),
                _ => self.damaged(e.to_string()),
            })?;
        if document.version != VERSION {
            return Err(self.unknown_version(document.version));
        }
        if document.trust_domain != self.domain.as_str() {
            return Err(CaError::Foreign {
                path: self.path.clone(),
                found: document.trust_domain,
                wanted: self.domain.clone(),
            });
        }
        let sealing = self.sealing_key(&document.protection)?;
        let (root, root_key) = self.unseal(&sealing, ROLES[0], &document.root)?;
        let (intermediate, intermediate_key) =
            self.unseal(&sealing, ROLES[1], &document.intermediate)?;
        Ok(Some(Material {
            root,
            root_key,
            intermediate,
            intermediate_key,
        }))
    }

    /// Writes a new authority. Where another process was quicker, its authority counts.
    pub(super) fn create(&self, material: Material) -> Result<Material, CaError> {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        let directory = |source| CaError::Directory {
            path: dir.to_owned(),
            source,
        };
        fs::create_dir_all(dir).map_err(directory)?;
        let protection = self.new_protection()?;
        let text = self.seal_all(&material, protection)?;
        if file::create_private(&self.path, &text)? {
            return Ok(material);
        }
        self.load()?.ok_or_else(|| self.vanished())
    }

    /// Replaces the authority by a renewed one.
    pub(super) fn replace(&self, material: &Material) -> Result<(), CaError> {
        let protection = self.new_protection()?;
        let text = self.seal_all(material, protection)?;
        Ok(file::replace_private(&self.path, &text)?)
    }

    fn unknown_version(&self, version: u32) -> CaError {
        CaError::Version {
            path: self.path.clone(),
            version,
        }
    }

    fn new_protection(&self) -> Result<Protection, CaError> {
        if self.passphrase.is_some() {
            let mut salt = [0; 16];
            key::random(&mut salt)?;
            return Ok(Protection::Passphrase {
                salt: STANDARD.encode(salt),
                iterations: ITERATIONS,
            });
        }
        let mut secret = Zeroizing::new([0; 32]);
        key::random(secret.as_mut_slice())?;
        let text = Zeroizing::new(STANDARD.encode(*secret));
        // One that is there already (left by a start that was interrupted) is used.
        file::create_private(&self.key_path, text.as_bytes())?;
        Ok(Protection::File)
    }

    fn sealing_key(&self, protection: &Protection) -> Result<RandomizedNonceKey, CaError> {
        let mut secret = Zeroizing::new([0; 32]);
        match (protection, &self.passphrase) {
            (Protection::File, None) => {
                let text = file::read_private(&self.key_path).map_err(|e| {
                    if e.is_not_found() {
                        CaError::KeyMissing {
                            path: self.path.clone(),
                            key: self.key_path.clone(),
                        }
                    } else {
                        e.into()
                    }
                })?;
                let bytes = STANDARD.decode(text.trim_ascii()).map(Zeroizing::new);
                match bytes {
                    Ok(bytes) if bytes.len() == secret.len() => secret.copy_from_slice(&bytes),
                    _ => {
                        return Err(CaError::Damaged {
                            path: self.key_path.clone(),
                            problem: "it is not a base64 text of 32 bytes".to_owned(),
                        });
                    }
                }
            }
            (Protection::Passphrase { salt, iterations }, Some(passphrase)) => {
                if iterations.get() > MAX_ITERATIONS {
                    return Err(self.damaged("its number of iterations is absurd"));
                }
                let salt = self.decode("salt", salt)?;
                pbkdf2::derive(
                    pbkdf2::PBKDF2_HMAC_SHA256,
                    *iterations,
                    &salt,
                    passphrase.0.as_bytes(),
                    secret.as_mut_slice(),
                );
            }
            (Protection::File, Some(_)) => {
                return Err(CaError::PassphraseUnexpected {
                    path: self.path.clone(),
                });
            }
            (Protection::Passphrase { .. }, None) => {
                return Err(CaError::PassphraseMissing {
                    path: self.path.clone(),
                });
            }
        }
        RandomizedNonceKey::new(&AES_256_GCM, secret.as_slice())
            .map_err(|_| self.damaged("the encryption key was refused"))
    }

    fn seal_all(&self, material: &Material, protection: Protection) -> Result<Vec<u8>, CaError> {
        let sealing = self.sealing_key(&protection)?;
        let document = Document {
            version: VERSION,
            trust_domain: self.domain.as_str().to_owned(),
            protection,
            root: self.seal(&sealing, ROLES[0], &material.root, &material.root_key)?,
            intermediate: self.seal(
                &sealing,
                ROLES[1],
                &material.intermediate,
                &material.intermediate_key,
            )?,
        };
        serde_json::to_vec_pretty(&document).map_err(|e| self.damaged(e.to_string()))
    }

    fn seal(
        &self,
        sealing: &RandomizedNonceKey,
        role: &'static str,
        certificate: &[u8],
        key: &KeyPair,
    ) -> Result<Pair, CaError> {
        // Room for the tag, so that no copy of the plain key is left by a reallocation.
        let mut sealed = Zeroizing::new(Vec::with_capacity(key.pkcs8().len() + 64));
        sealed.extend_from_slice(key.pkcs8());
        let nonce = sealing
            .seal_in_place_append_tag(Aad::from(context(role, certificate)), &mut *sealed)
            .map_err(|_| self.damaged("a key could not be encrypted"))?;
        Ok(Pair {
            certificate: STANDARD.encode(certificate),
            nonce: STANDARD.encode(nonce.as_ref()),
            key: STANDARD.encode(&*sealed),
        })
    }

    fn unseal(
        &self,
        sealing: &RandomizedNonceKey,
        role: &'static str,
        pair: &Pair,
    ) -> Result<(Vec<u8>, KeyPair), CaError> {
        let certificate = self.decode("certificate", &pair.certificate)?;
        let nonce: [u8; NONCE_LEN] = self
            .decode("nonce", &pair.nonce)?
            .try_into()
            .map_err(|_| self.damaged(format!("the {role}'s nonce has a wrong length")))?;
        let mut bytes = Zeroizing::new(self.decode("key", &pair.key)?);
        let plain = sealing
            .open_in_place(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(context(role, &certificate)),
                &mut bytes,
            )
            .map_err(|_| CaError::Undecryptable {
                path: self.path.clone(),
                role,
                hint: match self.passphrase {
                    Some(_) => "the passphrase is not the one it was founded with, or the file was changed",
                    None => "authority.key beside it is not the one it was founded with, or the file was changed",
                },
            })?;
        let key = KeyPair::from_pkcs8(Zeroizing::new(plain.to_vec()))
            .map_err(|e| self.damaged(format!("the {role}'s key: {e}")))?;
        let der = CertificateDer::from(certificate.as_slice());
        let parsed = parse(&der).map_err(|e| self.damaged(format!("the {role}: {e}")))?;
        if parsed.public_key().raw != key.spki() {
            return Err(self.damaged(format!("the {role}'s key is not that of its certificate")));
        }
        Ok((certificate, key))
    }

    fn decode(&self, what: &str, text: &str) -> Result<Vec<u8>, CaError> {
        STANDARD
            .decode(text)
            .map_err(|e| self.damaged(format!("{what}: {e}")))
    }
}

fn version_of(bytes: &[u8]) -> Option<u32> {
    let value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    value.get("version")?.as_u64()?.try_into().ok()
}

/// What is authenticated along with a key: its role and certificate.
fn context(role: &str, certificate: &[u8]) -> Vec<u8> {
    let mut context = format!("tulle authority 1 {role} ").into_bytes();
    context.extend_from_slice(certificate);
    context
}
