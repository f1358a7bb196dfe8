//! Gateways: ports that take traffic from outside, and the tables that say where it goes.
//!
//! [`Listeners`] is part of the snapshot: compiled once per change, read by every connection and
//! request. [`listen`] keeps each worker's sockets in step with it; a port that stays is not
//! touched, and neither are connections of one that goes. [`connection`] is a connection's way:
//! PROXY header, TLS by server name, then HTTP requests ([`Entrance`]) or bytes.

mod entrance;
pub(crate) mod forwarded;
mod listeners;
mod quic;
mod serve;
mod sockets;
mod tls;

pub(crate) use entrance::Entrance;
pub(crate) use listeners::{Inputs, Listeners};
pub(crate) use serve::{connection, datagrams};
pub(crate) use sockets::listen;
