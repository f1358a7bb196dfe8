//! The control plane: sources, store, registry, distribution, certificates, status and the HTTP API.
//!
//! One process, one data directory, one writer. Objects come from files ([`source`]), from the
//! HTTP API ([`api`]) and from workloads that register themselves ([`registry`]); each change is
//! committed to the [`store`] first, then translated and handed to the proxies that asked for it
//! ([`distribute`]). What proxies acknowledge becomes status.
//!
//! It knows nothing of sockets that carry users' traffic: proxies go on without it.
#![forbid(unsafe_code)]

pub mod address;
pub mod api;
mod aside;
pub mod authority;
pub mod caller;
pub mod change;
pub mod distribute;
mod envoy;
mod error;
pub mod gateways;
pub mod heard;
mod home;
pub mod kubernetes;
mod limit;
pub mod listen;
mod loopback;
pub mod metrics;
mod options;
mod otlp;
pub mod published;
pub mod registry;
mod run;
pub mod source;
pub mod standing;
pub mod state;
pub mod store;
#[cfg(test)]
mod testing;

pub use error::ControlError;
pub use gateways::{Gateways, Program};
pub use options::{Addresses, Listen, Options, StoreUrl, StoreUrlError};
pub use run::run;
