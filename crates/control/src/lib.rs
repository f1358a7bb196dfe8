//! The control plane: sources, store, registry, distribution, certificates, status and the HTTP API.
//!
//! One process, one data directory, one writer. Objects come from files ([`source`]), from the
//! HTTP API ([`api`]) and from workloads that register themselves ([`registry`]); each change is
//! committed to the [`store`] first, then translated and handed to the proxies that asked for it
//! ([`distribute`]). What proxies acknowledge becomes status ([`status`]).
//!
//! It knows nothing of sockets that carry users' traffic: proxies go on without it.
#![forbid(unsafe_code)]

pub mod address;
pub mod caller;
pub mod store;
mod error;
mod home;
mod limit;
mod loopback;
mod options;

pub use error::ControlError;
pub use options::{Addresses, Listen, Options, StoreUrl};

/// Runs the control plane until `shutdown` completes, then closes everything in order.
///
/// Returns early when it cannot start: a port in use, a data directory of another control plane,
/// a store that cannot be read. Objects in files that are wrong do not keep it from starting.
pub async fn run(
    options: Options,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ControlError> {
    let _ = options;
    shutdown.await;
    Ok(())
}
