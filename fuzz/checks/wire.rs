//! What must hold for every input of the HTTP/1 codec. The fuzz targets and, with the kept corpus and
//! with random input, the tests of `wire` call these.
//!
//! Four kinds of judge: the input in one piece against the same input byte by byte; what was read
//! against what `httparse` reads; what was read against what is read again after it was written; and
//! the shape of what was written (one message, CRLF only).
#![allow(dead_code, reason = "each target uses one of the checks")]

use bytes::BytesMut;
use wire::{
    BodyError, Decoder, Event, Fields, HeadError, Length, Limits, Method, RequestFraming,
    RequestHead, ResponseFraming, ResponseHead, Target, Version, chunk_head, encode_request,
    encode_response, last_chunk, parse_request, parse_response,
};

/// Small ones, so that bounds are met too.
fn limits() -> Limits {
    Limits {
        head: 2048,
        fields: 24,
        target: 256,
        chunk_line: 64,
        trailers: 256,
    }
}

/// The head of a request.
pub(crate) fn request_head(data: &[u8]) {
    let limits = limits();
    let whole = read_request(data, &limits);
    let pieces = byte_by_byte(data, |bytes, scanned| {
        let mut head = RequestHead::new();
        parse_request(bytes, scanned, &limits, &mut head)
            .map(|found| found.map(|(n, framing)| (n, framing, head)))
    });
    match (&whole, &pieces) {
        (Ok(Some((n, framing, head))), Ok(Some((m, framing_2, head_2)))) => {
            assert_eq!((n, framing), (m, framing_2));
            assert_same_request(head, head_2);
        }
        (Ok(None), Ok(None)) | (Err(_), Err(_)) => {}
        // Whole it was looked at before its end was there; in pieces it will be refused with its end.
        (Err(_), Ok(None)) => {
            let ended = [data, b"\r\n\r\n"].concat();
            let mut head = RequestHead::new();
            let pieces = byte_by_byte(&ended, |bytes, scanned| {
                parse_request(bytes, scanned, &limits, &mut head)
            });
            assert!(pieces.is_err(), "whole: {whole:?}, in pieces: {pieces:?}");
        }
        _ => panic!("whole: {whole:?}, in pieces: {pieces:?}"),
    }
    if let Ok(Some((n, framing, head))) = whole {
        assert!(n <= data.len() && n <= limits.head + 4);
        assert_clean(&head.fields);
        assert_eq!(head.fields.contains("http2-settings"), framing.h2c);
        assert_request_is_httparse(&data[..n], &head);
        assert_request_survives(&head, framing);
    }
}

/// The head of a response, as the answer to `GET`, `HEAD` and `CONNECT`.
pub(crate) fn response_head(data: &[u8]) {
    let limits = limits();
    for method in [Method::GET, Method::HEAD, Method::CONNECT] {
        let whole = read_response(data, &limits, &method);
        let pieces = byte_by_byte(data, |bytes, scanned| {
            let mut head = ResponseHead::new();
            parse_response(bytes, scanned, &limits, &method, &mut head)
                .map(|found| found.map(|(n, framing)| (n, framing, head)))
        });
        match (&whole, &pieces) {
            (Ok(Some((n, framing, head))), Ok(Some((m, framing_2, head_2)))) => {
                assert_eq!((n, framing), (m, framing_2));
                assert_same_response(head, head_2);
            }
            (Ok(None), Ok(None)) | (Err(_), Err(_)) => {}
            (Err(_), Ok(None)) => {
                let ended = [data, b"\r\n\r\n"].concat();
                let mut head = ResponseHead::new();
                let pieces = byte_by_byte(&ended, |bytes, scanned| {
                    parse_response(bytes, scanned, &limits, &method, &mut head)
                });
                assert!(pieces.is_err(), "whole: {whole:?}, in pieces: {pieces:?}");
            }
            _ => panic!("whole: {whole:?}, in pieces: {pieces:?}"),
        }
        if let Ok(Some((n, framing, head))) = whole {
            assert!(n <= data.len() && n <= limits.head);
            assert_clean(&head.fields);
            assert!(!head.fields.contains("http2-settings"));
            assert_response_is_httparse(&data[..n], &head);
            assert_response_survives(&head, framing, &method);
        }
    }
}

/// Chunked content.
pub(crate) fn chunked(data: &[u8]) {
    let limits = limits();
    let whole = decode(data, data.len().max(1), &limits);
    for step in [1, 2, 7] {
        let pieces = decode(data, step, &limits);
        match (&whole, &pieces) {
            (Ok(whole), Ok(pieces)) => assert_eq!(whole, pieces, "in steps of {step}"),
            (Err(_), Err(_)) => {}
            _ => panic!("whole: {whole:?}, in steps of {step}: {pieces:?}"),
        }
    }
    let Ok(Some(content)) = whole else { return };
    let lenient = lenient_chunks(data).expect("a lenient reader takes what the strict one takes");
    assert_eq!(
        (content.data.as_slice(), content.used),
        (lenient.0.as_slice(), lenient.1)
    );
    assert_clean(&content.trailers);

    let mut out = Vec::new();
    for piece in content.data.chunks(23) {
        chunk_head(piece.len(), &mut out);
        out.extend_from_slice(piece);
        out.extend_from_slice(wire::CHUNK_TAIL);
    }
    last_chunk(Some(&content.trailers), &mut out);
    let again = decode(&out, out.len(), &Limits::default())
        .expect("valid")
        .expect("complete");
    assert_eq!(
        (&again.data, &again.trailers, again.used),
        (&content.data, &content.trailers, out.len())
    );
}

