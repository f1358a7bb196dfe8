//! What a configuration does to requests, before it is put in force.
//!
//! From objects and a request to an explanation ([`simulate`]), from two sets of objects to the
//! requests that they treat differently ([`diff`]), and from one set to what in it can do nothing
//! ([`analyze`]). Nothing is decided here: objects go through `config` as in the control plane, and
//! listeners, routes, filters and policies through `policy` as in the proxy. No sockets, no clock.
#![forbid(unsafe_code)]

pub mod analyze;
pub mod diff;
pub mod live;
pub mod report;
pub mod request;
pub mod simulate;
pub mod world;

mod words;

pub use analyze::{Finding, analyze};
pub use diff::{Diff, Difference, diff};
pub use report::Simulation;
pub use request::{Caller, Request};
pub use simulate::simulate;
pub use world::World;
