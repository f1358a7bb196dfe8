//! Resources to and from the wire.

use model::resource::{Kind, Resource};

/// A resource that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {message}")]
pub struct DecodeError {
    /// What it was to be.
    pub kind: Kind,
    /// What is wrong.
    pub message: String,
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
        Kind::Route => "type.googleapis.com/tulle.v1.Route",
    }
}

/// The kind with this type URL.
pub fn kind_of(url: &str) -> Option<Kind> {
    Kind::ALL.into_iter().find(|kind| type_url(*kind) == url)
}

/// The message's bytes: the same for equal resources.
pub fn encode(resource: &Resource) -> Vec<u8> {
    let _ = resource;
    Vec::new()
}

/// Reads and checks a resource.
pub fn decode(kind: Kind, bytes: &[u8]) -> Result<Resource, DecodeError> {
    let _ = bytes;
    Err(DecodeError {
        kind,
        message: String::new(),
    })
}
