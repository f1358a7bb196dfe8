//! Certificates and keys in PEM, the form in which Envoy reads them.

use std::fmt::Write as _;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Certificates, one after the other.
pub(crate) fn chain(certificates: &[Vec<u8>]) -> Vec<u8> {
    let pem = certificates.iter().map(|der| pem("CERTIFICATE", der));
    pem.collect::<String>().into_bytes()
}

/// A key, under the label that says which of the three forms it has.
pub(crate) fn key(der: &[u8]) -> Vec<u8> {
    pem(label(der), der).into_bytes()
}

/// All three forms are a sequence that begins with a version. In PKCS#8 a sequence follows, in SEC1 an
/// octet string, in PKCS#1 a number.
fn label(der: &[u8]) -> &'static str {
    let header = match der.get(1) {
        Some(length) if *length >= 0x80 => 2 + usize::from(length & 0x7f),
        _ => 2,
    };
    match der.get(header + 3) {
        Some(0x04) => "EC PRIVATE KEY",
        Some(0x02) => "RSA PRIVATE KEY",
        _ => "PRIVATE KEY",
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in der.chunks(48) {
        for three in line.chunks(3) {
            let group = three
                .iter()
                .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
                << (8 * (3 - three.len()));
            for at in 0..4 {
                if at > three.len() {
                    out.push('=');
                } else {
                    let index = (group >> (18 - 6 * at)) & 63;
                    out.push(ALPHABET[index as usize].into());
                }
            }
        }
        out.push('\n');
    }
    let _ = writeln!(out, "-----END {label}-----");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_is_that_of_rfc_7468() {
        for (der, text) in [
            (&b"f"[..], "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
            (b"foob\xff\xfe", "Zm9vYv/+"),
        ] {
            let want = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
            assert_eq!(
                String::from_utf8(chain(&[der.to_vec()])).unwrap_or_default(),
                want
            );
        }
        assert_eq!(pem("X", &[0; 96]).lines().map(str::len).max(), Some(64));
    }

    #[test]
    fn a_keys_form_is_told_by_what_follows_its_version() {
        assert_eq!(label(&[0x30, 0x82, 1, 1, 2, 1, 0, 0x30]), "PRIVATE KEY");
        assert_eq!(label(&[0x30, 0x77, 2, 1, 1, 0x04]), "EC PRIVATE KEY");
        assert_eq!(label(&[0x30, 0x82, 4, 1, 2, 1, 0, 0x02]), "RSA PRIVATE KEY");
    }
}
