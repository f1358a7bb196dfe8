//! One length in odd spellings, chunks that do not end where they say, bodies where none are
//! expected, and what comes after a body.

use super::h1::{HIDDEN, chunked_hidden, post};
use super::{Payload, Want};

const REFUSED: Want = Want::Refuse(&[400]);

pub(super) fn payloads() -> Vec<Payload> {
    let mut all = lengths();
    all.extend(chunks());
    all.extend(trailers());
    all.extend(bodies());
    all.extend(hops());
    all.extend(expectations());
    all.extend(pipelines());
    all
}

/// `#` is the right length of a body that is the hidden request.
fn lengths() -> Vec<Payload> {
    const TWISTED: &[&str] = &[
        "Content-Length: +#",
        "Content-Length: -#",
        "Content-Length: -0",
        "Content-Length: 0x#",
        "Content-Length: #, #",
        "Content-Length: #,#",
        "Content-Length: 0, #",
        "Content-Length: #, 0",
        "Content-Length: # #",
        "Content-Length: #;",
        "Content-Length: #.0",
        "Content-Length: #e0",
        "Content-Length: #_",
        "Content-Length: \"#\"",
        "Content-Length: #a",
        "Content-Length: a#",
        "Content-Length: #\0",
        "Content-Length: \0#",
        "Content-Length: #\x0b",
        "Content-Length: \x0b#",
        "Content-Length: #\u{a0}",
        "Content-Length: ٤٢",
        "Content-Length: ４２",
        "Content-Length:",
        "Content-Length: ",
        "Content-Length: ,",
        "Content-Length: five",
        "Content-Length: 18446744073709551616",
        "Content-Length: 18446744073709551658",
        "Content-Length: 99999999999999999999999999",
        "Content-Length: #\r\nContent-Length: #",
        "Content-Length: 0\r\nContent-Length: #",
        "Content-Length: #\r\nContent-Length: 0",
        "Content-Length: #\r\ncontent-length: 1",
        "Content-Length: #\r\nContent-Length:",
        "Content-Length: #\r\n 0",
        "Content-Length:\r\n #",
        "Content-Length : #",
        "Content-Length\t: #",
        " Content-Length: #",
        "Content-Length\0: #",
        "X: y\nContent-Length: #",
        "X: y\rContent-Length: #",
        "Content-Length: #\rX: y",
        "Content-Length:: #",
    ];
    let length = HIDDEN.len().to_string();
    let mut all: Vec<_> = TWISTED
        .iter()
        .map(|line| {
            let text = post(&format!("{}\r\n", line.replace('#', &length)), HIDDEN);
            Payload::new("length", line, text, REFUSED)
        })
        .collect();
    for line in [
        "Content-Length: 00#",
        "Content-Length: 0000000000000000000000#",
    ] {
        let text = post(&format!("{}\r\n", line.replace('#', &length)), HIDDEN);
        all.push(Payload::new("length", line, text, Want::Either));
    }
    for line in [
        "Content-Length:#",
        "Content-Length: \t#\t ",
        "CONTENT-LENGTH: #",
    ] {
        let text = post(&format!("{}\r\n", line.replace('#', &length)), HIDDEN);
        all.push(Payload::new(
            "length",
            line,
            text,
            Want::Pass(HIDDEN.into()),
        ));
    }
    // Too large to come: the head is refused or waits for a body that never ends.
    for line in [
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
    ] {
        let text = post(&format!("Content-Length: {line}\r\n"), HIDDEN);
        all.push(Payload::new("length", line, text, Want::Either));
    }
    all
}

