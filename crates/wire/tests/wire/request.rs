//! Heads of requests: what is read and what is refused, row by row.
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

#[test]
fn targets_of_rfc_9112_section_3_2() {
    let with = |line: &str| format!("{line} HTTP/1.1\r\nHost: h\r\n\r\n");
    let rows = [
        (
            "path and query",
            "GET /a/b?c=d&e",
            "GET <h> /a/b?c=d&e None {Host: h}",
        ),
        (
            "two slashes are a path",
            "GET //x/y",
            "GET <h> //x/y None {Host: h}",
        ),
        (
            "marks that browsers leave as they are",
            "GET /a|b\"c<d>{e}^`\\",
            "GET <h> /a|b\"c<d>{e}^`\\ None {Host: h}",
        ),
        (
            "asterisk of OPTIONS (3.2.4)",
            "OPTIONS *",
            "OPTIONS <h> * None {Host: h}",
        ),
        ("asterisk of GET", "GET *", "400 BadTarget"),
        ("asterisk and more", "OPTIONS *x", "400 BadTarget"),
        (
            "absolute (3.2.2): Host is ignored",
            "GET http://b:81/c?d",
            "GET http <b:81> /c?d None {Host: h}",
        ),
        (
            "absolute, https, letter case",
            "GET HTTPS://B/c",
            "GET https <B> /c None {Host: h}",
        ),
        (
            "absolute without path",
            "GET http://b",
            "GET http <b> / None {Host: h}",
        ),
        (
            "absolute, query without path",
            "GET http://b?q",
            "GET http <b> /?q None {Host: h}",
        ),
        (
            "absolute OPTIONS without path (3.2.4)",
            "OPTIONS http://b:81",
            "OPTIONS http <b:81> * None {Host: h}",
        ),
        (
            "absolute, IPv6",
            "GET http://[::1]:8/",
            "GET http <[::1]:8> / None {Host: h}",
        ),
        (
            "absolute, slashes in the query",
            "GET http://b?x://y/z",
            "GET http <b> /?x://y/z None {Host: h}",
        ),
        (
            "absolute, no host (RFC 9110 4.2.1)",
            "GET http:///c",
            "400 BadHost",
        ),
        ("absolute, port only", "GET http://:80/", "400 BadHost"),
        (
            "absolute, user (RFC 9110 4.2.4)",
            "GET http://u@b/",
            "400 BadHost",
        ),
        (
            "absolute, user and password",
            "GET http://u:p@b/",
            "400 BadHost",
        ),
        ("absolute, backslash", "GET http://a\\b/", "400 BadHost"),
        ("another scheme", "GET ftp://b/", "400 BadTarget"),
        ("no scheme", "GET ://b/", "400 BadTarget"),
        ("scheme without slashes", "GET http:b", "400 BadTarget"),
        ("a relative path", "GET a/b", "400 BadTarget"),
        ("a query alone", "GET ?q", "400 BadTarget"),
        ("an authority without CONNECT", "GET b:80", "400 BadTarget"),
        (
            "CONNECT (3.2.3)",
            "CONNECT b:443",
            "CONNECT <b:443>  None {Host: h}",
        ),
        (
            "CONNECT, IPv6",
            "CONNECT [::1]:443",
            "CONNECT <[::1]:443>  None {Host: h}",
        ),
        (
            "CONNECT without a port (RFC 9110 9.3.6)",
            "CONNECT b",
            "400 BadTarget",
        ),
        ("CONNECT with an empty port", "CONNECT b:", "400 BadTarget"),
        ("CONNECT with port 0", "CONNECT b:0", "400 BadTarget"),
        (
            "CONNECT with a port too large",
            "CONNECT b:65536",
            "400 BadTarget",
        ),
        ("CONNECT with a path", "CONNECT /b:80", "400 BadTarget"),
        (
            "CONNECT with a URI",
            "CONNECT http://b:80/",
            "400 BadTarget",
        ),
        ("CONNECT with a user", "CONNECT u@b:80", "400 BadTarget"),
        ("fragment", "GET /a#b", "400 BadTarget"),
        ("control character", "GET /a\x01b", "400 BadTarget"),
        ("NUL", "GET /a\0b", "400 BadTarget"),
        ("DEL", "GET /a\x7fb", "400 BadTarget"),
        ("tab", "GET /a\tb", "400 BadTarget"),
        ("a byte beyond ASCII", "GET /\u{e9}", "400 BadTarget"),
        ("CR in it", "GET /a\rb", "400 BareCarriageReturn"),
        ("LF in it", "GET /a\nb", "400 BareLineFeed"),
    ];
    let rows: Vec<(&str, String, &str)> = rows
        .map(|(name, line, expected)| (name, with(line), expected))
        .into();
    let rows: Vec<(&str, &String, &str)> = rows
        .iter()
        .map(|(name, line, expected)| (*name, line, *expected))
        .collect();
    table(&rows, request);
}

