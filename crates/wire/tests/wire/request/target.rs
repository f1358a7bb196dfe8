//! What is asked for.

use crate::show::{request, table_of};

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
    table_of(&rows, with, request);
}
