//! Generated from `proto/` by `cargo xtask gen`: do not edit the included files.
//!
//! The modules are nested as the protobuf packages are, which is what the generated code expects.
#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    rustdoc::all,
    clippy::all,
    clippy::pedantic,
    reason = "generated code"
)]

/// Tulle's own messages.
pub mod tulle {
    /// Version 1.
    pub mod v1 {
        include!("proto/tulle.v1.rs");
    }
}

/// Envoy's messages, trimmed.
pub mod envoy {
    /// Configuration.
    pub mod config {
        /// What all parts share.
        pub mod core {
            /// Version 3.
            pub mod v3 {
                include!("proto/envoy.config.core.v3.rs");
            }
        }
    }
    /// Extensions.
    pub mod extensions {
        /// What several of them share.
        pub mod common {
            /// Rate limits.
            pub mod ratelimit {
                /// Version 3.
                pub mod v3 {
                    include!("proto/envoy.extensions.common.ratelimit.v3.rs");
                }
            }
        }
    }
    /// Services.
    pub mod service {
        /// Discovery.
        pub mod discovery {
            /// Version 3.
            pub mod v3 {
                include!("proto/envoy.service.discovery.v3.rs");
            }
        }
        /// Rate limits.
        pub mod ratelimit {
            /// Version 3.
            pub mod v3 {
                include!("proto/envoy.service.ratelimit.v3.rs");
            }
        }
    }
    /// Common types.
    pub mod r#type {
        /// Version 3.
        pub mod v3 {
            include!("proto/envoy.r#type.v3.rs");
        }
    }
}

/// Google's messages.
pub mod google {
    /// Errors.
    pub mod rpc {
        include!("proto/google.rpc.rs");
    }
}

pub use envoy::service::discovery::v3 as discovery;
pub use envoy::service::ratelimit::v3 as ratelimit;
pub use tulle::v1;
