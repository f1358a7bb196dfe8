//! Is this certificate chain an X.509-SVID, genuine, of now, and of the one expected?
//!
//! The shape of leaf and signing certificates follows the SPIFFE X.509-SVID specification
//! (sections 2 to 4); the chain is built and checked by rustls-webpki (RFC 5280) against the roots
//! of the peer's own trust domain and no others, so that a domain's authority cannot speak for
//! another. A peer's identity is compared only after it has been proved: an identity mismatch
//! means a genuine peer at the wrong place.

use std::time::{Duration, SystemTime};

use model::SpiffeId;
use rustls::pki_types::{CertificateDer, UnixTime};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::trust::Anchors;

/// Why a peer is not believed. [`Clone`], because it travels inside `rustls::Error`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// It showed no certificate.
    #[error("the peer presented no certificate; it is probably not part of a mesh")]
    NoCertificate,
    /// The certificate is no X.509, or the chain is absurdly long.
    #[error("the peer's certificate cannot be read: {0}")]
    Malformed(String),
    /// A proper certificate, but no X.509-SVID.
    #[error("the peer's certificate is not an X.509-SVID: {0}")]
    NotSvid(String),
    /// Its time is over.
    #[error(
        "a certificate of the peer's chain expired at {}, now is {}; if the peer renews its certificate, compare the clocks",
        rfc3339(*not_after), rfc3339(*now)
    )]
    Expired {
        /// The end of its validity.
        not_after: SystemTime,
        /// The verifier's clock.
        now: SystemTime,
    },
    /// Its time has not come.
    #[error(
        "a certificate of the peer's chain is valid from {} only, now is {}; compare the clocks",
        rfc3339(*not_before), rfc3339(*now)
    )]
    NotYetValid {
        /// The start of its validity.
        not_before: SystemTime,
        /// The verifier's clock.
        now: SystemTime,
    },
    /// There are no roots for the trust domain that it claims.
    #[error("the peer claims to be {id}, and trust domain \"{}\" is not trusted here", id.trust_domain())]
    UntrustedDomain {
        /// The claim, unproved.
        id: SpiffeId,
    },
    /// The chain does not lead to a root of the trust domain that it claims.
    #[error(
        "the peer claims to be {id}, but its certificate does not lead to a trusted root of that trust domain ({problem}); \
         it was probably issued by another mesh, or by an authority since replaced"
    )]
    Untrusted {
        /// The claim, unproved.
        id: SpiffeId,
        /// What the chain's verification said.
        problem: String,
    },
    /// It has proved an identity, though not the expected one.
    #[error("expected {expected}, the peer is {presented}")]
    IdentityMismatch {
        /// Whom the caller wanted.
        expected: String,
        /// Who it is.
        presented: SpiffeId,
    },
    /// First contact: no certificate of the chain has the pinned key.
    #[error(
        "the control plane's certificate does not lead to the root that the join token names or the trust file holds; \
         either that is of another mesh, or something on the way impersonates the control plane"
    )]
    PinMismatch,
}

impl VerifyError {
    /// The peer is genuine, but another than expected.
    pub fn is_identity_mismatch(&self) -> bool {
        matches!(self, Self::IdentityMismatch { .. })
    }
}

/// Whom to believe.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Expected {
    /// This identity and no other.
    Id(SpiffeId),
    /// Any identity of one's own trust domain.
    TrustDomain,
}

/// Which side of the connection the peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerRole {
    /// It called.
    Client,
    /// It was called.
    Server,
}

/// What the leaf says of itself; nothing of it is proved.
#[derive(Debug, Clone)]
pub(crate) struct Leaf {
    pub(crate) id: SpiffeId,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    pub(crate) spki: Vec<u8>,
}

/// Longest chain looked at, root included.
const MAX_CHAIN: usize = 8;

/// Reads a leaf and checks that it has the shape of an X.509-SVID.
pub(crate) fn leaf(der: &CertificateDer<'_>) -> Result<Leaf, VerifyError> {
    let certificate = parse(der)?;
    let malformed = |e: x509_parser::error::X509Error| VerifyError::Malformed(e.to_string());
    let not_svid = |what: String| Err(VerifyError::NotSvid(what));

    // X.509-SVID 2: exactly one URI SAN; other kinds of names are allowed and ignored.
    let names = certificate.subject_alternative_name().map_err(malformed)?;
    let mut uris = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
    let (Some(uri), rest) = (uris.next(), uris.count()) else {
        return not_svid("it has no URI name".to_owned());
    };
    if rest != 0 {
        return not_svid(format!("it has {} URI names instead of one", rest + 1));
    }
    let id: SpiffeId = uri
        .parse()
        .map_err(|e: model::spiffe::InvalidSpiffeId| VerifyError::NotSvid(e.to_string()))?;

    // X.509-SVID 4.1 and 4.3: a leaf is no authority.
    let constraints = certificate.basic_constraints().map_err(malformed)?;
    if constraints.is_some_and(|c| c.value.ca) {
        return not_svid(format!(
            "{id} is the certificate of an authority (cA is set)"
        ));
    }
    let usage = certificate.key_usage().map_err(malformed)?;
    let Some(usage) = usage else {
        return not_svid(format!("{id} has no key usage"));
    };
    if !usage.value.digital_signature() {
        return not_svid(format!("{id} lacks the key usage digitalSignature"));
    }
    if usage.value.key_cert_sign() || usage.value.crl_sign() {
        return not_svid(format!("{id} may sign certificates or revocation lists"));
    }
    // X.509-SVID 4.4: where there is an extended key usage, it allows both sides.
    if let Some(usage) = certificate.extended_key_usage().map_err(malformed)?
        && !(usage.value.client_auth && usage.value.server_auth)
    {
        return not_svid(format!("{id} is not for both TLS clients and TLS servers"));
    }
    let validity = certificate.validity();
    Ok(Leaf {
        id,
        not_before: system_time(validity.not_before.timestamp()),
        not_after: system_time(validity.not_after.timestamp()),
        spki: certificate.public_key().raw.to_vec(),
    })
}

