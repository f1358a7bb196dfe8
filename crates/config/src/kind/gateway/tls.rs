//! TLS of a Gateway: certificates of its listeners, and whom its clients must be vouched for by
//! (GEP-91).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::check_object_ref;
use crate::check::Check;
use crate::kind::tls_options;

/// `tls` of a listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerTls {
    /// Whether TLS ends at the Gateway.
    #[serde(default)]
    pub mode: TlsMode,
    /// Secrets of the type `kubernetes.io/tls`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub certificate_refs: Vec<SecretRef>,
    /// Versions, groups, cipher suites; see [`tls_options`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub options: BTreeMap<String, String>,
}

/// Whether TLS ends at the Gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "Gateway API's own words")]
pub enum TlsMode {
    #[default]
    Terminate,
    Passthrough,
}

/// A reference to a Secret, unless it says something else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretRef {
    /// API group.
    #[serde(default)]
    pub group: String,
    /// Kind.
    #[serde(default = "secret_kind")]
    pub kind: String,
    /// Name.
    pub name: String,
    /// Namespace; the Gateway's if `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

fn secret_kind() -> String {
    "Secret".to_owned()
}

/// A reference to an object of some kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRef {
    /// API group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Namespace; the Gateway's if `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// `spec.tls` of a Gateway.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GatewayTls {
    /// With clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frontend: Option<Frontend>,
    /// With backends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendClient>,
}

/// The Gateway as a client of backends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendClient {
    /// A Secret of the type `kubernetes.io/tls`: what it shows to backends that ask for a
    /// certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate_ref: Option<SecretRef>,
}

/// TLS with clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Frontend {
    /// For ports that have nothing of their own.
    pub default: FrontendTls,
    /// For one port.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub per_port: Vec<PortTls>,
}

/// TLS with the clients of one port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortTls {
    /// The port.
    pub port: u16,
    /// What holds there.
    pub tls: FrontendTls,
}

/// TLS with clients.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FrontendTls {
    /// Whether and how their certificates are verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<FrontendValidation>,
}

/// How clients' certificates are verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontendValidation {
    /// ConfigMaps or Secrets with `ca.crt`.
    #[serde(rename = "caCertificateRefs")]
    pub ca_certificate_refs: Vec<ObjectRef>,
    /// Whether a client without a valid certificate is taken.
    #[serde(default)]
    pub mode: FrontendMode,
}

/// Whether a client without a valid certificate is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "Gateway API's own words")]
pub enum FrontendMode {
    #[default]
    AllowValidOnly,
    AllowInsecureFallback,
}

impl ListenerTls {
    pub(super) fn check(&self, c: &mut Check<'_>) {
        if self.mode == TlsMode::Passthrough && !self.certificate_refs.is_empty() {
            c.warn_at(
                "certificateRefs",
                "has no effect where TLS is passed through",
                "take it out",
            );
        }
        c.each("certificateRefs", &self.certificate_refs, |c, reference| {
            check_object_ref(&reference.name, reference.namespace.as_deref(), c);
        });
        if self.mode == TlsMode::Passthrough && !self.options.is_empty() {
            let message = "has no effect where TLS is passed through";
            c.warn_at("options", message, "take it out");
        } else {
            tls_options::check(&self.options, c);
        }
    }
}

impl GatewayTls {
    pub(super) fn check(&self, c: &mut Check<'_>) {
        let certificate = self.backend.as_ref();
        if let Some(reference) = certificate.and_then(|b| b.client_certificate_ref.as_ref()) {
            c.at("backend", |c| {
                c.at("clientCertificateRef", |c| {
                    check_object_ref(&reference.name, reference.namespace.as_deref(), c);
                });
            });
        }
        let Some(frontend) = &self.frontend else {
            return;
        };
        c.at("frontend", |c| {
            c.at("default", |c| frontend.default.check(c));
            c.each("perPort", &frontend.per_port, |c, port| {
                c.at("tls", |c| port.tls.check(c));
            });
        });
    }

    /// Whether clients' certificates are verified in this way on any port.
    pub(crate) fn any(&self, mode: FrontendMode) -> bool {
        let frontend = self.frontend.iter();
        frontend
            .flat_map(|f| std::iter::once(&f.default).chain(f.per_port.iter().map(|p| &p.tls)))
            .filter_map(|tls| tls.validation.as_ref())
            .any(|validation| validation.mode == mode)
    }

    /// What holds for clients of a port.
    pub(crate) fn for_port(&self, port: u16) -> Option<&FrontendValidation> {
        let frontend = self.frontend.as_ref()?;
        let own = frontend.per_port.iter().find(|p| p.port == port);
        own.map_or(&frontend.default, |p| &p.tls)
            .validation
            .as_ref()
    }
}

impl FrontendTls {
    fn check(&self, c: &mut Check<'_>) {
        let Some(validation) = &self.validation else {
            return;
        };
        c.at("validation", |c| {
            let references = &validation.ca_certificate_refs;
            c.each("caCertificateRefs", references, |c, reference| {
                check_object_ref(&reference.name, reference.namespace.as_deref(), c);
            });
        });
    }
}
