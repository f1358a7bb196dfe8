//! HTTP/2 that would become another message when it is written as HTTP/1 (RFC 9113 8.2, 8.3, 10.3).

use testkit::frames::{Frame, kind};

use super::h1::HIDDEN;
use super::{Payload, Want, Wire};

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// A well-formed request.
fn plain(method: &str) -> Fields {
    [
        (":method", method),
        (":scheme", "http"),
        (":authority", "app.local"),
        (":path", "/v/{id}"),
    ]
    .map(|(name, value)| (name.into(), value.into()))
    .to_vec()
}

fn with(mut fields: Fields, more: &[(&str, &str)]) -> Fields {
    let more = more.iter().map(|(n, v)| ((*n).into(), (*v).into()));
    fields.extend(more);
    fields
}

/// The plain request with another value of a pseudo-header.
fn changed(name: &str, value: &str) -> Fields {
    let mut fields = plain("GET");
    for field in &mut fields {
        if field.0 == name.as_bytes() {
            field.1 = value.into();
        }
    }
    fields
}

fn without(name: &str) -> Fields {
    let mut fields = plain("GET");
    fields.retain(|(n, _)| n != name.as_bytes());
    fields
}

fn headers(end: bool, fields: &Fields) -> Frame {
    let fields: Vec<_> = fields.iter().map(|(n, v)| (&n[..], &v[..])).collect();
    Frame::headers(1, end, &fields)
}

fn payload(class: &'static str, name: &str, frames: Vec<Frame>, want: Want) -> Payload {
    let mut payload = Payload::new(class, name, "", want);
    payload.wire = Wire::H2(frames);
    payload
}

const REFUSED: Want = Want::Refuse(&[400, 431, 501]);

pub(super) fn payloads() -> Vec<Payload> {
    let mut all = lengths();
    all.extend(fields());
    all.extend(pseudo_headers());
    all.extend(trailers());
    all
}

fn lengths() -> Vec<Payload> {
    let mut all = Vec::new();
    let size = HIDDEN.len();
    let mut post = |name: &str, more: &[(&str, &str)], body: &str, want: Want| {
        let fields = with(plain("POST"), more);
        let frames = if body.is_empty() {
            vec![headers(true, &fields)]
        } else {
            vec![headers(false, &fields), Frame::data(1, true, body)]
        };
        all.push(payload("H2.CL", name, frames, want));
    };
    let length = size.to_string();
    // RFC 9113 8.1.1: a content-length that is not the sum of the DATA frames is malformed.
    post("0 with DATA", &[("content-length", "0")], HIDDEN, REFUSED);
    post(
        "less than DATA",
        &[("content-length", "5")],
        HIDDEN,
        REFUSED,
    );
    post(
        "more than DATA",
        &[("content-length", "500")],
        HIDDEN,
        REFUSED,
    );
    post(
        "more than none",
        &[("content-length", &length)],
        "",
        REFUSED,
    );
    post(
        "right",
        &[("content-length", &length)],
        HIDDEN,
        Want::Pass(HIDDEN.into()),
    );
    post("none said", &[], HIDDEN, Want::Pass(HIDDEN.into()));
    let signed = format!("+{size}");
    post("signed", &[("content-length", &signed)], HIDDEN, REFUSED);
    let list = format!("{size}, {size}");
    post("list", &[("content-length", &list)], HIDDEN, REFUSED);
    post(
        "0 and right",
        &[("content-length", "0"), ("content-length", &length)],
        HIDDEN,
        REFUSED,
    );
    post(
        "right twice",
        &[("content-length", &length), ("content-length", &length)],
        HIDDEN,
        Want::Either,
    );
    post(
        "hexadecimal",
        &[("content-length", "0x2a")],
        HIDDEN,
        REFUSED,
    );
    post("empty", &[("content-length", "")], HIDDEN, REFUSED);
    post(
        "beyond 64 bits",
        &[("content-length", "18446744073709551616")],
        HIDDEN,
        REFUSED,
    );
    post(
        "with a space within",
        &[("content-length", "4 2")],
        HIDDEN,
        REFUSED,
    );
    // RFC 9113 8.2.2: connection-specific fields are malformed.
    for value in [
        "chunked",
        "Chunked",
        "identity",
        "chunked, identity",
        "",
        "xchunked",
    ] {
        let body = format!("0\r\n\r\n{HIDDEN}");
        post(
            &format!("transfer-encoding: {value}"),
            &[("transfer-encoding", value)],
            &body,
            REFUSED,
        );
        let length = body.len().to_string();
        post(
            &format!("transfer-encoding: {value}, with a length"),
            &[("transfer-encoding", value), ("content-length", &length)],
            &body,
            REFUSED,
        );
    }
    for (name, value) in [
        ("connection", "close"),
        ("connection", "keep-alive"),
        ("connection", "content-length"),
        ("connection", "transfer-encoding"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "close"),
        ("upgrade", "h2c"),
        ("upgrade", "websocket"),
        ("te", "chunked"),
        ("te", "trailers, chunked"),
        ("te", "gzip"),
    ] {
        post(
            &format!("{name}: {value}"),
            &[(name, value)],
            HIDDEN,
            REFUSED,
        );
    }
    post(
        "te: trailers",
        &[("te", "trailers")],
        HIDDEN,
        Want::Pass(HIDDEN.into()),
    );
    all
}

