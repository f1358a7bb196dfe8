//! Hosts and authorities (RFC 3986 3.2, RFC 9110 4.2.3 and 7.2).
//!
//! Accepted: registered names with underscores, sub-delimiters, percent-encoded bytes and a trailing
//! dot; IPv4; IPv6 in brackets; a port from 1 to 65535, or a colon with nothing behind it. Refused:
//! user information (RFC 9110 4.2.4), zone identifiers, an empty host before a port.
use std::net::Ipv6Addr;

use crate::grammar::is_host_byte;

/// Whether these bytes are `host [":" port]` with a host that is not empty.
pub fn is_authority(authority: &[u8]) -> bool {
    let Ok(authority) = std::str::from_utf8(authority) else {
        return false;
    };
    let (host, port) = split(authority);
    is_host(host) && port.is_none_or(is_port)
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
        .filter(|port| is_port(port))
        .and_then(|port| port.parse().ok())
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

fn is_host(host: &str) -> bool {
    if let Some(inner) = host.strip_prefix('[') {
        return inner
            .strip_suffix(']')
            .is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    let mut bytes = host.as_bytes();
    if bytes.is_empty() {
        return false;
    }
    while let [first, rest @ ..] = bytes {
        bytes = match (first, rest) {
            (b'%', [high, low, rest @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                rest
            }
            (byte, rest) if is_host_byte(*byte) => rest,
            _ => return false,
        };
    }
    true
}

/// RFC 3986 3.2.3 allows no digits at all; RFC 9110 4.2.1 gives port 0 no meaning.
fn is_port(port: &str) -> bool {
    port.is_empty()
        || port.len() <= 5
            && port.bytes().all(|byte| byte.is_ascii_digit())
            && port.parse::<u16>().is_ok_and(|number| number != 0)
}
