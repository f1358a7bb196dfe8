//! The shop's gRPC messages and services, generated from `proto/bookshop` (`cargo xtask gen`).
#![expect(unreachable_pub, clippy::pedantic, reason = "generated code")]

include!("proto/bookshop.v1.rs");
