//! Lines and fields of a head: where it ends, and what each line says.
use memchr::{memchr, memchr2_iter, memmem};

use super::{HeadError, Limits, Part};
use crate::Fields;
use crate::grammar::{self, is_token_byte, is_value};
use crate::name::{self, Special};

/// A `Connection` field that names more fields than this is an attack on those who look for them.
const MAX_NOMINATED: usize = 32;

/// The end of the head that begins at `start`: behind its empty line. Looks at each byte once over all
/// calls, and refuses lone CR and LF as soon as they are there.
pub(super) fn head_end(
    buf: &[u8],
    start: usize,
    scanned: &mut usize,
    limits: &Limits,
) -> Result<Option<usize>, HeadError> {
    let bound = buf.len().min(start.saturating_add(limits.head));
    let from = (*scanned).clamp(start, bound);
    // The end may have been cut in the middle.
    let back = from.saturating_sub(3).max(start);
    if let Some(at) = memmem::find(&buf[back..bound], b"\r\n\r\n") {
        return Ok(Some(back + at + 4));
    }
    lone_line_ends(&buf[..bound], start, from)?;
    *scanned = bound;
    if bound < buf.len() || bound - start == limits.head {
        return Err(HeadError::TooLarge(Part::Head));
    }
    Ok(None)
}

fn lone_line_ends(buf: &[u8], start: usize, from: usize) -> Result<(), HeadError> {
    let from = from.saturating_sub(1).max(start);
    for at in memchr2_iter(b'\r', b'\n', &buf[from..]).map(|at| at + from) {
        match buf[at] {
            b'\n' if at == start || buf[at - 1] != b'\r' => return Err(HeadError::BareLineFeed),
            b'\r' if buf.get(at + 1).is_some_and(|&next| next != b'\n') => {
                return Err(HeadError::BareCarriageReturn);
            }
            _ => {}
        }
    }
    Ok(())
}

/// The first line of a complete head, without CRLF, and where the next begins.
pub(super) fn first_line(head: &[u8]) -> Result<(&[u8], usize), HeadError> {
    let end = memchr(b'\n', head).ok_or(HeadError::BareCarriageReturn)?;
    let line = head[..end]
        .strip_suffix(b"\r")
        .ok_or(HeadError::BareLineFeed)?;
    if memchr(b'\r', line).is_some() {
        return Err(HeadError::BareCarriageReturn);
    }
    Ok((line, end + 1))
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
    pub(super) length: Option<u64>,
    pub(super) length_bad: bool,
    pub(super) coding: Option<Result<(), HeadError>>,
    pub(super) expect: Option<bool>,
    /// Where in the fields `Host` stands, and whether there was another.
    pub(super) host: Option<(usize, usize)>,
    pub(super) hosts: usize,
    nominated: Vec<(usize, usize)>,
}

/// Reads the field lines of a complete `head` from `at` on, into `fields`, except those that concern
/// only this connection (RFC 9110 7.6.1).
pub(super) fn read_fields(
    head: &[u8],
    at: usize,
    limits: &Limits,
    fields: &mut Fields,
) -> Result<Seen, HeadError> {
    fields.load(head);
    let mut seen = Seen::default();
    let mut lines = Lines { head, at };
    let mut count = 0;
    while let Some(line) = lines.next_line()? {
        count += 1;
        if count > limits.fields {
            return Err(HeadError::TooLarge(Part::Fields));
        }
        let keep = match name::special(&head[line.name.0..line.name.1]) {
            None => true,
            Some(special) => seen.note(head, &line, special)?,
        };
        if keep {
            fields.push_span(line.name.0..line.name.1, line.value.0..line.value.1);
        }
    }
    if !seen.nominated.is_empty() {
        fields.retain(|name, _| {
            name::is_end_to_end(name)
                || !seen
                    .nominated
                    .iter()
                    .any(|&(from, to)| name.eq_ignore_ascii_case(&head[from..to]))
        });
    }
    Ok(seen)
}

