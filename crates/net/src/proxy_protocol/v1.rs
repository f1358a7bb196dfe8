//! Version 1: `PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n` (specification 2.1).

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Addresses, Header, MAX_V1, Parsed, V1_PREFIX};

/// `bytes` begin with the prefix.
pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let window = &bytes[..bytes.len().min(MAX_V1)];
    // The line ends with CR LF; either of them alone is wrong already.
    let Some(end) = window.iter().position(|&b| b == b'\r' || b == b'\n') else {
        return if window.len() == MAX_V1 {
            Parsed::Invalid("a version 1 line of more than 107 bytes")
        } else {
            Parsed::NeedMore
        };
    };
    match window.get(end..end + 2) {
        Some(b"\r\n") => {}
        None if window[end] == b'\r' && window.len() < MAX_V1 => return Parsed::NeedMore,
        _ => return Parsed::Invalid("a version 1 line that does not end with CR LF"),
    }
    let line = &window[V1_PREFIX.len()..end];
    let header = match std::str::from_utf8(line) {
        Ok(line) => fields(line),
        Err(_) => Err("a version 1 line that is not ASCII"),
    };
    match header {
        Ok(header) => Parsed::Header(header, end + 2),
        Err(why) => Parsed::Invalid(why),
    }
}

fn fields(line: &str) -> Result<Header, &'static str> {
    // The receiver must ignore whatever follows UNKNOWN up to the line's end.
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Ok(Header::default());
    }
    let mut parts = line.split(' ');
    let mut next = || parts.next().ok_or("a version 1 line with fields missing");
    let (family, source, destination) = (next()?, next()?, next()?);
    let (source_port, destination_port) = (port(next()?)?, port(next()?)?);
    if parts.next().is_some() {
        return Err("a version 1 line with too many fields");
    }
    let address = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            _ => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        }
    };
    if !matches!(family, "TCP4" | "TCP6") {
        return Err("a version 1 line whose family is not TCP4, TCP6 or UNKNOWN");
    }
    let wrong = "a version 1 line with an address that is none of its family";
    Ok(Header {
        addresses: Some(Addresses {
            source: SocketAddr::new(address(source).ok_or(wrong)?, source_port),
            destination: SocketAddr::new(address(destination).ok_or(wrong)?, destination_port),
            stream: true,
        }),
        ..Header::default()
    })
}

/// Decimal without sign or leading zero.
fn port(text: &str) -> Result<u16, &'static str> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    let port = if plain { text.parse().ok() } else { None };
    port.ok_or("a version 1 line with a port that is none")
}

pub(super) fn encode(header: &Header) -> Vec<u8> {
    let mut line = String::with_capacity(MAX_V1);
    match header.addresses {
        // Version 1 knows only streams.
        Some(a) if a.stream && a.source.is_ipv4() == a.destination.is_ipv4() => {
            let family = if a.source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (a.source.ip(), a.destination.ip());
            let (from_port, to_port) = (a.source.port(), a.destination.port());
            // Writing to a string does not fail.
            let _ = write!(line, "PROXY {family} {from} {to} {from_port} {to_port}\r\n");
        }
        _ => line.push_str("PROXY UNKNOWN\r\n"),
    }
    line.into_bytes()
}
