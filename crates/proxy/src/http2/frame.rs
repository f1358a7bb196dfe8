//! What a frame looks like (RFC 9113 4.1), for what is told of frames and to the engine beside it.

pub(super) use net::detect::H2_PREFACE as PREFACE;

/// The length of what stands before a frame's payload.
pub(super) const HEAD: usize = 9;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

/// Of DATA and HEADERS: the last of its stream.
pub(super) const END_STREAM: u8 = 1;
/// Of HEADERS and CONTINUATION: the last of its fields.
pub(super) const END_HEADERS: u8 = 4;
/// Of SETTINGS and PING: an answer, which needs none.
pub(super) const ACK: u8 = 1;
