//! Pure decisions over the model: which rule of which route, with which filters, to which backend.
//!
//! The proxy and the offline tools ask the same functions, so what they say is what the
//! proxy does. Nothing here waits, reads a clock, draws a random number or opens a socket: such
//! things are handed in. Precedence and filters follow Gateway API; where it leaves a choice, the
//! module that makes the choice says so.
#![forbid(unsafe_code)]

pub mod backend_tls;
pub mod cors;
pub mod course;
pub mod deadline;
pub mod effective;
pub mod filter;
pub mod gateway;
pub mod host;
pub mod locality;
pub mod path;
pub mod request;
pub mod route;
pub mod split;

pub use effective::Effective;
pub use route::{Decision, RequestView, RouteTable};
