//! Rate limits for a whole mesh: `envoy.service.ratelimit.v3.RateLimitService`.
//!
//! Whoever asks, a proxy of the mesh or an Envoy, says what a request is told from others by, in
//! descriptors; the service counts each of them in windows of a unit of time and says which are over
//! their limit. A limit comes with the question ([`xds::ratelimit`], from a `RateLimitPolicy`) or from
//! [`config`], files in the format of github.com/envoyproxy/ratelimit, whose behaviour this follows:
//! every descriptor counts, also one that is over, and windows begin at multiples of their unit.
//!
//! Counts are [`store`]'s, in memory or in Redis. This crate does not know what a policy or a proxy is.
#![forbid(unsafe_code)]

pub mod config;
mod error;
mod limit;
mod listen;
mod metrics;
mod run;
mod service;
pub mod store;

pub use error::RateLimitError;
pub use limit::{Limit, Unit};
pub use run::{Options, run};
