//! The crate from outside: tables, one row per rule, and properties.
#![allow(clippy::unwrap_used)] // helpers of tests count as no tests for clippy.toml

mod chunked;
mod encode;
mod fields;
mod host;
mod limits;
mod map;
mod properties;
mod request;
mod response;
mod show;
