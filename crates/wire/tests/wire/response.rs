//! Heads of responses: what is read and what is refused, row by row.
use wire::Method;

use crate::show::{response, table};

#[test]
fn status_line_of_rfc_9112_section_4() {
    table(
        &[
            (
                "plain",
                "HTTP/1.1 200 OK\r\n\r\n",
                "200 <OK> UntilClose close {}",
            ),
            (
                "phrase of words",
                "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
                "404 <Not Found> Known(0) {Content-Length: 0}",
            ),
            (
                "no phrase",
                "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n",
                "200 <> Known(0) {Content-Length: 0}",
            ),
            (
                "no phrase, no space",
                "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
                "200 <> Known(0) {Content-Length: 0}",
            ),
            (
                "phrase in UTF-8",
                "HTTP/1.1 200 \u{c4}h\r\nContent-Length: 0\r\n\r\n",
                "200 <\u{c4}h> Known(0) {Content-Length: 0}",
            ),
            (
                "1.0",
                "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
                "200 <OK> Known(0) close {Content-Length: 0}",
            ),
            (
                "1.0 that stays",
                "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
                "200 <OK> Known(0) {Content-Length: 0}",
            ),
            (
                "999",
                "HTTP/1.1 999 x\r\nContent-Length: 0\r\n\r\n",
                "999 <x> Known(0) {Content-Length: 0}",
            ),
            ("099", "HTTP/1.1 099 x\r\n\r\n", "BadStatusLine"),
            ("two digits", "HTTP/1.1 20 OK\r\n\r\n", "BadStatusLine"),
            ("four digits", "HTTP/1.1 2000 OK\r\n\r\n", "BadStatusLine"),
            ("sign", "HTTP/1.1 +20 OK\r\n\r\n", "BadStatusLine"),
            ("two spaces", "HTTP/1.1  200 OK\r\n\r\n", "BadStatusLine"),
            ("tab", "HTTP/1.1\t200 OK\r\n\r\n", "BadStatusLine"),
            ("no status", "HTTP/1.1\r\n\r\n", "BadStatusLine"),
            ("short", "HTTP/1\r\n\r\n", "BadStatusLine"),
            ("1.2", "HTTP/1.2 200 OK\r\n\r\n", "BadVersion"),
            ("2.0", "HTTP/2.0 200 OK\r\n\r\n", "BadVersion"),
            ("lower case", "http/1.1 200 OK\r\n\r\n", "BadStatusLine"),
            ("another protocol", "ICY 200 OK\r\n\r\n", "BadStatusLine"),
            (
                "content that was longer than announced",
                "xyzHTTP/1.1 200 OK\r\n\r\n",
                "BadStatusLine",
            ),
            (
                "an empty line before",
                "\r\nHTTP/1.1 200 OK\r\n\r\n",
                "BadStatusLine",
            ),
            (
                "NUL in the phrase",
                "HTTP/1.1 200 O\0K\r\n\r\n",
                "BadStatusLine",
            ),
            (
                "bare LF",
                "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
                "BareLineFeed",
            ),
            ("bare CR", "HTTP/1.1 200 O\rK\r\n\r\n", "BareCarriageReturn"),
            ("folded", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", "ObsFold"),
            (
                "space before the colon",
                "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
                "BadField",
            ),
            ("a request", "GET / HTTP/1.1\r\n\r\n", "BadStatusLine"),
            ("incomplete", "HTTP/1.1 200 OK\r\nA: b\r\n", "more"),
            ("incomplete in the version", "HTT", "more"),
        ],
        |bytes| response(&Method::GET, bytes),
    );
    let latin = b"HTTP/1.1 200 \xc4h\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(
        response(&Method::GET, latin),
        "200 <> Known(0) {Content-Length: 0}"
    );
}

