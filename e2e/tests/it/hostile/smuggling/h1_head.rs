//! Line ends, names and values that end lines, targets and hosts that can be read as others.

use super::h1::HIDDEN;
use super::{Payload, Want};

const REFUSED: Want = Want::Refuse(&[400]);

pub(super) fn payloads() -> Vec<Payload> {
    let mut all = line_ends();
    all.extend(fields());
    all.extend(hosts());
    all.extend(request_lines());
    all
}

fn line_ends() -> Vec<Payload> {
    let mut all = Vec::new();
    for (name, text) in [
        ("LF everywhere", "GET /v/{id} HTTP/1.1\nHost: app.local\n\n"),
        (
            "LF after the request line",
            "GET /v/{id} HTTP/1.1\nHost: app.local\r\n\r\n",
        ),
        (
            "LF after a field",
            "GET /v/{id} HTTP/1.1\r\nHost: app.local\nX: y\r\n\r\n",
        ),
        (
            "LF ends the head",
            "GET /v/{id} HTTP/1.1\r\nHost: app.local\r\n\n",
        ),
        (
            "LF LF ends the head",
            "GET /v/{id} HTTP/1.1\r\nHost: app.local\n\n",
        ),
        (
            "LF CR LF ends the head",
            "GET /v/{id} HTTP/1.1\r\nHost: app.local\n\r\n",
        ),
        ("CR everywhere", "GET /v/{id} HTTP/1.1\rHost: app.local\r\r"),
        (
            "CR after the request line",
            "GET /v/{id} HTTP/1.1\rHost: app.local\r\n\r\n",
        ),
        (
            "CR CR LF after a field",
            "GET /v/{id} HTTP/1.1\r\nHost: app.local\r\r\n\r\n",
        ),
        (
            "CR ends the head",
            "GET /v/{id} HTTP/1.1\r\nHost: app.local\r\n\rX\r\n\r\n",
        ),
        ("LF CR", "GET /v/{id} HTTP/1.1\n\rHost: app.local\n\r\n\r"),
        (
            "CR in a value",
            "GET /v/{id} HTTP/1.1\r\nHost: app.local\r\nX: a\rY: b\r\n\r\n",
        ),
        (
            "CR SP in a value",
            "GET /v/{id} HTTP/1.1\r\nHost: app.local\r\nX: a\r b\r\n\r\n",
        ),
        (
            "obs-fold",
            "GET /v/{id} HTTP/1.1\r\nHost: app.local\r\nX: a\r\n b\r\n\r\n",
        ),
        (
            "obs-fold by a tab",
            "GET /v/{id} HTTP/1.1\r\nHost: app.local\r\nX: a\r\n\tb\r\n\r\n",
        ),
        (
            "obs-fold of Host",
            "GET /v/{id} HTTP/1.1\r\nHost:\r\n app.local\r\n\r\n",
        ),
        (
            "obs-fold right after the request line",
            "GET /v/{id} HTTP/1.1\r\n X: y\r\nHost: app.local\r\n\r\n",
        ),
        (
            "a fold of spaces alone",
            "GET /v/{id} HTTP/1.1\r\nHost: app.local\r\n \r\n\r\n",
        ),
        (
            "a request folded into a value",
            "GET /v/{id} HTTP/1.1\r\nHost: app.local\r\nX: a\r\n GET /x/{id} HTTP/1.1\r\n\r\n",
        ),
        (
            "a request after CR in a value",
            "GET /v/{id} HTTP/1.1\r\nHost: app.local\r\nX: a\r\r\rGET /x/{id} HTTP/1.1\rHost: app.local\r\r\r\n\r\n",
        ),
        (
            "a request after LF LF in a value",
            "GET /v/{id} HTTP/1.1\r\nHost: app.local\r\nX: a\n\nGET /x/{id} HTTP/1.1\r\nHost: app.local\r\n\r\n",
        ),
        (
            "vertical tab ends a line",
            "GET /v/{id} HTTP/1.1\r\nHost: app.local\x0bX: y\r\n\r\n",
        ),
        (
            "form feed ends a line",
            "GET /v/{id} HTTP/1.1\r\nHost: app.local\x0cX: y\r\n\r\n",
        ),
    ] {
        all.push(Payload::new("line ends", name, text, REFUSED));
    }
    // RFC 9112 2.2: an empty line before the request line is passed over.
    let text = "\r\nGET /v/{id} HTTP/1.1\r\nHost: app.local\r\n\r\n";
    all.push(Payload::new(
        "line ends",
        "an empty line first",
        text,
        Want::Pass(vec![]),
    ));
    let text = "\nGET /v/{id} HTTP/1.1\r\nHost: app.local\r\n\r\n";
    all.push(Payload::new("line ends", "LF first", text, Want::Either));
    let text = format!(
        "{}GET /v/{{id}} HTTP/1.1\r\nHost: app.local\r\n\r\n",
        "\r\n".repeat(50)
    );
    all.push(Payload::new(
        "line ends",
        "fifty empty lines first",
        text,
        Want::Either,
    ));
    all
}

