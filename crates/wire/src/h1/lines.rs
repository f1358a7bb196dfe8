//! Lines and fields of a head: where it ends, and what each line says.
use std::ops::Range;

use memchr::{memchr2, memchr2_iter};

use super::{HeadError, Limits, Part};
use crate::Fields;
use crate::grammar::{self, is_token_byte};
use crate::name::{self, Special};

/// A `Connection` field that names more fields than this is an attack on those who look for them.
const MAX_NOMINATED: usize = 32;

/// Why reading stopped.
pub(super) enum Stop {
    /// The bytes ran out.
    More,
    Bad(HeadError),
}

impl From<HeadError> for Stop {
    fn from(error: HeadError) -> Self {
        Self::Bad(error)
    }
}

/// Reads the head that begins at `start` with `read`, which gets all bytes that it may have and tells
/// how many it took.
///
/// Most heads arrive whole, so the first attempt does not look for the end before. Afterwards `scanned`
/// says that this was in vain, and the end is looked for, at each byte once, before the next attempt:
/// two attempts are the most that a head costs.
pub(super) fn read_head<T>(
    buf: &[u8],
    start: usize,
    scanned: &mut usize,
    limits: &Limits,
    read: impl FnOnce(&[u8]) -> Result<(usize, T), Stop>,
) -> Result<Option<(usize, T)>, HeadError> {
    let bound = buf.len().min(start.saturating_add(limits.head));
    if *scanned <= start || head_has_end(&buf[start..bound], *scanned - start)? {
        match read(&buf[start..bound]) {
            Ok((taken, found)) => return Ok(Some((start + taken, found))),
            Err(Stop::Bad(error)) => return Err(error),
            Err(Stop::More) => {}
        }
    }
    *scanned = bound;
    if bound < buf.len() || bound - start == limits.head {
        return Err(HeadError::TooLarge(Part::Head));
    }
    Ok(None)
}

/// Whether there is an empty line, where the first `from` bytes are known to be without one. Refuses
/// lone CR and LF as soon as they are there.
fn head_has_end(bytes: &[u8], from: usize) -> Result<bool, HeadError> {
    // The line end, or the end of the head, may have been cut in the middle.
    let from = from.min(bytes.len()).saturating_sub(1);
    for at in memchr2_iter(b'\r', b'\n', &bytes[from..]).map(|at| at + from) {
        match bytes[at] {
            b'\n' if at == 0 || bytes[at - 1] != b'\r' => return Err(HeadError::BareLineFeed),
            b'\n' if at >= 3 && bytes[at - 2] == b'\n' => return Ok(true),
            b'\r' if bytes.get(at + 1).is_some_and(|&next| next != b'\n') => {
                return Err(HeadError::BareCarriageReturn);
            }
            _ => {}
        }
    }
    Ok(false)
}

/// The first line, without CRLF, and where the next begins.
pub(super) fn first_line(bytes: &[u8]) -> Result<(&[u8], usize), Stop> {
    let end = memchr2(b'\r', b'\n', bytes).ok_or(Stop::More)?;
    line_end(bytes, end)?;
    Ok((&bytes[..end], end + 2))
}

/// Expects CRLF.
fn line_end(bytes: &[u8], at: usize) -> Result<(), Stop> {
    match bytes.get(at..) {
        Some([b'\r', b'\n', ..]) => Ok(()),
        Some([] | [b'\r']) | None => Err(Stop::More),
        Some([b'\r', ..]) => Err(HeadError::BareCarriageReturn.into()),
        Some(_) => Err(HeadError::BareLineFeed.into()),
    }
}

/// What the fields of a head said about framing and connection.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) close: bool,
    pub(super) keep: bool,
    pub(super) te_trailers: bool,
    /// `Connection` lists `upgrade`.
    pub(super) asks_upgrade: bool,
    /// There is an `Upgrade` field, and whether `h2c` is in it.
    pub(super) upgrade: bool,
    pub(super) h2c: bool,
    /// What `HTTP2-Settings` is good for, if there is one, and whether `Connection` lists it.
    pub(super) settings: Option<bool>,
    pub(super) names_settings: bool,
    pub(super) length: Option<u64>,
    pub(super) length_bad: bool,
    pub(super) coding: Option<Result<(), HeadError>>,
    pub(super) expect: Option<bool>,
    /// Where in the fields `Host` stands, and whether there was another.
    pub(super) host: Option<Range<usize>>,
    pub(super) hosts: usize,
    nominated: Vec<Range<usize>>,
}

