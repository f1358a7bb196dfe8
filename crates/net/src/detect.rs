//! What a client speaks, told from its first bytes.
//!
//! [`sniff`] never waits for more than it needs: a binary protocol is known at its first byte, a
//! request with a common method at the first byte of its target. `NeedMore` says nothing about
//! time: a client of a server-first protocol sends nothing at all, so the caller must dial or
//! give up in parallel, not wait here. [`client_hello`] reads server name and protocols out of a
//! TLS ClientHello (RFC 8446 4.1.2), also spread over several records and packets, up to
//! [`LIMIT`] bytes.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Most bytes looked at before an answer is given.
pub const LIMIT: usize = 16 * 1024;

/// The opening of an HTTP/2 connection with prior knowledge (RFC 9113 3.4).
pub const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the first bytes look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sniff {
    /// Undecided so far.
    NeedMore,
    /// An HTTP/1 request line.
    Http1,
    /// The HTTP/2 preface.
    Http2,
    /// A TLS ClientHello.
    Tls,
    /// None of these.
    Other,
}

/// What a ClientHello asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientHello {
    /// Not complete yet.
    NeedMore,
    /// Complete.
    Found {
        /// The server name, lower-case (RFC 6066 3).
        sni: Option<String>,
        /// The application protocols, in the client's order (RFC 7301).
        alpn: Vec<Vec<u8>>,
    },
    /// Not a ClientHello, or larger than [`LIMIT`].
    Invalid,
}

/// Tells the protocol from the bytes received so far.
pub fn sniff(bytes: &[u8]) -> Sniff {
    let Some(&first) = bytes.first() else {
        return Sniff::NeedMore;
    };
    if first == HANDSHAKE {
        return sniff_tls(bytes);
    }
    let common = bytes.len().min(H2_PREFACE.len());
    // Three bytes in common could still be a method; a whole preface is decided.
    if bytes[..common] == H2_PREFACE[..common] {
        return if common == H2_PREFACE.len() {
            Sniff::Http2
        } else {
            Sniff::NeedMore
        };
    }
    sniff_http1(bytes)
}

/// Reads into `buffer` until the protocol is decided, the client ends, or [`LIMIT`] is reached.
///
/// Cancel-safe: what was read stays in `buffer`. The end of the stream gives what is known by then:
/// `Other` with something read, `NeedMore` with nothing.
pub async fn read<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut BytesMut,
) -> io::Result<Sniff> {
    loop {
        match sniff(buffer) {
            Sniff::NeedMore if buffer.len() >= LIMIT => return Ok(Sniff::Other),
            Sniff::NeedMore => {}
            decided => return Ok(decided),
        }
        buffer.reserve(READ_AHEAD);
        if stream.read_buf(buffer).await? == 0 {
            return Ok(if buffer.is_empty() {
                Sniff::NeedMore
            } else {
                Sniff::Other
            });
        }
    }
}

/// Reads into `buffer` until the ClientHello is complete or known to be none.
///
/// Cancel-safe as [`read`]. A stream that ends inside the ClientHello gives `Invalid`.
pub async fn read_client_hello<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut BytesMut,
) -> io::Result<ClientHello> {
    loop {
        match client_hello(buffer) {
            ClientHello::NeedMore => {}
            decided => return Ok(decided),
        }
        buffer.reserve(READ_AHEAD);
        if stream.read_buf(buffer).await? == 0 {
            return Ok(ClientHello::Invalid);
        }
    }
}

/// Reads a ClientHello out of the bytes received so far.
pub fn client_hello(bytes: &[u8]) -> ClientHello {
    match handshake(bytes) {
        Ok(Some(message)) => hello(&message).unwrap_or(ClientHello::Invalid),
        Ok(None) if bytes.len() < LIMIT => ClientHello::NeedMore,
        _ => ClientHello::Invalid,
    }
}

const READ_AHEAD: usize = 2048;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const RECORD_HEADER: usize = 5;
const MESSAGE_HEADER: usize = 4;

fn sniff_tls(bytes: &[u8]) -> Sniff {
    // Record: type, version 3.0 to 3.4, length of 1 to 2^14; then the handshake type.
    let checks: [fn(&[u8], usize) -> bool; 6] = [
        |b, i| b[i] == HANDSHAKE,
        |b, i| b[i] == 3,
        |b, i| b[i] <= 4,
        |b, i| b[i] <= 0x40,
        |b, i| b[i] != 0 || b[i - 1] != 0,
        |b, i| b[i] == CLIENT_HELLO,
    ];
    let known = bytes.len().min(checks.len());
    if !(0..known).all(|i| checks[i](bytes, i)) {
        Sniff::Other
    } else if known == checks.len() {
        Sniff::Tls
    } else {
        Sniff::NeedMore
    }
}

/// Methods after which a plausible target decides at once.
const METHODS: [&[u8]; 9] = [
    b"GET", b"POST", b"PUT", b"HEAD", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE", b"CONNECT",
];
/// The longest registered method is UPDATEREDIRECTREF, 17 letters.
const LONGEST_METHOD: usize = 20;

