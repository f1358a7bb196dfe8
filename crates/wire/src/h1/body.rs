//! The content of a message: where it ends, and the chunked coding (RFC 9112 6 and 7).
//!
//! Data is split off the connection's buffer without copying. Every line is bounded, extensions are
//! checked and dropped, and so are trailer fields that a trailer may not say (RFC 9110 6.5.1).
use bytes::{Buf, Bytes, BytesMut};
use memchr::{memchr2, memchr2_iter};

use super::lines::{Lines, Stop};
use super::{BodyError, HeadError, Length, Limits};
use crate::Fields;
use crate::grammar::{is_token_byte, is_value_byte};
use crate::name::{self, InTrailer};

/// Framing beyond what data justifies that is put up with per message: chunks of a few bytes with
/// long extensions cost the receiver far more than the sender.
const MAX_OVERHEAD: u64 = 64 << 10;

/// What came next.
#[derive(Debug)]
pub enum Event {
    /// Content; never empty.
    Data(Bytes),
    /// The end, with at least one trailer field.
    Trailers(Fields),
    /// The end. From then on the buffer belongs to the next message.
    End,
    /// The buffer holds nothing more of this message yet.
    NeedMore,
}

/// Takes the content of one message out of its connection's buffer.
#[derive(Clone, Debug)]
pub struct Decoder {
    state: State,
    /// How far the end of the current line or section was looked for.
    scanned: usize,
    overhead: u64,
    chunk_line: usize,
    trailers: usize,
    fields: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Known(u64),
    UntilClose,
    ChunkLine,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    Done,
}

impl Decoder {
    /// For a message of this length; the limits are copied.
    pub fn new(length: Length, limits: &Limits) -> Self {
        let state = match length {
            Length::None | Length::Known(0) => State::Done,
            Length::Known(n) => State::Known(n),
            Length::Chunked => State::ChunkLine,
            Length::UntilClose => State::UntilClose,
        };
        Self {
            state,
            scanned: 0,
            overhead: 0,
            chunk_line: limits.chunk_line,
            // The empty line that ends the section is always allowed.
            trailers: limits.trailers.max(2),
            fields: limits.fields,
        }
    }

    /// Whether the message is complete.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes of data that are known to follow: of a known length, or of the current chunk.
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Known(n) | State::ChunkData(n) => Some(n),
            _ => None,
        }
    }

    /// `n` bytes of data were taken elsewhere; at most [`Self::remaining`], where that is known.
    pub fn skip(&mut self, n: u64) {
        match &mut self.state {
            State::Known(left) => {
                *left = left.saturating_sub(n);
                if *left == 0 {
                    self.state = State::Done;
                }
            }
            State::ChunkData(left) => {
                *left = left.saturating_sub(n);
                if *left == 0 {
                    self.state = State::ChunkEnd;
                }
            }
            _ => {}
        }
    }

    /// Takes what comes next from the front of `buf`. `eof`: nothing will be added to `buf`.
    pub fn decode(&mut self, buf: &mut BytesMut, eof: bool) -> Result<Event, BodyError> {
        loop {
            let event = match self.state {
                State::Done => return Ok(Event::End),
                State::UntilClose if buf.is_empty() && eof => {
                    self.state = State::Done;
                    return Ok(Event::End);
                }
                State::UntilClose if buf.is_empty() => return Ok(Event::NeedMore),
                State::UntilClose => return Ok(Event::Data(buf.split().freeze())),
                State::Known(left) | State::ChunkData(left) if !buf.is_empty() => {
                    return Ok(Event::Data(self.data(buf, left)));
                }
                State::Known(_) | State::ChunkData(_) => None,
                State::ChunkLine => self.chunk_line(buf)?.then_some(None),
                State::ChunkEnd => self.chunk_end(buf)?.then_some(None),
                State::Trailers => self.trailer_section(buf)?.map(Some),
            };
            match event {
                Some(Some(event)) => return Ok(event),
                Some(None) => {}
                None if eof => return Err(BodyError::Truncated),
                None => return Ok(Event::NeedMore),
            }
        }
    }

    fn data(&mut self, buf: &mut BytesMut, left: u64) -> Bytes {
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        self.skip(n as u64);
        buf.split_to(n).freeze()
    }

    /// Reads the line before a chunk, if it is complete.
    fn chunk_line(&mut self, buf: &mut BytesMut) -> Result<bool, BodyError> {
        let Some(end) = self.line_end(buf)? else {
            return Ok(false);
        };
        let size = chunk_size(&buf[..end])?;
        buf.advance(end + 2);
        self.scanned = 0;
        if size == 0 {
            self.state = State::Trailers;
            return Ok(true);
        }
        // A line of 16 bytes is everybody's; beyond that it must be worth it.
        self.overhead += (end as u64 + 4).saturating_sub(16 + size.min(1 << 20));
        if self.overhead > MAX_OVERHEAD {
            return Err(BodyError::TooMuchOverhead);
        }
        self.state = State::ChunkData(size);
        Ok(true)
    }

    /// Where the CR of the line's end stands.
    fn line_end(&mut self, buf: &[u8]) -> Result<Option<usize>, BodyError> {
        let bound = buf.len().min(self.chunk_line.saturating_add(1));
        let from = self.scanned.min(bound);
        let Some(at) = memchr2(b'\r', b'\n', &buf[from..bound]).map(|at| at + from) else {
            self.scanned = bound;
            return if bound > self.chunk_line {
                Err(BodyError::ChunkLineTooLong)
            } else {
                Ok(None)
            };
        };
        self.scanned = at;
        match (buf[at], buf.get(at + 1)) {
            (b'\r', Some(b'\n')) => Ok(Some(at)),
            (b'\r', None) => Ok(None),
            _ => Err(BodyError::BareLineEnd),
        }
    }

    /// RFC 9112 7.1: CRLF behind the data of a chunk.
    fn chunk_end(&mut self, buf: &mut BytesMut) -> Result<bool, BodyError> {
        match buf[..] {
            [b'\r', b'\n', ..] => {
                buf.advance(2);
                self.state = State::ChunkLine;
                Ok(true)
            }
            [] | [b'\r'] => Ok(false),
            _ => Err(BodyError::MissingLineEnd),
        }
    }

    /// RFC 9112 7.1.2: fields up to an empty line.
    fn trailer_section(&mut self, buf: &mut BytesMut) -> Result<Option<Event>, BodyError> {
        if buf.starts_with(b"\r\n") {
            buf.advance(2);
            self.state = State::Done;
            return Ok(Some(Event::End));
        }
        let Some(end) = self.section_end(buf)? else {
            return Ok(None);
        };
        let section = buf.split_to(end);
        let fields = trailer_fields(&section, self.fields)?;
        self.state = State::Done;
        Ok(Some(if fields.is_empty() {
            Event::End
        } else {
            Event::Trailers(fields)
        }))
    }

    fn section_end(&mut self, buf: &[u8]) -> Result<Option<usize>, BodyError> {
        let bound = buf.len().min(self.trailers);
        let from = self.scanned.saturating_sub(3).min(bound);
        for at in memchr2_iter(b'\r', b'\n', &buf[from..bound]).map(|at| at + from) {
            match buf[at] {
                b'\n' if at == 0 || buf[at - 1] != b'\r' => return Err(BodyError::BareLineEnd),
                b'\n' if at >= 3 && buf[at - 2] == b'\n' => return Ok(Some(at + 1)),
                b'\r' if buf.get(at + 1).is_some_and(|&next| next != b'\n') => {
                    return Err(BodyError::BareLineEnd);
                }
                _ => {}
            }
        }
        self.scanned = bound;
        if bound == self.trailers {
            Err(BodyError::TrailersTooLarge)
        } else {
            Ok(None)
        }
    }
}

