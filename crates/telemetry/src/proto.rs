//! OpenTelemetry's protocol as generated from `proto/opentelemetry` (`cargo xtask gen`).

#![expect(
    missing_docs,
    clippy::pedantic,
    reason = "generated; documented in the protocol's own files"
)]

/// The collector's services.
pub mod collector {
    /// Where spans are sent.
    pub mod trace {
        /// Version 1.
        pub mod v1 {
            include!("proto/opentelemetry.proto.collector.trace.v1.rs");
        }
    }
}

/// Attributes and scopes.
pub mod common {
    /// Version 1.
    pub mod v1 {
        include!("proto/opentelemetry.proto.common.v1.rs");
    }
}

/// Who sent it.
pub mod resource {
    /// Version 1.
    pub mod v1 {
        include!("proto/opentelemetry.proto.resource.v1.rs");
    }
}

/// Spans.
pub mod trace {
    /// Version 1.
    pub mod v1 {
        include!("proto/opentelemetry.proto.trace.v1.rs");
    }
}
