//! `Secret` and `ConfigMap` (Kubernetes core), for certificates, their keys and root certificates.
//!
//! The values of a Secret are never shown: not in a diagnostic, not in a debug print.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::check::Check;

/// The type of Secrets with a certificate and its key.
pub const TLS_TYPE: &str = "kubernetes.io/tls";
/// As much as Kubernetes takes.
const MAX_BYTES: usize = 1024 * 1024;

/// A `Secret` without its metadata; these fields stand beside it, not below `spec`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretSpec {
    /// What it is for.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub secret_type: Option<String>,
    /// Values in base64.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub data: BTreeMap<String, Hidden>,
    /// Values as they are; they win over those of `data`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub string_data: BTreeMap<String, Hidden>,
    /// Kept as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub immutable: Option<bool>,
}

/// A text that is not shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hidden(String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

/// A `ConfigMap` without its metadata; these fields stand beside it, not below `spec`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapSpec {
    /// Texts.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub data: BTreeMap<String, String>,
    /// Bytes in base64.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub binary_data: BTreeMap<String, String>,
    /// Kept as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub immutable: Option<bool>,
}

impl SecretSpec {
    pub(crate) fn check(&self, c: &mut Check<'_>) {
        for (key, value) in &self.data {
            if decode(&value.0).is_none() {
                c.at("data", |c| {
                    c.at_key(key, |c| {
                        c.error(
                            "is not base64",
                            "encode it, or write it as it is under `stringData`",
                        );
                    });
                });
            }
        }
        let texts = self.data.values().chain(self.string_data.values());
        check_size(texts.map(|t| t.0.len()).sum(), c);
    }

    /// A value.
    pub(crate) fn value(&self, key: &str) -> Option<Vec<u8>> {
        match self.string_data.get(key) {
            Some(text) => Some(text.0.clone().into_bytes()),
            None => decode(&self.data.get(key)?.0),
        }
    }
}

impl ConfigMapSpec {
    pub(crate) fn check(&self, c: &mut Check<'_>) {
        for (key, value) in &self.binary_data {
            if decode(value).is_none() {
                c.at("binaryData", |c| {
                    c.at_key(key, |c| c.error("is not base64", "encode it"));
                });
            }
        }
        let texts = self.data.values().chain(self.binary_data.values());
        check_size(texts.map(String::len).sum(), c);
    }

    /// A value.
    pub(crate) fn value(&self, key: &str) -> Option<Vec<u8>> {
        match self.data.get(key) {
            Some(text) => Some(text.clone().into_bytes()),
            None => decode(self.binary_data.get(key)?),
        }
    }
}

/// Folded lines, as tools write them, are taken too.
fn decode(text: &str) -> Option<Vec<u8>> {
    let text: String = text.split_ascii_whitespace().collect();
    STANDARD.decode(text).ok()
}

fn check_size(bytes: usize, c: &mut Check<'_>) {
    if bytes > MAX_BYTES * 4 / 3 {
        c.error("is larger than 1 MiB", "spread it over several objects");
    }
}