/// Reads the field lines from `at` on into `fields`, except those that concern only this connection
/// (RFC 9110 7.6.1). Also tells where the head ends.
pub(super) fn read_fields(
    bytes: &[u8],
    at: usize,
    limits: &Limits,
    fields: &mut Fields,
) -> Result<(usize, Seen), Stop> {
    let mut seen = Seen::default();
    let mut lines = Lines { bytes, at };
    let mut count = 0;
    while let Some(line) = lines.next_line()? {
        count += 1;
        if count > limits.fields {
            return Err(HeadError::TooLarge(Part::Fields).into());
        }
        let special = name::special(&bytes[line.name.clone()]);
        let keep = match special {
            None => true,
            Some(special) => seen.note(bytes, &line, special)?,
        };
        if keep {
            fields.push_span(&line.name, &line.value, special);
        }
    }
    fields.load(&bytes[..lines.at]);
    if !seen.nominated.is_empty() {
        fields.retain(|name, _| {
            let is_named = |one: &Range<usize>| name.eq_ignore_ascii_case(&bytes[one.clone()]);
            name::is_end_to_end(name) || !seen.nominated.iter().any(is_named)
        });
    }
    Ok((lines.at, seen))
}

/// One field line, as offsets into the head.
pub(super) struct Line {
    pub(super) name: Range<usize>,
    pub(super) value: Range<usize>,
}

/// Field lines up to an empty one.
pub(super) struct Lines<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl Lines<'_> {
    /// The next line; `None` at the empty one, behind which `at` then stands.
    pub(super) fn next_line(&mut self) -> Result<Option<Line>, Stop> {
        let start = self.at;
        let rest = &self.bytes[start..];
        let length = rest
            .iter()
            .position(|&byte| !is_token_byte(byte))
            .ok_or(Stop::More)?;
        if rest[length] != b':' || length == 0 {
            if let [b'\r', b'\n', ..] = rest {
                self.at += 2;
                return Ok(None);
            }
            return Err(bad_name(rest, length));
        }
        let from = length + 1;
        let end = from + value_length(&rest[from..]);
        let [b'\r', b'\n', ..] = rest[end..] else {
            return Err(bad_value(rest, length, end));
        };
        let raw = &rest[from..end];
        let lead = raw
            .iter()
            .position(|byte| !matches!(byte, b' ' | b'\t'))
            .unwrap_or(raw.len());
        let tail = raw[lead..]
            .iter()
            .rev()
            .position(|byte| !matches!(byte, b' ' | b'\t'))
            .unwrap_or(0);
        self.at = start + end + 2;
        Ok(Some(Line {
            name: start..start + length,
            value: start + from + lead..start + end - tail,
        }))
    }
}

#[cold]
fn bad_name(rest: &[u8], length: usize) -> Stop {
    let name = &rest[..length];
    Stop::Bad(match rest[length] {
        // RFC 9112 2.2 and 5.2: also between the first line and the first field.
        b' ' | b'\t' if length == 0 => HeadError::ObsFold,
        // RFC 9112 5.1: the classic of smuggling.
        b' ' | b'\t' => HeadError::field(name, "white space before the colon"),
        b':' => HeadError::field(name, "the name is empty"),
        b'\r' | b'\n' => match line_end(rest, length) {
            Err(stop) => return stop,
            Ok(()) => HeadError::field(name, "there is no colon"),
        },
        _ => HeadError::field(name, "the name holds a byte that no name may hold"),
    })
}

#[cold]
fn bad_value(rest: &[u8], length: usize, end: usize) -> Stop {
    match rest.get(end) {
        None | Some(b'\r' | b'\n') => line_end(rest, end).err().unwrap_or(Stop::More),
        Some(_) => HeadError::field(&rest[..length], "the value holds a control character").into(),
    }
}

/// How many bytes there are before the first that no value may hold; looks at eight at a time.
fn value_length(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    let mut rest = bytes;
    while let Some((block, more)) = rest.split_first_chunk() {
        let block = u64::from_le_bytes(*block);
        let delete = block ^ (ONES * 0x7f);
        // The lowest mark stands at the first byte below 0x20 or equal to 0x7f.
        let low = block.wrapping_sub(ONES * 0x20) & !block;
        let marks = (low | (delete.wrapping_sub(ONES) & !delete)) & (ONES << 7);
        rest = if marks == 0 {
            more
        } else {
            let at = (marks.trailing_zeros() >> 3) as usize;
            match rest.split_at(at).1 {
                [b'\t', after @ ..] => after,
                stop => return bytes.len() - stop.len(),
            }
        };
    }
    let short = rest.iter().position(|&byte| !grammar::is_value_byte(byte));
    bytes.len() - rest.len() + short.unwrap_or(rest.len())
}

