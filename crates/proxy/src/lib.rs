//! The data plane: a proxy beside a workload.
//!
//! A request's way: accept, identify, detect, route, filter, pick an endpoint, connect, send,
//! perhaps retry, filter the response, record. Each phase is a function in a module of that name;
//! [`outbound`] and [`inbound`] are the two drivers that string them together.
//!
//! Invariants: nothing here parses configuration or knows where it came from, only the model; a
//! request takes no lock that another worker thread could hold; what has state (pools, counters,
//! ejections) lives beside the snapshot of the configuration and survives its replacement.
#![forbid(unsafe_code)]

mod admin;
mod admission;
mod behalf;
mod bootstrap;
mod connect;
mod deadline;
mod destination;
mod dns;
mod error;
mod external;
mod fallback;
mod forward;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzed;
mod gateway;
mod hash;
mod headers;
mod health;
mod hedge;
mod http;
mod http1;
mod http2;
mod http3;
mod inbound;
mod intake;
mod io;
mod mirror;
mod mux;
mod options;
mod outbound;
mod outside;
mod peers;
mod pending;
mod pool;
mod record;
mod reply;
mod request;
mod retry;
mod server;
mod session;
mod spare;
mod stale;
mod state;
mod tcp;
mod timer;
mod tunnel;
mod udp;
mod worker;

pub use options::{AccessLog, Control, Gateways, MARK, Mode, Options, Role, Source, Upstream};
pub use server::{ProxyError, run};
