//! Metrics, access log, trace context, span export, and the control plane's store of traces.
//!
//! What the request path touches takes no lock: counters have one writer each (a worker's
//! [`metrics::Shard`]), log lines and spans go into bounded queues and are counted when dropped.
//! Names, labels and units are the outer contract's; exposition follows the Prometheus text
//! format and OpenMetrics 1.0, spans the OpenTelemetry semantic conventions for HTTP.
//!
//! This crate knows no sockets and no configuration: callers hand it a channel, a file, a header
//! map.
#![forbid(unsafe_code)]

pub mod access_log;
pub mod hex;
pub mod metrics;
pub mod proto;
pub mod store;
pub mod trace;

/// Which way a request or connection went, seen from the proxy's own workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// To the workload.
    Inbound,
    /// From the workload.
    Outbound,
}

impl Direction {
    /// The word for labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}
