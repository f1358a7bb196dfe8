//! The protocol's state machines.

pub mod client;
pub mod server;
