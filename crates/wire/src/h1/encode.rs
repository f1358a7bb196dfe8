//! Writing heads and the chunked coding (RFC 9112).
//!
//! Framing fields say what the caller says and nothing else; fields of the connection are written
//! from flags. Whatever a rewrite put into a target or a phrase, it cannot end a line here.
use std::io::Write as _;

use http::{Method, StatusCode, Version};

use super::Length;
use crate::Fields;
use crate::grammar::{is_target_byte, is_value, is_value_byte};
use crate::head::{RequestHead, ResponseHead};
use crate::name::{self, Special};

/// What stands behind the data of a chunk.
pub const CHUNK_TAIL: &[u8] = b"\r\n";

/// Where a request goes; may differ from its head by a rewrite.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Written as `Host`, and as the target of `CONNECT`.
    pub authority: &'a str,
    /// Path and query; an empty one is written as `/`.
    pub path: &'a str,
}

/// Writes the head of a request as HTTP/1.1: origin-form, or authority-form for a plain `CONNECT`.
///
/// Fields keep order and case. `Host` stands in its place with the target's authority, first if
/// there was none. `Content-Length` stands in its place, or last, if the length is known; without
/// content it is kept only where it says 0. A request cannot end with the connection:
/// [`Length::UntilClose`] is written as chunked, so that content sent without framing is refused.
///
/// An extended `CONNECT` (RFC 8441 4) is written as `GET` with `Upgrade`, whatever `upgrade` says; a
/// `Sec-WebSocket-Key`, which HTTP/2 does not have, is the caller's to add.
pub fn encode_request(
    head: &RequestHead,
    target: &Target<'_>,
    length: Length,
    upgrade: bool,
    te_trailers: bool,
    out: &mut Vec<u8>,
) {
    let protocol = head
        .protocol
        .as_deref()
        .filter(|_| head.method == Method::CONNECT);
    let connect = head.method == Method::CONNECT && protocol.is_none();
    let method = protocol.map_or(head.method.as_str(), |_| "GET");
    out.reserve(head.fields.size() + 4 * head.fields.len() + target.path.len() + 128);
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    match (connect, target.path) {
        // An empty one cannot be meant and would leave two spaces.
        (true, _) if target.authority.is_empty() => uri(&head.authority, out),
        (true, _) => uri(target.authority, out),
        (false, "*") if head.method == Method::OPTIONS => out.push(b'*'),
        (false, path) => {
            if !path.starts_with('/') {
                out.push(b'/');
            }
            uri(path, out);
        }
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let mut host = head.fields.has(Special::Host);
    if !host {
        host_line(b"Host", target, out);
    }
    let mut known = Known::new(length);
    let zero = length == Length::None;
    head.fields
        .write_lines(out, |special, name, value, out| match special {
            Special::Expect => line(name, value, out),
            Special::Host if std::mem::take(&mut host) => host_line(name, target, out),
            Special::ContentLength => known.in_place(name, value, zero && value == b"0", out),
            Special::Upgrade if upgrade && protocol.is_none() => line(name, value, out),
            _ => {}
        });
    known.at_end(out);
    if let Some(protocol) = protocol {
        out.extend_from_slice(b"Upgrade: ");
        uri(protocol, out);
        out.extend_from_slice(b"\r\n");
    }
    if matches!(length, Length::Chunked | Length::UntilClose) {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    if te_trailers {
        out.extend_from_slice(b"TE: trailers\r\n");
    }
    out.extend_from_slice(match (upgrade || protocol.is_some(), te_trailers) {
        (true, true) => b"Connection: upgrade, te\r\n\r\n".as_slice(),
        (true, false) => b"Connection: upgrade\r\n\r\n",
        (false, true) => b"Connection: te\r\n\r\n",
        (false, false) => b"\r\n",
    });
}

/// Writes the head of a response; its status line says HTTP/1.1 whatever the client's `version`
/// (RFC 9110 2.5).
///
/// Never chunked to an HTTP/1.0 client: the content then ends with the connection. With
/// [`Length::None`] a `Content-Length` is kept as told (answers to `HEAD`, and 304), except in 1xx and
/// 204, which may have none.
pub fn encode_response(
    head: &ResponseHead,
    version: Version,
    length: Length,
    keep_alive: bool,
    out: &mut Vec<u8>,
) {
    let modern = version == Version::HTTP_11;
    let length = match length {
        Length::Chunked if !modern => Length::UntilClose,
        other => other,
    };
    out.reserve(head.fields.size() + 4 * head.fields.len() + head.reason.len() + 128);
    status_line(head, out);
    let bare = matches!(head.status, 100..200 | 204);
    let mut known = Known::new(if bare { Length::None } else { length });
    let told = length == Length::None && !bare;
    head.fields
        .write_lines(out, |special, name, value, out| match special {
            Special::Expect | Special::Host => line(name, value, out),
            Special::ContentLength => known.in_place(name, value, told, out),
            Special::Upgrade if head.status == 101 => line(name, value, out),
            _ => {}
        });
    known.at_end(out);
    if length == Length::Chunked && !bare {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    let stays = keep_alive && length != Length::UntilClose;
    out.extend_from_slice(match (head.status, stays, modern) {
        (101, ..) => b"Connection: upgrade\r\n\r\n".as_slice(),
        (100..200, ..) | (_, true, true) | (_, false, false) => b"\r\n",
        (_, true, false) => b"Connection: keep-alive\r\n\r\n",
        (_, false, true) => b"Connection: close\r\n\r\n",
    });
}

/// Writes the line before a chunk of `size` bytes. A size of 0 would end the content and is not
/// written.
pub fn chunk_head(size: usize, out: &mut Vec<u8>) {
    if size == 0 {
        return;
    }
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4);
    for place in (0..digits).rev() {
        out.push(b"0123456789abcdef"[size >> (4 * place) & 15]);
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes the end of chunked content. Trailer fields that a trailer may not say are left out.
pub fn last_chunk(trailers: Option<&Fields>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        if name::in_trailer(name) == name::InTrailer::Keep {
            line(name, value, out);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes `Content-Length` once, if the length is known.
struct Known {
    number: Option<u64>,
    kept: bool,
}

impl Known {
    fn new(length: Length) -> Self {
        let number = match length {
            Length::Known(n) => Some(n),
            _ => None,
        };
        Self {
            number,
            kept: false,
        }
    }

    /// At a field that was there. `keep`: its own value is written, the first time.
    fn in_place(&mut self, name: &[u8], value: &[u8], keep: bool, out: &mut Vec<u8>) {
        if let Some(number) = self.number.take() {
            out.extend_from_slice(name);
            length_value(number, out);
            self.kept = true;
        } else if keep && !self.kept {
            line(name, value, out);
            self.kept = true;
        }
    }

    fn at_end(&mut self, out: &mut Vec<u8>) {
        if let Some(number) = self.number.take() {
            out.extend_from_slice(b"Content-Length");
            length_value(number, out);
        }
    }
}

fn length_value(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(b": ");
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

fn line(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn host_line(name: &[u8], target: &Target<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    uri(target.authority, out);
    out.extend_from_slice(b"\r\n");
}

/// Writes part of a URI; what may not stand in one is percent-encoded.
fn uri(text: &str, out: &mut Vec<u8>) {
    if text.bytes().all(is_target_byte) {
        return out.extend_from_slice(text.as_bytes());
    }
    for byte in text.bytes() {
        if is_target_byte(byte) {
            out.push(byte);
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

fn status_line(head: &ResponseHead, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    // Only a mistake in this program makes a status that is none.
    let status = if (100..1000).contains(&head.status) {
        head.status
    } else {
        500
    };
    out.extend([status / 100, status / 10 % 10, status % 10].map(|digit| b'0' + digit as u8));
    out.push(b' ');
    if head.reason.is_empty() {
        let known = StatusCode::from_u16(status)
            .ok()
            .and_then(|status| status.canonical_reason());
        out.extend_from_slice(known.unwrap_or_default().as_bytes());
    } else if is_value(head.reason.as_bytes()) {
        out.extend_from_slice(head.reason.as_bytes());
    } else {
        out.extend(
            head.reason
                .bytes()
                .map(|byte| if is_value_byte(byte) { byte } else { b' ' }),
        );
    }
    out.extend_from_slice(b"\r\n");
}
