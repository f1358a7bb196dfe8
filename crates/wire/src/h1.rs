//! HTTP/1.0 and 1.1 (RFC 9112), without I/O.
//!
//! Reading is strict: what could be understood in two ways is refused, because the server behind
//! this proxy may understand it the other way (RFC 9112 11.2, request smuggling). Lines end with CRLF
//! and nothing else, a field is one line, a message has one length. What is refused and with which
//! status is in `docs/http.md`, row by row in the tests.
//!
//! Writing never repeats what was read without having understood it: framing fields are made anew,
//! and fields of the connection are not in the head to begin with.
use http::{Method, Version};

use crate::head::{RequestHead, ResponseHead};

mod body;
mod encode;
mod error;
mod lines;
mod request;
mod response;

pub use body::{Decoder, Event};
pub use encode::{CHUNK_TAIL, Target, chunk_head, encode_request, encode_response, last_chunk};
pub use error::{BodyError, HeadError, Part};
pub(crate) use request::{is_origin_form, parse_length};

/// How the content of a message ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// There is no content.
    None,
    /// After so many bytes (`Content-Length`).
    Known(u64),
    /// With a chunk of size 0 (`Transfer-Encoding: chunked`).
    Chunked,
    /// With the connection; only responses.
    UntilClose,
}

/// Bounds of what is read, in bytes unless said otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A head, from its first line to the empty line.
    pub head: usize,
    /// Field lines of a head, and of a trailer section.
    pub fields: usize,
    /// The target of a request.
    pub target: usize,
    /// The line before a chunk: size and extensions.
    pub chunk_line: usize,
    /// A trailer section.
    pub trailers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: 65_536,
            fields: 128,
            target: 16_384,
            chunk_line: 1024,
            trailers: 16_384,
        }
    }
}

/// What the head of a request says about its content and its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestFraming {
    /// Never [`Length::UntilClose`].
    pub length: Length,
    /// By version and `Connection` (RFC 9112 9.3).
    pub keep_alive: bool,
    /// `Expect: 100-continue` (RFC 9110 10.1.1); never from an HTTP/1.0 client.
    pub expect_continue: bool,
    /// `Connection` lists `upgrade` and there is an `Upgrade` field, which then stays in the fields
    /// (RFC 9110 7.8). Never for `h2c`: see there.
    pub upgrade: bool,
    /// The client would rather go on in HTTP/2 (RFC 7540 3.2), its answer on stream 1: `Upgrade` offers
    /// `h2c`, there is no content, and `HTTP2-Settings`, which then stays in the fields, is as it
    /// should be. Whoever does not take the offer answers as if it had not been made, and takes that
    /// field out.
    pub h2c: bool,
    /// `TE` listed `trailers` (RFC 9110 6.5.1).
    pub te_trailers: bool,
}

/// What the head of a response says about its content and its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseFraming {
    /// For the method that was asked with.
    pub length: Length,
    /// By version and `Connection`, and false wherever the end of the message is in doubt.
    pub keep_alive: bool,
    /// The status is 101; `Upgrade` stays in the fields.
    pub upgrade: bool,
}

/// Reads the head of a request into `head`, which is cleared first; it means something only after
/// `Ok(Some(_))`.
///
/// `Ok(None)`: more bytes are needed. `Ok(Some((n, _)))`: the head took the first `n` bytes.
/// `scanned` is the caller's memory of how far the end was looked for; it starts at 0 for each head,
/// and as long as the same bytes stand at the beginning of `buf` the total work is linear however
/// they trickle in.
///
/// An `Upgrade` that offers `h2c` is always taken out: passed on it would open a tunnel that no policy
/// sees.
pub fn parse_request(
    buf: &[u8],
    scanned: &mut usize,
    limits: &Limits,
    head: &mut RequestHead,
) -> Result<Option<(usize, RequestFraming)>, HeadError> {
    request::parse(buf, scanned, limits, head)
}

/// Reads the head of a response to a request with `method` into `head`, which is cleared first.
/// Otherwise as [`parse_request`]. Interim responses (1xx) are heads of their own.
pub fn parse_response(
    buf: &[u8],
    scanned: &mut usize,
    limits: &Limits,
    method: &Method,
    head: &mut ResponseHead,
) -> Result<Option<(usize, ResponseFraming)>, HeadError> {
    response::parse(buf, scanned, limits, method, head)
}

/// RFC 9112 9.3: whether the connection stays, by version and what `Connection` listed.
fn keep_alive(version: Version, close: bool, keep: bool) -> bool {
    !close && (version == Version::HTTP_11 || keep)
}
