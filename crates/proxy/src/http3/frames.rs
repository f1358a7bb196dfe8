//! What of a stream's frames reaches the HTTP/3 engine.
//!
//! The engine collects a frame whole before it reads it, however long its sender says that it is,
//! takes an empty DATA frame for the end of a body, and does not expect a stream to end inside one.
//! So frames are followed here, piece by piece and without copying: those that mean nothing (RFC 9114
//! 9: unknown ones, DATA of no length) are left out, one that would be collected must not be longer
//! than allowed, and none may be cut off.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

/// RFC 9114 7.2.
const DATA: u64 = 0x0;
/// Frames that the engine must see: DATA, HEADERS, CANCEL_PUSH, SETTINGS, PUSH_PROMISE, GOAWAY,
/// MAX_PUSH_ID, and HTTP/2's PRIORITY, PING, WINDOW_UPDATE and CONTINUATION, which are errors
/// (RFC 9114 7.2.8).
const KNOWN: [u64; 11] = [0x0, 0x1, 0x3, 0x4, 0x5, 0x7, 0xd, 0x2, 0x6, 0x8, 0x9];

/// The length of what has no frames; no frame can say so much (RFC 9000 16).
const UNFRAMED: u64 = u64::MAX;

/// A type and a length, of up to eight bytes each.
const HEADER: usize = 16;

/// A frame that would have to be held is longer than allowed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// The stream ends inside a frame (RFC 9114 7.1).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CutOff;

/// The frames of one stream.
#[derive(Debug)]
pub(super) struct Frames {
    /// Most bytes of a frame other than DATA.
    limit: u64,
    /// Whether the stream begins with a type of its own (RFC 9114 6.2).
    typed: bool,
    /// What came of a frame's header that is not complete.
    header: [u8; HEADER],
    known: usize,
    /// What is left of the frame, and whether it passes.
    left: u64,
    passes: bool,
    out: VecDeque<Bytes>,
}

impl Frames {
    /// Of a request.
    pub(super) fn of_request(limit: usize) -> Self {
        Self {
            limit: limit as u64,
            typed: false,
            header: [0; HEADER],
            known: 0,
            left: 0,
            passes: false,
            out: VecDeque::new(),
        }
    }

    /// Of a stream in one direction, whose type comes first.
    pub(super) fn behind_type(limit: usize) -> Self {
        Self {
            typed: true,
            ..Self::of_request(limit)
        }
    }

    /// Takes what has come.
    pub(super) fn offer(&mut self, mut data: Bytes) -> Result<(), TooLong> {
        while data.has_remaining() {
            if self.left > 0 {
                let n = usize::try_from(self.left).unwrap_or(usize::MAX);
                let part = data.split_to(n.min(data.len()));
                if self.left != UNFRAMED {
                    self.left -= part.len() as u64;
                }
                if self.passes {
                    self.out.push_back(part);
                }
                continue;
            }
            self.header[self.known] = data.get_u8();
            self.known += 1;
            if self.typed {
                self.stream_type();
            } else {
                self.frame_header()?;
            }
        }
        Ok(())
    }

    /// The next piece for the engine.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        self.out.pop_front()
    }

    /// The stream is at its end.
    pub(super) fn finish(&self) -> Result<(), CutOff> {
        let whole = self.known == 0 && (self.left == 0 || self.left == UNFRAMED);
        whole.then_some(()).ok_or(CutOff)
    }

    fn stream_type(&mut self) {
        if let Some((kind, _)) = varint(&self.header[..self.known]) {
            self.typed = false;
            self.pass_header();
            // RFC 9114 6.2.1: only a control stream has frames. Nothing of the others is read.
            if kind != 0 {
                self.passes = true;
                self.left = UNFRAMED;
            }
        }
    }

    fn frame_header(&mut self) -> Result<(), TooLong> {
        let bytes = &self.header[..self.known];
        let Some((kind, read)) = varint(bytes) else {
            return Ok(());
        };
        let Some((length, _)) = varint(&bytes[read..]) else {
            return Ok(());
        };
        self.left = length;
        self.passes = KNOWN.contains(&kind) && !(kind == DATA && length == 0);
        if !self.passes {
            self.known = 0;
            return Ok(());
        }
        if kind != DATA && length > self.limit {
            return Err(TooLong);
        }
        self.pass_header();
        Ok(())
    }

    fn pass_header(&mut self) {
        if self.known > 0 {
            let header = Bytes::copy_from_slice(&self.header[..self.known]);
            self.out.push_back(header);
            self.known = 0;
        }
    }
}

