//! Where a request ends.

use crate::show::{request, table, table_of};

#[test]
fn length_of_rfc_9112_section_6() {
    let rows = [
        (
            "a number",
            "Content-Length: 5\r\n",
            "POST <h> / Known(5) {Host: h, Content-Length: 5}",
        ),
        (
            "zero",
            "Content-Length: 0\r\n",
            "POST <h> / Known(0) {Host: h, Content-Length: 0}",
        ),
        (
            "zeros in front",
            "Content-Length: 007\r\n",
            "POST <h> / Known(7) {Host: h, Content-Length: 007}",
        ),
        (
            "19 digits",
            "Content-Length: 9999999999999999999\r\n",
            "POST <h> / Known(9999999999999999999) {Host: h, Content-Length: 9999999999999999999}",
        ),
        (
            "20 digits",
            "Content-Length: 10000000000000000000\r\n",
            "400 BadLength",
        ),
        (
            "2^64",
            "Content-Length: 18446744073709551616\r\n",
            "400 BadLength",
        ),
        ("plus", "Content-Length: +5\r\n", "400 BadLength"),
        ("minus", "Content-Length: -5\r\n", "400 BadLength"),
        ("hexadecimal", "Content-Length: 0x5\r\n", "400 BadLength"),
        ("fraction", "Content-Length: 5.0\r\n", "400 BadLength"),
        ("underscore", "Content-Length: 1_0\r\n", "400 BadLength"),
        ("exponent", "Content-Length: 1e1\r\n", "400 BadLength"),
        ("quotes", "Content-Length: \"5\"\r\n", "400 BadLength"),
        ("space within", "Content-Length: 5 5\r\n", "400 BadLength"),
        ("empty", "Content-Length:\r\n", "400 BadLength"),
        (
            "a list of equals",
            "Content-Length: 5, 5\r\n",
            "400 BadLength",
        ),
        ("a list", "Content-Length: 5, 6\r\n", "400 BadLength"),
        ("comma in front", "Content-Length: ,5\r\n", "400 BadLength"),
        ("comma behind", "Content-Length: 5,\r\n", "400 BadLength"),
        (
            "twice the same",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "400 BadLength",
        ),
        (
            "twice",
            "Content-Length: 5\r\ncontent-length: 6\r\n",
            "400 BadLength",
        ),
        (
            "good, then empty",
            "Content-Length: 5\r\nContent-Length:\r\n",
            "400 BadLength",
        ),
        (
            "bad, then good",
            "Content-Length: x\r\nContent-Length: 5\r\n",
            "400 BadLength",
        ),
        (
            "a digit beyond ASCII",
            "Content-Length: \u{ff15}\r\n",
            "400 BadLength",
        ),
        (
            "a similar name",
            "Content_Length: 5\r\n",
            "POST <h> / None {Host: h, Content_Length: 5}",
        ),
        (
            "chunked",
            "Transfer-Encoding: chunked\r\n",
            "POST <h> / Chunked {Host: h}",
        ),
        (
            "chunked, letter case",
            "transfer-encoding: Chunked\r\n",
            "POST <h> / Chunked {Host: h}",
        ),
        (
            "chunked, blanks",
            "Transfer-Encoding:\t chunked \t\r\n",
            "POST <h> / Chunked {Host: h}",
        ),
        (
            "chunked twice",
            "Transfer-Encoding: chunked, chunked\r\n",
            "400 BadTransferEncoding",
        ),
        (
            "chunked in two fields",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "400 BadTransferEncoding",
        ),
        (
            "chunked and identity",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            "400 BadTransferEncoding",
        ),
        (
            "chunked not last",
            "Transfer-Encoding: chunked, gzip\r\n",
            "400 BadTransferEncoding",
        ),
        (
            "chunked not last, identity",
            "Transfer-Encoding: chunked, identity\r\n",
            "400 BadTransferEncoding",
        ),
        (
            "gzip, chunked (6.1)",
            "Transfer-Encoding: gzip, chunked\r\n",
            "501 UnknownTransferCoding",
        ),
        (
            "gzip",
            "Transfer-Encoding: gzip\r\n",
            "501 UnknownTransferCoding",
        ),
        (
            "identity",
            "Transfer-Encoding: identity\r\n",
            "501 UnknownTransferCoding",
        ),
        (
            "identity, chunked",
            "Transfer-Encoding: identity, chunked\r\n",
            "501 UnknownTransferCoding",
        ),
        (
            "empty coding",
            "Transfer-Encoding:\r\n",
            "400 BadTransferEncoding",
        ),
        (
            "comma",
            "Transfer-Encoding: ,chunked\r\n",
            "400 BadTransferEncoding",
        ),
        (
            "comma behind",
            "Transfer-Encoding: chunked,\r\n",
            "400 BadTransferEncoding",
        ),
        (
            "xchunked",
            "Transfer-Encoding: xchunked\r\n",
            "400 BadTransferEncoding",
        ),
        (
            "chunkedx",
            "Transfer-Encoding: chunkedx\r\n",
            "400 BadTransferEncoding",
        ),
        (
            "chunk",
            "Transfer-Encoding: chunk\r\n",
            "400 BadTransferEncoding",
        ),
        (
            "quotes",
            "Transfer-Encoding: \"chunked\"\r\n",
            "400 BadTransferEncoding",
        ),
        (
            "single quotes",
            "Transfer-Encoding: 'chunked'\r\n",
            "400 BadTransferEncoding",
        ),
        (
            "parameter",
            "Transfer-Encoding: chunked;q=1\r\n",
            "400 BadTransferEncoding",
        ),
        (
            "colon",
            "Transfer-Encoding: :chunked\r\n",
            "400 BadTransferEncoding",
        ),
        (
            "two words",
            "Transfer-Encoding: x chunked\r\n",
            "400 BadTransferEncoding",
        ),
        (
            "vertical tab",
            "Transfer-Encoding: \x0bchunked\r\n",
            "400 BadField",
        ),
        (
            "form feed",
            "Transfer-Encoding: chunked\x0c\r\n",
            "400 BadField",
        ),
        ("NUL", "Transfer-Encoding: chunked\0\r\n", "400 BadField"),
        (
            "both (6.3)",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "400 LengthAndTransferEncoding",
        ),
        (
            "both, the other way",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "400 LengthAndTransferEncoding",
        ),
        (
            "both, length 0",
            "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
            "400 LengthAndTransferEncoding",
        ),
        (
            "both, one odd",
            "Transfer-Encoding: xchunked\r\nContent-Length: 5\r\n",
            "400 LengthAndTransferEncoding",
        ),
        (
            "both, length empty",
            "Transfer-Encoding: chunked\r\nContent-Length:\r\n",
            "400 LengthAndTransferEncoding",
        ),
        (
            "a similar name",
            "Transfer_Encoding: chunked\r\n",
            "POST <h> / None {Host: h, Transfer_Encoding: chunked}",
        ),
        ("neither (6.3)", "", "POST <h> / None {Host: h}"),
    ];
    table_of(
        &rows,
        |field| format!("POST / HTTP/1.1\r\nHost: h\r\n{field}\r\n"),
        request,
    );
    table(
        &[
            (
                "chunked in 1.0 (6.1)",
                "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
                "400 BadTransferEncoding",
            ),
            (
                "gzip in 1.0",
                "POST / HTTP/1.0\r\nTransfer-Encoding: gzip\r\n\r\n",
                "400 BadTransferEncoding",
            ),
            (
                "both in 1.0",
                "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
                "400 LengthAndTransferEncoding",
            ),
            (
                "length in 1.0",
                "POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\n",
                "POST <> / Known(3) close {Content-Length: 3}",
            ),
            (
                "CONNECT with content (RFC 9110 9.3.6)",
                "CONNECT a:1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n",
                "400 ConnectWithContent",
            ),
            (
                "CONNECT, chunked",
                "CONNECT a:1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
                "400 ConnectWithContent",
            ),
            (
                "CONNECT with length 0",
                "CONNECT a:1 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
                "CONNECT <a:1>  None {Host: a, Content-Length: 0}",
            ),
        ],
        request,
    );
}