fn fields() -> Vec<Payload> {
    let mut all = Vec::new();
    let with = |line: &str| format!("GET /v/{{id}} HTTP/1.1\r\nHost: app.local\r\n{line}\r\n\r\n");
    for line in [
        "X : y",
        "X\t: y",
        ": y",
        "X",
        "X Y: z",
        "X(: y",
        "X/: y",
        "X\": y",
        "X@Y: z",
        "X[: y",
        "X\0: y",
        "X: \0",
        "X: a\0b",
        "X: \x01",
        "X: \x08",
        "X: a\x1fb",
        "X: \x7f",
        "X\x7f: y",
        "X: \x0b",
        "X\u{e9}: y",
        "{X}: y",
        "X,Y: z",
        "X=Y: z",
        "X;: y",
        "X?: y",
        "X<: y",
    ] {
        all.push(Payload::new("field", line, with(line), REFUSED));
    }
    for line in [
        "X: \u{e9}",
        "X:",
        "X: ",
        "X:y",
        "!#$%&'*+-.^_`|~09: y",
        "X: \"a, b\"",
        "X: a\tb",
    ] {
        all.push(Payload::new("field, legal", line, with(line), Want::Either));
    }
    let want = || Want::Refuse(&[400, 431]);
    let long = format!("X: {}", "y".repeat(200_000));
    all.push(Payload::new(
        "field",
        "a value of 200 kB",
        with(&long),
        want(),
    ));
    let long = format!("{}: y", "X".repeat(200_000));
    all.push(Payload::new(
        "field",
        "a name of 200 kB",
        with(&long),
        want(),
    ));
    let many = vec!["X: y"; 2_000].join("\r\n");
    all.push(Payload::new("field", "2,000 of them", with(&many), want()));
    // A header that is not at its end, and looks like the next request.
    let text = format!("GET /v/{{id}} HTTP/1.1\r\nHost: app.local\r\nX: {HIDDEN}");
    let mut payload = Payload::new("field", "a request line as a value", text, Want::Either);
    payload.requests = 1;
    all.push(payload);
    all
}

fn hosts() -> Vec<Payload> {
    let mut all = Vec::new();
    let with = |lines: &str| format!("GET /v/{{id}} HTTP/1.1\r\n{lines}\r\n");
    for lines in [
        "",
        "Host: app.local\r\nHost: other.local\r\n",
        "Host: app.local\r\nHost: app.local\r\n",
        "Host: app.local\r\nhost: app.local\r\n",
        "Host : app.local\r\n",
        " Host: app.local\r\n",
        "Host: app.local other.local\r\n",
        "Host: app.local, other.local\r\n",
        "Host: app.local/x\r\n",
        "Host: user@app.local\r\n",
        "Host: app.local:\0\r\n",
        "Host: app.local:80x\r\n",
        "Host: app.local:-80\r\n",
        "Host: app.local:99999\r\n",
        "Host: app.local:80:80\r\n",
        "Host: app.local?x\r\n",
        "Host: app.local#x\r\n",
        "Host: app.local\\x\r\n",
        "Host: http://app.local\r\n",
        "Host: [::1\r\n",
        "Host: ::1\r\n",
        "Host: [app.local]\r\n",
        "Host: \u{e9}.local\r\n",
        "Host: app\t.local\r\n",
        "Host: <app.local>\r\n",
        "Host: app.local\nHost: other.local\r\n",
    ] {
        all.push(Payload::new("host", lines, with(lines), REFUSED));
    }
    for lines in [
        "Host:\r\n",
        "Host: app.local:\r\n",
        "Host: app.local.\r\n",
        "Host: APP.LOCAL\r\n",
        "Host: app_x.local\r\n",
        "Host: [::1]:80\r\n",
        "Host: 127.0.0.1\r\n",
        "Host: a%20b\r\n",
        "Host: a,b\r\n",
    ] {
        all.push(Payload::new(
            "host, legal",
            lines,
            with(lines),
            Want::Either,
        ));
    }
    for (target, host, want) in [
        ("http://app.local/v/{id}", "app.local", Want::Pass(vec![])),
        ("HTTP://app.local/v/{id}", "app.local", Want::Either),
        ("http://app.local/v/{id}", "other.local", Want::Either),
        ("http://other.local/v/{id}", "app.local", Want::Either),
        ("https://app.local/v/{id}", "app.local", Want::Either),
        ("http://app.local:80/v/{id}", "app.local", Want::Either),
        ("http://user:pass@app.local/v/{id}", "app.local", REFUSED),
        ("http:///v/{id}", "app.local", REFUSED),
        ("http:/v/{id}", "app.local", REFUSED),
        ("ftp://app.local/v/{id}", "app.local", REFUSED),
        ("javascript:/v/{id}", "app.local", REFUSED),
        ("//app.local/v/{id}", "app.local", Want::Either),
        ("http://app.local#/v/{id}", "app.local", REFUSED),
        (
            "http://app.local\\@other.local/v/{id}",
            "app.local",
            REFUSED,
        ),
        ("http://[::1/v/{id}", "app.local", REFUSED),
        ("http://app.local:99999/v/{id}", "app.local", REFUSED),
    ] {
        let text = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let name = format!("{target} with Host {host}");
        all.push(Payload::new("absolute form", &name, text, want));
    }
    all
}