fn fields() -> Vec<Payload> {
    let mut all = Vec::new();
    let hidden_line = "GET /x/{id} HTTP/1.1\r\nhost: app.local\r\n\r\n";
    let after = format!("y\r\n\r\n{hidden_line}");
    let name_after = format!("x: y\r\n\r\n{hidden_line}");
    // RFC 9113 8.2.1: what no field may hold.
    let names: &[&str] = &[
        "X",
        "x y",
        "x:",
        "x\r\ny",
        "x\ny",
        "x\ry",
        "x\0",
        "",
        " x",
        "x ",
        "x\t",
        "x(",
        "x\x7f",
        "x\u{e9}",
        "transfer-encoding: chunked\r\nx",
        "x: y\r\ntransfer-encoding",
        &name_after,
        "Transfer-Encoding",
        "TRANSFER-ENCODING",
        "Content-Length",
    ];
    for name in names {
        let frames = vec![headers(true, &with(plain("GET"), &[(name, "y")]))];
        all.push(payload("H2 name", name, frames, REFUSED));
    }
    let values: &[&str] = &[
        "y\r\nz: 1",
        "y\nz: 1",
        "y\rz: 1",
        "y\0z",
        "\r\ny",
        "\ny",
        "y\r\n",
        "y\n",
        "y\r",
        "\0",
        "y\r\ntransfer-encoding: chunked",
        "y\ntransfer-encoding: chunked",
        "y\r\ncontent-length: 50",
        &after,
        "y\r\n\r\nGET /x/{id} HTTP/1.1\r\nx: ",
    ];
    for value in values {
        for name in ["x", "cookie", "content-type"] {
            let frames = vec![headers(true, &with(plain("GET"), &[(name, value)]))];
            all.push(payload(
                "H2 value",
                &format!("{name}: {value}"),
                frames,
                REFUSED,
            ));
        }
    }
    for value in [" y", "y ", "\ty", "y\t"] {
        let frames = vec![headers(true, &with(plain("GET"), &[("x", value)]))];
        all.push(payload(
            "H2 value",
            &format!("x: {value:?}"),
            frames,
            Want::Either,
        ));
    }
    let crumbs = with(plain("GET"), &[("cookie", "a=1"), ("cookie", "b=2")]);
    let want = Want::Pass(vec![]);
    all.push(payload(
        "H2 value",
        "two cookies",
        vec![headers(true, &crumbs)],
        want,
    ));
    let hosts = [
        ("host", "other.local"),
        ("host", "app.local\r\nx: y"),
        ("host", "app.local, other.local"),
        ("host", "user@app.local"),
    ];
    for (name, value) in hosts {
        let frames = vec![headers(true, &with(plain("GET"), &[(name, value)]))];
        all.push(payload("H2 host", value, frames, REFUSED));
    }
    let twice = with(
        plain("GET"),
        &[("host", "app.local"), ("host", "other.local")],
    );
    all.push(payload(
        "H2 host",
        "twice",
        vec![headers(true, &twice)],
        REFUSED,
    ));
    let same = with(plain("GET"), &[("host", "app.local")]);
    let want = Want::Pass(vec![]);
    all.push(payload(
        "H2 host",
        "the same",
        vec![headers(true, &same)],
        want,
    ));
    let mut only = without(":authority");
    only.push(("host".into(), "app.local".into()));
    all.push(payload(
        "H2 host",
        "without :authority",
        vec![headers(true, &only)],
        Want::Either,
    ));
    let none = without(":authority");
    all.push(payload(
        "H2 host",
        "none at all",
        vec![headers(true, &none)],
        Want::Either,
    ));
    all
}

