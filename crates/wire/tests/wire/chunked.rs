//! Content: the chunked coding row by row, known lengths, and content until close.
use bytes::BytesMut;
use wire::{Decoder, Event, Length, Limits};

use crate::show::{self, table};

/// `data {trailers} + rest`, `data ...` where more is needed, or the error.
pub(crate) fn read(length: Length, bytes: &[u8], eof: bool) -> String {
    let mut buf = BytesMut::from(bytes);
    let mut decoder = Decoder::new(length, &Limits::default());
    let mut data = Vec::new();
    loop {
        let (end, fields) = match decoder.decode(&mut buf, eof) {
            Ok(Event::Data(piece)) => {
                assert!(!piece.is_empty());
                data.extend_from_slice(&piece);
                continue;
            }
            Ok(Event::End) => ("", String::new()),
            Ok(Event::Trailers(fields)) => ("", show::fields(&fields)),
            Ok(Event::NeedMore) => (" ...", String::new()),
            Err(error) => return show::variant(&error),
        };
        assert_eq!(decoder.is_done(), end.is_empty());
        let rest = if buf.is_empty() || !end.is_empty() {
            String::new()
        } else {
            format!(" + {}", buf.escape_ascii())
        };
        return format!("{}{end}{fields}{rest}", data.escape_ascii());
    }
}

#[test]
fn chunks_of_rfc_9112_section_7_1() {
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(1022));
    let longest = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(1023));
    let endless = "5".repeat(2000);
    table(
        &[
            ("one", "5\r\nhello\r\n0\r\n\r\n", "hello"),
            ("two", "5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", "hello!"),
            ("none", "0\r\n\r\n", ""),
            ("several zeros end it", "000\r\n\r\n", ""),
            (
                "letter case",
                "A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n",
                "01234567890123456789",
            ),
            ("zeros in front", "0005\r\nhello\r\n0\r\n\r\n", "hello"),
            (
                "16 digits",
                "0000000000000005\r\nhello\r\n0\r\n\r\n",
                "hello",
            ),
            ("the next message stays", "0\r\n\r\nGET /", " + GET /"),
            (
                "data that looks like a chunk",
                "5\r\n0\r\n\r\n\r\n0\r\n\r\n",
                "0\\r\\n\\r\\n",
            ),
            (
                "17 digits",
                "00000000000000005\r\nhello\r\n0\r\n\r\n",
                "BadChunkSize",
            ),
            (
                "17 digits that would wrap",
                "10000000000000005\r\nhello\r\n0\r\n\r\n",
                "BadChunkSize",
            ),
            ("no digits", "\r\nhello\r\n0\r\n\r\n", "BadChunkSize"),
            ("plus", "+5\r\nhello\r\n0\r\n\r\n", "BadChunkSize"),
            ("minus", "-5\r\nhello\r\n0\r\n\r\n", "BadChunkSize"),
            ("0x", "0x5\r\nhello\r\n0\r\n\r\n", "BadChunkSize"),
            ("underscore", "0_5\r\nhello\r\n0\r\n\r\n", "BadChunkSize"),
            ("space before", " 5\r\nhello\r\n0\r\n\r\n", "BadChunkSize"),
            ("space behind", "5 \r\nhello\r\n0\r\n\r\n", "BadChunkSize"),
            ("tab behind", "5\t\r\nhello\r\n0\r\n\r\n", "BadChunkSize"),
            ("not hexadecimal", "g\r\nhello\r\n0\r\n\r\n", "BadChunkSize"),
            ("comma", "5,5\r\nhello\r\n0\r\n\r\n", "BadChunkSize"),
            ("NUL", "5\0\r\nhello\r\n0\r\n\r\n", "BadChunkSize"),
            ("quotes", "\"5\"\r\nhello\r\n0\r\n\r\n", "BadChunkSize"),
            (
                "bare LF behind the size",
                "5\nhello\r\n0\r\n\r\n",
                "BareLineEnd",
            ),
            (
                "bare CR behind the size",
                "5\rhello\r\n0\r\n\r\n",
                "BareLineEnd",
            ),
            ("CR CR LF", "5\r\r\nhello\r\n0\r\n\r\n", "BareLineEnd"),
            (
                "bare LF behind the data",
                "5\r\nhello\n0\r\n\r\n",
                "MissingLineEnd",
            ),
            (
                "bare CR behind the data",
                "5\r\nhello\r0\r\n\r\n",
                "MissingLineEnd",
            ),
            (
                "data longer than the size",
                "4\r\nhello\r\n0\r\n\r\n",
                "MissingLineEnd",
            ),
            (
                "data shorter than the size",
                "6\r\nhello\r\n0\r\n\r\n",
                "MissingLineEnd",
            ),
            ("bare LFs at the end", "0\n\n", "BareLineEnd"),
            ("bare LF as the last line", "0\r\n\n", "BareLineEnd"),
            ("incomplete size", "5", " ..."),
            ("incomplete line end", "5\r", " ..."),
            ("incomplete data", "5\r\nhel", "hel ..."),
            ("no line end yet", "5\r\nhello", "hello ..."),
            ("half a line end", "5\r\nhello\r", "hello ..."),
            ("no last line yet", "0\r\n", " ..."),
            ("half a last line", "0\r\n\r", " ..."),
            ("a line of the limit", &long, "hello"),
            ("a line beyond the limit", &longest, "ChunkLineTooLong"),
            ("an endless line", &endless, "ChunkLineTooLong"),
        ],
        |bytes| read(Length::Chunked, bytes, false),
    );
}

