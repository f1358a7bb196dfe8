//! Certificates, keys and root certificates of a Gateway, from the objects that hold them.

use std::sync::Arc;

use identity::edge;
use model::gateway::{
    BackendIdentity, Certificate, ClientValidation, PrivateKey, Termination, Tls,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::Fault;
use crate::kind::gateway::{
    FrontendMode, GatewaySpec, ListenerSpec, ObjectRef, SecretRef, TlsMode,
};
use crate::kind::{GATEWAY_GROUP, ObjectKind, tls_options};
use crate::object::{Object, ObjectKey, Spec};
use crate::suggest;
use crate::translate::store::{Topic, View};

/// The reason where there is nobody to vouch for clients.
pub(super) const NO_ROOTS: &str = "NoValidCACertificate";

/// What becomes of a listener's TLS.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    /// How TLS is ended, or that it is passed on.
    pub(super) tls: Option<Tls>,
    /// Gateway API's reason for which the listener cannot serve.
    pub(super) unusable: Option<&'static str>,
}

/// What becomes of the TLS of a listener that is written in `owner`, and what is wrong with its
/// references and with those of the Gateway that are for its clients.
pub(super) fn resolve(
    owner: &Object,
    gateway: &Object,
    spec: &GatewaySpec,
    listener: &ListenerSpec,
    view: &mut View<'_>,
) -> (Resolved, Vec<Fault>) {
    let Some(tls) = &listener.tls else {
        return (Resolved::default(), Vec::new());
    };
    if tls.mode == TlsMode::Passthrough {
        let resolved = Resolved {
            tls: Some(Tls::Passthrough),
            unusable: None,
        };
        return (resolved, Vec::new());
    }
    let mut faults = Vec::new();
    let mut certificates = Vec::new();
    for reference in &tls.certificate_refs {
        match certificate(owner, reference, view) {
            Ok(certificate) => certificates.push(Arc::new(certificate)),
            Err(fault) => faults.push(fault),
        }
    }
    let validation = spec.tls.as_ref().and_then(|t| t.for_port(listener.port));
    let clients = validation.map(|validation| {
        let mut roots = Vec::new();
        for reference in &validation.ca_certificate_refs {
            match root_certificates(gateway, reference, view) {
                Ok(found) => roots.extend(found),
                Err(fault) => faults.push(fault),
            }
        }
        ClientValidation {
            roots,
            optional: validation.mode == FrontendMode::AllowInsecureFallback,
        }
    });
    let unusable = if certificates.is_empty() {
        Some("Invalid")
    } else if clients.as_ref().is_some_and(|c| c.roots.is_empty()) {
        // Without roots no client could be verified: closed, not open.
        Some(NO_ROOTS)
    } else {
        None
    };
    let termination = Termination {
        certificates,
        clients,
        options: tls_options::to_model(&tls.options),
    };
    let resolved = Resolved {
        tls: unusable.is_none().then_some(Tls::Terminate(termination)),
        unusable,
    };
    (resolved, faults)
}

/// What a Gateway shows to backends. A certificate that cannot be had is not the same as none: what
/// needs it must fail and say why.
pub(super) fn backend_identity(
    object: &Object,
    spec: &GatewaySpec,
    view: &mut View<'_>,
) -> (BackendIdentity, Option<Fault>) {
    let backend = spec.tls.as_ref().and_then(|tls| tls.backend.as_ref());
    let Some(reference) = backend.and_then(|b| b.client_certificate_ref.as_ref()) else {
        return (BackendIdentity::Nobody, None);
    };
    match certificate(object, reference, view) {
        Ok(certificate) => (BackendIdentity::Certificate(Arc::new(certificate)), None),
        Err(fault) => {
            let why = fault.message.as_str().into();
            let reason = match fault.reason {
                "InvalidCertificateRef" => "InvalidClientCertificateRef",
                other => other,
            };
            let fault = Fault { reason, ..fault };
            (BackendIdentity::Invalid(why), Some(fault))
        }
    }
}

