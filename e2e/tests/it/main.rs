//! End-to-end tests: they start the real binary and talk to it through real sockets.
//!
//! The binary is `$TULLE_BIN`, else the one beside it (`target/quick/tulle`). Each test has a mesh of its own, with
//! its own data directory and free ports.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by failing"
)]

mod balancing;
mod conformance;
mod control;
mod datagrams;
mod deployed;
mod faults;
mod front;
mod gateway;
mod global_limits;
mod grpc;
mod hbone;
mod hostile;
mod http;
mod kubernetes;
mod life;
mod load;
mod mesh;
mod mux;
mod observe;
mod protocols;
mod rate_limits;
mod resilience;
mod routing;
mod soak;
mod tcp;
