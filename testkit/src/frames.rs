//! HTTP/2 frames as an attacker writes them: nothing is checked, every byte is the test's own.
//!
//! Field blocks are HPACK literals without indexing and without Huffman coding (RFC 7541 6.2.2), so
//! that names and values may hold any byte. Of answers only what tests look at is understood:
//! status, body, resets and GOAWAY.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use crate::raw::{Ended, Raw};

/// What a client sends first (RFC 9113 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types (RFC 9113 6).
pub mod kind {
    #![allow(missing_docs)]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// `END_STREAM` of DATA and HEADERS.
pub const END_STREAM: u8 = 1;
/// `END_HEADERS` of HEADERS and CONTINUATION.
pub const END_HEADERS: u8 = 4;
/// ACK of SETTINGS and PING.
pub const ACK: u8 = 1;

/// Error codes (RFC 9113 7) that tests look for.
pub mod code {
    #![allow(missing_docs)]
    pub const NO_ERROR: u32 = 0;
    pub const PROTOCOL_ERROR: u32 = 1;
    pub const REFUSED_STREAM: u32 = 7;
    pub const CANCEL: u32 = 8;
    pub const ENHANCE_YOUR_CALM: u32 = 11;
}

/// One frame.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// See [`kind`].
    pub kind: u8,
    /// As on the wire.
    pub flags: u8,
    /// Stream, 0 for the connection.
    pub stream: u32,
    /// Everything after the nine octets of the head.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A frame.
    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            kind,
            flags,
            stream,
            payload: payload.into(),
        }
    }

    /// HEADERS that hold the whole block.
    pub fn headers(stream: u32, end: bool, fields: &[(&[u8], &[u8])]) -> Self {
        let flags = END_HEADERS | if end { END_STREAM } else { 0 };
        Self::new(kind::HEADERS, flags, stream, block(fields))
    }

    /// DATA.
    pub fn data(stream: u32, end: bool, bytes: impl Into<Vec<u8>>) -> Self {
        Self::new(kind::DATA, if end { END_STREAM } else { 0 }, stream, bytes)
    }

    /// `RST_STREAM` with an error code.
    pub fn reset(stream: u32, code: u32) -> Self {
        Self::new(kind::RST_STREAM, 0, stream, code.to_be_bytes())
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).expect("a frame of less than 16 MiB");
        let mut out = Vec::with_capacity(9 + self.payload.len());
        out.extend_from_slice(&length.to_be_bytes()[1..]);
        out.extend_from_slice(&[self.kind, self.flags]);
        out.extend_from_slice(&self.stream.to_be_bytes());
        out.extend_from_slice(&self.payload);
        out
    }

    /// The error code of `RST_STREAM` or GOAWAY.
    pub fn code(&self) -> Option<u32> {
        let at = match self.kind {
            kind::RST_STREAM => 0,
            kind::GOAWAY => 4,
            _ => return None,
        };
        let bytes = self.payload.get(at..at + 4)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 10] = [
            "DATA",
            "HEADERS",
            "PRIORITY",
            "RST_STREAM",
            "SETTINGS",
            "PUSH_PROMISE",
            "PING",
            "GOAWAY",
            "WINDOW_UPDATE",
            "CONTINUATION",
        ];
        let name = NAMES.get(usize::from(self.kind)).unwrap_or(&"UNKNOWN");
        write!(
            f,
            "{name}(stream {}, flags {:#x}, ",
            self.stream, self.flags
        )?;
        match self.code() {
            Some(code) => write!(f, "code {code})"),
            None => write!(f, "{:?})", String::from_utf8_lossy(&self.payload)),
        }
    }
}

/// A field block of literals without indexing.
pub fn block(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        string(name, &mut out);
        string(value, &mut out);
    }
    out
}

/// A string literal without Huffman coding (RFC 7541 5.2).
pub fn string(bytes: &[u8], out: &mut Vec<u8>) {
    integer(bytes.len(), 7, 0, out);
    out.extend_from_slice(bytes);
}

