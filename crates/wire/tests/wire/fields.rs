//! The list of fields: order, case, replacing in place, and what it must never let out.
use wire::Fields;

use crate::show;

fn some() -> Fields {
    let mut fields = Fields::new();
    for (name, value) in [
        ("Accept", "a"),
        ("X-One", "1"),
        ("x-one", "2"),
        ("Host", "h"),
        ("X-ONE", "3"),
    ] {
        fields.append(name, value.as_bytes());
    }
    fields
}

#[test]
fn names_are_found_in_any_case() {
    let fields = some();
    assert_eq!(fields.get("x-one"), Some(&b"1"[..]));
    assert_eq!(fields.get_str("ACCEPT"), Some("a"));
    assert_eq!(
        fields.get_all("X-one").collect::<Vec<_>>(),
        [b"1", b"2", b"3"]
    );
    assert_eq!(
        (
            fields.get("x-on"),
            fields.contains("host"),
            fields.contains("x")
        ),
        (None, true, false)
    );
    assert_eq!(
        (fields.len(), fields.is_empty(), fields.size()),
        (5, false, 6 + 1 + 15 + 3 + 4 + 1)
    );
    assert_eq!(fields.iter().next(), Some((&b"Accept"[..], &b"a"[..])));
}

#[test]
fn set_replaces_the_first_in_its_place() {
    let mut fields = some();
    fields.set("x-ONE", b"longer than before");
    assert_eq!(
        show::fields(&fields),
        " {Accept: a, X-One: longer than before, Host: h}"
    );
    fields.set("New", b"n");
    assert_eq!(
        show::fields(&fields),
        " {Accept: a, X-One: longer than before, Host: h, New: n}"
    );
}

#[test]
fn remove_and_retain() {
    let mut fields = some();
    assert!(fields.remove("X-One"));
    assert!(!fields.remove("X-One"));
    assert_eq!(show::fields(&fields), " {Accept: a, Host: h}");
    fields.retain(|name, value| name != b"Host" || value != b"h");
    assert_eq!(show::fields(&fields), " {Accept: a}");
    fields.clear();
    assert!(fields.is_empty() && fields.get("accept").is_none());
}

#[test]
fn a_field_cannot_become_two() {
    let mut fields = Fields::new();
    fields.append("a", b"x\r\nb: y\0z\x0b\x7f\tok\xff");
    fields.append("a: b\r\nc", b"d");
    fields.append("", b"nothing");
    fields.set("a", b"x\ny");
    assert_eq!(show::fields(&fields), " {a: x y, a--b--c: d}");
    let mut fields = Fields::new();
    fields.append("a", b"x\r\nb: y\0z\x0b\x7f\tok\xff");
    assert_eq!(show::fields(&fields), " {a: x  b: y z  \\tok\\xff}");
}

#[test]
fn secrets_are_not_printed() {
    let mut fields = Fields::new();
    for name in [
        "Authorization",
        "cookie",
        "SET-COOKIE",
        "Proxy-Authorization",
    ] {
        fields.append(name, b"s3cret");
    }
    fields.append("x-other", b"seen");
    let text = format!("{fields:?}");
    assert!(
        !text.contains("s3cret") && text.contains("seen") && text.contains("Authorization"),
        "{text}"
    );
}

/// A filter that sets the same field for every message of a long-lived head must not fill memory.
#[test]
fn replacing_for_ever_keeps_memory_bounded() {
    let mut fields = some();
    let value = vec![b'v'; 1000];
    for _ in 0..200_000 {
        fields.set("x-one", &value);
    }
    assert_eq!(fields.get("x-one").map(<[u8]>::len), Some(1000));
    assert_eq!(fields.get("host"), Some(&b"h"[..]));
    // The arena's bound is 64 MiB: 200 MB of values went through it.
    fields.append("last", b"fits");
    assert_eq!(fields.get("last"), Some(&b"fits"[..]));
}

#[test]
fn equality_is_by_letter_and_order() {
    assert_eq!(some(), some().clone());
    let mut other = some();
    other.set("accept", b"a");
    assert_eq!(some(), other);
    other.append("z", b"");
    assert_ne!(some(), other);
}