fn sniff_http1(bytes: &[u8]) -> Sniff {
    // RFC 9112 2.2: empty lines before the request line are to be ignored.
    let mut line = bytes;
    for _ in 0..2 {
        match line {
            [] | [b'\r'] => return Sniff::NeedMore,
            [b'\r', b'\n', rest @ ..] => line = rest,
            _ => break,
        }
    }
    if line.is_empty() {
        return Sniff::NeedMore;
    }
    let method_end = line
        .iter()
        .position(|b| !(b.is_ascii_uppercase() || matches!(b, b'-' | b'_')));
    let Some(method_end) = method_end else {
        return if line.len() <= LONGEST_METHOD {
            Sniff::NeedMore
        } else {
            Sniff::Other
        };
    };
    if method_end == 0 || method_end > LONGEST_METHOD || line[method_end] != b' ' {
        return Sniff::Other;
    }
    let (method, target) = (&line[..method_end], &line[method_end + 1..]);
    let Some(&start) = target.first() else {
        return Sniff::NeedMore;
    };
    if METHODS.contains(&method) && matches!(start, b'/' | b'*') {
        return Sniff::Http1;
    }
    // Anything else must show a whole request line, since inline Redis says "GET key" too.
    match target.iter().position(|&b| b == b'\n') {
        Some(end) => {
            let line = target[..end].strip_suffix(b"\r").unwrap_or(&target[..end]);
            let version = line.len().checked_sub(8).map(|at| &line[at..]);
            match version {
                Some(b"HTTP/1.1" | b"HTTP/1.0") => Sniff::Http1,
                _ => Sniff::Other,
            }
        }
        None if target.iter().any(|b| b.is_ascii_control() && *b != b'\r') => Sniff::Other,
        None if bytes.len() >= LIMIT => Sniff::Other,
        None => Sniff::NeedMore,
    }
}

/// The bytes are no handshake record, or the message in it is no ClientHello.
struct NotAHello;

/// The whole first handshake message without its header, joined over records.
fn handshake(bytes: &[u8]) -> Result<Option<Vec<u8>>, NotAHello> {
    let mut message = Vec::new();
    let mut rest = bytes;
    loop {
        if sniff_tls_record(rest)?.is_none() {
            return Ok(None);
        }
        let length = usize::from(u16::from_be_bytes([rest[3], rest[4]]));
        let body = &rest[RECORD_HEADER..];
        let here = &body[..length.min(body.len())];
        message.extend_from_slice(here);
        if message.first().is_some_and(|&kind| kind != CLIENT_HELLO) {
            return Err(NotAHello);
        }
        if let [_, a, b, c, ..] = message[..] {
            let whole =
                MESSAGE_HEADER + usize::from(a) * 65536 + usize::from(b) * 256 + usize::from(c);
            if whole > LIMIT {
                return Err(NotAHello);
            }
            if message.len() >= whole {
                message.truncate(whole);
                message.drain(..MESSAGE_HEADER);
                return Ok(Some(message));
            }
        }
        if body.len() < length {
            return Ok(None);
        }
        rest = &body[length..];
    }
}

/// Checks a record's header, as far as it is there; `None` where it is not complete.
fn sniff_tls_record(bytes: &[u8]) -> Result<Option<()>, NotAHello> {
    let header = &bytes[..bytes.len().min(RECORD_HEADER)];
    match sniff_tls(header) {
        Sniff::Other => Err(NotAHello),
        _ if header.len() < RECORD_HEADER => Ok(None),
        _ => Ok(Some(())),
    }
}

/// A cursor whose every step may find the message too short.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n)?;
        self.0 = tail;
        Some(head)
    }

    fn u8(&mut self) -> Option<usize> {
        Some(usize::from(self.take(1)?[0]))
    }

    fn u16(&mut self) -> Option<usize> {
        let bytes = self.take(2)?;
        Some(usize::from(u16::from_be_bytes([bytes[0], bytes[1]])))
    }

    fn vector8(&mut self) -> Option<Cursor<'a>> {
        let n = self.u8()?;
        self.take(n).map(Cursor)
    }

    fn vector16(&mut self) -> Option<Cursor<'a>> {
        let n = self.u16()?;
        self.take(n).map(Cursor)
    }
}

fn hello(message: &[u8]) -> Option<ClientHello> {
    let mut cursor = Cursor(message);
    cursor.take(2 + 32)?; // version, random
    cursor.vector8()?; // session id
    cursor.vector16()?; // cipher suites
    cursor.vector8()?; // compression
    let (mut sni, mut alpn) = (None, Vec::new());
    // Before TLS 1.3 the extensions may be missing altogether.
    if !cursor.0.is_empty() {
        let mut extensions = cursor.vector16()?;
        while !extensions.0.is_empty() {
            let kind = extensions.u16()?;
            let body = extensions.vector16()?;
            match kind {
                0 => sni = server_names(body)?.into_iter().next(),
                16 => alpn = protocols(body)?,
                _ => {}
            }
        }
    }
    Some(ClientHello::Found { sni, alpn })
}

/// The host names; RFC 6066 allows one.
fn server_names(mut extension: Cursor<'_>) -> Option<Vec<String>> {
    let mut list = extension.vector16()?;
    let mut names = Vec::new();
    while !list.0.is_empty() {
        let kind = list.u8()?;
        let name = list.vector16()?.0;
        if kind == 0 {
            let valid = (1..=255).contains(&name.len()) && name.iter().all(u8::is_ascii_graphic);
            names.push(valid.then(|| String::from_utf8_lossy(name).to_ascii_lowercase())?);
        }
    }
    Some(names)
}

fn protocols(mut extension: Cursor<'_>) -> Option<Vec<Vec<u8>>> {
    let mut list = extension.vector16()?;
    let mut protocols = Vec::new();
    while !list.0.is_empty() {
        protocols.push(list.vector8()?.0.to_vec());
    }
    Some(protocols)
}

#[cfg(test)]
mod tests;
