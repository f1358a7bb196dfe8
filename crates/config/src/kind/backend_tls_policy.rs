//! `BackendTLSPolicy` (Gateway API v1.6): TLS from a Gateway to a Service's endpoints.

use std::collections::BTreeMap;

use model::backend_tls::SubjectName;
use model::hostname::Hostname;
use model::name::is_subdomain;
use serde::{Deserialize, Serialize};

use super::gateway::ObjectRef;
use super::tls_options;
use crate::check::Check;
use crate::reference::{NAME_RULE, TargetRef, check_name, check_targets, shorten};

/// `spec` of a `BackendTLSPolicy`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendTlsPolicySpec {
    /// The Services that it is for.
    #[serde(default)]
    pub target_refs: Vec<TargetRef>,
    /// Whom to expect there.
    pub validation: BackendValidation,
    /// Versions, groups, cipher suites; see [`tls_options`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub options: BTreeMap<String, String>,
}

/// Whom to expect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendValidation {
    /// ConfigMaps or Secrets with `ca.crt`.
    #[serde(
        rename = "caCertificateRefs",
        skip_serializing_if = "Vec::is_empty",
        default
    )]
    pub ca_certificate_refs: Vec<ObjectRef>,
    /// Whom the operating system trusts.
    #[serde(
        rename = "wellKnownCACertificates",
        skip_serializing_if = "Option::is_none"
    )]
    pub well_known_ca_certificates: Option<WellKnown>,
    /// Server name that goes out, and that the certificate must have.
    pub hostname: String,
    /// Names of which the certificate must have one, in place of `hostname`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub subject_alt_names: Vec<SubjectAltName>,
}

/// A set of root certificates that has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WellKnown {
    /// The operating system's.
    System,
}

/// A name in a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubjectAltName {
    /// Which of the fields holds it.
    #[serde(rename = "type")]
    pub name_type: SubjectAltNameType,
    /// A host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// A URI.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
}

/// What a name in a certificate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "Gateway API's own words")]
pub enum SubjectAltNameType {
    Hostname,
    #[serde(rename = "URI")]
    Uri,
}

impl BackendTlsPolicySpec {
    pub(crate) fn check(&self, c: &mut Check<'_>) {
        c.at("spec", |c| {
            check_targets(&self.target_refs, &[("", "Service")], &[], c);
            c.at("validation", |c| {
                self.validation.check(c);
            });
            tls_options::check(&self.options, c);
        });
    }
}

impl BackendValidation {
    fn check(&self, c: &mut Check<'_>) {
        c.each(
            "caCertificateRefs",
            &self.ca_certificate_refs,
            |c, reference| {
                check_name("name", &reference.name, c);
                if reference.namespace.is_some() {
                    c.error_at("namespace", "is not a known field", "take it out");
                }
                c.mark();
            },
        );
        if !is_subdomain(&self.hostname) || self.hostname.parse::<std::net::IpAddr>().is_ok() {
            let message = format!("\"{}\" is not a host's name", shorten(&self.hostname));
            c.error_at("hostname", message, NAME_RULE);
        }
        self.names(c);
    }

    /// The names of the model; the check stands at `validation`.
    pub(crate) fn names(&self, c: &mut Check<'_>) -> Vec<SubjectName> {
        let names = c.each("subjectAltNames", &self.subject_alt_names, |c, name| {
            let text = match name.name_type {
                SubjectAltNameType::Hostname => name.hostname.as_ref()?,
                SubjectAltNameType::Uri => name.uri.as_ref()?,
            };
            if name.name_type == SubjectAltNameType::Uri {
                if !text.contains("://") {
                    let message = format!("\"{}\" is not a URI", shorten(text));
                    c.error_at(
                        "uri",
                        message,
                        "write it with its scheme, such as spiffe://...",
                    );
                    return None;
                }
                return Some(SubjectName::Uri(text.clone()));
            }
            let host = text.parse::<Hostname>();
            if host.is_err() {
                let message = format!("\"{}\" is not a host's name", shorten(text));
                c.error_at("hostname", message, NAME_RULE);
            }
            Some(SubjectName::Dns(host.ok()?))
        });
        names.into_iter().flatten().collect()
    }
}