fn request_lines() -> Vec<Payload> {
    let mut all = Vec::new();
    for line in [
        "GET  /v/{id} HTTP/1.1",
        "GET /v/{id}  HTTP/1.1",
        "GET\t/v/{id} HTTP/1.1",
        "GET /v/{id}\tHTTP/1.1",
        " GET /v/{id} HTTP/1.1",
        "GET /v/{id} HTTP/1.1 ",
        "GET /v/{id} HTTP/1.1 x",
        "GET /v/{id} x HTTP/1.1",
        "GET /v/{id} /x/{id} HTTP/1.1",
        "GET /v/{id}",
        "GET /v/{id} ",
        "GET HTTP/1.1",
        "GET  HTTP/1.1",
        "/v/{id} HTTP/1.1",
        "GET v/{id} HTTP/1.1",
        "GET * HTTP/1.1",
        "GET app.local:80 HTTP/1.1",
        "GET ?v/{id} HTTP/1.1",
        "GET #/v/{id} HTTP/1.1",
        "GET /v/{id}#x HTTP/1.1",
        "GET /v/{id}\0 HTTP/1.1",
        "GET /v/{id}\x01 HTTP/1.1",
        "GET /v/{id}\x7f HTTP/1.1",
        "GET /v/{id}\u{e9} HTTP/1.1",
        "GET /v/{id}\rX HTTP/1.1",
        "GET /v/{id}\nX HTTP/1.1",
        "GET /v/{id}\x0bHTTP/1.1",
        "GET /v/{id}\x0cHTTP/1.1",
        "GET /v/{id}\u{a0}HTTP/1.1",
        "G\0ET /v/{id} HTTP/1.1",
        "G(ET /v/{id} HTTP/1.1",
        "G\"ET /v/{id} HTTP/1.1",
        "GET: /v/{id} HTTP/1.1",
        "\u{e9}GET /v/{id} HTTP/1.1",
        "GET /v/{id} http/1.1",
        "GET /v/{id} HTTP/1.1.1",
        "GET /v/{id} HTTP/11",
        "GET /v/{id} HTTP/1,1",
        "GET /v/{id} HTTP/1.",
        "GET /v/{id} HTTP/.1",
        "GET /v/{id} HTTP/1.x",
        "GET /v/{id} HTTP /1.1",
        "GET /v/{id} HTTP/ 1.1",
        "GET /v/{id} HTTP/+1.1",
        "GET /v/{id} HTTP/01.1",
        "GET /v/{id} XTTP/1.1",
        "GET /v/{id} HTTP/2.0",
        "GET /v/{id} HTTP/3.0",
        "GET /v/{id} HTTP/9.9",
        "PRI * HTTP/2.0",
    ] {
        let text = format!("{line}\r\nHost: app.local\r\n\r\n");
        let want = Want::Refuse(&[400, 505]);
        all.push(Payload::new("request line", line, text, want));
    }
    let long = format!(
        "GET /v/{{id}}/{} HTTP/1.1\r\nHost: app.local\r\n\r\n",
        "y".repeat(200_000)
    );
    let want = Want::Refuse(&[400, 414, 431]);
    all.push(Payload::new(
        "request line",
        "a target of 200 kB",
        long,
        want,
    ));
    let long = format!(
        "{} /v/{{id}} HTTP/1.1\r\nHost: app.local\r\n\r\n",
        "Y".repeat(200_000)
    );
    let want = Want::Refuse(&[400, 414, 431, 501]);
    all.push(Payload::new(
        "request line",
        "a method of 200 kB",
        long,
        want,
    ));
    all
}
