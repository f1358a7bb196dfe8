//! Process kit: worker threads, logging, signals, limits, readiness and drain.
//!
//! Knows nothing of the mesh. Every long-running command is built from these pieces.
#![forbid(unsafe_code)]

pub mod drain;
pub mod limits;
pub mod logging;
pub mod readiness;
pub mod signals;
pub mod workers;

pub use drain::Drain;
pub use readiness::Readiness;
