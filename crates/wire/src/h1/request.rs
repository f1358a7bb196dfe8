//! The head of a request (RFC 9112 3).
use http::{Method, Version};

use super::lines::{self, Seen, Stop};
use super::{HeadError, Length, Limits, Part, RequestFraming, keep_alive};
use crate::grammar::{self, is_target_byte};
use crate::head::{RequestHead, Scheme};
use crate::host;

/// The longest registered method has 17 letters.
const MAX_METHOD: usize = 64;
/// Room for a method and a version beside the target while the first line is still incomplete.
const LINE_SLACK: usize = MAX_METHOD + " HTTP/1.1\r\n ".len();

pub(super) fn parse(
    buf: &[u8],
    scanned: &mut usize,
    limits: &Limits,
    head: &mut RequestHead,
) -> Result<Option<(usize, RequestFraming)>, HeadError> {
    // RFC 9112 2.2: an empty line or two may be left over from a client that counted badly.
    let start = match buf {
        [b'\r', b'\n', b'\r', b'\n', ..] => 4,
        [b'\r', b'\n', ..] => 2,
        _ => 0,
    };
    if buf
        .get(start..)
        .is_some_and(|rest| rest.starts_with(b"\r\n"))
    {
        return Err(bad_line("too many empty lines before it"));
    }
    // What is no method at all (TLS, binary protocols) need not be waited for.
    if let Some(first) = buf.get(start)
        && !grammar::is_token_byte(*first)
        && *first != b'\r'
    {
        return Err(match first {
            b'\n' => HeadError::BareLineFeed,
            _ => bad_line("it does not begin with a method"),
        });
    }
    let before = *scanned;
    let found = lines::read_head(buf, start, scanned, limits, |bytes| {
        read(bytes, limits, head).inspect_err(|_| head.fields.clear())
    })?;
    if found.is_none() {
        first_line_fits(buf, start, before, limits)?;
    }
    Ok(found)
}

fn read(
    bytes: &[u8],
    limits: &Limits,
    head: &mut RequestHead,
) -> Result<(usize, RequestFraming), Stop> {
    head.clear();
    let (line, next) = lines::first_line(bytes)?;
    let target = request_line(line, limits, head)?;
    let (end, seen) = lines::read_fields(bytes, next, limits, &mut head.fields)?;
    let framing = framing(&seen, head)?;
    take_target(target, &seen, bytes, head)?;
    Ok((end, framing))
}

fn bad_line(why: &'static str) -> HeadError {
    HeadError::BadRequestLine(why)
}

/// Answers an endless target with 414 as soon as it is too long. Looks once, when the bytes that are
/// there first exceed what a first line can be.
fn first_line_fits(
    buf: &[u8],
    start: usize,
    before: usize,
    limits: &Limits,
) -> Result<(), HeadError> {
    let most = start
        .saturating_add(limits.target)
        .saturating_add(LINE_SLACK);
    match buf.get(start..most) {
        Some(begin) if before <= most && memchr::memchr(b'\n', begin).is_none() => {
            Err(HeadError::TooLarge(Part::Target))
        }
        _ => Ok(()),
    }
}

/// RFC 9112 3: `method SP request-target SP HTTP-version`, exactly.
fn request_line<'a>(
    line: &'a [u8],
    limits: &Limits,
    head: &mut RequestHead,
) -> Result<&'a [u8], HeadError> {
    let bad = bad_line;
    let method_end = memchr::memchr(b' ', line).ok_or(bad("there is no space in it"))?;
    let (method, rest) = (&line[..method_end], &line[method_end + 1..]);
    if !grammar::is_token(method) {
        return Err(bad("the method is not a token"));
    }
    if method.len() > MAX_METHOD {
        return Err(bad("the method is longer than 64 bytes"));
    }
    let target_end = memchr::memchr(b' ', rest).ok_or(bad("there is no version in it"))?;
    let (target, version) = (&rest[..target_end], &rest[target_end + 1..]);
    if target.is_empty() {
        return Err(bad("there is more than one space, or no target"));
    }
    if target.len() > limits.target {
        return Err(HeadError::TooLarge(Part::Target));
    }
    head.version = match version {
        b"HTTP/1.1" => Version::HTTP_11,
        b"HTTP/1.0" => Version::HTTP_10,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            return Err(HeadError::BadVersion);
        }
        _ => return Err(bad("what stands where the version belongs is none")),
    };
    head.method = Method::from_bytes(method).map_err(|_| bad("the method is not a token"))?;
    Ok(target)
}

