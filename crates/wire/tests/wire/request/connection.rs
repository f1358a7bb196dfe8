//! What concerns one connection only.

use crate::show::{request, table, table_of};

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
            "h2c (RFC 7540 3.2)",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
            "GET <h> / None h2c {Host: h, HTTP2-Settings: AAMAAABkAAQAAP__}",
        ),
        (
            "h2c in a list, with no settings of its own and no content",
            "HTTP2-Settings:\r\nContent-Length: 0\r\nConnection: http2-settings, upgrade\r\nUpgrade: websocket, H2C\r\n",
            "GET <h> / Known(0) h2c {Host: h, HTTP2-Settings: , Content-Length: 0}",
        ),
        (
            "h2c without settings",
            "Connection: upgrade\r\nUpgrade: websocket, H2C\r\n",
            "GET <h> / None {Host: h}",
        ),
        (
            "h2c with two of them",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nHTTP2-Settings: AAMAAABk\r\n",
            "GET <h> / None {Host: h}",
        ),
        (
            "h2c with settings that Connection does not list",
            "Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
            "GET <h> / None {Host: h}",
        ),
        (
            "h2c with half a setting",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n",
            "GET <h> / None {Host: h}",
        ),
        (
            "h2c with settings in another alphabet",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAAB/\r\n",
            "GET <h> / None {Host: h}",
        ),
        (
            "h2c with content",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nContent-Length: 1\r\n",
            "GET <h> / Known(1) {Host: h, Content-Length: 1}",
        ),
        (
            "settings without h2c",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: websocket\r\nHTTP2-Settings: AAMAAABk\r\n",
            "GET <h> / None upgrade {Host: h, Upgrade: websocket}",
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
    table_of(
        &rows,
        |field| format!("GET / HTTP/1.1\r\nHost: h\r\n{field}\r\n"),
        request,
    );
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
