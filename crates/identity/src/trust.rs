//! Whom to believe: the roots of each trust domain, ready for verification, and as PEM text.

use std::collections::HashMap;
use std::fmt;

use model::TrustDomain;
use model::mesh::TrustBundle;
use rustls::pki_types::{CertificateDer, TrustAnchor};

use crate::pem;

/// A text that is no bundle of certificates.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a bundle of root certificates: {0}")]
pub struct InvalidBundle(String);

/// The roots of a [`TrustBundle`], parsed once.
///
/// A root that cannot be parsed is trusted by nobody: the rest of the bundle still counts.
pub struct Anchors(HashMap<String, Vec<TrustAnchor<'static>>>);

impl Anchors {
    /// Parses the roots.
    pub fn new(bundle: &TrustBundle) -> Self {
        let parse = |der: &Vec<u8>| anchor(&CertificateDer::from(der.as_slice()));
        Self(
            bundle
                .roots
                .iter()
                .map(|(domain, roots)| {
                    let anchors = roots.iter().filter_map(parse).collect();
                    (domain.as_str().to_owned(), anchors)
                })
                .collect(),
        )
    }

    pub(crate) fn of(&self, domain: &str) -> Option<&[TrustAnchor<'static>]> {
        self.0
            .get(domain)
            .map(Vec::as_slice)
            .filter(|roots| !roots.is_empty())
    }
}

impl fmt::Debug for Anchors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.0.iter().map(|(domain, roots)| (domain, roots.len()));
        f.debug_map().entries(counts).finish()
    }
}

pub(crate) fn anchor(root: &CertificateDer<'_>) -> Option<TrustAnchor<'static>> {
    webpki::anchor_from_trusted_cert(root)
        .ok()
        .map(|anchor| anchor.to_owned())
}

/// All roots as PEM, each preceded by a line that names its trust domain.
pub fn to_pem(bundle: &TrustBundle) -> String {
    let mut text = String::new();
    for (domain, roots) in &bundle.roots {
        for root in roots {
            text.push_str("# ");
            text.push_str(domain.as_str());
            text.push('\n');
            pem::encode_into(&mut text, "CERTIFICATE", root);
        }
    }
    text
}

/// The certificates of a PEM text as the roots of one trust domain.
pub fn from_pem(domain: &TrustDomain, text: &str) -> Result<TrustBundle, InvalidBundle> {
    let roots = pem::certificates(text.as_bytes()).map_err(InvalidBundle)?;
    if roots.is_empty() {
        return Err(InvalidBundle("it holds no certificate".to_owned()));
    }
    for (n, root) in roots.iter().enumerate() {
        if anchor(&CertificateDer::from(root.as_slice())).is_none() {
            let n = n + 1;
            return Err(InvalidBundle(format!("certificate {n} cannot be read")));
        }
    }
    Ok(TrustBundle {
        roots: [(domain.clone(), roots)].into(),
    })
}
