//! TLS to backends that are no members of the mesh.

use model::backend_tls::{BackendTls, Roots, SubjectName};
use model::name::is_subdomain;

use super::field::{Invalid, Result, each, optional_port, parse, required};
use super::tls;
use crate::proto::v1;

pub(super) fn to_message(policy: &BackendTls) -> v1::BackendTls {
    use v1::subject_name::Name;
    let names = policy.names.iter().map(|name| v1::SubjectName {
        name: Some(match name {
            SubjectName::Dns(host) => Name::Dns(host.to_string()),
            SubjectName::Uri(uri) => Name::Uri(uri.clone()),
        }),
    });
    let (system_roots, roots) = match &policy.roots {
        Roots::System => (true, Vec::new()),
        Roots::Certificates(roots) => (false, roots.clone()),
    };
    v1::BackendTls {
        name: policy.name.to_string(),
        target: policy.target.to_string(),
        port: policy.port.map(u32::from),
        created: policy.created,
        hostname: policy.hostname.clone(),
        names: names.collect(),
        system_roots,
        roots,
        options: tls::to_message(&policy.options),
    }
}

pub(super) fn from_message(message: v1::BackendTls) -> Result<BackendTls> {
    use v1::subject_name::Name;
    if !is_subdomain(&message.hostname) {
        return Err(Invalid::new("hostname", "is not a host name"));
    }
    if message.system_roots && !message.roots.is_empty() {
        let message = "are there beside the system's, which alone would count";
        return Err(Invalid::new("roots", message));
    }
    Ok(BackendTls {
        name: parse("name", &message.name)?,
        target: parse("target", &message.target)?,
        port: optional_port("port", message.port)?,
        created: message.created,
        hostname: message.hostname,
        names: each("names", message.names, |name| {
            Ok(match required("name", name.name)? {
                Name::Dns(host) => SubjectName::Dns(parse("dns", &host)?),
                Name::Uri(uri) => SubjectName::Uri(uri),
            })
        })?,
        roots: if message.system_roots {
            Roots::System
        } else {
            Roots::Certificates(message.roots)
        },
        options: tls::from_message(message.options)?,
    })
}
