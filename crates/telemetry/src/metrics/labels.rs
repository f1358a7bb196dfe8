//! Label sets of the mesh's own series.

use std::sync::Arc;

use crate::Direction;

/// What a request series is told apart by, besides the outcome of each request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestLabels {
    /// Which way it went.
    pub direction: Direction,
    /// Name of the calling workload's app; empty if unknown.
    pub source: Arc<str>,
    /// SPIFFE ID of the caller; empty if it proved none.
    pub source_principal: Arc<str>,
    /// Host of the service that was asked for.
    pub destination: Arc<str>,
    /// Name of the workload that answered; empty if none was reached.
    pub destination_workload: Arc<str>,
    /// Its version; may be empty.
    pub destination_version: Arc<str>,
    /// `http` or `grpc`.
    pub protocol: &'static str,
    /// Name of the route that matched; empty if none did.
    pub route: Arc<str>,
    /// Whether the hop was mutual TLS.
    pub mtls: bool,
}

/// What a series of TCP connections is told apart by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TcpLabels {
    /// Which way they went.
    pub direction: Direction,
    /// Name of the calling workload's app; empty if unknown.
    pub source: Arc<str>,
    /// SPIFFE ID of the caller; empty if it proved none.
    pub source_principal: Arc<str>,
    /// Host of the service that was asked for.
    pub destination: Arc<str>,
    /// Name of the workload that was reached; empty if none.
    pub destination_workload: Arc<str>,
    /// Its version; may be empty.
    pub destination_version: Arc<str>,
    /// Whether the hop was mutual TLS.
    pub mtls: bool,
}

/// Value of every label of a folded series.
const OTHER: &str = "other";

impl RequestLabels {
    /// The series into which this one is folded when there are too many.
    pub(super) fn folded(&self) -> Self {
        let other: Arc<str> = OTHER.into();
        Self {
            direction: self.direction,
            source: Arc::clone(&other),
            source_principal: Arc::clone(&other),
            destination: Arc::clone(&other),
            destination_workload: Arc::clone(&other),
            destination_version: Arc::clone(&other),
            protocol: self.protocol,
            route: other,
            mtls: self.mtls,
        }
    }
}

impl TcpLabels {
    /// The series into which this one is folded when there are too many.
    pub(super) fn folded(&self) -> Self {
        let other: Arc<str> = OTHER.into();
        Self {
            direction: self.direction,
            source: Arc::clone(&other),
            source_principal: Arc::clone(&other),
            destination: Arc::clone(&other),
            destination_workload: Arc::clone(&other),
            destination_version: other,
            mtls: self.mtls,
        }
    }
}
