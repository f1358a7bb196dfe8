//! `Host`, and what counts in its place.

use crate::show::{request, table, table_of};

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
    table_of(
        &rows,
        |field| format!("GET / HTTP/1.1\r\n{field}\r\n"),
        request,
    );
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
