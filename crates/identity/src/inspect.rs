//! Certificates in words, for `tulle cert` and logs.

use std::fmt;
use std::fmt::Write as _;
use std::time::SystemTime;

use model::mesh::TrustBundle;
use rustls::pki_types::CertificateDer;
use serde::Serialize;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::GeneralName;
use x509_parser::public_key::PublicKey;

use crate::verify::{VerifyError, parse, rfc3339, since_epoch, system_time};
use crate::{key, pem};

/// What stands in a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Description {
    /// Its URI names; an X.509-SVID has exactly one.
    pub ids: Vec<String>,
    /// The subject's distinguished name.
    pub subject: String,
    /// The issuer's distinguished name.
    pub issuer: String,
    /// Serial number, hexadecimal.
    pub serial: String,
    /// Valid from, RFC 3339.
    pub not_before: String,
    /// Valid until, RFC 3339.
    pub not_after: String,
    /// Seconds until it expires; negative afterwards.
    pub seconds_left: i64,
    /// Kind and size of its key.
    pub key_algorithm: String,
    /// Whether it may sign certificates.
    pub authority: bool,
    /// SHA-256 of the certificate, hexadecimal with colons.
    pub fingerprint: String,
    /// Pin of its key, as join tokens carry it for the root.
    pub pin: String,
}

/// Why there is nothing to describe.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The PEM text is damaged.
    #[error("the PEM text is damaged: {0}")]
    Pem(String),
    /// There is no certificate.
    #[error("no certificate found: expected PEM (BEGIN CERTIFICATE) or one certificate in DER")]
    Nothing,
    /// A certificate cannot be read.
    #[error("certificate {number} cannot be read")]
    Certificate {
        /// Its place in the input, from 1.
        number: usize,
        /// Why not.
        #[source]
        source: VerifyError,
    },
}

/// All certificates of a PEM text (other objects are skipped), or the one of a DER file.
pub fn describe(pem_or_der: &[u8], now: SystemTime) -> Result<Vec<Description>, InspectError> {
    // A DER certificate is a SEQUENCE.
    let certificates = if pem_or_der.first() == Some(&0x30) {
        vec![pem_or_der.to_vec()]
    } else {
        pem::certificates(pem_or_der).map_err(InspectError::Pem)?
    };
    if certificates.is_empty() {
        return Err(InspectError::Nothing);
    }
    describe_chain(&certificates, now)
}

/// Each certificate of a chain in DER.
pub fn describe_chain(
    chain: &[Vec<u8>],
    now: SystemTime,
) -> Result<Vec<Description>, InspectError> {
    chain
        .iter()
        .zip(1..)
        .map(|(der, number)| {
            let der = CertificateDer::from(der.as_slice());
            let certificate =
                parse(&der).map_err(|source| InspectError::Certificate { number, source })?;
            Ok(description(&der, &certificate, now))
        })
        .collect()
}

/// Each root of a bundle; one that cannot be read is left out, as it is in verification.
pub fn describe_bundle(bundle: &TrustBundle, now: SystemTime) -> Vec<Description> {
    bundle
        .roots
        .values()
        .flatten()
        .filter_map(|root| describe_chain(std::slice::from_ref(root), now).ok())
        .flatten()
        .collect()
}

fn description(
    der: &CertificateDer<'_>,
    certificate: &X509Certificate<'_>,
    now: SystemTime,
) -> Description {
    let validity = certificate.validity();
    let names = certificate.subject_alternative_name().ok().flatten();
    let ids = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        })
        .collect();
    let time = |t: x509_parser::time::ASN1Time| rfc3339(system_time(t.timestamp()));
    let now = i64::try_from(since_epoch(now).as_secs()).unwrap_or(i64::MAX);
    Description {
        ids,
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        serial: hex(certificate.raw_serial(), ""),
        not_before: time(validity.not_before),
        not_after: time(validity.not_after),
        seconds_left: validity.not_after.timestamp().saturating_sub(now),
        key_algorithm: key_algorithm(certificate),
        authority: certificate.is_ca(),
        fingerprint: hex(&key::sha256(der), ":"),
        pin: key::pin(certificate.public_key().raw),
    }
}

fn key_algorithm(certificate: &X509Certificate<'_>) -> String {
    let key = certificate.public_key();
    match key.parsed() {
        Ok(PublicKey::EC(point)) => format!("ECDSA {} bit", point.key_size()),
        Ok(PublicKey::RSA(rsa)) => format!("RSA {} bit", rsa.key_size()),
        _ => key.algorithm.algorithm.to_id_string(),
    }
}

fn hex(bytes: &[u8], separator: &str) -> String {
    let mut out = String::with_capacity(bytes.len() * 3);
    for (n, byte) in bytes.iter().enumerate() {
        if n > 0 {
            out.push_str(separator);
        }
        // Writing to a string cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for id in &self.ids {
            writeln!(f, "identity     {id}")?;
        }
        writeln!(f, "subject      {}", self.subject)?;
        writeln!(f, "issuer       {}", self.issuer)?;
        writeln!(f, "serial       {}", self.serial)?;
        let left = match self.seconds_left {
            s if s < 0 => format!("EXPIRED {} ago", span(s.unsigned_abs())),
            s => format!("{} left", span(s.unsigned_abs())),
        };
        writeln!(
            f,
            "valid        {} to {} ({left})",
            self.not_before, self.not_after
        )?;
        let role = if self.authority { ", authority" } else { "" };
        writeln!(f, "key          {}{role}", self.key_algorithm)?;
        writeln!(f, "fingerprint  {}", self.fingerprint)?;
        write!(f, "pin          {}", self.pin)
    }
}

fn span(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}
