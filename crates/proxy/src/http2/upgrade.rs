//! HTTP/2 that begins with a request of HTTP/1.1 (RFC 7540 3.2). RFC 9113 3.1 no longer has it, but
//! clients offer it that do not know beforehand what a server of `http` speaks, Java's among them.
//!
//! The engine never learns: it reads a connection on which the client sent its preface, all its
//! settings, and its request on stream 1.

use std::io;
use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{BufMut, Bytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wire::{Fields, RequestHead, Scheme};

use super::frame::{CONTINUATION, END_HEADERS, END_STREAM, HEAD, HEADERS, PREFACE, SETTINGS};
use crate::http::{Bounds, Service};
use crate::io::Io;
use crate::worker::Worker;

const SWITCHING: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
/// What a frame holds at most, until other settings say more (RFC 9113 4.2).
const FRAME: usize = 16_384;

/// A request whose client would rather be answered in HTTP/2.
pub(crate) struct Offer {
    pub(crate) head: RequestHead,
    /// The payload of a SETTINGS frame.
    pub(crate) settings: Vec<u8>,
    /// It takes trailers.
    pub(crate) trailers: bool,
}

/// The settings that came with the request, of which [`wire::h1`] has seen that they are some.
pub(crate) fn take_settings(fields: &mut Fields) -> Vec<u8> {
    let value = fields.get("http2-settings").unwrap_or_default();
    let settings = URL_SAFE_NO_PAD.decode(value).unwrap_or_default();
    fields.remove("http2-settings");
    settings
}

/// Takes the offer, and serves the connection from there.
pub(crate) async fn serve<S: Service>(
    worker: &Rc<Worker>,
    mut io: Io,
    bounds: &Rc<Bounds>,
    service: S,
    offer: Box<Offer>,
) {
    let switched = tokio::time::timeout(bounds.head_timeout, switch(&mut io, &offer)).await;
    match switched {
        Ok(Ok(begun)) => {
            drop(offer);
            super::server::serve(worker, io.with_ahead(begun), bounds, service).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "a client offered h2c and did not go on"),
        Err(_) => tracing::debug!("a client offered h2c and did not go on in time"),
    }
}

/// Tells the client, and reads how it begins: what the engine is to read first.
async fn switch(io: &mut Io, offer: &Offer) -> io::Result<Bytes> {
    io.write_all(SWITCHING).await?;
    let mut opening = [0; PREFACE.len() + HEAD];
    io.read_exact(&mut opening).await?;
    let (preface, frame) = opening.split_at(PREFACE.len());
    let &[high, middle, low, SETTINGS, 0, 0, 0, 0, 0] = frame else {
        return Err(not("settings"));
    };
    if preface != PREFACE {
        return Err(not("the preface of HTTP/2"));
    }
    let length = u32::from_be_bytes([0, high, middle, low]) as usize;
    if length + offer.settings.len() > FRAME {
        return Err(not("settings of a size that may be"));
    }
    let mut begun = Vec::with_capacity(1024);
    begun.put_slice(PREFACE);
    // In one frame, as the client expects one acknowledgement (RFC 7540 3.2.1); of two values for a
    // setting the later counts (RFC 9113 6.5.3).
    frame_head(&mut begun, offer.settings.len() + length, SETTINGS, 0, 0);
    begun.put_slice(&offer.settings);
    let at = begun.len();
    begun.resize(at + length, 0);
    io.read_exact(&mut begun[at..]).await?;
    request(&mut begun, offer);
    Ok(begun.into())
}

fn not(what: &str) -> io::Error {
    let message = format!("what it sent first is not {what}");
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// The request as a client of HTTP/2 would have sent it.
fn request(out: &mut Vec<u8>, Offer { head, trailers, .. }: &Offer) {
    let mut block = Vec::with_capacity(head.fields.size() + 4 * head.fields.len() + 256);
    let scheme = head.scheme.unwrap_or(Scheme::Http);
    literal(&mut block, b":method", head.method.as_str().as_bytes());
    literal(&mut block, b":scheme", scheme.as_str().as_bytes());
    literal(&mut block, b":authority", head.authority.as_bytes());
    literal(&mut block, b":path", head.path.as_bytes());
    for (name, value) in &head.fields {
        if !name.eq_ignore_ascii_case(b"host") {
            literal(&mut block, &name.to_ascii_lowercase(), value);
        }
    }
    if *trailers {
        literal(&mut block, b"te", b"trailers");
    }
    let mut pieces = block.chunks(FRAME).peekable();
    let (mut kind, mut flags) = (HEADERS, END_STREAM);
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            flags |= END_HEADERS;
        }
        frame_head(out, piece.len(), kind, flags, 1);
        out.put_slice(piece);
        (kind, flags) = (CONTINUATION, 0);
    }
}

fn frame_head(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    out.put_uint(length as u64, 3);
    out.put_slice(&[kind, flags]);
    out.put_u32(stream);
}

/// A field that is not to be remembered (RFC 7541 6.2.2), without Huffman coding.
fn literal(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.put_u8(0);
    for text in [name, value] {
        length(out, text.len());
        out.put_slice(text);
    }
}

/// The length of a string (RFC 7541 5.1, 5.2).
fn length(out: &mut Vec<u8>, length: usize) {
    const PREFIX: usize = 127;
    let Some(mut rest) = length.checked_sub(PREFIX) else {
        return out.put_u8(length as u8);
    };
    out.put_u8(PREFIX as u8);
    while rest >= 128 {
        out.put_u8((rest % 128) as u8 | 128);
        rest /= 128;
    }
    out.put_u8(rest as u8);
}