#[test]
fn extensions_of_rfc_9112_section_7_1_1() {
    table(
        &[
            ("name", "5;a\r\nhello\r\n0\r\n\r\n", "hello"),
            ("value", "5;a=b\r\nhello\r\n0\r\n\r\n", "hello"),
            (
                "several",
                "5;a=b;c;d=\"e;\\\"f \"\r\nhello\r\n0;x\r\n\r\n",
                "hello",
            ),
            ("no name", "5;\r\nhello\r\n0\r\n\r\n", "BadChunkExtension"),
            (
                "no name before the value",
                "5;=b\r\nhello\r\n0\r\n\r\n",
                "BadChunkExtension",
            ),
            (
                "no value",
                "5;a=\r\nhello\r\n0\r\n\r\n",
                "BadChunkExtension",
            ),
            ("space before", "5 ;a\r\nhello\r\n0\r\n\r\n", "BadChunkSize"),
            (
                "space behind",
                "5; a\r\nhello\r\n0\r\n\r\n",
                "BadChunkExtension",
            ),
            (
                "space around the sign",
                "5;a = b\r\nhello\r\n0\r\n\r\n",
                "BadChunkExtension",
            ),
            (
                "quote not closed",
                "5;a=\"b\r\nhello\r\n0\r\n\r\n",
                "BadChunkExtension",
            ),
            (
                "text behind the quote",
                "5;a=\"b\"c\r\nhello\r\n0\r\n\r\n",
                "BadChunkExtension",
            ),
            (
                "escape at the end",
                "5;a=\"b\\\r\nhello\r\n0\r\n\r\n",
                "BadChunkExtension",
            ),
            (
                "control character",
                "5;a=\"\x01\"\r\nhello\r\n0\r\n\r\n",
                "BadChunkExtension",
            ),
            (
                "bare LF in it (TERM.EXT)",
                "5;\nxx\r\nhello\r\n0\r\n\r\n",
                "BareLineEnd",
            ),
            (
                "bare CR in it",
                "5;a\rb\r\nhello\r\n0\r\n\r\n",
                "BareLineEnd",
            ),
            (
                "line end in quotes",
                "5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n",
                "BadChunkExtension",
            ),
        ],
        |bytes| read(Length::Chunked, bytes, false),
    );
}

#[test]
fn trailers_of_rfc_9112_section_7_1_2_and_rfc_9110_section_6_5() {
    let many = format!("0\r\n{}\r\n", "x: y\r\n".repeat(129));
    let large = format!("0\r\nx: {}\r\n\r\n", "y".repeat(16_384));
    table(
        &[
            ("kept", "0\r\nX-Sum: 1\r\nb: 2\r\n\r\n", " {X-Sum: 1, b: 2}"),
            (
                "gRPC",
                "0\r\ngrpc-status: 0\r\ngrpc-message:\r\n\r\nHTTP",
                " {grpc-status: 0, grpc-message: } + HTTP",
            ),
            (
                "dropped",
                "0\r\nTE: x\r\nTrailer: x\r\nConnection: x\r\nUpgrade: x\r\nExpect: x\r\n\r\n",
                "",
            ),
            (
                "dropped among kept",
                "0\r\na: 1\r\nAuthorization: x\r\nContent-Encoding: x\r\nContent-Type: x\r\nContent-Range: x\r\nCookie: x\r\nSet-Cookie: x\r\nAge: 1\r\nCache-Control: x\r\nVary: x\r\nX-Forwarded-For: x\r\nX-Tulle-Failure: x\r\nb: 2\r\n\r\n",
                " {a: 1, b: 2}",
            ),
            (
                "Transfer-Encoding",
                "0\r\nTransfer-Encoding: chunked\r\n\r\n",
                "BadTrailer",
            ),
            (
                "Content-Length",
                "0\r\ncontent-length: 5\r\n\r\n",
                "BadTrailer",
            ),
            ("Host", "0\r\nHost: a\r\n\r\n", "BadTrailer"),
            ("space before the colon", "0\r\nA : b\r\n\r\n", "BadTrailer"),
            ("no colon", "0\r\nGET / HTTP/1.1\r\n\r\n", "BadTrailer"),
            ("folded", "0\r\na: b\r\n c\r\n\r\n", "BadTrailer"),
            ("empty name", "0\r\n: b\r\n\r\n", "BadTrailer"),
            ("control character", "0\r\na: \0\r\n\r\n", "BadTrailer"),
            ("bare LF", "0\r\na: b\n\r\n", "BareLineEnd"),
            ("bare CR", "0\r\na: b\rc\r\n\r\n", "BareLineEnd"),
            ("bare LFs at the end", "0\r\na: b\r\n\n", "BareLineEnd"),
            ("incomplete", "0\r\na: b\r\n", " ..."),
            ("too many", &many, "TrailersTooLarge"),
            ("too large", &large, "TrailersTooLarge"),
        ],
        |bytes| read(Length::Chunked, bytes, false),
    );
}

