//! PEM text (RFC 7468), for files and people.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

/// Appends one object. `out` may hold secrets, so it must have room: a reallocation would leave a
/// copy behind.
pub(crate) fn encode_into(out: &mut String, label: &str, der: &[u8]) {
    let body = Zeroizing::new(STANDARD.encode(der));
    out.push_str("-----BEGIN ");
    out.push_str(label);
    out.push_str("-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, next) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = next;
    }
    out.push_str("-----END ");
    out.push_str(label);
    out.push_str("-----\n");
}

/// Bytes that [`encode_into`] needs at most.
pub(crate) fn encoded_len(der: usize) -> usize {
    der * 4 / 3 + der / 48 + 128
}

/// All certificates of a text; an error for one that is damaged.
pub(crate) fn certificates(text: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    CertificateDer::pem_slice_iter(text)
        .map(|c| c.map(|c| c.to_vec()).map_err(|e| e.to_string()))
        .collect()
}

/// The first PKCS#8 private key of a text.
pub(crate) fn pkcs8(text: &[u8]) -> Result<Zeroizing<Vec<u8>>, String> {
    PrivatePkcs8KeyDer::from_pem_slice(text)
        .map(|key| Zeroizing::new(key.secret_pkcs8_der().to_vec()))
        .map_err(|e| e.to_string())
}
