//! Delta xDS: how resources travel from the control plane to proxies.
//!
//! [`codec`] turns the model into the messages of package `tulle.v1` and back, and trusts nothing
//! that it reads. [`delta`] holds the protocol's two state machines, without sockets or clocks;
//! [`server`] and [`client`] drive them over gRPC. The protocol is Envoy's incremental ADS
//! (xds_protocol, "Incremental xDS"), so that other clients and servers can take part.
//!
//! This crate does not know where resources come from (`control`) or what they are for (`proxy`).
#![forbid(unsafe_code)]

pub mod certificate;
pub mod client;
pub mod codec;
pub mod delta;
pub mod health;
pub mod local;
pub mod proto;
pub mod server;