#[test]
fn length_of_rfc_9112_section_6_3() {
    table(
        &[
            (
                "known",
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                "200 <OK> Known(5) {Content-Length: 5}",
            ),
            (
                "chunked",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                "200 <OK> Chunked {}",
            ),
            (
                "neither",
                "HTTP/1.1 200 OK\r\n\r\n",
                "200 <OK> UntilClose close {}",
            ),
            (
                "neither, but asked to stay",
                "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n",
                "200 <OK> UntilClose close {}",
            ),
            (
                "both",
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                "LengthAndTransferEncoding",
            ),
            (
                "two lengths",
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
                "BadLength",
            ),
            (
                "a list of lengths",
                "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
                "BadLength",
            ),
            (
                "gzip, chunked",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
                "UnknownTransferCoding",
            ),
            (
                "chunked, gzip",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
                "BadTransferEncoding",
            ),
            (
                "chunked in 1.0",
                "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                "BadTransferEncoding",
            ),
            (
                "100",
                "HTTP/1.1 100 Continue\r\n\r\nHTTP",
                "100 <Continue> None {} + HTTP",
            ),
            (
                "103 with a field",
                "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n",
                "103 <Early Hints> None {Link: x}",
            ),
            (
                "204",
                "HTTP/1.1 204 No Content\r\n\r\n",
                "204 <No Content> None {}",
            ),
            (
                "204 with length 0",
                "HTTP/1.1 204 N\r\nContent-Length: 0\r\n\r\n",
                "204 <N> None {}",
            ),
            (
                "204 with a length: what follows is not trusted",
                "HTTP/1.1 204 N\r\nContent-Length: 5\r\n\r\n",
                "204 <N> None close {}",
            ),
            (
                "204, chunked: likewise",
                "HTTP/1.1 204 N\r\nTransfer-Encoding: chunked\r\n\r\n",
                "204 <N> None close {}",
            ),
            (
                "100 with a length",
                "HTTP/1.1 100 C\r\nContent-Length: 5\r\n\r\n",
                "100 <C> None close {}",
            ),
            (
                "304 keeps the length that GET would have",
                "HTTP/1.1 304 N\r\nContent-Length: 5\r\n\r\n",
                "304 <N> None {Content-Length: 5}",
            ),
            (
                "304, chunked",
                "HTTP/1.1 304 N\r\nTransfer-Encoding: chunked\r\n\r\n",
                "304 <N> None {}",
            ),
            ("205", "HTTP/1.1 205 R\r\n\r\n", "205 <R> None close {}"),
            (
                "205 with length 0",
                "HTTP/1.1 205 R\r\nContent-Length: 0\r\n\r\n",
                "205 <R> None {Content-Length: 0}",
            ),
            (
                "205, chunked, which is read to its end",
                "HTTP/1.1 205 R\r\nTransfer-Encoding: chunked\r\n\r\n",
                "205 <R> Chunked {}",
            ),
            (
                "101 (RFC 9110 7.8)",
                "HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
                "101 <S> None upgrade {Upgrade: websocket}",
            ),
            (
                "Upgrade elsewhere",
                "HTTP/1.1 200 OK\r\nUpgrade: h2\r\nContent-Length: 0\r\n\r\n",
                "200 <OK> Known(0) {Content-Length: 0}",
            ),
            (
                "close",
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
                "200 <OK> Known(0) close {Content-Length: 0}",
            ),
            (
                "fields of the connection",
                "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5\r\nConnection: x-a, set-cookie\r\nX-A: 1\r\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n",
                "200 <OK> Known(0) {Set-Cookie: b, Content-Length: 0}",
            ),
            (
                "Expect means nothing here",
                "HTTP/1.1 200 OK\r\nExpect: x\r\nContent-Length: 0\r\n\r\n",
                "200 <OK> Known(0) {Expect: x, Content-Length: 0}",
            ),
        ],
        |bytes| response(&Method::GET, bytes),
    );
}

#[test]
fn answers_to_head_and_connect() {
    table(
        &[
            (
                "HEAD with a length",
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                "200 <OK> None {Content-Length: 5}",
            ),
            (
                "HEAD, chunked",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                "200 <OK> None {}",
            ),
            (
                "HEAD, neither",
                "HTTP/1.1 200 OK\r\n\r\n",
                "200 <OK> None {}",
            ),
            (
                "HEAD, two lengths",
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
                "BadLength",
            ),
        ],
        |bytes| response(&Method::HEAD, bytes),
    );
    table(
        &[
            (
                "CONNECT 200",
                "HTTP/1.1 200 OK\r\n\r\nraw",
                "200 <OK> None {} + raw",
            ),
            (
                "CONNECT 200: framing is ignored (RFC 9110 9.3.6)",
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                "200 <OK> None {}",
            ),
            (
                "CONNECT refused",
                "HTTP/1.1 403 F\r\nContent-Length: 5\r\n\r\n",
                "403 <F> Known(5) {Content-Length: 5}",
            ),
        ],
        |bytes| response(&Method::CONNECT, bytes),
    );
}
