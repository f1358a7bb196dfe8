//! HTTP messages as they stand on the wire.
//!
//! Message heads are flat lists of fields that keep order and letter case as sent ([`Fields`],
//! [`RequestHead`], [`ResponseHead`]). [`h1`] reads and writes them as HTTP/1, strictly: what two
//! servers could read differently is refused. [`map`] takes them to and from the types of the
//! `http` crate, for HTTP/2 and HTTP/3.
//!
//! The crate knows no sockets, no clock and no configuration beyond its limits. Every buffer is the
//! caller's or bounded by [`h1::Limits`], and nothing that arrives from outside can panic.
#![forbid(unsafe_code)]

mod fields;
mod grammar;
pub mod h1;
mod head;
pub mod host;
pub mod map;
mod name;

pub use fields::{Fields, Iter};
pub use h1::{
    BodyError, CHUNK_TAIL, Decoder, Event, HeadError, Length, Limits, Part, RequestFraming,
    ResponseFraming, Target, chunk_head, encode_request, encode_response, last_chunk,
    parse_request, parse_response,
};
pub use head::{Method, RequestHead, ResponseHead, Scheme, Version};
pub use name::is_consumed;