/// Certificate and key of a Secret.
fn certificate(
    object: &Object,
    reference: &SecretRef,
    view: &mut View<'_>,
) -> Result<Certificate, Fault> {
    let fault = |message: String, hint: &str| Fault {
        reason: "InvalidCertificateRef",
        message,
        hint: hint.to_owned(),
    };
    let name = &reference.name;
    if !reference.group.is_empty() || reference.kind != "Secret" {
        let message = format!("certificate \"{name}\" is of kind {}", reference.kind);
        return Err(fault(
            message,
            "name a Secret of the type kubernetes.io/tls",
        ));
    }
    let namespace = reference.namespace.as_deref();
    let found = find(object, ObjectKind::Secret, namespace, name, view)?;
    let Some(Spec::Secret(secret)) = found.map(|found| &found.spec) else {
        let namespace = namespace.unwrap_or(object.namespace());
        let message = format!("Secret \"{name}\" does not exist in namespace {namespace}");
        let siblings = view.list(Topic::Kind(ObjectKind::Secret, namespace.into()));
        let names = siblings.iter().map(|o| &*o.key.name);
        return Err(fault(message, &suggest::hint(name, names)));
    };
    let part = |key: &str| {
        secret.value(key).ok_or_else(|| {
            let hint = "a Secret of the type kubernetes.io/tls has tls.crt and tls.key";
            fault(format!("Secret \"{name}\" has no {key}"), hint)
        })
    };
    let chain = certificates(&part("tls.crt")?).ok_or_else(|| {
        let message = format!("tls.crt of Secret \"{name}\" holds no certificate");
        fault(message, "put the chain there in PEM, the certificate first")
    })?;
    let key = PrivateKeyDer::from_pem_slice(&part("tls.key")?).map_err(|_| {
        let message = format!("tls.key of Secret \"{name}\" holds no private key");
        fault(message, "put the key there in PEM, not encrypted")
    })?;
    let certificate = Certificate {
        chain,
        key: PrivateKey::from_der(key.secret_der().to_vec()),
    };
    edge::check_certificate(&certificate).map_err(|why| {
        let message = format!("tls.crt and tls.key of Secret \"{name}\" cannot be used: {why}");
        let hint =
            "put a certificate and its own key there: RSA of at least 2048 bits, ECDSA or Ed25519";
        fault(message, hint)
    })?;
    Ok(certificate)
}

/// The root certificates in `ca.crt` of a ConfigMap or Secret.
pub(in crate::translate) fn root_certificates(
    object: &Object,
    reference: &ObjectRef,
    view: &mut View<'_>,
) -> Result<Vec<Vec<u8>>, Fault> {
    let fault = |reason, message: String, hint: &str| Fault {
        reason,
        message,
        hint: hint.to_owned(),
    };
    let name = &reference.name;
    let kind = match (reference.group.as_str(), reference.kind.as_str()) {
        ("", "ConfigMap") => ObjectKind::ConfigMap,
        ("", "Secret") => ObjectKind::Secret,
        (_, kind) => {
            let message = format!("root certificates \"{name}\" are of kind {kind}");
            let hint = "name a ConfigMap or a Secret";
            return Err(fault("InvalidCACertificateKind", message, hint));
        }
    };
    let found = find(object, kind, reference.namespace.as_deref(), name, view)?;
    let text = match found.map(|found| &found.spec) {
        Some(Spec::ConfigMap(spec)) => spec.value("ca.crt"),
        Some(Spec::Secret(spec)) => spec.value("ca.crt"),
        _ => {
            let message = format!("{kind} \"{name}\" does not exist");
            return Err(fault("InvalidCACertificateRef", message, ""));
        }
    };
    let invalid = |message| fault("InvalidCACertificateRef", message, "put them there in PEM");
    let roots = text
        .and_then(|text| certificates(&text))
        .ok_or_else(|| invalid(format!("{kind} \"{name}\" holds no certificates in ca.crt")))?;
    for (i, root) in roots.iter().enumerate() {
        edge::check_root(root).map_err(|why| {
            let which = i + 1;
            invalid(format!(
                "ca.crt of {kind} \"{name}\" cannot be used, for its certificate {which}: {why}"
            ))
        })?;
    }
    Ok(roots)
}

/// At least one certificate, all of them whole.
fn certificates(text: &[u8]) -> Option<Vec<Vec<u8>>> {
    let found: Result<Vec<Vec<u8>>, _> = CertificateDer::pem_slice_iter(text)
        .map(|c| c.map(|c| c.to_vec()))
        .collect();
    found.ok().filter(|found| !found.is_empty())
}

/// An object that may be in another namespace, if that allows it.
fn find<'a>(
    object: &Object,
    kind: ObjectKind,
    namespace: Option<&str>,
    name: &str,
    view: &mut View<'a>,
) -> Result<Option<&'a Arc<Object>>, Fault> {
    let own = object.namespace();
    let namespace = namespace.unwrap_or(own);
    let from = object.key.kind.as_str();
    let allowed = namespace == own || {
        let grants = view.list(Topic::Kind(ObjectKind::ReferenceGrant, namespace.into()));
        grants.iter().any(|grant| match &grant.spec {
            Spec::ReferenceGrant(spec) => {
                spec.allows((GATEWAY_GROUP, from, own), ("", kind.as_str(), name))
            }
            _ => false,
        })
    };
    if !allowed {
        return Err(Fault {
            reason: "RefNotPermitted",
            message: format!(
                "{kind} \"{name}\" is in namespace {namespace}, which does not allow {from}s of {own} to refer to it"
            ),
            hint: format!("add a ReferenceGrant to namespace {namespace}"),
        });
    }
    Ok(view.get(&ObjectKey::new(kind, namespace, name)))
}