/// One field line, as offsets into the head.
pub(super) struct Line {
    pub(super) name: (usize, usize),
    pub(super) value: (usize, usize),
}

/// The field lines of a head or trailer section that ends with CRLF CRLF.
pub(super) struct Lines<'a> {
    pub(super) head: &'a [u8],
    pub(super) at: usize,
}

impl Lines<'_> {
    /// The next line; `None` at the empty one.
    pub(super) fn next_line(&mut self) -> Result<Option<Line>, HeadError> {
        let start = self.at;
        let rest = &self.head[start..];
        let length = rest
            .iter()
            .position(|&byte| !is_token_byte(byte))
            .unwrap_or(rest.len());
        let name = (start, start + length);
        match rest.get(length) {
            Some(b':') if length > 0 => {}
            Some(b'\r') if length == 0 && rest.get(1) == Some(&b'\n') => return Ok(None),
            // RFC 9112 2.2 and 5.2: also between the first line and the first field.
            Some(b' ' | b'\t') if length == 0 => return Err(HeadError::ObsFold),
            Some(b' ' | b'\t') => {
                // RFC 9112 5.1: the classic of smuggling.
                return Err(HeadError::field(
                    &rest[..length],
                    "white space before the colon",
                ));
            }
            Some(b'\n') => return Err(HeadError::BareLineFeed),
            Some(b'\r') if rest.get(length + 1) != Some(&b'\n') => {
                return Err(HeadError::BareCarriageReturn);
            }
            Some(b':') => return Err(HeadError::field(b"", "the name is empty")),
            Some(b'\r') | None => {
                return Err(HeadError::field(&rest[..length], "there is no colon"));
            }
            Some(_) => {
                return Err(HeadError::field(
                    &rest[..length],
                    "the name holds a byte that no name may hold",
                ));
            }
        }
        let from = length + 1;
        let end = memchr(b'\r', &rest[from..]).map_or(rest.len(), |at| from + at);
        let raw = &rest[from..end];
        if !is_value(raw) {
            return Err(bad_value(&rest[..length], raw));
        }
        if rest.get(end + 1) != Some(&b'\n') {
            return Err(HeadError::BareCarriageReturn);
        }
        let value = grammar::trim(raw);
        // Where the trimmed part begins: what was cut off in front are blanks.
        let lead = raw
            .iter()
            .take_while(|byte| matches!(byte, b' ' | b'\t'))
            .count();
        let value_start = start + from + if value.is_empty() { 0 } else { lead };
        self.at = start + end + 2;
        Ok(Some(Line {
            name,
            value: (value_start, value_start + value.len()),
        }))
    }
}

#[cold]
fn bad_value(name: &[u8], raw: &[u8]) -> HeadError {
    if raw.contains(&b'\n') {
        HeadError::BareLineFeed
    } else {
        HeadError::field(name, "the value holds a control character")
    }
}

impl Seen {
    /// Takes note of a field; whether it stays.
    fn note(&mut self, head: &[u8], line: &Line, special: Special) -> Result<bool, HeadError> {
        let value = &head[line.value.0..line.value.1];
        match special {
            Special::Host => {
                self.hosts += 1;
                self.host = Some(line.value);
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
        let value = &head[line.value.0..line.value.1];
        // The value nearly always.
        if value.eq_ignore_ascii_case(b"keep-alive") {
            self.keep = true;
            return Ok(());
        }
        let mut at = line.value.0;
        for element in value.split(|&byte| byte == b',') {
            let option = grammar::trim(element);
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.asks_upgrade = true;
            } else if !option.is_empty() && name::special(option).is_none() {
                if self.nominated.len() == MAX_NOMINATED {
                    return Err(HeadError::field(b"Connection", "it names too many fields"));
                }
                let lead = element
                    .iter()
                    .take_while(|byte| matches!(byte, b' ' | b'\t'))
                    .count();
                self.nominated.push((at + lead, at + lead + option.len()));
            }
            at += element.len() + 1;
        }
        Ok(())
    }
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
