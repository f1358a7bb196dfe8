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

/// Envoy's messages, trimmed.
pub mod envoy {
    /// Configuration.
    pub mod config {
        /// Where requests go.
        pub mod cluster {
            /// Version 3.
            pub mod v3 {
                include!("proto/envoy.config.cluster.v3.rs");
            }
        }
        /// What all parts share.
        pub mod core {
            /// Version 3.
            pub mod v3 {
                include!("proto/envoy.config.core.v3.rs");
            }
        }
        /// Who is behind a cluster.
        pub mod endpoint {
            /// Version 3.
            pub mod v3 {
                include!("proto/envoy.config.endpoint.v3.rs");
            }
        }
        /// Where connections come in.
        pub mod listener {
            /// Version 3.
            pub mod v3 {
                include!("proto/envoy.config.listener.v3.rs");
            }
        }
        /// Which request goes where.
        pub mod route {
            /// Version 3.
            pub mod v3 {
                include!("proto/envoy.config.route.v3.rs");
            }
        }
    }
    /// Extensions.
    pub mod extensions {
        /// Filters.
        pub mod filters {
            /// For requests.
            pub mod http {
                /// The last one, which sends them on.
                pub mod router {
                    /// Version 3.
                    pub mod v3 {
                        include!("proto/envoy.extensions.filters.http.router.v3.rs");
                    }
                }
            }
            /// For connections.
            pub mod network {
                /// HTTP.
                pub mod http_connection_manager {
                    /// Version 3.
                    pub mod v3 {
                        include!(
                            "proto/envoy.extensions.filters.network.http_connection_manager.v3.rs"
                        );
                    }
                }
                /// Bytes.
                pub mod tcp_proxy {
                    /// Version 3.
                    pub mod v3 {
                        include!("proto/envoy.extensions.filters.network.tcp_proxy.v3.rs");
                    }
                }
            }
        }
        /// Below the filters.
        pub mod transport_sockets {
            /// TLS.
            pub mod tls {
                /// Version 3.
                pub mod v3 {
                    include!("proto/envoy.extensions.transport_sockets.tls.v3.rs");
                }
            }
        }
        /// Of clusters.
        pub mod upstreams {
            /// HTTP.
            pub mod http {
                /// Version 3.
                pub mod v3 {
                    include!("proto/envoy.extensions.upstreams.http.v3.rs");
                }
            }
        }
    }
    /// Common types.
    pub mod r#type {
        /// How texts are compared.
        pub mod matcher {
            /// Version 3.
            pub mod v3 {
                include!("proto/envoy.r#type.matcher.v3.rs");
            }
        }
        /// Version 3.
        pub mod v3 {
            include!("proto/envoy.r#type.v3.rs");
        }
    }
}

pub use envoy::config::cluster::v3 as cluster;
pub use envoy::config::core::v3 as core;
pub use envoy::config::endpoint::v3 as endpoint;
pub use envoy::config::listener::v3 as listener;
pub use envoy::config::route::v3 as route;
pub use envoy::extensions::filters::http::router::v3 as router;
pub use envoy::extensions::filters::network::http_connection_manager::v3 as http_manager;
pub use envoy::extensions::filters::network::tcp_proxy::v3 as tcp_proxy;
pub use envoy::extensions::transport_sockets::tls::v3 as tls;
pub use envoy::extensions::upstreams::http::v3 as upstream;
pub use envoy::r#type::matcher::v3 as matcher;
pub use envoy::r#type::v3 as kind;
