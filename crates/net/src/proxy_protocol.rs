//! The PROXY protocol: who the client of a connection was before somebody passed it on.
//!
//! Versions 1 (a line) and 2 (binary) of HAProxy's specification, read and written. Reading does
//! no I/O of its own ([`parse`]) and is strict: a header that is not exactly as the specification
//! has it is [`Parsed::Invalid`], for whoever is believed about addresses must not be vague. A
//! header is bounded by [`MAX_V1`] or [`MAX_V2`]; TLVs are kept as they came, told apart by
//! [`Header::tlvs`], with the CRC32c checked where there is one.
//!
//! Only a peer that is trusted to send one may be read this way: anybody can write a header.

mod crc;
mod read;
mod v1;
mod v2;

use std::net::SocketAddr;

use bytes::Bytes;

pub use read::{Mode, ReadError, read};

/// Longest version 1 header, line end included.
pub const MAX_V1: usize = 107;
/// Longest version 2 header: 16 bytes and what may follow them. The specification allows 64 KiB;
/// nothing that is sent in practice comes near this.
pub const MAX_V2: usize = 16 + 4096;

/// How a version 1 header begins.
pub const V1_PREFIX: &[u8] = b"PROXY ";
/// How a version 2 header begins.
pub const V2_PREFIX: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A version of the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// What a header says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    /// Source and destination of the original connection, of one family. `None`: the sender speaks
    /// for itself (`LOCAL`, health checks) or says nothing that is understood (`UNKNOWN`, unix
    /// sockets); the connection's own addresses hold.
    pub addresses: Option<Addresses>,
    /// Whether the sender speaks for itself.
    pub local: bool,
    /// Version 2's additional fields, as they came.
    tlvs: Bytes,
}

/// The two ends of the original connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// The client.
    pub source: SocketAddr,
    /// Where it connected to.
    pub destination: SocketAddr,
    /// Whether it was a stream (TCP) rather than datagrams (UDP).
    pub stream: bool,
}

/// What the first bytes of a connection turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// A header so far, but not all of it.
    NeedMore,
    /// A header, and how many bytes it took.
    Header(Header, usize),
    /// No header: the bytes do not begin like one.
    Absent,
    /// They begin like one and are none; the text says what is wrong.
    Invalid(&'static str),
}

/// Reads a header from the first bytes of a connection.
pub fn parse(bytes: &[u8]) -> Parsed {
    for (prefix, parse) in [
        (V1_PREFIX, v1::parse as fn(&[u8]) -> Parsed),
        (V2_PREFIX, v2::parse),
    ] {
        let common = bytes.len().min(prefix.len());
        if bytes[..common] == prefix[..common] {
            return if common == prefix.len() {
                parse(bytes)
            } else {
                Parsed::NeedMore
            };
        }
    }
    Parsed::Absent
}

impl Header {
    /// A header for a connection of `source` to `destination`. IPv4 mapped into IPv6 is unmapped
    /// where both ends are.
    pub fn proxied(source: SocketAddr, destination: SocketAddr) -> Self {
        let (a, b) = (
            crate::socket::canonical(source),
            crate::socket::canonical(destination),
        );
        let (source, destination) = match (a.is_ipv4(), b.is_ipv4()) {
            (true, true) | (false, false) => (a, b),
            // Of two families only IPv6 can hold both.
            _ => (mapped(a), mapped(b)),
        };
        Self {
            addresses: Some(Addresses {
                source,
                destination,
                stream: true,
            }),
            ..Self::default()
        }
    }

    /// A header for a connection that the sender opened for itself.
    pub fn local() -> Self {
        Self {
            local: true,
            ..Self::default()
        }
    }

    /// With one more field (version 2 only). `None` where the header would become longer than
    /// [`MAX_V2`].
    pub fn with_tlv(mut self, kind: u8, value: &[u8]) -> Option<Self> {
        let length = self.tlvs.len() + 3 + value.len();
        if length > MAX_V2 - 16 - v2::ADDRESSES_MAX {
            return None;
        }
        let mut tlvs = Vec::with_capacity(length);
        tlvs.extend_from_slice(&self.tlvs);
        v2::push_tlv(&mut tlvs, kind, value);
        self.tlvs = tlvs.into();
        Some(self)
    }

    /// Version 2's additional fields: kind and value, in their order.
    pub fn tlvs(&self) -> impl Iterator<Item = (u8, &[u8])> {
        v2::tlvs(&self.tlvs).filter_map(Result::ok)
    }

    /// The header as it goes over the wire, to be sent before anything else.
    pub fn encode(&self, version: Version) -> Vec<u8> {
        match version {
            Version::V1 => v1::encode(self),
            Version::V2 => v2::encode(self),
        }
    }
}

fn mapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
        v6 @ SocketAddr::V6(_) => v6,
    }
}

#[cfg(test)]
mod tests;
