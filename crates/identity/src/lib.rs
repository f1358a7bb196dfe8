//! Who is who in the mesh: certificate authority, SPIFFE X.509-SVIDs, trust bundles, join tokens,
//! and the TLS configurations made from them.
//!
//! One workload, one short-lived certificate, one URI in it. The rules are those of the SPIFFE
//! X.509-SVID specification; chains are built by rustls-webpki against the roots of the *peer's*
//! trust domain; everything cryptographic is done by aws-lc.
//!
//! Nothing here opens a socket, starts a thread or sleeps. With `net`, it is the only crate that
//! names rustls' types.
#![forbid(unsafe_code)]

pub mod ca;
pub mod edge;
mod file;
pub mod inspect;
mod key;
mod pem;
pub mod svid;
pub mod tls;
pub mod token;
pub mod trust;
pub mod verify;

use model::{SpiffeId, TrustDomain};

/// Path of the control plane's own identity.
pub const CONTROL_PATH: &str = "/ns/tulle-system/sa/control";

/// The control plane's own identity in a trust domain.
pub fn control_id(domain: &TrustDomain) -> SpiffeId {
    format!("spiffe://{domain}{CONTROL_PATH}")
        .parse()
        .expect("a trust domain is valid by construction, and so is the fixed path")
}