#[test]
fn host_of_rfc_9112_section_3_2() {
    let rows = [
        ("missing", "", "400 BadHost"),
        ("twice", "Host: a\r\nHost: b\r\n", "400 BadHost"),
        ("twice the same", "Host: a\r\nhost: a\r\n", "400 BadHost"),
        ("a list", "Host: a, b\r\n", "400 BadHost"),
        ("empty", "Host:\r\n", "GET <> / None {Host: }"),
        (
            "port",
            "Host: a:8080\r\n",
            "GET <a:8080> / None {Host: a:8080}",
        ),
        ("empty port", "Host: a:\r\n", "GET <a:> / None {Host: a:}"),
        ("port 0", "Host: a:0\r\n", "400 BadHost"),
        ("port 65536", "Host: a:65536\r\n", "400 BadHost"),
        ("port with a sign", "Host: a:+80\r\n", "400 BadHost"),
        ("port of letters", "Host: a:http\r\n", "400 BadHost"),
        ("port alone", "Host: :80\r\n", "400 BadHost"),
        ("two ports", "Host: a:80:81\r\n", "400 BadHost"),
        (
            "underscore",
            "Host: my_svc.ns\r\n",
            "GET <my_svc.ns> / None {Host: my_svc.ns}",
        ),
        (
            "trailing dot",
            "Host: a.b.\r\n",
            "GET <a.b.> / None {Host: a.b.}",
        ),
        (
            "sub-delimiters",
            "Host: a!$&'()*+,;=b\r\n",
            "GET <a!$&'()*+,;=b> / None {Host: a!$&\\'()*+,;=b}",
        ),
        (
            "percent-encoded",
            "Host: a%41b\r\n",
            "GET <a%41b> / None {Host: a%41b}",
        ),
        ("percent, incomplete", "Host: a%4\r\n", "400 BadHost"),
        ("percent, no digits", "Host: a%zz\r\n", "400 BadHost"),
        (
            "IPv4",
            "Host: 10.0.0.1:80\r\n",
            "GET <10.0.0.1:80> / None {Host: 10.0.0.1:80}",
        ),
        (
            "IPv6",
            "Host: [2001:db8::1]:80\r\n",
            "GET <[2001:db8::1]:80> / None {Host: [2001:db8::1]:80}",
        ),
        (
            "IPv6 without brackets",
            "Host: 2001:db8::1\r\n",
            "400 BadHost",
        ),
        (
            "IPv6 with a zone",
            "Host: [fe80::1%25eth0]\r\n",
            "400 BadHost",
        ),
        ("bracket not closed", "Host: [::1\r\n", "400 BadHost"),
        ("text behind the bracket", "Host: [::1]a\r\n", "400 BadHost"),
        ("IPv4 in brackets", "Host: [10.0.0.1]\r\n", "400 BadHost"),
        ("user", "Host: u@a\r\n", "400 BadHost"),
        ("a path", "Host: a/b\r\n", "400 BadHost"),
        ("a query", "Host: a?b\r\n", "400 BadHost"),
        ("a fragment", "Host: a#b\r\n", "400 BadHost"),
        ("a backslash", "Host: a\\b\r\n", "400 BadHost"),
        ("a URI", "Host: http://a\r\n", "400 BadHost"),
        ("a space in it", "Host: a b\r\n", "400 BadHost"),
        ("a byte beyond ASCII", "Host: \u{fc}.de\r\n", "400 BadHost"),
        ("quotes", "Host: \"a\"\r\n", "400 BadHost"),
    ];
    let rows: Vec<(&str, String, &str)> = rows
        .map(|(name, field, expected)| (name, format!("GET / HTTP/1.1\r\n{field}\r\n"), expected))
        .into();
    let rows: Vec<(&str, &String, &str)> = rows
        .iter()
        .map(|(name, line, expected)| (*name, line, *expected))
        .collect();
    table(&rows, request);
    table(
        &[
            (
                "1.0 may have one",
                "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
                "GET <a> / None close {Host: a}",
            ),
            (
                "1.0 may not have two",
                "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n",
                "400 BadHost",
            ),
            (
                "absolute-form needs one too",
                "GET http://a/ HTTP/1.1\r\n\r\n",
                "400 BadHost",
            ),
            (
                "absolute-form needs a valid one",
                "GET http://a/ HTTP/1.1\r\nHost: a b\r\n\r\n",
                "400 BadHost",
            ),
            (
                "CONNECT needs one too",
                "CONNECT a:1 HTTP/1.1\r\n\r\n",
                "400 BadHost",
            ),
        ],
        request,
    );
}

