//! Every bound, at it and one beyond, and that work stays linear when bytes trickle in.
use wire::{
    HeadError, Length, Limits, Method, Part, RequestHead, ResponseHead, parse_request,
    parse_response,
};

use crate::show::refused;

fn read(bytes: &[u8], limits: &Limits) -> Result<bool, HeadError> {
    let mut head = RequestHead::new();
    parse_request(bytes, &mut 0, limits, &mut head).map(|found| found.is_some())
}

#[test]
fn head() {
    let limits = Limits {
        head: 100,
        ..Limits::default()
    };
    let frame = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
    let head = |size: usize| {
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
            "x".repeat(size - frame)
        )
    };
    assert_eq!(read(head(100).as_bytes(), &limits), Ok(true));
    assert_eq!(
        read(head(101).as_bytes(), &limits),
        Err(HeadError::TooLarge(Part::Head))
    );
    // Told before the end is there, and not before it could be.
    assert_eq!(read(&head(200).as_bytes()[..99], &limits), Ok(false));
    assert_eq!(
        read(&head(200).as_bytes()[..100], &limits),
        Err(HeadError::TooLarge(Part::Head))
    );
    // Empty lines before it do not count.
    assert_eq!(
        read(format!("\r\n\r\n{}", head(100)).as_bytes(), &limits),
        Ok(true)
    );
    assert_eq!(
        refused(&HeadError::TooLarge(Part::Head)),
        "431 TooLarge(Head)"
    );
}

#[test]
fn fields() {
    let limits = Limits {
        fields: 3,
        ..Limits::default()
    };
    let head = |n: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "x: y\r\n".repeat(n));
    assert_eq!(read(head(2).as_bytes(), &limits), Ok(true));
    assert_eq!(
        read(head(3).as_bytes(), &limits),
        Err(HeadError::TooLarge(Part::Fields))
    );
    // Fields of the connection count too.
    let hidden = format!(
        "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
        "connection: x\r\n".repeat(3)
    );
    assert_eq!(
        read(hidden.as_bytes(), &limits),
        Err(HeadError::TooLarge(Part::Fields))
    );
    assert_eq!(
        refused(&HeadError::TooLarge(Part::Fields)),
        "431 TooLarge(Fields)"
    );
}

#[test]
fn target() {
    let limits = Limits {
        target: 50,
        ..Limits::default()
    };
    let head = |n: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(n - 1));
    assert_eq!(read(head(50).as_bytes(), &limits), Ok(true));
    assert_eq!(
        read(head(51).as_bytes(), &limits),
        Err(HeadError::TooLarge(Part::Target))
    );
    // Also while its end is not in sight.
    let endless = head(1000);
    assert_eq!(read(&endless.as_bytes()[..60], &limits), Ok(false));
    assert_eq!(
        read(&endless.as_bytes()[..300], &limits),
        Err(HeadError::TooLarge(Part::Target))
    );
    assert_eq!(
        refused(&HeadError::TooLarge(Part::Target)),
        "414 TooLarge(Target)"
    );
}

#[test]
fn an_endless_target_is_refused_however_it_arrives() {
    let limits = Limits {
        target: 50,
        ..Limits::default()
    };
    let bytes = format!("GET /{}", "x".repeat(1000));
    for step in [1, 7, 49, 50, 51, 64, 200] {
        let mut scanned = 0;
        let mut head = RequestHead::new();
        let refused = (step..bytes.len()).step_by(step).find_map(|n| {
            parse_request(&bytes.as_bytes()[..n], &mut scanned, &limits, &mut head).err()
        });
        assert_eq!(
            refused,
            Some(HeadError::TooLarge(Part::Target)),
            "in steps of {step}"
        );
    }
}

/// What is wrong for good is told at once, not when the head is complete.
#[test]
fn lone_line_ends_are_refused_at_once() {
    for (bytes, expected) in [
        ("GET / HTTP/1.1\n", HeadError::BareLineFeed),
        ("GET / HTTP/1.1\r\nHost: a\n", HeadError::BareLineFeed),
        ("GET / HTTP/1.1\rx", HeadError::BareCarriageReturn),
        ("GET / HTTP/1.1\r\nA: b\r\r", HeadError::BareCarriageReturn),
        ("\n", HeadError::BareLineFeed),
    ] {
        assert_eq!(
            read(bytes.as_bytes(), &Limits::default()),
            Err(expected.clone()),
            "{bytes:?} whole"
        );
        let mut scanned = 0;
        let mut head = RequestHead::new();
        let refused = (1..=bytes.len()).find_map(|n| {
            parse_request(
                &bytes.as_bytes()[..n],
                &mut scanned,
                &Limits::default(),
                &mut head,
            )
            .err()
        });
        assert_eq!(refused, Some(expected), "{bytes:?} byte by byte");
    }
}

/// A head of 64 KiB, byte by byte: with quadratic work this is 2 GB looked at, and takes seconds.
#[test]
fn trickling_heads_are_looked_at_once() {
    let bytes = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
        "x".repeat(65_000)
    );
    let mut scanned = 0;
    let mut head = RequestHead::new();
    for n in 1..bytes.len() {
        let before = scanned;
        let found = parse_request(
            &bytes.as_bytes()[..n],
            &mut scanned,
            &Limits::default(),
            &mut head,
        );
        assert_eq!(found, Ok(None));
        assert!(scanned >= before && scanned + 1 >= n, "at {n}: {scanned}");
    }
    let found = parse_request(
        bytes.as_bytes(),
        &mut scanned,
        &Limits::default(),
        &mut head,
    );
    assert!(matches!(found, Ok(Some((n, _))) if n == bytes.len()));
}

#[test]
fn responses_have_the_same_bounds() {
    let limits = Limits {
        head: 60,
        fields: 2,
        ..Limits::default()
    };
    let mut head = ResponseHead::new();
    let mut read = |bytes: &str| {
        parse_response(bytes.as_bytes(), &mut 0, &limits, &Method::GET, &mut head)
            .map(|found| found.map(|(_, framing)| framing.length))
    };
    assert_eq!(
        read("HTTP/1.1 200 OK\r\na: b\r\nContent-Length: 1\r\n\r\n"),
        Ok(Some(Length::Known(1)))
    );
    assert_eq!(
        read("HTTP/1.1 200 OK\r\na: b\r\na: b\r\na: b\r\n\r\n"),
        Err(HeadError::TooLarge(Part::Fields))
    );
    assert_eq!(
        read(&format!("HTTP/1.1 200 {}", "x".repeat(60))),
        Err(HeadError::TooLarge(Part::Head))
    );
}
