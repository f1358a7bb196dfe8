//! Version 2: 12 fixed bytes, version and command, family, length, addresses, TLVs
//! (specification 2.2).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;

use super::crc::crc32c;
use super::{Addresses, Header, MAX_V2, Parsed, V2_PREFIX};

const FIXED: usize = 16;
const IPV4: usize = 12;
const IPV6: usize = 36;
const UNIX: usize = 216;
/// Most bytes that addresses take.
pub(super) const ADDRESSES_MAX: usize = UNIX;

/// Version 2 and the command of a sender that speaks for itself, or for another.
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
/// The checksum of the header.
const TYPE_CRC32C: u8 = 0x03;

/// `bytes` begin with the prefix.
pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let Some(fixed) = bytes.get(..FIXED) else {
        return partial(&bytes[V2_PREFIX.len()..]);
    };
    let (command, family) = (fixed[12], fixed[13]);
    if let Some(why) = wrong(command, family) {
        return Parsed::Invalid(why);
    }
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if FIXED + length > MAX_V2 {
        return Parsed::Invalid("a version 2 header of more than 4096 bytes");
    }
    let Some(all) = bytes.get(..FIXED + length) else {
        return Parsed::NeedMore;
    };
    match body(all, command == LOCAL, family) {
        Ok(header) => Parsed::Header(header, FIXED + length),
        Err(why) => Parsed::Invalid(why),
    }
}

/// What can be said before the fixed part is complete.
fn partial(after_prefix: &[u8]) -> Parsed {
    let command = after_prefix.first().copied().unwrap_or(LOCAL);
    let family = after_prefix.get(1).copied().unwrap_or(0);
    wrong(command, family).map_or(Parsed::NeedMore, Parsed::Invalid)
}

fn wrong(command: u8, family: u8) -> Option<&'static str> {
    if command >> 4 != 2 {
        return Some("a version 2 header of another version");
    }
    if !matches!(command, LOCAL | PROXY) {
        return Some("a version 2 header with a command that is neither LOCAL nor PROXY");
    }
    if family >> 4 > 3 || family & 0xf > 2 {
        return Some("a version 2 header with a family or protocol that is not assigned");
    }
    None
}

fn body(all: &[u8], local: bool, family: u8) -> Result<Header, &'static str> {
    let body = &all[FIXED..];
    let short = "a version 2 header too short for its addresses";
    let taken = match family >> 4 {
        1 => IPV4,
        2 => IPV6,
        3 => UNIX,
        _ => 0,
    };
    // What follows LOCAL or an unspecified family must be ignored.
    if local {
        return Ok(Header::local());
    }
    if taken == 0 {
        return Ok(Header::default());
    }
    let (addresses, tlvs) = body.split_at_checked(taken).ok_or(short)?;
    for tlv in self::tlvs(tlvs) {
        let (kind, value) = tlv?;
        if kind == TYPE_CRC32C {
            check(all, value)?;
        }
    }
    let stream = match family & 0xf {
        1 => Some(true),
        2 => Some(false),
        _ => None,
    };
    Ok(Header {
        addresses: stream.and_then(|stream| read_addresses(addresses, stream)),
        local: false,
        tlvs: Bytes::copy_from_slice(tlvs),
    })
}

/// By the length of the block: unix sockets have no address that is of use here.
fn read_addresses(block: &[u8], stream: bool) -> Option<Addresses> {
    let port = |at: usize| u16::from_be_bytes([block[at], block[at + 1]]);
    let (source, destination) = match block.len() {
        IPV4 => ((ip_v4(block, 0)?, port(8)), (ip_v4(block, 4)?, port(10))),
        IPV6 => ((ip_v6(block, 0)?, port(32)), (ip_v6(block, 16)?, port(34))),
        _ => return None,
    };
    Some(Addresses {
        source: source.into(),
        destination: destination.into(),
        stream,
    })
}

/// The checksum is that of the whole header with its own value zero (specification 2.2.4).
fn check(all: &[u8], value: &[u8]) -> Result<(), &'static str> {
    let wrong = Err("a version 2 header whose checksum is wrong");
    let Ok(expected) = <[u8; 4]>::try_from(value) else {
        return wrong;
    };
    let mut copy = all.to_vec();
    let at = value.as_ptr() as usize - all.as_ptr() as usize;
    copy[at..at + 4].fill(0);
    if crc32c(&copy) == u32::from_be_bytes(expected) {
        Ok(())
    } else {
        wrong
    }
}

/// Kind and value of each; an error where a length leads beyond the end.
pub(super) fn tlvs(bytes: &[u8]) -> impl Iterator<Item = Result<(u8, &[u8]), &'static str>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let short = "a version 2 header with a field that leads beyond its end";
        let [kind, high, low, after @ ..] = rest else {
            let left = std::mem::take(&mut rest);
            return (!left.is_empty()).then_some(Err(short));
        };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some((value, after)) = after.split_at_checked(length) else {
            rest = &[];
            return Some(Err(short));
        };
        rest = after;
        Some(Ok((*kind, value)))
    })
}

pub(super) fn push_tlv(to: &mut Vec<u8>, kind: u8, value: &[u8]) {
    to.push(kind);
    to.extend_from_slice(&(value.len() as u16).to_be_bytes());
    to.extend_from_slice(value);
}

pub(super) fn encode(header: &Header) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FIXED + IPV6 + header.tlvs.len());
    bytes.extend_from_slice(V2_PREFIX);
    bytes.push(if header.local { LOCAL } else { PROXY });
    let addresses = header.addresses.filter(|_| !header.local);
    let protocol = |stream: bool| if stream { 1 } else { 2 };
    match addresses.map(|a| (a.source, a.destination, protocol(a.stream))) {
        Some((SocketAddr::V4(from), SocketAddr::V4(to), protocol)) => {
            bytes.extend_from_slice(&[0x10 | protocol, 0, 0]);
            bytes.extend_from_slice(&from.ip().octets());
            bytes.extend_from_slice(&to.ip().octets());
            bytes.extend_from_slice(&from.port().to_be_bytes());
            bytes.extend_from_slice(&to.port().to_be_bytes());
        }
        Some((SocketAddr::V6(from), SocketAddr::V6(to), protocol)) => {
            bytes.extend_from_slice(&[0x20 | protocol, 0, 0]);
            bytes.extend_from_slice(&from.ip().octets());
            bytes.extend_from_slice(&to.ip().octets());
            bytes.extend_from_slice(&from.port().to_be_bytes());
            bytes.extend_from_slice(&to.port().to_be_bytes());
        }
        _ => bytes.extend_from_slice(&[0, 0, 0]),
    }
    if !header.local {
        bytes.extend_from_slice(&header.tlvs);
    }
    // Bounded by `Header::with_tlv` and by what was parsed.
    let length = ((bytes.len() - FIXED) as u16).to_be_bytes();
    bytes[14..FIXED].copy_from_slice(&length);
    bytes
}

fn ip_v4(block: &[u8], at: usize) -> Option<std::net::IpAddr> {
    let octets: [u8; 4] = block.get(at..at + 4)?.try_into().ok()?;
    Some(Ipv4Addr::from(octets).into())
}

fn ip_v6(block: &[u8], at: usize) -> Option<std::net::IpAddr> {
    let octets: [u8; 16] = block.get(at..at + 16)?.try_into().ok()?;
    Some(Ipv6Addr::from(octets).into())
}