#[test]
fn fields_of_rfc_9112_section_5() {
    let rows = [
        (
            "order and case",
            "B: 1\r\na: 2\r\nB: 3\r\n",
            "GET <h> / None {Host: h, B: 1, a: 2, B: 3}",
        ),
        (
            "blanks at both ends",
            "A: \t x y \t \r\n",
            "GET <h> / None {Host: h, A: x y}",
        ),
        ("no blank", "A:x\r\n", "GET <h> / None {Host: h, A: x}"),
        ("empty", "A:\r\n", "GET <h> / None {Host: h, A: }"),
        ("only blanks", "A:  \t\r\n", "GET <h> / None {Host: h, A: }"),
        (
            "colons in the value",
            "A: b:c\r\n",
            "GET <h> / None {Host: h, A: b:c}",
        ),
        (
            "bytes beyond ASCII",
            "A: \u{e9}\r\n",
            "GET <h> / None {Host: h, A: \\xc3\\xa9}",
        ),
        (
            "tab within",
            "A: b\tc\r\n",
            "GET <h> / None {Host: h, A: b\\tc}",
        ),
        (
            "every mark of a token",
            "!#$%&'*+-.^_`|~: x\r\n",
            "GET <h> / None {Host: h, !#$%&\\'*+-.^_`|~: x}",
        ),
        ("space before the colon (5.1)", "A : x\r\n", "400 BadField"),
        ("tab before the colon (5.1)", "A\t: x\r\n", "400 BadField"),
        (
            "Content-Length with a space (5.1)",
            "Content-Length : 5\r\n",
            "400 BadField",
        ),
        (
            "Transfer-Encoding with a space (5.1)",
            "Transfer-Encoding : chunked\r\n",
            "400 BadField",
        ),
        ("empty name", ": x\r\n", "400 BadField"),
        ("no colon", "A\r\n", "400 BadField"),
        ("space in the name", "A b: x\r\n", "400 BadField"),
        ("NUL in the name", "A\0: x\r\n", "400 BadField"),
        ("parenthesis in the name", "A(: x\r\n", "400 BadField"),
        (
            "quotes around the name",
            "\"Content-Length\": 5\r\n",
            "400 BadField",
        ),
        (
            "a byte beyond ASCII in the name",
            "\u{e9}: x\r\n",
            "400 BadField",
        ),
        (
            "vertical tab in the name",
            "Content-Length\x0b: 5\r\n",
            "400 BadField",
        ),
        ("folded with a space (5.2)", "A: x\r\n y\r\n", "400 ObsFold"),
        ("folded with a tab (5.2)", "A: x\r\n\ty\r\n", "400 ObsFold"),
        (
            "folded Transfer-Encoding",
            "Transfer-Encoding:\r\n chunked\r\n",
            "400 ObsFold",
        ),
        ("NUL in the value", "A: x\0y\r\n", "400 BadField"),
        ("escape in the value", "A: \x1b[31m\r\n", "400 BadField"),
        ("DEL in the value", "A: \x7f\r\n", "400 BadField"),
        ("vertical tab in the value", "A: \x0bx\r\n", "400 BadField"),
        (
            "bare LF ends a field (2.2)",
            "A: x\nB: y\r\n",
            "400 BareLineFeed",
        ),
        (
            "bare CR in a value (2.2)",
            "A: x\ry\r\n",
            "400 BareCarriageReturn",
        ),
        ("CR CR LF", "A: x\r\r\n", "400 BareCarriageReturn"),
        ("LF CR", "A: x\n\r\n", "400 BareLineFeed"),
        ("LF in the name", "A\nB: x\r\n", "400 BareLineFeed"),
        ("CR in the name", "A\rB: x\r\n", "400 BareCarriageReturn"),
    ];
    let rows: Vec<(&str, String, &str)> = rows
        .map(|(name, field, expected)| {
            (
                name,
                format!("GET / HTTP/1.1\r\nHost: h\r\n{field}\r\n"),
                expected,
            )
        })
        .into();
    let rows: Vec<(&str, &String, &str)> = rows
        .iter()
        .map(|(name, line, expected)| (*name, line, *expected))
        .collect();
    table(&rows, request);
    table(
        &[
            (
                "blank before the first field (2.2)",
                "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
                "400 ObsFold",
            ),
            (
                "a blank line of blanks",
                "GET / HTTP/1.1\r\nHost: a\r\n \r\n\r\n",
                "400 ObsFold",
            ),
            (
                "the head ends with bare LFs",
                "GET / HTTP/1.1\r\nHost: a\n\n",
                "400 BareLineFeed",
            ),
            (
                "the head ends with LF, CR LF",
                "GET / HTTP/1.1\r\nHost: a\n\r\n",
                "400 BareLineFeed",
            ),
            (
                "only LFs",
                "GET / HTTP/1.1\nHost: a\n\n",
                "400 BareLineFeed",
            ),
            (
                "only CRs",
                "GET / HTTP/1.1\rHost: a\r\r",
                "400 BareCarriageReturn",
            ),
            (
                "a second request behind a bare LF",
                "GET / HTTP/1.1\r\nHost: a\r\nX: y\n\nGET /2 HTTP/1.1\r\nHost: b\r\n\r\n",
                "400 BareLineFeed",
            ),
        ],
        request,
    );
}

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
    let rows: Vec<(&str, String, &str)> = rows
        .map(|(name, field, expected)| {
            (
                name,
                format!("POST / HTTP/1.1\r\nHost: h\r\n{field}\r\n"),
                expected,
            )
        })
        .into();
    let rows: Vec<(&str, &String, &str)> = rows
        .iter()
        .map(|(name, line, expected)| (*name, line, *expected))
        .collect();
    table(&rows, request);
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

