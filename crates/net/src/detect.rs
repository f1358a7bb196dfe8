//! What a client speaks, told from its first bytes.
//!
//! [`sniff`] never waits for more than it needs: a binary protocol is known at its first byte, a
//! request with a common method at the first byte of its target. `NeedMore` says nothing about
//! time: a client of a server-first protocol sends nothing at all, so the caller must dial or
//! give up in parallel, not wait here. [`read_client_hello`] has rustls read server name and
//! protocols out of a TLS ClientHello (RFC 8446 4.1.2), also one spread over several records and
//! packets as those with post-quantum key shares are, up to [`LIMIT`] bytes. What rustls would
//! refuse as a server is refused here too: a hello without `signature_algorithms` (before TLS 1.2)
//! and one with a server name that is no host name. With Encrypted ClientHello the name is the
//! outer one.

use std::io;

use bytes::BytesMut;
use rustls::server::Acceptor;
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
        /// The server name, lower-case (RFC 6066 3); never an address.
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
    let mut reader = HelloReader::default();
    loop {
        match reader.read(buffer) {
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
    HelloReader::default().read(bytes)
}

/// Reads a ClientHello that comes in pieces, each byte once.
#[derive(Default)]
struct HelloReader {
    acceptor: Acceptor,
    taken: usize,
}

impl HelloReader {
    /// `all` is what came so far, what was given before included.
    fn read(&mut self, all: &[u8]) -> ClientHello {
        // Refuses at once what is no handshake, where rustls would wait for a whole record.
        if sniff_tls(&all[..all.len().min(RECORD_HEADER + 1)]) == Sniff::Other {
            return ClientHello::Invalid;
        }
        let bytes = &all[..all.len().min(LIMIT)];
        let mut rest = bytes.get(self.taken..).unwrap_or_default();
        while !rest.is_empty() {
            match self.acceptor.read_tls(&mut rest) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return ClientHello::Invalid,
            }
            self.taken = bytes.len() - rest.len();
            match self.acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => return found(&accepted.client_hello()),
                Err(_) => return ClientHello::Invalid,
            }
        }
        if bytes.len() < LIMIT {
            ClientHello::NeedMore
        } else {
            ClientHello::Invalid
        }
    }
}

fn found(hello: &rustls::server::ClientHello<'_>) -> ClientHello {
    ClientHello::Found {
        sni: hello.server_name().map(str::to_ascii_lowercase),
        alpn: hello
            .alpn()
            .map(|all| all.map(<[u8]>::to_vec).collect())
            .unwrap_or_default(),
    }
}

const READ_AHEAD: usize = 2048;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const RECORD_HEADER: usize = 5;

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

#[cfg(test)]
mod tests;
