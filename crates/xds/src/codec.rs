//! Resources to and from the wire: messages of package `tulle.v1`, one for each kind.
//!
//! Encoding is deterministic (maps are sorted), so the version of a resource is the [`Version`] of
//! its bytes. Decoding turns bytes from a peer into values that are valid by construction; it
//! refuses what the model's types cannot hold, names the field, and never panics. An enum value or
//! oneof case that this build does not know is refused too: half understood is not in force.

mod backend_tls;
mod balancing;
mod endpoint;
mod field;
mod gateway;
mod health_check;
mod limits;
mod mesh;
mod overload;
mod request;
mod retry;
mod route;
mod service;
mod tls;
mod traffic;
mod version;
mod workload;

use std::fmt;

use model::resource::{Kind, Resource};
use prost::Message;

use crate::proto::v1;

pub use mesh::{trust_bundle_from_message, trust_bundle_to_message};
pub use version::Version;

/// The largest resource that is taken, in bytes.
pub const MAX_RESOURCE_BYTES: usize = 1024 * 1024;

/// A resource that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct DecodeError {
    /// What it was to be.
    pub kind: Kind,
    /// Path of the field, such as `rules[1].matches[0].path`; empty where the whole is at fault.
    pub field: String,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            write!(f, "{}: {}", self.kind, self.message)
        } else {
            write!(f, "{}: {}: {}", self.kind, self.field, self.message)
        }
    }
}

/// The type URL of a kind.
pub fn type_url(kind: Kind) -> &'static str {
    match kind {
        Kind::Mesh => "type.googleapis.com/tulle.v1.Mesh",
        Kind::TrustBundle => "type.googleapis.com/tulle.v1.TrustBundle",
        Kind::Workload => "type.googleapis.com/tulle.v1.Workload",
        Kind::Service => "type.googleapis.com/tulle.v1.Service",
        Kind::Endpoint => "type.googleapis.com/tulle.v1.Endpoint",
        Kind::TrafficPolicy => "type.googleapis.com/tulle.v1.TrafficPolicy",
        Kind::RequestPolicy => "type.googleapis.com/tulle.v1.RequestPolicy",
        Kind::BackendTls => "type.googleapis.com/tulle.v1.BackendTls",
        Kind::Listener => "type.googleapis.com/tulle.v1.Listener",
        Kind::StreamRoute => "type.googleapis.com/tulle.v1.StreamRoute",
        Kind::Route => "type.googleapis.com/tulle.v1.Route",
    }
}

/// The kind with this type URL.
pub fn kind_of(url: &str) -> Option<Kind> {
    Kind::ALL.into_iter().find(|kind| type_url(*kind) == url)
}

/// The message's bytes: the same for equal resources.
pub fn encode(resource: &Resource) -> Vec<u8> {
    match resource {
        Resource::Mesh(mesh) => mesh::to_message(mesh).encode_to_vec(),
        Resource::TrustBundle(bundle) => trust_bundle_to_message(bundle).encode_to_vec(),
        Resource::Workload(workload) => workload::to_message(workload).encode_to_vec(),
        Resource::Service(service) => service::to_message(service).encode_to_vec(),
        Resource::Endpoint(endpoint) => endpoint::to_message(endpoint).encode_to_vec(),
        Resource::TrafficPolicy(policy) => traffic::to_message(policy).encode_to_vec(),
        Resource::RequestPolicy(policy) => request::to_message(policy).encode_to_vec(),
        Resource::BackendTls(policy) => backend_tls::to_message(policy).encode_to_vec(),
        Resource::Listener(listener) => gateway::listener_to_message(listener).encode_to_vec(),
        Resource::Route(route) => route::to_message(route).encode_to_vec(),
        Resource::StreamRoute(route) => gateway::stream_to_message(route).encode_to_vec(),
    }
}

/// Reads and checks a resource.
pub fn decode(kind: Kind, bytes: &[u8]) -> Result<Resource, DecodeError> {
    read(kind, bytes).map_err(|invalid| DecodeError {
        kind,
        field: invalid.field,
        message: invalid.message,
    })
}

fn read(kind: Kind, bytes: &[u8]) -> Result<Resource, field::Invalid> {
    if bytes.len() > MAX_RESOURCE_BYTES {
        let message = format!(
            "has {} bytes, more than the {MAX_RESOURCE_BYTES} that a resource may have",
            bytes.len()
        );
        return Err(field::Invalid::new("", message));
    }
    Ok(match kind {
        Kind::Mesh => Resource::Mesh(mesh::from_message(message(bytes)?)?),
        Kind::TrustBundle => {
            let bundle: v1::TrustBundle = message(bytes)?;
            Resource::TrustBundle(mesh::read_bundle(bundle)?)
        }
        Kind::Workload => Resource::Workload(workload::from_message(message(bytes)?)?),
        Kind::Service => Resource::Service(service::from_message(message(bytes)?)?),
        Kind::Endpoint => Resource::Endpoint(endpoint::from_message(message(bytes)?)?),
        Kind::TrafficPolicy => {
            Resource::TrafficPolicy(Box::new(traffic::from_message(message(bytes)?)?))
        }
        Kind::RequestPolicy => Resource::RequestPolicy(request::from_message(message(bytes)?)?),
        Kind::BackendTls => Resource::BackendTls(backend_tls::from_message(message(bytes)?)?),
        Kind::Listener => Resource::Listener(gateway::listener_from_message(message(bytes)?)?),
        Kind::Route => Resource::Route(route::from_message(message(bytes)?)?),
        Kind::StreamRoute => Resource::StreamRoute(gateway::stream_from_message(message(bytes)?)?),
    })
}

fn message<M: Message + Default>(bytes: &[u8]) -> Result<M, field::Invalid> {
    M::decode(bytes).map_err(|error| {
        field::Invalid::new(
            "",
            format!("is not a protobuf message of this type ({error})"),
        )
    })
}

#[cfg(test)]
mod tests;