#[test]
fn connection_of_rfc_9110_section_7_6_1_and_rfc_9112_section_9_3() {
    let rows = [
        (
            "close",
            "Connection: close\r\n",
            "GET <h> / None close {Host: h}",
        ),
        (
            "close, letter case",
            "connection: Close\r\n",
            "GET <h> / None close {Host: h}",
        ),
        (
            "close in a list",
            "Connection: foo, close\r\n",
            "GET <h> / None close {Host: h}",
        ),
        (
            "close in the second field",
            "Connection: keep-alive\r\nConnection: close\r\n",
            "GET <h> / None close {Host: h}",
        ),
        (
            "close wins",
            "Connection: close, keep-alive\r\n",
            "GET <h> / None close {Host: h}",
        ),
        (
            "empty elements",
            "Connection: , ,\r\n",
            "GET <h> / None {Host: h}",
        ),
        (
            "keep-alive",
            "Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n",
            "GET <h> / None {Host: h}",
        ),
        (
            "proxy fields",
            "Proxy-Connection: close\r\nProxy-Authorization: Basic x\r\n",
            "GET <h> / None {Host: h}",
        ),
        (
            "named fields",
            "X-A: 1\r\nConnection: x-a, X-B\r\nX-B: 2\r\nX-C: 3\r\n",
            "GET <h> / None {Host: h, X-C: 3}",
        ),
        (
            "a named field twice",
            "X-A: 1\r\nConnection: x-a\r\nX-A: 2\r\n",
            "GET <h> / None {Host: h}",
        ),
        (
            "fields that no client may remove",
            "Connection: host, authorization, cookie, x-forwarded-for, forwarded, x-tulle-a, x-real-ip\r\nAuthorization: b\r\nCookie: c\r\nX-Forwarded-For: d\r\nForwarded: e\r\nX-Tulle-A: f\r\nX-Real-IP: g\r\n",
            "GET <h> / None {Host: h, Authorization: b, Cookie: c, X-Forwarded-For: d, Forwarded: e, X-Tulle-A: f, X-Real-IP: g}",
        ),
        (
            "the length stays",
            "Connection: content-length\r\nContent-Length: 3\r\n",
            "GET <h> / Known(3) {Host: h, Content-Length: 3}",
        ),
        (
            "the coding counts",
            "Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n",
            "GET <h> / Chunked {Host: h}",
        ),
        (
            "TE",
            "TE: trailers\r\nConnection: te\r\n",
            "GET <h> / None te {Host: h}",
        ),
        (
            "TE in a list",
            "TE: deflate;q=0.5, Trailers\r\n",
            "GET <h> / None te {Host: h}",
        ),
        (
            "TE without trailers",
            "TE: deflate\r\n",
            "GET <h> / None {Host: h}",
        ),
        (
            "TE that only looks like it",
            "TE: trailersx\r\n",
            "GET <h> / None {Host: h}",
        ),
        (
            "Trailer stays",
            "Trailer: x-sum\r\n",
            "GET <h> / None {Host: h, Trailer: x-sum}",
        ),
        (
            "upgrade (RFC 9110 7.8)",
            "Connection: Upgrade\r\nUpgrade: websocket\r\n",
            "GET <h> / None upgrade {Host: h, Upgrade: websocket}",
        ),
        (
            "upgrade, in a list",
            "Upgrade: websocket\r\nConnection: keep-alive, upgrade\r\n",
            "GET <h> / None upgrade {Host: h, Upgrade: websocket}",
        ),
        (
            "Upgrade that Connection does not list",
            "Upgrade: websocket\r\n",
            "GET <h> / None {Host: h}",
        ),
        (
            "Connection lists it, but no Upgrade",
            "Connection: upgrade\r\n",
            "GET <h> / None {Host: h}",
        ),
        (
            "h2c (RFC 9113 3.1)",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
            "GET <h> / None {Host: h}",
        ),
        (
            "h2c in a list",
            "Connection: upgrade\r\nUpgrade: websocket, H2C\r\n",
            "GET <h> / None {Host: h}",
        ),
        (
            "expect (RFC 9110 10.1.1)",
            "Expect: 100-Continue\r\n",
            "GET <h> / None expect {Host: h, Expect: 100-Continue}",
        ),
        ("another expectation", "Expect: 200-ok\r\n", "417 BadExpect"),
        (
            "two expectations",
            "Expect: 100-continue, x\r\n",
            "417 BadExpect",
        ),
        ("an empty expectation", "Expect:\r\n", "417 BadExpect"),
        (
            "a good and a bad expectation",
            "Expect: x\r\nExpect: 100-continue\r\n",
            "417 BadExpect",
        ),
    ];
    let rows: Vec<(&str, String, &str)> = rows
        .map(|(name, field, expected)| {
            (
                name,
                format!("GET / HTTP/1.1\r\nHost: h\r\n{field}\r\n"),
                expected,
            )
        })
        .into();
    let rows: Vec<(&str, &String, &str)> = rows
        .iter()
        .map(|(name, line, expected)| (*name, line, *expected))
        .collect();
    table(&rows, request);
    let many = (0..33)
        .map(|n| format!("x-{n}"))
        .collect::<Vec<_>>()
        .join(",");
    table(
        &[
            (
                "1.0 keeps alive if asked",
                "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
                "GET <> / None {}",
            ),
            (
                "1.0, both",
                "GET / HTTP/1.0\r\nConnection: close, keep-alive\r\n\r\n",
                "GET <> / None close {}",
            ),
            (
                "1.0 has no upgrade (RFC 9110 7.8)",
                "GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
                "GET <> / None close {}",
            ),
            (
                "1.0 has no expectation (RFC 9110 10.1.1)",
                "GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n",
                "GET <> / None close {}",
            ),
            (
                "Connection names too many fields",
                &format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {many}\r\n\r\n"),
                "400 BadField",
            ),
        ],
        request,
    );
}