type Request = Result<Option<(usize, RequestFraming, RequestHead)>, HeadError>;
type Response = Result<Option<(usize, ResponseFraming, ResponseHead)>, HeadError>;

fn read_request(data: &[u8], limits: &Limits) -> Request {
    let mut head = RequestHead::new();
    let found = parse_request(data, &mut 0, limits, &mut head)?;
    Ok(found.map(|(n, framing)| (n, framing, head)))
}

fn read_response(data: &[u8], limits: &Limits, method: &Method) -> Response {
    let mut head = ResponseHead::new();
    let found = parse_response(data, &mut 0, limits, method, &mut head)?;
    Ok(found.map(|(n, framing)| (n, framing, head)))
}

/// The first answer that is not "more", as bytes are added one by one.
fn byte_by_byte<T>(
    data: &[u8],
    mut read: impl FnMut(&[u8], &mut usize) -> Result<Option<T>, HeadError>,
) -> Result<Option<T>, HeadError> {
    let mut scanned = 0;
    for end in 0..=data.len() {
        if let Some(found) = read(&data[..end], &mut scanned)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn assert_same_request(one: &RequestHead, other: &RequestHead) {
    assert_eq!(
        (
            &one.method,
            one.version,
            one.scheme,
            &one.authority,
            &one.path,
            &one.protocol,
            &one.fields
        ),
        (
            &other.method,
            other.version,
            other.scheme,
            &other.authority,
            &other.path,
            &other.protocol,
            &other.fields
        )
    );
}

fn assert_same_response(one: &ResponseHead, other: &ResponseHead) {
    assert_eq!(
        (one.status, one.version, &one.reason, &one.fields),
        (other.status, other.version, &other.reason, &other.fields)
    );
}

/// No field ends a line, concerns the connection or is without a name.
fn assert_clean(fields: &Fields) {
    for (name, value) in fields {
        assert!(
            !name.is_empty()
                && name
                    .iter()
                    .all(|byte| byte.is_ascii_graphic() && *byte != b':')
        );
        assert!(
            value
                .iter()
                .all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f))
        );
        for gone in [
            "connection",
            "keep-alive",
            "proxy-connection",
            "transfer-encoding",
            "te",
        ] {
            assert!(!name.eq_ignore_ascii_case(gone.as_bytes()));
        }
    }
    let _ = format!("{fields:?}");
}

/// A reader that others use understands the same.
fn assert_request_is_httparse(bytes: &[u8], head: &RequestHead) {
    let mut list = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut list);
    let status = request.parse(bytes).expect("httparse takes it");
    assert_eq!(status, httparse::Status::Complete(bytes.len()));
    assert_eq!(request.method, Some(head.method.as_str()));
    assert_eq!(
        request.version,
        Some(u8::from(head.version == Version::HTTP_11))
    );
    let path = request.path.expect("complete");
    assert!(
        path == head.path || path == head.authority || path.contains("://"),
        "{path} {head:?}"
    );
    assert_subsequence(&head.fields, request.headers);
}

fn assert_response_is_httparse(bytes: &[u8], head: &ResponseHead) {
    let mut list = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut list);
    let status = response.parse(bytes).expect("httparse takes it");
    assert_eq!(status, httparse::Status::Complete(bytes.len()));
    assert_eq!(response.code, Some(head.status));
    assert_eq!(
        response.version,
        Some(u8::from(head.version == Version::HTTP_11))
    );
    assert_subsequence(&head.fields, response.headers);
}

