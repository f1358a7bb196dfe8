//! Process kit: worker threads, logging, signals, readiness and drain.
//!
//! Knows nothing of the mesh. Every long-running command is built from these four pieces.
#![forbid(unsafe_code)]

pub mod drain;
pub mod logging;
pub mod readiness;
pub mod signals;
pub mod workers;

pub use drain::Drain;
pub use readiness::Readiness;
