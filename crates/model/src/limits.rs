//! What one client may cost: bounds on sizes, counts and times, all of them on by default.
//!
//! The mesh has one set of them, and a Gateway's listener may have its own. A bound that is
//! overstepped ends the request or the connection, and is counted with its reason.

use std::time::Duration;

/// Bounds for connections and requests of clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request's header section, as it stands on the wire.
    pub request_header_bytes: u32,
    /// Fields of a request's header section.
    pub request_header_count: u32,
    /// Bytes of a request's target.
    pub request_target_bytes: u32,
    /// Bytes of a trailer section, in either direction.
    pub trailers_bytes: u32,
    /// From a request's first byte to the end of its header section.
    pub request_head_timeout: Duration,
    /// For a connection on which nothing happens.
    pub idle_timeout: Duration,
    /// For a body, in either direction, that makes no progress.
    pub body_idle_timeout: Duration,
    /// From the connection to the end of the TLS handshake.
    pub tls_handshake_timeout: Duration,
    /// Bytes of a request's body; `None` for no bound: it is streamed.
    pub max_request_body_bytes: Option<u64>,
    /// Connections at once.
    pub max_connections: u32,
    /// Streams at once on one HTTP/2 connection.
    pub max_concurrent_streams: u32,
    /// Streams of one HTTP/2 connection that its client has reset and that are not yet wound up
    /// (rapid reset, CVE-2023-44487).
    pub max_reset_streams: u32,
    /// PING and SETTINGS frames of one HTTP/2 connection in a minute, beyond those for which a request
    /// or data came.
    pub max_pings_per_minute: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_header_bytes: 64 * 1024,
            request_header_count: 128,
            request_target_bytes: 16 * 1024,
            trailers_bytes: 16 * 1024,
            request_head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_mins(5),
            body_idle_timeout: Duration::from_mins(1),
            tls_handshake_timeout: Duration::from_secs(10),
            max_request_body_bytes: None,
            max_connections: 32_768,
            max_concurrent_streams: 100,
            max_reset_streams: 100,
            max_pings_per_minute: 60,
        }
    }
}
