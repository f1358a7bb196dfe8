//! Hosts and authorities (RFC 3986 3.2, RFC 9110 4.2.3 and 7.2).
//!
//! Accepted: registered names with underscores, sub-delimiters, percent-encoded bytes and a trailing
//! dot; IPv4; IPv6 in brackets; a port from 1 to 65535, or a colon with nothing behind it. Refused:
//! user information (RFC 9110 4.2.4), zone identifiers, an empty host before a port.
use std::net::Ipv6Addr;

use crate::grammar::is_host_byte;

/// Whether these bytes are `host [":" port]` with a host that is not empty.
pub fn is_authority(authority: &[u8]) -> bool {
    match authority.get(host_length(authority)..) {
        _ if matches!(authority, [] | [b':', ..]) => false,
        Some([]) => true,
        Some([b':', port @ ..]) => port.is_empty() || port_number(port).is_some(),
        _ => false,
    }
}

/// Whether these bytes are an authority whose port is there and not empty, as `CONNECT` needs.
pub fn is_authority_with_port(authority: &[u8]) -> bool {
    is_authority(authority)
        && std::str::from_utf8(authority).is_ok_and(|text| number(text).is_some())
}

/// The host of an authority: without the port, with the brackets of an IPv6 address.
pub fn host(authority: &str) -> &str {
    split(authority).0
}

/// The port of an authority, if it says one.
pub fn number(authority: &str) -> Option<u16> {
    split(authority)
        .1
        .and_then(|port| port_number(port.as_bytes()))
}

/// Host and what stands behind the colon. Says nothing about whether either is valid.
fn split(authority: &str) -> (&str, Option<&str>) {
    if authority.starts_with('[') {
        let Some(end) = authority.find(']') else {
            return (authority, None);
        };
        let (host, rest) = authority.split_at(end + 1);
        return match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if rest.is_empty() => (host, None),
            None => (authority, None),
        };
    }
    match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    }
}

/// How many bytes of a host these begin with; none if a bracket or percent sign is wrong.
fn host_length(bytes: &[u8]) -> usize {
    if let [b'[', rest @ ..] = bytes {
        let inner = rest.iter().position(|&byte| byte == b']').unwrap_or(0);
        let address = std::str::from_utf8(&rest[..inner]).unwrap_or_default();
        return address.parse::<Ipv6Addr>().map_or(0, |_| inner + 2);
    }
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += match bytes[at..] {
            _ if is_host_byte(byte) => 1,
            [b'%', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => 3,
            _ => break,
        };
    }
    at
}

/// RFC 3986 3.2.3; RFC 9110 4.2.1 gives port 0 no meaning.
fn port_number(digits: &[u8]) -> Option<u16> {
    if digits.len() > 5 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits
        .iter()
        .fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
    u16::try_from(number).ok().filter(|&number| number != 0)
}