/// An integer with a prefix of so many bits (RFC 7541 5.1); `first` are the bits above the prefix.
pub fn integer(mut value: usize, prefix: u32, first: u8, out: &mut Vec<u8>) {
    let most = (1usize << prefix) - 1;
    if value < most {
        out.push(first | value as u8);
        return;
    }
    out.push(first | most as u8);
    value -= most;
    while value >= 128 {
        out.push(128 | (value % 128) as u8);
        value /= 128;
    }
    out.push(value as u8);
}

/// What became of a stream.
#[derive(Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A response; `None` for a status that was not understood.
    Answered(Option<u16>, Vec<u8>),
    /// `RST_STREAM`, with what status had come before.
    Reset(u32, Option<u16>),
    /// GOAWAY that leaves the stream out or names an error.
    GoAway(u32),
    /// The connection ended.
    Closed,
    /// Nothing in time.
    Silent,
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(status, body) => {
                let text = String::from_utf8_lossy(&body[..body.len().min(200)]);
                f.debug_tuple("Answered")
                    .field(status)
                    .field(&text)
                    .finish()
            }
            Self::Reset(code, status) => write!(f, "Reset({code}, {status:?})"),
            Self::GoAway(code) => write!(f, "GoAway({code})"),
            Self::Closed => f.write_str("Closed"),
            Self::Silent => f.write_str("Silent"),
        }
    }
}

/// A client connection of HTTP/2 under the test's hand.
#[derive(Debug)]
pub struct Connection {
    /// The bytes.
    pub raw: Raw,
    /// All frames received, in order, for what a failing test prints.
    pub log: Vec<Frame>,
}

impl Connection {
    /// Sends the preface and empty SETTINGS.
    pub fn open(raw: Raw) -> io::Result<Self> {
        Self::open_with(raw, &[])
    }

    /// As [`open`](Self::open), with these SETTINGS.
    pub fn open_with(mut raw: Raw, settings: &[(u16, u32)]) -> io::Result<Self> {
        let mut payload = Vec::new();
        for (id, value) in settings {
            payload.extend_from_slice(&id.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        let mut bytes = PREFACE.to_vec();
        bytes.extend(Frame::new(kind::SETTINGS, 0, 0, payload).encode());
        raw.send(bytes)?;
        Ok(Self {
            raw,
            log: Vec::new(),
        })
    }

    /// Sends frames, in one write.
    pub fn send(&mut self, frames: &[Frame]) -> io::Result<()> {
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
        self.raw.send(bytes)
    }

    /// The next frame; SETTINGS are acknowledged.
    pub fn next(&mut self, limit: Duration) -> Result<Frame, Ended> {
        let end = Instant::now() + limit;
        let head = self.raw.read_exact(9, limit)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let left = end.saturating_duration_since(Instant::now());
        let payload = self.raw.read_exact(length, left.max(limit / 4))?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        let frame = Frame::new(head[3], head[4], stream, payload);
        if frame.kind == kind::SETTINGS && frame.flags & ACK == 0 {
            let _ = self.send(&[Frame::new(kind::SETTINGS, ACK, 0, [])]);
        }
        self.log.push(frame.clone());
        Ok(frame)
    }

    /// Reads until it is known what became of a stream.
    pub fn outcome(&mut self, stream: u32, limit: Duration) -> Outcome {
        let end = Instant::now() + limit;
        let (mut status, mut body) = (None, Vec::new());
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let frame = match self.next(left) {
                Ok(frame) => frame,
                Err(Ended::TimedOut) => return Outcome::Silent,
                Err(_) => return Outcome::Closed,
            };
            match frame.kind {
                kind::GOAWAY => {
                    let code = frame.code().unwrap_or_default();
                    let last = frame.payload.get(..4).and_then(|b| b.try_into().ok());
                    let last = last.map_or(0, u32::from_be_bytes) & 0x7fff_ffff;
                    if code != code::NO_ERROR || last < stream {
                        return Outcome::GoAway(code);
                    }
                }
                _ if frame.stream != stream => continue,
                kind::RST_STREAM => {
                    return Outcome::Reset(frame.code().unwrap_or_default(), status);
                }
                kind::HEADERS => match status_of(&frame.payload) {
                    Some(100..=199) => continue,
                    Some(found) => status = status.or(Some(found)),
                    None => {}
                },
                kind::DATA => body.extend_from_slice(&frame.payload),
                _ => {}
            }
            if matches!(frame.kind, kind::HEADERS | kind::DATA) && frame.flags & END_STREAM != 0 {
                return Outcome::Answered(status, body);
            }
        }
    }
}

/// Entries 8 to 14 of the static table (RFC 7541 appendix A).
const STATIC: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];