/// A number at the beginning (RFC 9000 16), and how many bytes it has.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let length = 1 << (first >> 6);
    let mut value = u64::from(first & 0x3f);
    for byte in bytes.get(1..length)? {
        value = value << 8 | u64::from(*byte);
    }
    Some((value, length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(value: u64) -> Vec<u8> {
        match value {
            0..0x40 => vec![value as u8],
            0x40..0x4000 => (value as u16 | 0x4000).to_be_bytes().to_vec(),
            0x4000..0x4000_0000 => (value as u32 | 0x8000_0000).to_be_bytes().to_vec(),
            _ => (value | 0xc000_0000_0000_0000).to_be_bytes().to_vec(),
        }
    }

    fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
        let length = number(payload.len() as u64);
        [number(kind), length, payload.to_vec()].concat()
    }

    type Passed = (Vec<u8>, Result<(), CutOff>);

    /// What passes of a stream that comes in pieces of this size.
    fn passed(mut frames: Frames, stream: &[u8], size: usize) -> Result<Passed, TooLong> {
        let mut out = Vec::new();
        for piece in stream.chunks(size) {
            frames.offer(Bytes::copy_from_slice(piece))?;
            while let Some(bytes) = frames.take() {
                out.extend_from_slice(&bytes);
            }
        }
        Ok((out, frames.finish()))
    }

    #[test]
    fn what_means_nothing_is_left_out() {
        let kept = [frame(1, b"head"), frame(0, b"body"), frame(1, b"trailers")].concat();
        let stream = [
            frame(0x21, b"grease"),
            frame(1, b"head"),
            frame(0, b""),
            frame(0xf0700, &[7; 300]),
            frame(0, b"body"),
            frame(0, b""),
            frame(1, b"trailers"),
            frame(0x4040, b""),
        ]
        .concat();
        for size in [1, 2, 3, 7, 4096] {
            let passed = passed(Frames::of_request(64), &stream, size);
            assert_eq!(passed, Ok((kept.clone(), Ok(()))), "in pieces of {size}");
        }
    }

    #[test]
    fn a_long_frame_is_refused_by_its_header_and_data_never_is() {
        let headers = [number(1), number(65)].concat();
        assert_eq!(passed(Frames::of_request(64), &headers, 1), Err(TooLong));
        let exactly = frame(1, &[0; 64]);
        assert_eq!(
            passed(Frames::of_request(64), &exactly, 5),
            Ok((exactly.clone(), Ok(())))
        );
        let endless = [number(0), number(u64::MAX >> 2), vec![1; 100]].concat();
        assert_eq!(
            passed(Frames::of_request(64), &endless, 9),
            Ok((endless.clone(), Err(CutOff)))
        );
    }

    #[test]
    fn a_stream_in_one_direction_begins_with_its_type() {
        let control = [number(0), frame(4, b"settings"), frame(0xf0700, &[0; 99])].concat();
        let kept = [number(0), frame(4, b"settings")].concat();
        assert_eq!(
            passed(Frames::behind_type(64), &control, 1),
            Ok((kept, Ok(())))
        );
        let long = [number(0), number(4), number(65)].concat();
        assert_eq!(passed(Frames::behind_type(64), &long, 1), Err(TooLong));
        let encoder = [number(2), vec![0xff; 200]].concat();
        assert_eq!(
            passed(Frames::behind_type(64), &encoder, 3),
            Ok((encoder.clone(), Ok(())))
        );
    }

    #[test]
    fn a_stream_must_not_end_inside_a_frame() {
        let whole = [frame(1, b"head"), frame(0, b"body")].concat();
        for end in 0..=whole.len() {
            let (_, ended) = passed(Frames::of_request(64), &whole[..end], 2).expect("short");
            let between = [0, 6, 12].contains(&end);
            assert_eq!(ended.is_ok(), between, "ends after {end} bytes");
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(stream in proptest::collection::vec(any::<u8>(), 0..200), size in 1_usize..9) {
            let whole = passed(Frames::of_request(20), &stream, 200.max(stream.len()));
            prop_assert_eq!(passed(Frames::of_request(20), &stream, size), whole);
        }
    }
}