pub(crate) fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, VerifyError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(VerifyError::Malformed("bytes follow it".to_owned())),
        Err(e) => Err(VerifyError::Malformed(e.to_string())),
    }
}

/// Checks a chain (leaf first, the rest as the peer sent it) and gives the identity that it
/// proves. Whether it is the expected one is not looked at: see [`check_expected`].
///
/// Costs one signature verification per certificate of the chain.
pub fn chain(
    first: &CertificateDer<'_>,
    rest: &[CertificateDer<'_>],
    anchors: &Anchors,
    role: PeerRole,
    now: SystemTime,
) -> Result<SpiffeId, VerifyError> {
    check_length(rest)?;
    let Leaf { id, .. } = leaf(first)?;
    let Some(roots) = anchors.of(id.trust_domain()) else {
        return Err(VerifyError::UntrustedDomain { id });
    };
    path(first, rest, roots, role, now, &id)?;
    Ok(id)
}

pub(crate) fn check_length(rest: &[CertificateDer<'_>]) -> Result<(), VerifyError> {
    if rest.len() < MAX_CHAIN {
        return Ok(());
    }
    Err(VerifyError::Malformed(format!(
        "its chain has {} certificates, at most {MAX_CHAIN} are looked at",
        rest.len() + 1
    )))
}

pub(crate) fn path(
    first: &CertificateDer<'_>,
    rest: &[CertificateDer<'_>],
    roots: &[rustls::pki_types::TrustAnchor<'_>],
    role: PeerRole,
    now: SystemTime,
    id: &SpiffeId,
) -> Result<(), VerifyError> {
    let end_entity = webpki::EndEntityCert::try_from(first)
        .map_err(|e| VerifyError::Malformed(e.to_string()))?;
    let usage = match role {
        PeerRole::Client => webpki::KeyUsage::client_auth(),
        PeerRole::Server => webpki::KeyUsage::server_auth(),
    };
    let provider = crate::tls::provider();
    end_entity
        .verify_for_usage(
            provider.signature_verification_algorithms.all,
            roots,
            rest,
            UnixTime::since_unix_epoch(since_epoch(now)),
            usage,
            None,
            Some(&signers_may_sign),
        )
        .map(|_| ())
        .map_err(|e| path_error(e, id, now))
}

/// X.509-SVID 4.3: a signing certificate has keyCertSign. webpki looks at cA and the path length.
fn signers_may_sign(path: &webpki::VerifiedPath<'_>) -> Result<(), webpki::Error> {
    for signer in path.intermediate_certificates() {
        let der = signer.der();
        let certificate = parse(&der).map_err(|_| webpki::Error::BadDer)?;
        match certificate.key_usage() {
            Ok(Some(usage)) if usage.value.key_cert_sign() => {}
            _ => return Err(webpki::Error::EndEntityUsedAsCa),
        }
    }
    Ok(())
}

fn path_error(error: webpki::Error, id: &SpiffeId, now: SystemTime) -> VerifyError {
    match error {
        webpki::Error::CertExpired { not_after, .. } => VerifyError::Expired {
            not_after: SystemTime::UNIX_EPOCH + Duration::from_secs(not_after.as_secs()),
            now,
        },
        webpki::Error::CertNotValidYet { not_before, .. } => VerifyError::NotYetValid {
            not_before: SystemTime::UNIX_EPOCH + Duration::from_secs(not_before.as_secs()),
            now,
        },
        error => VerifyError::Untrusted {
            id: id.clone(),
            problem: error.to_string(),
        },
    }
}

/// Compares a proved identity with the expected one; `own` is whose trust domain counts for
/// [`Expected::TrustDomain`].
pub fn check_expected(
    presented: &SpiffeId,
    expected: &Expected,
    own: &SpiffeId,
) -> Result<(), VerifyError> {
    let (matches, wanted) = match expected {
        Expected::Id(id) => (presented == id, id.as_str().to_owned()),
        Expected::TrustDomain => (
            presented.trust_domain() == own.trust_domain(),
            format!("any identity of trust domain \"{}\"", own.trust_domain()),
        ),
    };
    if matches {
        Ok(())
    } else {
        Err(VerifyError::IdentityMismatch {
            expected: wanted,
            presented: presented.clone(),
        })
    }
}

/// A point in time from seconds since 1970, which a certificate may put before it.
pub(crate) fn system_time(unix: i64) -> SystemTime {
    let distance = Duration::from_secs(unix.unsigned_abs());
    let time = if unix < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}

pub(crate) fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
}

pub(crate) fn rfc3339(time: SystemTime) -> String {
    // X.509 times have whole seconds, and end with the year 9999.
    let seconds = since_epoch(time).as_secs().min(253_402_300_799) as i64;
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|t| t.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{seconds} s after 1970"))
}