/// The status at the beginning of a field block, unless it refers to an earlier block.
pub fn status_of(block: &[u8]) -> Option<u16> {
    let mut at = 0;
    // RFC 7541 6.3: changes of the table's size come first.
    while block.get(at)? & 0xe0 == 0x20 {
        if block[at] == 0x3f {
            while block.get(at + 1)? & 0x80 != 0 {
                at += 1;
            }
            at += 1;
        }
        at += 1;
    }
    let first = *block.get(at)?;
    if let 0x88..=0x8e = first {
        return Some(STATIC[usize::from(first - 0x88)]);
    }
    // A literal whose name is entry 8 to 14 of the static table, in any of the three forms.
    let index = match first {
        0x40..=0x7f => first & 0x3f,
        0x00..=0x1f => first & 0x0f,
        _ => return None,
    };
    if !(8..=14).contains(&index) {
        return None;
    }
    let head = *block.get(at + 1)?;
    let length = usize::from(head & 0x7f);
    let value = block.get(at + 2..at + 2 + length)?;
    let digits = match head & 0x80 {
        0 => String::from_utf8(value.to_vec()).ok()?,
        _ => huffman_digits(value)?,
    };
    digits.parse().ok()
}

/// Digits in the code of RFC 7541 appendix B.
fn huffman_digits(bytes: &[u8]) -> Option<String> {
    let bits: Vec<u8> = bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |n| (byte >> n) & 1))
        .collect();
    let (mut at, mut out) = (0, String::new());
    while out.len() < 3 {
        let number = |length: usize| -> Option<u8> {
            let bits = bits.get(at..at + length)?;
            Some(bits.iter().fold(0, |n, bit| n << 1 | bit))
        };
        // 0, 1 and 2 have five bits, 3 to 9 six: 0x19 to 0x1f.
        let (digit, length) = match number(5)? {
            digit @ 0..=2 => (digit, 5),
            _ => (number(6)?.checked_sub(0x19)? + 3, 6),
        };
        out.push(char::from(
            b'0'.checked_add(digit).filter(u8::is_ascii_digit)?,
        ));
        at += length;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::Origin;

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn statuses_are_read_in_every_form() {
        assert_eq!(status_of(&[0x88]), Some(200));
        assert_eq!(status_of(&[0x20, 0x8c]), Some(400));
        assert_eq!(status_of(b"\x48\x03431"), Some(431));
        assert_eq!(status_of(b"\x08\x03503"), Some(503));
        // RFC 7541 C.6.1: 302 in Huffman code.
        assert_eq!(status_of(&[0x48, 0x82, 0x64, 0x02]), Some(302));
        // C.6.2: 307.
        assert_eq!(status_of(&[0x48, 0x83, 0x64, 0x0e, 0xff]), Some(307));
        assert_eq!(status_of(&[0xbe]), None);
    }

    #[test]
    fn integers_are_those_of_the_rfc() {
        let mut out = Vec::new();
        integer(10, 5, 0, &mut out);
        integer(1337, 5, 0, &mut out);
        assert_eq!(out, [10, 31, 154, 10]);
    }

    #[test]
    fn a_server_takes_what_is_well_formed() {
        let origin = Origin::start();
        let mut client = Connection::open(Raw::connect(origin.addr()).unwrap()).unwrap();
        let fields: &[(&[u8], &[u8])] = &[
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":authority", b"a"),
            (b":path", b"/p"),
        ];
        client
            .send(&[
                Frame::headers(1, false, fields),
                Frame::data(1, true, "abc"),
            ])
            .unwrap();
        let answer = Outcome::Answered(Some(200), b"POST /p\nabc".to_vec());
        assert_eq!(client.outcome(1, SOON), answer, "{:?}", client.log);
    }
}