#[test]
fn the_end_of_the_connection() {
    for (name, length, bytes, expected) in [
        ("known", Length::Known(3), "abc", "abc"),
        (
            "known, and the next message",
            Length::Known(3),
            "abcdef",
            "abc + def",
        ),
        ("known, cut", Length::Known(3), "ab", "Truncated"),
        ("none", Length::None, "abc", " + abc"),
        ("length 0", Length::Known(0), "", ""),
        ("until close", Length::UntilClose, "abc", "abc"),
        ("until close, empty", Length::UntilClose, "", ""),
        (
            "chunked, cut in the size",
            Length::Chunked,
            "5",
            "Truncated",
        ),
        (
            "chunked, cut in the data",
            Length::Chunked,
            "5\r\nab",
            "Truncated",
        ),
        (
            "chunked, cut behind the data",
            Length::Chunked,
            "5\r\nhello",
            "Truncated",
        ),
        (
            "chunked, cut before the last chunk",
            Length::Chunked,
            "5\r\nhello\r\n",
            "Truncated",
        ),
        (
            "chunked, cut before the last line",
            Length::Chunked,
            "0\r\n",
            "Truncated",
        ),
        (
            "chunked, cut in the trailers",
            Length::Chunked,
            "0\r\na: b\r\n",
            "Truncated",
        ),
        ("chunked, complete", Length::Chunked, "0\r\n\r\n", ""),
    ] {
        assert_eq!(read(length, bytes.as_bytes(), true), expected, "{name}");
    }
    assert_eq!(read(Length::UntilClose, b"abc", false), "abc ...");
    assert_eq!(read(Length::Known(5), b"abc", false), "abc ...");
}

/// Chunks of one byte with extensions of a kilobyte cost the sender little and everybody behind much.
#[test]
fn framing_without_data_has_a_bound() {
    let costly = format!("1;{}\r\nx\r\n", "y".repeat(1000)).repeat(200);
    assert_eq!(
        read(Length::Chunked, costly.as_bytes(), false),
        "TooMuchOverhead"
    );
    let frugal = "1\r\nx\r\n".repeat(100_000) + "0\r\n\r\n";
    assert_eq!(
        read(Length::Chunked, frugal.as_bytes(), false).len(),
        100_000
    );
    let signed = format!(
        "10000;chunk-signature={}\r\n{}\r\n",
        "a".repeat(64),
        "z".repeat(65_536)
    )
    .repeat(100);
    assert_eq!(
        read(Length::Chunked, (signed + "0\r\n\r\n").as_bytes(), false).len(),
        6_553_600
    );
}

#[test]
fn data_taken_elsewhere_is_skipped() {
    let mut decoder = Decoder::new(Length::Known(10), &Limits::default());
    assert_eq!(decoder.remaining(), Some(10));
    decoder.skip(4);
    assert_eq!((decoder.remaining(), decoder.is_done()), (Some(6), false));
    decoder.skip(6);
    assert_eq!((decoder.remaining(), decoder.is_done()), (None, true));

    let mut decoder = Decoder::new(Length::Chunked, &Limits::default());
    let mut buf = BytesMut::from(&b"5\r\nhe"[..]);
    assert_eq!(decoder.remaining(), None);
    assert!(matches!(decoder.decode(&mut buf, false), Ok(Event::Data(data)) if &data[..] == b"he"));
    assert_eq!(decoder.remaining(), Some(3));
    decoder.skip(3);
    buf.extend_from_slice(b"\r\n0\r\n\r\nnext");
    assert!(matches!(decoder.decode(&mut buf, false), Ok(Event::End)));
    assert_eq!((&buf[..], decoder.is_done()), (&b"next"[..], true));
}

/// Data is a view of the buffer, not a copy of it.
#[test]
fn data_is_not_copied() {
    let mut buf = BytesMut::from(&b"5\r\nhello\r\n"[..]);
    let place = buf[3..].as_ptr();
    let mut decoder = Decoder::new(Length::Chunked, &Limits::default());
    let Ok(Event::Data(data)) = decoder.decode(&mut buf, false) else {
        panic!("no data");
    };
    assert_eq!(data.as_ptr(), place);
}