fn chunks() -> Vec<Payload> {
    // After each of these the hidden request begins where a tolerant reader believes the end.
    const TWISTED: &[(&str, &str)] = &[
        ("signed size", "+5\r\nABCDE\r\n0\r\n\r\n"),
        ("negative size", "-5\r\nABCDE\r\n0\r\n\r\n"),
        ("0x size", "0x5\r\nABCDE\r\n0\r\n\r\n"),
        ("space before the size", " 5\r\nABCDE\r\n0\r\n\r\n"),
        ("tab before the size", "\t5\r\nABCDE\r\n0\r\n\r\n"),
        ("underscore in the size", "0_5\r\nABCDE\r\n0\r\n\r\n"),
        ("size with a letter beyond f", "5g\r\nABCDE\r\n0\r\n\r\n"),
        ("quoted size", "\"5\"\r\nABCDE\r\n0\r\n\r\n"),
        ("no size", "\r\nABCDE\r\n0\r\n\r\n"),
        ("only an extension", ";a=b\r\nABCDE\r\n0\r\n\r\n"),
        ("two sizes", "5 5\r\nABCDE\r\n0\r\n\r\n"),
        ("size list", "5,5\r\nABCDE\r\n0\r\n\r\n"),
        (
            "size beyond 64 bits",
            "10000000000000005\r\nABCDE\r\n0\r\n\r\n",
        ),
        ("NUL after the size", "5\0\r\nABCDE\r\n0\r\n\r\n"),
        ("vertical tab after the size", "5\x0b\r\nABCDE\r\n0\r\n\r\n"),
        ("LF ends the size", "5\nABCDE\r\n0\r\n\r\n"),
        ("CR ends the size", "5\rABCDE\r\n0\r\n\r\n"),
        ("CR CR LF ends the size", "5\r\r\nABCDE\r\n0\r\n\r\n"),
        ("LF CR ends the size", "5\n\rABCDE\r\n0\r\n\r\n"),
        ("LF ends the data", "5\r\nABCDE\n0\r\n\r\n"),
        ("CR ends the data", "5\r\nABCDE\r0\r\n\r\n"),
        ("nothing ends the data", "5\r\nABCDE0\r\n\r\n"),
        ("two other bytes end the data", "5\r\nABCDEXX0\r\n\r\n"),
        ("data longer than said", "5\r\nABCDEFGH\r\n0\r\n\r\n"),
        ("data shorter than said", "5\r\nABC\r\n0\r\n\r\n"),
        ("LF ends the last size", "5\r\nABCDE\r\n0\n\r\n"),
        ("LF LF at the end", "5\r\nABCDE\r\n0\n\n"),
        ("LF at the end", "5\r\nABCDE\r\n0\r\n\n"),
        ("CR at the end", "5\r\nABCDE\r\n0\r\n\r"),
        ("CR X at the end", "5\r\nABCDE\r\n0\r\n\rX"),
        ("bytes after the last chunk", "5\r\nABCDE\r\n0\r\nXX"),
        ("extension ended by LF", "5;\nABCDE\r\n0\r\n\r\n"),
        ("named extension ended by LF", "5;a\nABCDE\r\n0\r\n\r\n"),
        (
            "extension with value ended by LF",
            "5;a=b\nABCDE\r\n0\r\n\r\n",
        ),
        ("LF within an extension", "5;a\nb\r\nABCDE\r\n0\r\n\r\n"),
        (
            "LF within a quoted extension",
            "5;a=\"\n\"\r\nABCDE\r\n0\r\n\r\n",
        ),
        (
            "CR LF within a quoted extension",
            "5;a=\"\r\n\"\r\nABCDE\r\n0\r\n\r\n",
        ),
        ("CR within an extension", "5;a\rb\r\nABCDE\r\n0\r\n\r\n"),
        ("CR ends an extension", "5;a\rABCDE\r\n0\r\n\r\n"),
        ("NUL within an extension", "5;a\0b\r\nABCDE\r\n0\r\n\r\n"),
        (
            "extension of the last chunk ended by LF",
            "5\r\nABCDE\r\n0;a\n\r\n",
        ),
        (
            "empty extension of the last chunk ended by LF",
            "5\r\nABCDE\r\n0;\n\r\n",
        ),
    ];
    let te = "Transfer-Encoding: chunked\r\n";
    let mut all: Vec<_> = TWISTED
        .iter()
        .map(|(name, body)| {
            Payload::new("chunk", name, post(te, &format!("{body}{HIDDEN}")), REFUSED)
        })
        .collect();
    // TERM.EXT: who takes LF for the line's end reads a size line; who does not, an extension.
    for (class, line) in [
        ("TERM.EXT", "2;\nxx\r\n"),
        ("TERM.EXT with a name", "2;a\nxx\r\n"),
        ("EXT.TERM", "2;\r\nxx\n"),
        ("one-two spill", "2\r\nxxx\n"),
    ] {
        let rest = format!("{:x}\r\n0\r\n\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len() + 5);
        all.push(Payload::new(
            "spill",
            class,
            post(te, &format!("{line}{rest}")),
            REFUSED,
        ));
    }
    // Legal, or left open: white space before an extension is read by some (RFC 9112 7.1.1).
    for (name, first, open) in [
        ("extension", "5;a", false),
        ("extension with value", "5;a=b", false),
        ("quoted extension", "5;a=\"b;c\"", false),
        ("two extensions", "5;a=1;b=\"2\"", false),
        ("extension with an escaped quote", "5;a=\"\\\"\"", true),
        ("leading zeros", "0005", false),
        ("seventeen digits", "00000000000000005", true),
        ("space before an extension", "5 ;a=b", true),
        ("space after the semicolon", "5; a=b", true),
        ("trailing space", "5 ", true),
        ("empty extension", "5;", true),
    ] {
        let want = if open {
            Want::Either
        } else {
            Want::Pass("ABCDE".into())
        };
        let text = post(te, &format!("{first}\r\nABCDE\r\n0\r\n\r\n"));
        all.push(Payload::new("chunk, legal", name, text, want));
    }
    // More than will ever come.
    for size in ["ffffffffffffffff", "100000005"] {
        let text = post(te, &format!("{size}\r\nABCDE\r\n0\r\n\r\n{HIDDEN}"));
        all.push(Payload::new("chunk, endless", size, text, Want::Either));
    }
    // A line feed within the data is data.
    let body = format!("3\r\nxx\n\r\n{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len());
    let want = Want::Pass(format!("xx\n{HIDDEN}").into());
    all.push(Payload::new(
        "chunk, legal",
        "LF as data",
        post(te, &body),
        want,
    ));
    let long = format!("5;{}\r\nABCDE\r\n0\r\n\r\n{HIDDEN}", "a".repeat(70_000));
    let large = Want::Refuse(&[400, 413, 431]);
    all.push(Payload::new(
        "chunk",
        "an extension of 70 kB",
        post(te, &long),
        large,
    ));
    let many = format!("1{}\r\nA\r\n0\r\n\r\n{HIDDEN}", ";a=b".repeat(5_000));
    let large = Want::Refuse(&[400, 413, 431]);
    all.push(Payload::new(
        "chunk",
        "5,000 extensions",
        post(te, &many),
        large,
    ));
    all
}

fn trailers() -> Vec<Payload> {
    let te = "Transfer-Encoding: chunked\r\n";
    let text = |trailer: &str| post(te, &format!("5\r\nABCDE\r\n0\r\n{trailer}\r\n\r\n{HIDDEN}"));
    let alone = |trailer: &str| post(te, &format!("5\r\nABCDE\r\n0\r\n{trailer}\r\n\r\n"));
    let mut all = Vec::new();
    for line in [
        "X : y",
        "X",
        ": y",
        " X: y",
        "X: y\r\n z",
        "X: y\nZ: z",
        "X: y\rZ: z",
        "X: y\n",
        "X: y\0",
        "X\0: y",
        "X Y: z",
        "GET /x/{id} HTTP/1.1",
    ] {
        all.push(Payload::new("trailer", line, text(line), REFUSED));
    }
    // RFC 9110 6.5.1: fields that frame or route are not taken from trailers.
    for line in [
        "Content-Length: 50",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: identity",
        "Host: other.local",
        "Connection: close",
        "Trailer: X",
        "TE: trailers",
        "Authorization: Basic eA==",
        "Content-Length: 50\r\nTransfer-Encoding: chunked",
    ] {
        all.push(Payload::new("trailer", line, alone(line), Want::Either));
    }
    all.push(Payload::new(
        "trailer",
        "plain",
        alone("X-Sum: 5"),
        Want::Pass("ABCDE".into()),
    ));
    let huge = format!("X: {}", "y".repeat(100_000));
    let want = Want::Refuse(&[400, 413, 431]);
    all.push(Payload::new("trailer", "of 100 kB", text(&huge), want));
    let many = vec!["X: y"; 5_000].join("\r\n");
    let want = Want::Refuse(&[400, 413, 431]);
    all.push(Payload::new("trailer", "5,000 of them", text(&many), want));
    all
}

/// CL.0: a body where a server might not look for one.
fn bodies() -> Vec<Payload> {
    let mut all = Vec::new();
    let length = format!("Content-Length: {}\r\n", HIDDEN.len());
    for method in [
        "GET", "DELETE", "OPTIONS", "PUT", "PATCH", "PROPFIND", "get", "GETS",
    ] {
        let head = format!("{method} /v/{{id}} HTTP/1.1\r\nHost: app.local\r\n");
        let text = format!("{head}{length}\r\n{HIDDEN}");
        let want = if method == "get" {
            Want::Either
        } else {
            Want::Pass(HIDDEN.into())
        };
        all.push(Payload::new("CL.0", method, text, want));
        let text = format!(
            "{head}Transfer-Encoding: chunked\r\n\r\n{}",
            chunked_hidden()
        );
        let want = if method == "get" {
            Want::Either
        } else {
            Want::Pass(HIDDEN.into())
        };
        all.push(Payload::new("TE.0", method, text, want));
    }
    for method in ["TRACE", "TRACK"] {
        let text =
            format!("{method} /v/{{id}} HTTP/1.1\r\nHost: app.local\r\n{length}\r\n{HIDDEN}");
        all.push(Payload::new("CL.0", method, text, Want::Either));
    }
    // HTTP/1.0 knows no transfer codings (RFC 9112 6.1).
    for version in [
        "HTTP/1.0",
        "HTTP/0.9",
        "HTTP/1.2",
        "HTTP/2.0",
        "HTTP/1.10",
        "HTTP/1",
    ] {
        let text = format!(
            "POST /v/{{id}} {version}\r\nHost: app.local\r\nTransfer-Encoding: chunked\r\n\
             Connection: keep-alive\r\n\r\n{}",
            chunked_hidden()
        );
        let want = match version {
            "HTTP/1.2" => Want::Either,
            _ => Want::Refuse(&[400, 505]),
        };
        all.push(Payload::new("TE in another version", version, text, want));
    }
    // 0.CL: no body has come when the back end could already answer.
    let text = post(&length, "");
    all.push(Payload::new(
        "0.CL",
        "a body that never comes",
        text,
        Want::Either,
    ));
    all
}

/// `Connection` names fields that must not be taken away by a client's word.
fn hops() -> Vec<Payload> {
    let length = HIDDEN.len();
    let mut all = Vec::new();
    for named in [
        "Content-Length",
        "content-length",
        "close, Content-Length",
        "keep-alive, Content-Length",
        "Content-Length, Host",
        "Host",
        "X-Forwarded-For",
        "Cookie",
        "Expect",
        "Connection",
    ] {
        let text = post(
            &format!("Connection: {named}\r\nContent-Length: {length}\r\n"),
            HIDDEN,
        );
        all.push(Payload::new("hop-by-hop", named, text, Want::Either));
    }
    for named in [
        "Transfer-Encoding",
        "transfer-encoding, close",
        "TE, Transfer-Encoding",
    ] {
        let text = post(
            &format!("Connection: {named}\r\nTransfer-Encoding: chunked\r\n"),
            &chunked_hidden(),
        );
        all.push(Payload::new("hop-by-hop", named, text, Want::Either));
    }
    // Upgrades that the back end does not make: what follows is not a tunnel.
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for (name, headers) in [
        (
            "h2c",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n",
        ),
        (
            "h2c, settings not named",
            "Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
        ),
        (
            "h2c, connection not named",
            "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
        ),
        ("h2", "Connection: Upgrade\r\nUpgrade: h2\r\n"),
        (
            "h2c and websocket",
            "Connection: Upgrade\r\nUpgrade: h2c, websocket\r\n",
        ),
    ] {
        let text =
            format!("GET /v/{{id}} HTTP/1.1\r\nHost: app.local\r\n{headers}\r\n{preface}{HIDDEN}");
        all.push(Payload::new("upgrade", name, text, Want::Either));
    }
    for version in ["13", "777", ""] {
        let text = format!(
            "GET /v/{{id}} HTTP/1.1\r\nHost: app.local\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: {version}\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Content-Length: {length}\r\n\r\n{HIDDEN}"
        );
        let name = format!("websocket version {version:?} with a body");
        all.push(Payload::new("upgrade", &name, text, Want::Either));
    }
    all
}

fn expectations() -> Vec<Payload> {
    let length = HIDDEN.len();
    let mut all = Vec::new();
    for (line, want) in [
        ("Expect: 100-continue", Want::Pass(HIDDEN.into())),
        ("expect: 100-Continue", Want::Pass(HIDDEN.into())),
        ("Expect: 100-continue\r\nExpect: 100-continue", Want::Either),
        ("Expect: y 100-continue", Want::Refuse(&[400, 417])),
        ("Expect: 200-ok", Want::Refuse(&[400, 417])),
        ("Expect: 100-continue, x", Want::Refuse(&[400, 417])),
        ("Expect: \"100-continue\"", Want::Refuse(&[400, 417])),
        ("Expect:\r\n 100-continue", Want::Refuse(&[400])),
        ("Expect: 100-continue\0", Want::Refuse(&[400])),
        ("Expect: 100-continue\nX: y", Want::Refuse(&[400])),
        ("Expect : 100-continue", Want::Refuse(&[400])),
        ("Expect:", Want::Either),
    ] {
        let text = post(&format!("{line}\r\nContent-Length: {length}\r\n"), HIDDEN);
        all.push(Payload::new("expect", line, text, want.clone()));
        let text = post(
            &format!("{line}\r\nTransfer-Encoding: chunked\r\n"),
            &chunked_hidden(),
        );
        all.push(Payload::new("expect, chunked", line, text, want));
    }
    let text = "GET /v/{id} HTTP/1.1\r\nHost: app.local\r\nExpect: 100-continue\r\n\r\n";
    all.push(Payload::new("expect", "without a body", text, Want::Either));
    all
}

/// What honest clients do: the next request right behind a body.
fn pipelines() -> Vec<Payload> {
    let next = "GET /v/{id}/2 HTTP/1.1\r\nHost: app.local\r\n\r\n";
    let length = HIDDEN.len();
    let mut all = Vec::new();
    for (name, first) in [
        (
            "length",
            post(&format!("Content-Length: {length}\r\n"), HIDDEN),
        ),
        (
            "chunked",
            post("Transfer-Encoding: chunked\r\n", &chunked_hidden()),
        ),
        (
            "chunked with trailers",
            post(
                "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n",
                &format!("{length:x}\r\n{HIDDEN}\r\n0\r\nX-Sum: 1\r\n\r\n"),
            ),
        ),
        (
            "expect",
            post(
                &format!("Expect: 100-continue\r\nContent-Length: {length}\r\n"),
                HIDDEN,
            ),
        ),
    ] {
        let mut payload = Payload::new("pipeline", name, first + next, Want::Pass(HIDDEN.into()));
        payload.requests = 2;
        all.push(payload);
    }
    let mut payload = Payload::new("pipeline", "three", next.repeat(3), Want::Pass(vec![]));
    payload.requests = 3;
    all.push(payload);
    // After `close` nothing is read (RFC 9112 9.6).
    let text = post(
        &format!("Connection: close\r\nContent-Length: {length}\r\n"),
        HIDDEN,
    );
    all.push(Payload::new(
        "pipeline",
        "after close",
        text + HIDDEN,
        Want::Pass(HIDDEN.into()),
    ));
    let text = format!(
        "POST /v/{{id}} HTTP/1.0\r\nHost: app.local\r\nContent-Length: {length}\r\n\r\n{HIDDEN}{HIDDEN}"
    );
    all.push(Payload::new(
        "pipeline",
        "after HTTP/1.0",
        text,
        Want::Pass(HIDDEN.into()),
    ));
    all
}
