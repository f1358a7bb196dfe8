//! What tests are made of; never shipped.
//!
//! | module | gives |
//! |---|---|
//! | [`certs`] | certificates as attackers, other meshes and slow clocks make them |
//! | [`raw`] | a client that sends exact bytes, plain or TLS, and reads with deadlines |
//! | [`upstream`] | a server that plays a script: answers, stalls, resets, lies |
//! | [`origin`] | a real HTTP server that writes down every request it sees |
//! | [`tunnels`] | a server of HTTP/2 tunnels: WebSocket (RFC 8441) and HBONE |
//! | [`frames`] | HTTP/2 frames as an attacker writes them |
//! | [`h3`] | an HTTP/3 client, for whole requests and for exact bytes |
//! | [`process`] | a child process with its logs, killed with all its children |
//! | [`deadline`] | waiting for a condition instead of sleeping |
//! | [`place`] | free ports and data directories |
//!
//! Everything is blocking for the test and needs no runtime of its own; every wait has a limit.
//! What cannot do as it was asked panics with a text that says what was going on: a test's failure
//! should be understood without running it again.
#![forbid(unsafe_code)]

pub mod certs;
pub mod deadline;
pub mod frames;
pub mod h3;
pub mod origin;
pub mod place;
pub mod process;
pub mod raw;
pub mod tunnels;
pub mod upstream;

pub use deadline::wait_for;
