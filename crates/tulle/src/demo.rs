//! The demonstration: a whole mesh on one host, and the check that it does what it claims.

pub(crate) mod check;
pub(crate) mod probe;
pub(crate) mod process;
pub(crate) mod shop;
pub(crate) mod show;
pub(crate) mod world;