/// Each byte in each place, against the words of the RFCs.
#[test]
fn every_byte_has_its_places() {
    let head = |method: &[u8], target: &[u8], name: &[u8], value: &[u8]| {
        let parts = [
            method,
            b" ",
            target,
            b" HTTP/1.1\r\nHost: h\r\n",
            name,
            b": ",
            value,
            b"\r\n\r\n",
        ];
        request(&parts.concat())
    };
    let is_read = |line: &str| !line.starts_with("400") && line != "more";
    for byte in 0..=u8::MAX {
        let token = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let value = matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
        let target = byte.is_ascii_graphic() && byte != b'#';
        for before in [0, 1, 6, 7, 8, 9, 17] {
            let mut bytes = vec![b'x'; 20];
            bytes[before] = byte;
            let place = format!("byte {byte:#x} at {before}");
            assert_eq!(
                is_read(&head(&bytes, b"/", b"a", b"b")),
                token,
                "{place} of a method"
            );
            assert_eq!(
                is_read(&head(b"GET", b"/", b"a", &bytes)),
                value,
                "{place} of a value"
            );
            // A colon ends the name.
            let name = token || byte == b':' && before > 0;
            assert_eq!(
                is_read(&head(b"GET", b"/", &bytes, b"b")),
                name,
                "{place} of a name"
            );
            bytes.insert(0, b'/');
            assert_eq!(
                is_read(&head(b"GET", &bytes, b"a", b"b")),
                target,
                "{place} of a target"
            );
        }
        let host = byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte);
        let line = [
            b"GET / HTTP/1.1\r\nHost: a".as_slice(),
            &[byte],
            b"b\r\n\r\n",
        ]
        .concat();
        assert_eq!(is_read(&request(&line)), host, "byte {byte:#x} of a host");
    }
}