/// RFC 9112 7.1: `1*HEXDIG [chunk-ext]`, the number within 64 bits.
fn chunk_size(line: &[u8]) -> Result<u64, BodyError> {
    let digits = line
        .iter()
        .position(|byte| !byte.is_ascii_hexdigit())
        .unwrap_or(line.len());
    if digits == 0 || digits > 16 {
        return Err(BodyError::BadChunkSize);
    }
    let size = line[..digits]
        .iter()
        .fold(0u64, |size, &digit| size << 4 | u64::from(hex(digit)));
    match line[digits..] {
        [] => Ok(size),
        [b';', ref extensions @ ..] => chunk_extensions(extensions).map(|()| size),
        _ => Err(BodyError::BadChunkSize),
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20).saturating_sub(b'a') + 10,
    }
}

/// RFC 9112 7.1.1: `token [= token / quoted-string]`, separated by `;`. The white space that a
/// recipient may remove is refused: no sender of today makes it.
fn chunk_extensions(mut rest: &[u8]) -> Result<(), BodyError> {
    loop {
        rest = token(rest)?;
        if let [b'=', value @ ..] = rest {
            rest = match value {
                [b'"', quoted @ ..] => quoted_string(quoted)?,
                _ => token(value)?,
            };
        }
        rest = match rest {
            [] => return Ok(()),
            [b';', more @ ..] => more,
            _ => return Err(BodyError::BadChunkExtension),
        };
    }
}

fn token(bytes: &[u8]) -> Result<&[u8], BodyError> {
    match bytes
        .iter()
        .position(|&byte| !is_token_byte(byte))
        .unwrap_or(bytes.len())
    {
        0 => Err(BodyError::BadChunkExtension),
        end => Ok(&bytes[end..]),
    }
}

/// RFC 9110 5.6.4, behind the opening quote.
fn quoted_string(mut bytes: &[u8]) -> Result<&[u8], BodyError> {
    loop {
        bytes = match bytes {
            [b'"', rest @ ..] => return Ok(rest),
            [b'\\', escaped, rest @ ..] if is_value_byte(*escaped) => rest,
            [byte, rest @ ..] if *byte != b'\\' && is_value_byte(*byte) => rest,
            _ => return Err(BodyError::BadChunkExtension),
        };
    }
}

fn trailer_fields(section: &[u8], limit: usize) -> Result<Fields, BodyError> {
    let mut fields = Fields::new();
    let mut lines = Lines {
        bytes: section,
        at: 0,
    };
    let mut count = 0;
    while let Some(line) = lines.next_line().map_err(|stop| trailer_error(&stop))? {
        count += 1;
        if count > limit {
            return Err(BodyError::TrailersTooLarge);
        }
        match name::in_trailer(&section[line.name.clone()]) {
            InTrailer::Keep => {
                fields.push_span(&line.name, &line.value, None);
            }
            InTrailer::Drop => {}
            InTrailer::Refuse => return Err(BodyError::BadTrailer),
        }
    }
    fields.load(section);
    Ok(fields)
}

fn trailer_error(stop: &Stop) -> BodyError {
    match stop {
        Stop::Bad(HeadError::BareLineFeed | HeadError::BareCarriageReturn) => {
            BodyError::BareLineEnd
        }
        _ => BodyError::BadTrailer,
    }
}