fn pseudo_headers() -> Vec<Payload> {
    let mut all = Vec::new();
    let hidden = "/v/{id} HTTP/1.1\r\nhost: app.local\r\n\r\nGET /x/{id} HTTP/1.1\r\nx: y";
    for (name, value) in [
        (":path", hidden),
        (
            ":path",
            "/v/{id} HTTP/1.1\r\ntransfer-encoding: chunked\r\nx: y",
        ),
        (":path", "/v/{id} HTTP/1.1"),
        (":path", "/v/{id} x"),
        (":path", "/v/{id}\r\n"),
        (":path", "/v/{id}\n"),
        (":path", "/v/{id}\r"),
        (":path", "/v/{id}\0"),
        (":path", "/v/{id}\t"),
        (":path", "/v/{id}\x7f"),
        (":path", ""),
        (":path", "v/{id}"),
        (":path", "*"),
        (":path", "?v/{id}"),
        (":path", "http://other.local/v/{id}"),
        (":path", "@other.local/v/{id}"),
        (":path", " /v/{id}"),
        (
            ":method",
            "GET /x/{id} HTTP/1.1\r\nhost: app.local\r\n\r\nGET",
        ),
        (":method", "GET /x/{id}"),
        (":method", "GET "),
        (":method", " GET"),
        (":method", "GET\r\n"),
        (":method", "GET\n"),
        (":method", "G\0T"),
        (":method", ""),
        (":method", "G(T"),
        (":method", "GET\t"),
        (":authority", "app.local\r\nx: y"),
        (
            ":authority",
            "app.local\r\n\r\nGET /x/{id} HTTP/1.1\r\nhost: app.local",
        ),
        (":authority", "app.local\n"),
        (":authority", "app.local\0"),
        (":authority", "app.local/x"),
        (":authority", "user@app.local"),
        (":authority", "app.local other.local"),
        (":authority", "app.local#x"),
        (":authority", "app.local?x"),
        (":authority", "app.local:99999"),
        (":authority", "app.local:x"),
        (":authority", "[::1"),
        (":authority", "http://app.local"),
        (":scheme", "http\r\nx: y"),
        (":scheme", "http://app.local/x/{id}?"),
        (":scheme", "http "),
        (":scheme", ""),
        (":scheme", "http\n"),
        (":scheme", "1http"),
    ] {
        let frames = vec![headers(true, &changed(name, value))];
        all.push(payload(
            "H2 pseudo",
            &format!("{name} {value:?}"),
            frames,
            REFUSED,
        ));
    }
    for (name, value) in [
        (":path", "/v/{id}\u{e9}"),
        // The fragment is left out by the HTTP/2 library.
        (":path", "/v/{id}#x"),
        (":path", "//v/{id}"),
        (":path", "/v/{id}\\x"),
        (":authority", ""),
        (":authority", "\u{e9}.local"),
        (":scheme", "ftp"),
        (":method", "get"),
    ] {
        let frames = vec![headers(true, &changed(name, value))];
        all.push(payload(
            "H2 pseudo",
            &format!("{name} {value:?}"),
            frames,
            Want::Either,
        ));
    }
    // RFC 9113 8.3: each once, known, before the others, none missing.
    for name in [":method", ":scheme", ":path"] {
        let frames = vec![headers(true, &without(name))];
        all.push(payload("H2 pseudo", &format!("no {name}"), frames, REFUSED));
    }
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "other.local"),
        (":path", "/x/{id}"),
        (":path", "/v/{id}"),
        (":status", "200"),
        (":protocol", "websocket"),
        (":foo", "bar"),
        (":", "x"),
        (":Path", "/x/{id}"),
        (":host", "app.local"),
    ] {
        let frames = vec![headers(true, &with(plain("GET"), &[(name, value)]))];
        all.push(payload(
            "H2 pseudo",
            &format!("also {name} {value}"),
            frames,
            REFUSED,
        ));
    }
    let mut late = with(without(":path"), &[("x", "y"), (":path", "/v/{id}")]);
    all.push(payload(
        "H2 pseudo",
        "after a field",
        vec![headers(true, &late)],
        REFUSED,
    ));
    late = with(plain("GET"), &[("x", "y"), (":path", "/x/{id}")]);
    all.push(payload(
        "H2 pseudo",
        "again after a field",
        vec![headers(true, &late)],
        REFUSED,
    ));
    all
}

fn trailers() -> Vec<Payload> {
    let mut all = Vec::new();
    for (name, value, want) in [
        // RFC 9113 8.1 has them refused. The HTTP/2 library leaves them out of trailers instead.
        (":path", "/x/{id}", Want::Either),
        (":method", "GET", Want::Either),
        (":status", "200", Want::Either),
        ("x\r\ny", "z", REFUSED),
        (
            "x",
            "y\r\n\r\nGET /x/{id} HTTP/1.1\r\nhost: app.local\r\n\r\n",
            REFUSED,
        ),
        ("x", "y\nz: 1", REFUSED),
        ("X", "y", REFUSED),
        ("transfer-encoding", "chunked", REFUSED),
        ("connection", "close", REFUSED),
        ("content-length", "50", Want::Either),
        ("host", "other.local", Want::Either),
        ("x-sum", "1", Want::Pass(HIDDEN.into())),
    ] {
        let end = Frame::headers(1, true, &[(name.as_bytes(), value.as_bytes())]);
        let frames = vec![
            headers(false, &plain("POST")),
            Frame::data(1, false, HIDDEN),
            end,
        ];
        all.push(payload(
            "H2 trailer",
            &format!("{name}: {value}"),
            frames,
            want,
        ));
    }
    let end = Frame::new(kind::HEADERS, 4, 1, testkit::frames::block(&[(b"x", b"y")]));
    let frames = vec![
        headers(false, &plain("POST")),
        Frame::data(1, false, HIDDEN),
        end,
    ];
    all.push(payload("H2 trailer", "without END_STREAM", frames, REFUSED));
    let after = vec![headers(true, &plain("GET")), Frame::data(1, true, HIDDEN)];
    all.push(payload(
        "H2 trailer",
        "DATA after the end",
        after,
        Want::Either,
    ));
    all
}
