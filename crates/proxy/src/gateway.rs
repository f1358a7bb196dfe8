//! Gateways: ports that take traffic from outside, and the tables that say where it goes.
//!
//! [`Listeners`] is part of the snapshot: compiled once per change, read by every connection and
//! request. [`listen`] keeps each worker's sockets in step with it; a port that stays is not
//! touched, and neither are connections of one that goes.

mod host;
mod listeners;
mod serve;
mod sockets;

pub(crate) use listeners::Listeners;
pub(crate) use serve::connection;
pub(crate) use sockets::listen;
