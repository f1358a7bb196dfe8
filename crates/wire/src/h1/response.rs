//! The head of a response (RFC 9112 4).
use http::{Method, Version};

use super::lines::{self, Seen, Stop};
use super::{HeadError, Length, Limits, ResponseFraming, keep_alive};
use crate::grammar::is_value;
use crate::head::ResponseHead;

pub(super) fn parse(
    buf: &[u8],
    scanned: &mut usize,
    limits: &Limits,
    method: &Method,
    head: &mut ResponseHead,
) -> Result<Option<(usize, ResponseFraming)>, HeadError> {
    // Bytes that cannot begin a response are told at once: mostly another protocol, or content that
    // was longer than announced.
    let begin = &buf[..buf.len().min(b"HTTP/".len())];
    if !b"HTTP/".starts_with(begin) {
        return Err(HeadError::BadStatusLine("it does not begin with HTTP/"));
    }
    lines::read_head(buf, 0, scanned, limits, |bytes| {
        read(bytes, limits, method, head).inspect_err(|_| head.fields.clear())
    })
}

fn read(
    bytes: &[u8],
    limits: &Limits,
    method: &Method,
    head: &mut ResponseHead,
) -> Result<(usize, ResponseFraming), Stop> {
    head.clear();
    let (line, next) = lines::first_line(bytes)?;
    status_line(line, head)?;
    let (end, seen) = lines::read_fields(bytes, next, limits, &mut head.fields)?;
    Ok((end, framing(&seen, method, head)?))
}

/// RFC 9112 4: `HTTP-version SP 3DIGIT SP [reason]`. A missing space before a missing phrase is let
/// pass, as many servers leave it out and nothing depends on it.
fn status_line(line: &[u8], head: &mut ResponseHead) -> Result<(), HeadError> {
    let bad = HeadError::BadStatusLine;
    let (version, rest) = line.split_at_checked(8).ok_or(bad("it is too short"))?;
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
    let (digits, phrase) = match rest {
        [b' ', a, b, c] => ([*a, *b, *c], b"".as_slice()),
        [b' ', a, b, c, b' ', phrase @ ..] => ([*a, *b, *c], phrase),
        _ => return Err(bad("the status is not three digits between spaces")),
    };
    if !digits.iter().all(u8::is_ascii_digit) || digits[0] == b'0' {
        return Err(bad("the status is not a number from 100 to 999"));
    }
    head.status = digits
        .iter()
        .fold(0, |number, digit| number * 10 + u16::from(digit - b'0'));
    if !is_value(phrase) {
        return Err(bad("the phrase holds a control character"));
    }
    // The phrase is for people (RFC 9112 4); in another character set it is left out.
    head.reason
        .push_str(std::str::from_utf8(phrase).unwrap_or_default());
    Ok(())
}

/// RFC 9112 6.3 and 9.3, for responses.
fn framing(
    seen: &Seen,
    method: &Method,
    head: &mut ResponseHead,
) -> Result<ResponseFraming, HeadError> {
    let upgrade = head.status == 101;
    if seen.upgrade && !upgrade {
        head.fields.remove("upgrade");
    }
    if seen.settings.is_some() {
        head.fields.remove("http2-settings");
    }
    let mut keep_alive = keep_alive(head.version, seen.close, seen.keep);
    // RFC 9110 9.3.6: a tunnel; its framing fields must be ignored.
    if *method == Method::CONNECT && (200..300).contains(&head.status) {
        head.fields.remove("content-length");
        return Ok(ResponseFraming {
            length: Length::None,
            keep_alive,
            upgrade: false,
        });
    }
    let framed = match &seen.coding {
        Some(_) if seen.length.is_some() => return Err(HeadError::LengthAndTransferEncoding),
        Some(_) if head.version == Version::HTTP_10 => return Err(HeadError::BadTransferEncoding),
        Some(Err(error)) => return Err(error.clone()),
        Some(Ok(())) => Some(Length::Chunked),
        None if seen.length_bad => return Err(HeadError::BadLength),
        None => seen.length.map(Length::Known),
    };
    let length = match head.status {
        100..200 | 204 => {
            // RFC 9110 8.6 and RFC 9112 6.1: neither may be there. Who sends one may send content too,
            // and must not have it taken for the next response.
            keep_alive &= matches!(framed, None | Some(Length::Known(0)));
            head.fields.remove("content-length");
            Length::None
        }
        _ if *method == Method::HEAD => Length::None,
        304 => Length::None,
        // RFC 9110 15.3.6: no content, but RFC 9112 6.3 does not except it from framing.
        205 => match framed {
            None => {
                keep_alive = false;
                Length::None
            }
            Some(Length::Known(0)) => Length::None,
            Some(length) => length,
        },
        _ => framed.unwrap_or(Length::UntilClose),
    };
    keep_alive &= length != Length::UntilClose;
    Ok(ResponseFraming {
        length,
        keep_alive,
        upgrade,
    })
}
