//! skeleton
#![allow(missing_docs)]
use model::SpiffeId;
use std::time::SystemTime;
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    #[error("the peer presented no certificate")]
    NoCertificate,
    #[error("the certificate cannot be read: {0}")]
    Malformed(String),
    #[error("not an X.509-SVID: {0}")]
    NotSvid(String),
    #[error("expired")]
    Expired { not_after: SystemTime, now: SystemTime },
    #[error("not yet valid")]
    NotYetValid { not_before: SystemTime, now: SystemTime },
    #[error("trust domain {domain} is not trusted")]
    UntrustedDomain { domain: String },
    #[error("untrusted: {id}: {reason}")]
    Untrusted { id: SpiffeId, reason: String },
    #[error("expected {expected}, the peer is {presented}")]
    IdentityMismatch { expected: String, presented: SpiffeId },
    #[error("no certificate of the chain has the pinned key")]
    PinMismatch,
}
impl VerifyError {
    /// The peer is genuine, but another than expected.
    pub fn is_identity_mismatch(&self) -> bool { matches!(self, Self::IdentityMismatch { .. }) }
}
