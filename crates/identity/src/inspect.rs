//! skeleton
#![allow(missing_docs)]
#[derive(Debug, Clone, serde::Serialize)]
pub struct Description {
    pub id: Option<String>, pub subject: String, pub issuer: String, pub serial: String,
    pub not_before: String, pub not_after: String, pub seconds_left: i64, pub key_algorithm: String, pub authority: bool,
    pub fingerprint: String, pub pin: String,
}
impl std::fmt::Display for Description { fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { todo!() } }
#[derive(Debug, thiserror::Error)]
pub enum InspectError {}
/// All certificates of a PEM text, or the one of a DER file.
pub fn describe(_pem_or_der: &[u8], _now: std::time::SystemTime) -> Result<Vec<Description>, InspectError> { todo!() }
