//! Two lengths in one head: `Content-Length` against `Transfer-Encoding` in all spellings.

use super::{Payload, Want};

/// What must stay hidden.
pub(super) const HIDDEN: &str = "GET /x/{id} HTTP/1.1\r\nHost: app.local\r\n\r\n";

/// A POST with these header lines and this body.
pub(super) fn post(headers: &str, body: &str) -> String {
    format!("POST /v/{{id}} HTTP/1.1\r\nHost: app.local\r\n{headers}\r\n{body}")
}

/// HIDDEN as a chunked body.
pub(super) fn chunked_hidden() -> String {
    format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len())
}

/// Spellings of `Transfer-Encoding: chunked` that are no such thing by RFC 9112 6.1 and 7, or that
/// not everybody reads as one. Whole lines without the last CRLF.
const TWISTED: &[&str] = &[
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunkedx",
    "Transfer-Encoding: chunk",
    "Transfer-Encoding: cow",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: identity, chunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding: chunked, cow",
    "Transfer-Encoding: cow, chunked",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked, gzip",
    "Transfer-Encoding: deflate",
    "Transfer-Encoding: \"chunked\"",
    "Transfer-Encoding: 'chunked'",
    "Transfer-Encoding: chunked;q=1",
    "Transfer-Encoding: chunked; a=b",
    "Transfer-Encoding: ,chunked",
    "Transfer-Encoding: chunked,",
    "Transfer-Encoding: , chunked ,",
    "Transfer-Encoding: chunked chunked",
    "Transfer-Encoding: c hunked",
    "Transfer-Encoding:",
    "Transfer-Encoding: ",
    "Transfer-Encoding: \x0bchunked",
    "Transfer-Encoding: chunked\x0b",
    "Transfer-Encoding: \x0cchunked",
    "Transfer-Encoding: chunked\x0c",
    "Transfer-Encoding: \0chunked",
    "Transfer-Encoding: chunked\0",
    "Transfer-Encoding: chunked\x7f",
    "Transfer-Encoding: chunked\x08",
    "Transfer-Encoding: \u{a0}chunked",
    "Transfer-Encoding: chun\u{212a}ed",
    "Transfer-Encoding: \u{feff}chunked",
    "Transfer-Encoding: chunked\u{85}",
    "Transfer-Encoding: chunked\\",
    "Transfer-Encoding: chunked#",
    "Transfer-Encoding: (x) chunked",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding\t: chunked",
    "Transfer-Encoding\x0b: chunked",
    "Transfer-Encoding\0: chunked",
    " Transfer-Encoding: chunked",
    "\tTransfer-Encoding: chunked",
    "Transfer-Encoding:\r\n chunked",
    "Transfer-Encoding: \r\n\tchunked",
    "Transfer-Encoding:\n chunked",
    "Transfer-Encoding\r\n: chunked",
    "Transfer-Encoding\n: chunked",
    "Transfer-\r\n Encoding: chunked",
    "X: y\nTransfer-Encoding: chunked",
    "X: y\rTransfer-Encoding: chunked",
    "X: y\r\n\rTransfer-Encoding: chunked",
    "X: y\r\r\nTransfer-Encoding: chunked",
    "X: y\0\r\nTransfer-Encoding: chunked",
    "X: y\n\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r",
    "Transfer-Encoding: chunked\n",
    "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nTransfer-encoding: cow",
    "Transfer-Encoding: cow\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding:",
    "Transfer-Encoding:\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: ch\r\n unked",
    "Transfer-Encoding: chunked\r\n , identity",
    ": x\r\nTransfer-Encoding: chunked",
    "Foo\r\nTransfer-Encoding: chunked",
    "Foo Bar: x\r\nTransfer-Encoding: chunked",
    "Transfer\u{ad}-Encoding: chunked",
    "(Transfer-Encoding): chunked",
    "Transfer-Encoding;: chunked",
];

/// Spellings that are what they say: case, and white space around a value, do not matter.
const PLAIN: &[&str] = &[
    "Transfer-Encoding: chunked",
    "transfer-encoding: chunked",
    "TRANSFER-ENCODING: CHUNKED",
    "TrAnSfEr-EnCoDiNg: ChUnKeD",
    "Transfer-Encoding:chunked",
    "Transfer-Encoding:\tchunked",
    "Transfer-Encoding:   chunked",
    "Transfer-Encoding: chunked ",
    "Transfer-Encoding: chunked\t",
];

/// Names that look like it and are other fields: the length alone counts.
const OTHERS: &[&str] = &[
    "Transfer_Encoding: chunked",
    "TransferEncoding: chunked",
    "X-Transfer-Encoding: chunked",
    "Transfer-Encodin: chunked",
    "Content-Encoding: chunked",
    "TE: chunked",
    "Transfer-Encoding-: chunked",
];

pub(super) fn payloads() -> Vec<Payload> {
    let mut all = Vec::new();
    let refused = || Want::Refuse(&[400, 501]);
    // The length covers everything, the chunks end early.
    let ends_early = format!("0\r\n\r\n{HIDDEN}");
    let cl_te = |line: &str| {
        let length = ends_early.len();
        post(
            &format!("Content-Length: {length}\r\n{line}\r\n"),
            &ends_early,
        )
    };
    let te_first = |line: &str| {
        let length = ends_early.len();
        post(
            &format!("{line}\r\nContent-Length: {length}\r\n"),
            &ends_early,
        )
    };
    // The length ends early, the chunks cover everything.
    let body = chunked_hidden();
    let size_line = body.find('\n').map_or(0, |at| at + 1);
    let te_cl = |line: &str| post(&format!("Content-Length: {size_line}\r\n{line}\r\n"), &body);
    let te_only = |line: &str| post(&format!("{line}\r\n"), &body);
    for line in PLAIN {
        // RFC 9112 6.3: both are an error to be handled as such.
        all.push(Payload::new("CL.TE", line, cl_te(line), refused()));
        all.push(Payload::new("TE.CL", line, te_cl(line), refused()));
        let passed = Want::Pass(HIDDEN.into());
        all.push(Payload::new("TE", line, te_only(line), passed));
    }
    for line in TWISTED {
        all.push(Payload::new(
            "TE.TE before CL",
            line,
            te_first(line),
            refused(),
        ));
        all.push(Payload::new(
            "TE.TE, CL short",
            line,
            te_cl(line),
            refused(),
        ));
        all.push(Payload::new("TE.TE alone", line, te_only(line), refused()));
    }
    for line in OTHERS {
        let passed = Want::Pass(ends_early.clone().into());
        all.push(Payload::new("not TE", line, cl_te(line), passed));
    }
    all
}
