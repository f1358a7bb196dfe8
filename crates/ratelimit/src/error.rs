//! Why the service does not start.

use std::io;
use std::net::SocketAddr;

use crate::config::ConfigError;
use crate::store::StoreError;

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
pub enum RateLimitError {
    /// A port cannot be had.
    #[error("cannot listen on {address} ({flag}); is another process there?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The flag that says it.
        flag: &'static str,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The limits in files are not valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Counts cannot be kept where it is said.
    #[error(transparent)]
    Store(#[from] StoreError),
}
