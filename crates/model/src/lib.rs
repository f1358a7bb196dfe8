//! The mesh in Tulle's own words: services, workloads, routes, policies, identities.
//!
//! Everything here is *valid by construction*: a value of these types can be put to work
//! without a further check. What users write is turned into it by `config`, what comes over
//! the wire by `xds`. Nothing here knows tokio, protobuf, YAML or a foreign mesh.
//!
//! The control plane hands the model to proxies as [`resource::Resource`]s: small, named, and
//! pointing *up* to their parent, so that one edit is one small message.
#![forbid(unsafe_code)]

pub mod backend_tls;
pub mod balancing;
pub mod endpoint;
pub mod gateway;
pub mod health_check;
pub mod hostname;
pub mod limits;
pub mod mesh;
pub mod name;
pub mod overload;
pub mod pattern;
pub mod reason;
pub mod request;
pub mod resource;
pub mod retry;
pub mod route;
pub mod service;
pub mod session;
pub mod spiffe;
pub mod tls;
pub mod traffic;
pub mod workload;

pub use name::{ObjectName, ServiceName, WorkloadName};
pub use reason::Reason;
pub use spiffe::{SpiffeId, TrustDomain};