/// What was kept is among what was sent, in order, byte for byte.
fn assert_subsequence(fields: &Fields, sent: &[httparse::Header<'_>]) {
    let mut sent = sent.iter();
    for (name, value) in fields {
        // httparse leaves blanks at the end of values.
        let found =
            sent.any(|header| header.name.as_bytes() == name && trim_end(header.value) == value);
        assert!(found, "{} was not sent like this", name.escape_ascii());
    }
}

fn trim_end(value: &[u8]) -> &[u8] {
    let end = value
        .iter()
        .rposition(|byte| !matches!(byte, b' ' | b'\t'))
        .map_or(0, |at| at + 1);
    &value[..end]
}

fn assert_request_survives(head: &RequestHead, framing: RequestFraming) {
    let mut out = Vec::new();
    let target = Target {
        authority: &head.authority,
        path: &head.path,
    };
    encode_request(
        head,
        &target,
        framing.length,
        framing.upgrade,
        framing.te_trailers,
        &mut out,
    );
    assert_one_head(&out);
    let (n, framing_2, again) = read_request(&out, &Limits::default())
        .expect("what is written is valid")
        .expect("and complete");
    assert_eq!(n, out.len());
    let expected = RequestFraming {
        keep_alive: true,
        expect_continue: framing_2.expect_continue,
        // Not passed on.
        h2c: false,
        ..framing
    };
    assert_eq!(framing_2, expected);
    assert!(framing_2.expect_continue == framing.expect_continue);
    assert_eq!(
        (&head.method, &head.authority, &head.path),
        (&again.method, &again.authority, &again.path)
    );
    let others = |fields: &Fields| {
        let mut fields = fields.clone();
        fields.remove("host");
        fields.remove("content-length");
        fields.remove("http2-settings");
        fields
    };
    assert_eq!(others(&head.fields), others(&again.fields));
    assert_eq!(
        again.fields.get_all("host").collect::<Vec<_>>(),
        [head.authority.as_bytes()]
    );
}

fn assert_response_survives(head: &ResponseHead, framing: ResponseFraming, method: &Method) {
    for (version, keep_alive) in [
        (Version::HTTP_11, framing.keep_alive),
        (Version::HTTP_10, false),
    ] {
        let mut out = Vec::new();
        encode_response(head, version, framing.length, keep_alive, &mut out);
        assert_one_head(&out);
        let (n, framing_2, again) = read_response(&out, &Limits::default(), method)
            .expect("what is written is valid")
            .expect("and complete");
        assert_eq!(n, out.len());
        assert_eq!(head.status, again.status);
        let others = |fields: &Fields| {
            let mut fields = fields.clone();
            fields.remove("content-length");
            fields
        };
        assert_eq!(others(&head.fields), others(&again.fields));
        if version == Version::HTTP_11 {
            assert_eq!(framing.length, framing_2.length);
            assert!(!framing_2.keep_alive || framing.keep_alive || matches!(head.status, 100..200));
        } else {
            assert_ne!(framing_2.length, Length::Chunked);
        }
    }
}

/// One empty line, at the end, and no CR or LF outside of CRLF.
fn assert_one_head(bytes: &[u8]) {
    let text = bytes
        .strip_suffix(b"\r\n\r\n")
        .expect("an empty line ends it");
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
        assert!(
            rest[at..].starts_with(b"\r\n") && !rest[at..].starts_with(b"\r\n\r\n"),
            "{}",
            bytes.escape_ascii()
        );
        rest = &rest[at + 2..];
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Content {
    data: Vec<u8>,
    trailers: Fields,
    used: usize,
}

/// Decodes what arrives in steps of `step` bytes; `None` if it is not complete.
fn decode(data: &[u8], step: usize, limits: &Limits) -> Result<Option<Content>, BodyError> {
    let mut decoder = Decoder::new(Length::Chunked, limits);
    let mut buf = BytesMut::new();
    let mut content = Content {
        data: Vec::new(),
        trailers: Fields::new(),
        used: 0,
    };
    let mut taken = 0;
    for piece in data.chunks(step) {
        buf.extend_from_slice(piece);
        taken += piece.len();
        loop {
            match decoder.decode(&mut buf, false)? {
                Event::Data(bytes) => {
                    assert!(!bytes.is_empty());
                    content.data.extend_from_slice(&bytes);
                }
                Event::NeedMore => break,
                end => {
                    if let Event::Trailers(fields) = end {
                        assert!(!fields.is_empty());
                        content.trailers = fields;
                    }
                    assert!(decoder.is_done());
                    content.used = taken - buf.len();
                    return Ok(Some(content));
                }
            }
        }
        assert!(!decoder.is_done());
        assert!(
            buf.len() <= limits.chunk_line.max(limits.trailers) + 4,
            "what is held back is bounded"
        );
    }
    assert_eq!(
        decoder.decode(&mut buf, true).err(),
        Some(BodyError::Truncated)
    );
    Ok(None)
}

/// A second reader, as simple as can be, that does not care about extensions and trailers.
fn lenient_chunks(mut bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let all = bytes.len();
    let mut data = Vec::new();
    loop {
        let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
        let line = std::str::from_utf8(&bytes[..end]).ok().or_else(|| {
            let digits = bytes.iter().position(|&byte| byte == b';')?;
            std::str::from_utf8(&bytes[..digits]).ok()
        })?;
        let size = usize::from_str_radix(line.split(';').next()?, 16).ok()?;
        bytes = &bytes[end + 2..];
        if size == 0 {
            break;
        }
        data.extend_from_slice(bytes.get(..size)?);
        bytes = bytes.get(size..)?.strip_prefix(b"\r\n")?;
    }
    loop {
        let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
        bytes = &bytes[end + 2..];
        if end == 0 {
            return Some((data, all - bytes.len()));
        }
    }
}