/// RFC 9112 6.3 and 9.3, for requests.
fn framing(seen: &Seen, head: &mut RequestHead) -> Result<RequestFraming, HeadError> {
    let modern = head.version == Version::HTTP_11;
    let mut length = match &seen.coding {
        Some(_) if seen.length.is_some() => return Err(HeadError::LengthAndTransferEncoding),
        // RFC 9112 6.1: HTTP/1.0 has no transfer codings; its framing would be in doubt.
        Some(_) if !modern => return Err(HeadError::BadTransferEncoding),
        Some(Err(error)) => return Err(error.clone()),
        Some(Ok(())) => Length::Chunked,
        None if seen.length_bad => return Err(HeadError::BadLength),
        None => seen.length.map_or(Length::None, Length::Known),
    };
    if head.method == Method::CONNECT {
        // RFC 9110 9.3.6: what follows is the tunnel's.
        if !matches!(length, Length::None | Length::Known(0)) {
            return Err(HeadError::ConnectWithContent);
        }
        length = Length::None;
    }
    if seen.expect == Some(false) {
        return Err(HeadError::BadExpect);
    }
    // RFC 9110 7.8: ignored in HTTP/1.0.
    let asks = modern && seen.asks_upgrade && seen.upgrade;
    let upgrade = asks && !seen.h2c;
    if seen.upgrade && !upgrade {
        head.fields.remove("upgrade");
    }
    // RFC 7540 3.2.1: not without the settings, nor with several.
    let settled = seen.names_settings && seen.settings == Some(true);
    let bodiless = matches!(length, Length::None | Length::Known(0));
    let h2c = asks && seen.h2c && settled && bodiless && head.method != Method::CONNECT;
    if seen.settings.is_some() && !h2c {
        head.fields.remove("http2-settings");
    }
    // RFC 9110 10.1.1: ignored in HTTP/1.0; passed on it would have meaning again.
    if seen.expect.is_some() && !modern {
        head.fields.remove("expect");
    }
    Ok(RequestFraming {
        length,
        keep_alive: keep_alive(head.version, seen.close, seen.keep),
        expect_continue: modern && seen.expect == Some(true),
        upgrade,
        h2c,
        te_trailers: seen.te_trailers,
    })
}

/// RFC 9112 3.2 and 3.3: which resource of which authority is meant.
fn take_target(
    target: &[u8],
    seen: &Seen,
    bytes: &[u8],
    head: &mut RequestHead,
) -> Result<(), HeadError> {
    let named = match (seen.hosts, &seen.host) {
        (0, _) if head.version == Version::HTTP_10 => b"".as_slice(),
        (1, Some(host)) => &bytes[host.clone()],
        _ => return Err(HeadError::BadHost),
    };
    // RFC 9112 3.2: the value may be empty where the target has no authority.
    if !named.is_empty() && !host::is_authority(named) {
        return Err(HeadError::BadHost);
    }
    if !target.iter().all(|&byte| is_target_byte(byte)) {
        return Err(HeadError::BadTarget(
            "it holds a control character, a byte beyond ASCII or `#`",
        ));
    }
    let text = std::str::from_utf8(target).map_err(|_| HeadError::BadTarget("it is not ASCII"))?;
    if head.method == Method::CONNECT {
        if !host::is_authority_with_port(target) {
            return Err(HeadError::BadTarget("CONNECT needs `host:port`"));
        }
        head.authority.push_str(text);
        return Ok(());
    }
    if is_origin_form(text, &head.method) {
        let named = std::str::from_utf8(named).map_err(|_| HeadError::BadHost)?;
        head.authority.push_str(named);
        head.path.push_str(text);
        return Ok(());
    }
    absolute_form(text, head)
}

/// RFC 9112 3.2.1 and 3.2.4: a path, or `*` with `OPTIONS`.
pub(crate) fn is_origin_form(target: &str, method: &Method) -> bool {
    target.starts_with('/') || target == "*" && *method == Method::OPTIONS
}

/// RFC 9112 3.2.2: `http` or `https`; the authority is the target's, whatever `Host` says.
fn absolute_form(target: &str, head: &mut RequestHead) -> Result<(), HeadError> {
    let bad = HeadError::BadTarget("it is neither a path nor an http or https URI");
    let (scheme, rest) = target.split_once("://").ok_or(bad.clone())?;
    head.scheme = Some(if scheme.eq_ignore_ascii_case("http") {
        Scheme::Http
    } else if scheme.eq_ignore_ascii_case("https") {
        Scheme::Https
    } else {
        return Err(bad);
    });
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    // RFC 9110 4.2.1: an empty host is invalid; 4.2.4: so is user information.
    if !host::is_authority(authority.as_bytes()) {
        return Err(HeadError::BadHost);
    }
    head.authority.push_str(authority);
    // RFC 9112 3.2.4: `OPTIONS http://host` asks about the server.
    if path.is_empty() && head.method == Method::OPTIONS {
        head.path.push('*');
        return Ok(());
    }
    if !path.starts_with('/') {
        head.path.push('/');
    }
    head.path.push_str(path);
    Ok(())
}

/// RFC 9110 8.6, narrowed: 1 to 19 digits, which fit into 64 bits.
pub(crate) fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(
        value
            .iter()
            .fold(0, |number, digit| number * 10 + u64::from(digit - b'0')),
    )
}
