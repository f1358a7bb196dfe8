//! The mesh's settings and its trust bundle.

use std::collections::BTreeMap;

use model::TrustDomain;
use model::mesh::{AccessLog, Mesh, OutboundPolicy, TrustBundle};
use model::resource::Kind;
use model::session;

use super::DecodeError;
use super::field::{Invalid, Result, Within, each, known, parse};
use super::limits;
use super::workload::{mode_from_message, mode_to_message};
use crate::proto::v1;

pub(super) fn to_message(mesh: &Mesh) -> v1::Mesh {
    let outbound = match mesh.outbound {
        OutboundPolicy::AllowAny => v1::OutboundPolicy::AllowAny,
        OutboundPolicy::RegistryOnly => v1::OutboundPolicy::RegistryOnly,
    };
    let access_log = match mesh.access_log {
        AccessLog::Off => v1::AccessLog::Off,
        AccessLog::Notable => v1::AccessLog::Notable,
        AccessLog::All => v1::AccessLog::All,
    };
    v1::Mesh {
        trust_domain: mesh.trust_domain.to_string(),
        outbound: outbound.into(),
        mtls: mode_to_message(mesh.mtls).into(),
        trace_sampling: mesh.trace_sampling,
        trace_reservoir: mesh.trace_reservoir,
        access_log: access_log.into(),
        networks: mesh.networks.iter().map(ToString::to_string).collect(),
        limits: Some(limits::to_message(&mesh.limits)),
        session_key: mesh.session_key.as_ref().map(|key| key.bytes().to_vec()),
    }
}

pub(super) fn from_message(message: v1::Mesh) -> Result<Mesh> {
    if message.trace_sampling > 10_000 {
        return Err(Invalid::new(
            "trace_sampling",
            format!(
                "is {}; it counts hundredths of a percent, 10000 at most",
                message.trace_sampling
            ),
        ));
    }
    Ok(Mesh {
        trust_domain: trust_domain(&message.trust_domain)?,
        outbound: match known("outbound", message.outbound)? {
            v1::OutboundPolicy::AllowAny => OutboundPolicy::AllowAny,
            v1::OutboundPolicy::RegistryOnly => OutboundPolicy::RegistryOnly,
        },
        mtls: mode_from_message("mtls", message.mtls)?,
        trace_sampling: message.trace_sampling,
        trace_reservoir: message.trace_reservoir,
        access_log: match known("access_log", message.access_log)? {
            v1::AccessLog::Off => AccessLog::Off,
            v1::AccessLog::Notable => AccessLog::Notable,
            v1::AccessLog::All => AccessLog::All,
        },
        networks: each("networks", message.networks, |text| parse("", &text))?,
        limits: limits::from_message(message.limits)?,
        session_key: message.session_key.map(session_key).transpose()?,
    })
}

fn session_key(bytes: Vec<u8>) -> Result<session::Key> {
    bytes
        .try_into()
        .map(session::Key::new)
        .map_err(|bytes: Vec<u8>| {
            let message = format!("has {} bytes, not {}", bytes.len(), session::Key::LENGTH);
            Invalid::new("session_key", message)
        })
}

/// The trust bundle as it travels, also in the answers of the certificate authority.
pub fn trust_bundle_to_message(bundle: &TrustBundle) -> v1::TrustBundle {
    v1::TrustBundle {
        trust_domains: bundle
            .roots
            .iter()
            .map(|(domain, roots)| v1::TrustDomainRoots {
                trust_domain: domain.to_string(),
                roots: roots.clone(),
            })
            .collect(),
    }
}

/// Reads a trust bundle. That the certificates are such is for their user to find out.
pub fn trust_bundle_from_message(
    message: v1::TrustBundle,
) -> std::result::Result<TrustBundle, DecodeError> {
    read_bundle(message).map_err(|invalid| DecodeError {
        kind: Kind::TrustBundle,
        field: invalid.field,
        message: invalid.message,
    })
}

pub(super) fn read_bundle(message: v1::TrustBundle) -> Result<TrustBundle> {
    let mut roots = BTreeMap::new();
    for (index, entry) in message.trust_domains.into_iter().enumerate() {
        let field = format!("trust_domains[{index}]");
        let domain = trust_domain(&entry.trust_domain).within(&field)?;
        if roots.insert(domain, entry.roots).is_some() {
            return Err(Invalid::new(
                field,
                format!("{} has an entry already", entry.trust_domain),
            ));
        }
    }
    Ok(TrustBundle { roots })
}

fn trust_domain(name: &str) -> Result<TrustDomain> {
    TrustDomain::new(name).map_err(|_| {
        let shown: String = name.chars().take(64).collect();
        let message = format!(
            "\"{shown}\" is not a trust domain: use up to 255 of a-z, 0-9, '.', '-' and '_'"
        );
        Invalid::new("trust_domain", message)
    })
}
