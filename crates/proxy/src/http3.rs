//! HTTP/3 connections of a Gateway's clients: QUIC is `quinn`'s, framing and QPACK are `h3`'s; here
//! streams become requests and replies, as in `http2`. Nothing of either library is named outside
//! this module, so that they can be replaced.
//!
//! `h3` keeps everybody on the right path and leaves bounds to others: [`transport`] and `frames`
//! stand between it and the network and see to it that nothing is collected without one.

mod body;
mod endpoint;
mod frames;
mod interim;
mod server;
mod tls;
mod transport;

pub(crate) use body::Body;
pub(crate) use endpoint::{Attempt, Endpoint, HandshakeError};
pub(crate) use interim::Interims;
pub(crate) use server::serve;

/// What a client may send on one stream before it hears that some was taken.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same for all streams of a connection.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Data of all streams of a connection that is held until its client has acknowledged it.
const SEND_WINDOW: u64 = 1024 * 1024;

/// The protocol's name in TLS (RFC 9114 3.1).
pub(crate) const ALPN: &[u8] = b"h3";
