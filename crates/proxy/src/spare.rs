//! Memory that served one request and waits for the next: buffers and heads, a few of each for every
//! thread. What a connection does not use it does not hold, and a busy thread asks the allocator for
//! little.

use std::cell::RefCell;

use bytes::BytesMut;
use http::HeaderMap;
use wire::{Fields, RequestHead, ResponseHead};

/// A buffer for heads and small bodies.
pub(crate) const SMALL: usize = 8 * 1024;
/// A buffer for long bodies.
pub(crate) const LARGE: usize = 64 * 1024;
/// Things kept of each kind: what is in use at one moment on a busy thread.
const KEPT: usize = 128;
/// Large buffers kept.
const KEPT_LARGE: usize = 16;
/// Heads that grew beyond this are let go.
const HEAD: usize = 4 * 1024;
/// Maps with room for more fields are let go.
const MAP: usize = 64;

#[derive(Default)]
struct Spare {
    small: Vec<BytesMut>,
    large: Vec<BytesMut>,
    texts: Vec<Vec<u8>>,
    requests: Vec<RequestHead>,
    responses: Vec<ResponseHead>,
    maps: Vec<HeaderMap>,
}

thread_local! {
    static SPARE: RefCell<Spare> = RefCell::default();
}

fn with<T>(f: impl FnOnce(&mut Spare) -> T) -> T {
    SPARE.with(|spare| f(&mut spare.borrow_mut()))
}

/// An empty buffer with room for so many bytes, [`LARGE`] at most.
pub(crate) fn buffer(room: usize) -> BytesMut {
    let (found, size) = if room > SMALL {
        (with(|s| s.large.pop()), LARGE)
    } else {
        (with(|s| s.small.pop()), SMALL)
    };
    let mut buffer = found.unwrap_or_default();
    buffer.reserve(size);
    buffer
}

/// Takes a buffer back.
pub(crate) fn keep_buffer(mut buffer: BytesMut) {
    buffer.clear();
    // What it can have without asking for memory, pieces of it that were passed on included.
    if buffer.try_reclaim(LARGE) {
        with(|s| push(&mut s.large, buffer, KEPT_LARGE));
    } else if buffer.try_reclaim(SMALL) {
        with(|s| push(&mut s.small, buffer, KEPT));
    }
}

/// An empty text.
pub(crate) fn text() -> Vec<u8> {
    with(|s| s.texts.pop()).unwrap_or_else(|| Vec::with_capacity(1024))
}

/// Takes a text back.
pub(crate) fn keep_text(mut text: Vec<u8>) {
    if (1..=LARGE).contains(&text.capacity()) {
        text.clear();
        with(|s| push(&mut s.texts, text, KEPT));
    }
}

/// A head to read a request into.
pub(crate) fn request_head() -> RequestHead {
    with(|s| s.requests.pop()).unwrap_or_default()
}

/// Takes a request's head back.
pub(crate) fn keep_request_head(mut head: RequestHead) {
    if let Some(map) = head.fields.forget_map() {
        keep_header_map(map);
    }
    if head.fields.size() <= HEAD {
        head.clear();
        with(|s| push(&mut s.requests, head, KEPT));
    }
}

/// A head to read a response into.
pub(crate) fn response_head() -> ResponseHead {
    with(|s| s.responses.pop()).unwrap_or_default()
}

/// Takes a response's head back.
pub(crate) fn keep_response_head(mut head: ResponseHead) {
    if let Some(map) = head.fields.forget_map() {
        keep_header_map(map);
    }
    if head.fields.size() <= HEAD {
        head.clear();
        with(|s| push(&mut s.responses, head, KEPT));
    }
}

/// A map of fields for HTTP/2: the one that they were read from, or an empty one to be filled.
pub(crate) fn header_map(of: &mut Fields) -> HeaderMap {
    wire::map::take_map(of).unwrap_or_else(empty_map)
}

fn empty_map() -> HeaderMap {
    with(|s| s.maps.pop()).unwrap_or_else(|| HeaderMap::with_capacity(16))
}

/// Takes a map of fields back.
pub(crate) fn keep_header_map(mut map: HeaderMap) {
    if (1..=MAP).contains(&map.capacity()) {
        map.clear();
        with(|s| push(&mut s.maps, map, KEPT));
    }
}

fn push<T>(list: &mut Vec<T>, item: T, most: usize) {
    if list.len() < most {
        list.push(item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_whole_once_its_pieces_are_gone() {
        let mut first = buffer(1);
        first.extend_from_slice(&[1; 100]);
        let at = first.as_ptr();
        let piece = first.split_to(60).freeze();
        drop(piece);
        keep_buffer(first);
        let second = buffer(1);
        assert_eq!((second.as_ptr(), second.len()), (at, 0));
        assert!(second.capacity() >= SMALL);
    }

    #[test]
    fn a_buffer_of_which_a_piece_is_held_is_let_go() {
        let mut first = buffer(1);
        first.extend_from_slice(&[1; 100]);
        let piece = first.split_to(60).freeze();
        keep_buffer(first);
        let mut second = buffer(1);
        second.extend_from_slice(&[2; SMALL]);
        assert_eq!(&piece[..], &[1; 60][..]);
    }
}