impl Seen {
    /// Takes note of a field; whether it stays.
    fn note(&mut self, head: &[u8], line: &Line, special: Special) -> Result<bool, HeadError> {
        let value = &head[line.value.clone()];
        match special {
            Special::Host => {
                self.hosts += 1;
                self.host = Some(line.value.clone());
                return Ok(true);
            }
            Special::ContentLength => {
                // RFC 9112 6.3: one value. Equal copies are refused too, as no honest sender makes them.
                let number = super::parse_length(value);
                self.length_bad |= self.length.is_some() || number.is_none();
                self.length = number.or(Some(0));
                return Ok(true);
            }
            Special::Expect => {
                let known = value.eq_ignore_ascii_case(b"100-continue");
                self.expect = Some(known && self.expect.unwrap_or(true));
                return Ok(true);
            }
            Special::Upgrade => {
                self.upgrade = true;
                self.h2c |=
                    grammar::list(value).any(|protocol| protocol.eq_ignore_ascii_case(b"h2c"));
                return Ok(true);
            }
            Special::Http2Settings => {
                self.settings = Some(self.settings.is_none() && is_settings(value));
                return Ok(true);
            }
            Special::TransferEncoding => {
                self.coding = Some(match self.coding {
                    // RFC 9112 6.1: a second line makes a list.
                    Some(_) => Err(HeadError::BadTransferEncoding),
                    None => coding(value),
                });
            }
            Special::Te => {
                self.te_trailers |=
                    grammar::list(value).any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
            }
            Special::Connection => self.note_connection(head, line)?,
            Special::HopByHop => {}
        }
        Ok(false)
    }

    fn note_connection(&mut self, head: &[u8], line: &Line) -> Result<(), HeadError> {
        let value = &head[line.value.clone()];
        // The value nearly always.
        if value.eq_ignore_ascii_case(b"keep-alive") {
            self.keep = true;
            return Ok(());
        }
        let mut at = line.value.start;
        for element in value.split(|&byte| byte == b',') {
            let option = grammar::trim(element);
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.asks_upgrade = true;
            } else if name::special(option) == Some(Special::Http2Settings) {
                self.names_settings = true;
            } else if !option.is_empty() && name::special(option).is_none() {
                if self.nominated.len() == MAX_NOMINATED {
                    return Err(HeadError::field(b"Connection", "it names too many fields"));
                }
                let lead = element
                    .iter()
                    .take_while(|byte| matches!(byte, b' ' | b'\t'))
                    .count();
                self.nominated.push(at + lead..at + lead + option.len());
            }
            at += element.len() + 1;
        }
        Ok(())
    }
}

/// RFC 7540 3.2.1: the payload of a SETTINGS frame, so a multiple of six octets, as base64url without
/// padding.
fn is_settings(value: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    value.len().is_multiple_of(8) && value.iter().all(is_digit)
}

/// RFC 9112 6.1: the one coding that is understood is `chunked`, alone. Other codings that could be
/// meant are told apart from spellings that only hide `chunked` from someone.
fn coding(value: &[u8]) -> Result<(), HeadError> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let mut elements = value.split(|&byte| byte == b',').map(grammar::trim);
    let last = elements.next_back().unwrap_or_default();
    let is_chunked = |element: &[u8]| element.eq_ignore_ascii_case(b"chunked");
    let plain = |element: &[u8]| grammar::is_token(element) && !contains_chunked(element);
    let mut others = elements.peekable();
    let known_shape = if is_chunked(last) {
        others.peek().is_some() && others.all(plain)
    } else {
        plain(last) && others.all(plain)
    };
    Err(if known_shape {
        HeadError::UnknownTransferCoding
    } else {
        HeadError::BadTransferEncoding
    })
}

/// `xchunked`, `chunked-`: no coding of that name exists.
fn contains_chunked(element: &[u8]) -> bool {
    element
        .windows(b"chunk".len())
        .any(|window| window.eq_ignore_ascii_case(b"chunk"))
}
