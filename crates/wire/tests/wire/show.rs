//! Heads as one line of text, so that a table's row fits on the screen and a failure says all.
use std::fmt::Debug;
use std::fmt::Write as _;

use wire::{
    Fields, HeadError, Limits, Method, RequestHead, ResponseHead, parse_request, parse_response,
};

/// `METHOD scheme authority path Length flags {fields}`, or `status Error`.
pub(crate) fn request(bytes: &[u8]) -> String {
    let mut head = RequestHead::new();
    match parse_request(bytes, &mut 0, &Limits::default(), &mut head) {
        Err(error) => refused(&error),
        Ok(None) => "more".to_owned(),
        Ok(Some((n, framing))) => {
            let mut line = head.method.to_string();
            if let Some(scheme) = head.scheme {
                let _ = write!(line, " {}", scheme.as_str());
            }
            let _ = write!(
                line,
                " <{}> {} {:?}",
                head.authority, head.path, framing.length
            );
            for (set, flag) in [
                (!framing.keep_alive, "close"),
                (framing.expect_continue, "expect"),
                (framing.upgrade, "upgrade"),
                (framing.h2c, "h2c"),
                (framing.te_trailers, "te"),
            ] {
                if set {
                    line.push(' ');
                    line.push_str(flag);
                }
            }
            line + &fields(&head.fields) + &rest(bytes, n)
        }
    }
}

/// `status <reason> Length flags {fields}`, or `Error`.
pub(crate) fn response(method: &Method, bytes: &[u8]) -> String {
    let mut head = ResponseHead::new();
    match parse_response(bytes, &mut 0, &Limits::default(), method, &mut head) {
        Err(error) => variant(&error),
        Ok(None) => "more".to_owned(),
        Ok(Some((n, framing))) => {
            let mut line = format!("{} <{}> {:?}", head.status, head.reason, framing.length);
            if !framing.keep_alive {
                line.push_str(" close");
            }
            if framing.upgrade {
                line.push_str(" upgrade");
            }
            line + &fields(&head.fields) + &rest(bytes, n)
        }
    }
}

pub(crate) fn refused(error: &HeadError) -> String {
    format!("{} {}", error.status(), variant(error))
}

/// The name of an enum's variant.
pub(crate) fn variant(error: &impl Debug) -> String {
    let text = format!("{error:?}");
    let end = text.find([' ', '{', '(']).unwrap_or(text.len());
    if text.starts_with("TooLarge") {
        text
    } else {
        text[..end].to_owned()
    }
}

pub(crate) fn fields(fields: &Fields) -> String {
    let list: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("{}: {}", name.escape_ascii(), value.escape_ascii()))
        .collect();
    format!(" {{{}}}", list.join(", "))
}

fn rest(bytes: &[u8], n: usize) -> String {
    match &bytes[n..] {
        [] => String::new(),
        rest => format!(" + {}", rest.escape_ascii()),
    }
}

/// As [`table`], for rows that have a part of the input, of which `whole` makes all of it.
pub(crate) fn table_of(
    rows: &[(&str, &str, &str)],
    whole: impl Fn(&str) -> String,
    read: impl Fn(&[u8]) -> String,
) {
    let inputs: Vec<String> = rows.iter().map(|(_, part, _)| whole(part)).collect();
    let rows: Vec<_> = rows
        .iter()
        .zip(&inputs)
        .map(|((name, _, expected), input)| (*name, input, *expected))
        .collect();
    table(&rows, read);
}

/// Compares every row of a table and prints all that differ.
pub(crate) fn table<I: AsRef<[u8]> + ?Sized>(
    rows: &[(&str, &I, &str)],
    read: impl Fn(&[u8]) -> String,
) {
    let mut wrong = String::new();
    for (name, input, expected) in rows {
        let found = read(input.as_ref());
        if found != *expected {
            let input = input.as_ref().escape_ascii();
            let _ = write!(
                wrong,
                "\n{name}\n  input:    {input}\n  expected: {expected}\n  found:    {found}\n"
            );
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
