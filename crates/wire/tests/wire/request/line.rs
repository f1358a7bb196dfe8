//! The first line.

use crate::show::{request, table};

#[test]
fn request_line_of_rfc_9112_section_3() {
    table(
        &[
            (
                "plain",
                "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET <a> / None {Host: a}",
            ),
            ("1.0", "GET / HTTP/1.0\r\n\r\n", "GET <> / None close {}"),
            (
                "one empty line before (2.2)",
                "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET <a> / None {Host: a}",
            ),
            (
                "two empty lines before (2.2)",
                "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET <a> / None {Host: a}",
            ),
            (
                "three empty lines before",
                "\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
                "400 BadRequestLine",
            ),
            (
                "bare LF before",
                "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
                "400 BareLineFeed",
            ),
            (
                "CR before",
                "\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
                "400 BareCarriageReturn",
            ),
            (
                "space before",
                " GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                "400 BadRequestLine",
            ),
            (
                "method in lower case is another method",
                "get / HTTP/1.1\r\nHost: a\r\n\r\n",
                "get <a> / None {Host: a}",
            ),
            (
                "unknown method",
                "M-SEARCH / HTTP/1.1\r\nHost: a\r\n\r\n",
                "M-SEARCH <a> / None {Host: a}",
            ),
            (
                "method with a colon",
                "G:T / HTTP/1.1\r\nHost: a\r\n\r\n",
                "400 BadRequestLine",
            ),
            (
                "method with a NUL",
                "G\0T / HTTP/1.1\r\nHost: a\r\n\r\n",
                "400 BadRequestLine",
            ),
            (
                "method with a slash",
                "GET/ / HTTP/1.1\r\nHost: a\r\n\r\n",
                "400 BadRequestLine",
            ),
            (
                "method of 65 bytes",
                &format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "M".repeat(65)),
                "400 BadRequestLine",
            ),
            (
                "two spaces first",
                "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
                "400 BadRequestLine",
            ),
            (
                "two spaces second",
                "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
                "400 BadRequestLine",
            ),
            (
                "tab instead of space",
                "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
                "400 BadRequestLine",
            ),
            (
                "tab second",
                "GET /\tHTTP/1.1\r\nHost: a\r\n\r\n",
                "400 BadRequestLine",
            ),
            (
                "vertical tab",
                "GET /\x0bHTTP/1.1\r\nHost: a\r\n\r\n",
                "400 BadRequestLine",
            ),
            (
                "space behind the version",
                "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
                "400 BadRequestLine",
            ),
            ("no version (0.9)", "GET /\r\n\r\n", "400 BadRequestLine"),
            (
                "no target",
                "GET HTTP/1.1\r\nHost: a\r\n\r\n",
                "400 BadRequestLine",
            ),
            ("nothing but a method", "GET\r\n\r\n", "400 BadRequestLine"),
            (
                "1.2 (RFC 9110 2.5)",
                "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
                "505 BadVersion",
            ),
            (
                "0.9 spelled out",
                "GET / HTTP/0.9\r\nHost: a\r\n\r\n",
                "505 BadVersion",
            ),
            ("2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", "505 BadVersion"),
            (
                "the preface of HTTP/2",
                "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                "505 BadVersion",
            ),
            (
                "version in lower case",
                "GET / http/1.1\r\nHost: a\r\n\r\n",
                "400 BadRequestLine",
            ),
            (
                "version of two digits",
                "GET / HTTP/1.10\r\nHost: a\r\n\r\n",
                "400 BadRequestLine",
            ),
            (
                "version with zeros",
                "GET / HTTP/01.1\r\nHost: a\r\n\r\n",
                "400 BadRequestLine",
            ),
            (
                "version without a dot",
                "GET / HTTP/11\r\nHost: a\r\n\r\n",
                "400 BadRequestLine",
            ),
            (
                "version with a comma",
                "GET / HTTP/1,1\r\nHost: a\r\n\r\n",
                "400 BadRequestLine",
            ),
            (
                "another protocol",
                "GET / HTTPS/1.1\r\nHost: a\r\n\r\n",
                "400 BadRequestLine",
            ),
            (
                "two versions",
                "GET / HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n",
                "400 BadRequestLine",
            ),
            ("TLS", "\x16\x03\x01\x02\0\x01\0", "400 BadRequestLine"),
            ("incomplete", "GET / HTTP/1.1\r\nHost: a\r\n", "more"),
            (
                "the next request stays",
                "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /2",
                "GET <a> / None {Host: a} + GET /2",
            ),
        ],
        request,
    );
}
