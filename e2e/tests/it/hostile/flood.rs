//! Frames of HTTP/2 that cost their sender nothing: each flood is bounded in memory and processor
//! time, and where nobody honest does such a thing, the connection is ended.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use testkit::frames::{self, END_HEADERS, Frame, PREFACE, block, code, integer, kind, string};
use testkit::origin::Origin;
use testkit::raw::Raw;

use super::watch::{Bounds, Watch, check};
use crate::front::Front;

/// How long an attack lasts when nothing stops it.
const LONG: Duration = Duration::from_secs(4);

const REQUEST: &[(&[u8], &[u8])] = &[
    (b":method", b"GET"),
    (b":scheme", b"http"),
    (b":authority", b"app.local"),
    (b":path", b"/flood"),
];

/// How an attack ended.
#[derive(Debug)]
struct Poured {
    /// Sent.
    bytes: usize,
    /// Of the last GOAWAY or `RST_STREAM`.
    code: Option<u32>,
    /// Whether the proxy ended the connection.
    ended: bool,
}

/// Sends the pieces, without reading an answer, until the proxy ends the connection or `LONG` is
/// over; then looks what had come.
fn pour(front: SocketAddr, first: &[Frame], pieces: impl Iterator<Item = Vec<u8>>) -> Poured {
    let mut stream = TcpStream::connect(front).expect("the front accepts");
    let pause = Some(Duration::from_millis(500));
    stream.set_write_timeout(pause).expect("a socket");
    let mut opening = PREFACE.to_vec();
    opening.extend(Frame::new(kind::SETTINGS, 0, 0, []).encode());
    opening.extend(first.iter().flat_map(Frame::encode));
    let end = Instant::now() + LONG;
    let (mut bytes, mut ended) = (0, false);
    for piece in std::iter::once(opening).chain(pieces) {
        match stream.write_all(&piece) {
            Ok(()) => bytes += piece.len(),
            // It no longer reads: that is a bound too.
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(_) => {
                ended = true;
                break;
            }
        }
        if Instant::now() > end {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
    let (code, closed) = last_code(&mut stream, ended);
    Poured {
        bytes,
        code,
        ended: closed,
    }
}

/// Reads what the proxy had to say, for as long as it says something.
fn last_code(stream: &mut TcpStream, mut ended: bool) -> (Option<u32>, bool) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
    let (mut received, mut bytes) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => {
                ended = true;
                break;
            }
            Ok(count) if received.len() < 16 << 20 => received.extend_from_slice(&bytes[..count]),
            Ok(_) => break,
            Err(error) => {
                ended |= error.kind() == ErrorKind::ConnectionReset;
                break;
            }
        }
    }
    let (mut at, mut last) = (0, None);
    while let Some(head) = received.get(at..at + 9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let Some(payload) = received.get(at + 9..at + 9 + length) else {
            break;
        };
        let code = Frame::new(head[3], head[4], 0, payload).code();
        last = match head[3] {
            kind::GOAWAY => code.filter(|code| *code != 0).or(last),
            kind::RST_STREAM => last.or(code),
            _ => last,
        };
        at += 9 + length;
    }
    (last, ended)
}

/// One flood on a front of its own.
fn flood(what: &str, first: &[Frame], pieces: impl Iterator<Item = Vec<u8>>) -> (Poured, usize) {
    let origin = Origin::start();
    let front = Front::start(origin.addr());
    let before = origin.count();
    let watch = Watch::begin(&front);
    let poured = pour(front.addr_h2, first, pieces);
    eprintln!(
        "{what}: {poured:?}, {} MB sent, {} requests seen behind",
        poured.bytes >> 20,
        origin.count() - before
    );
    let seen = origin.count() - before;
    watch.end(what, Bounds::default());
    (poured, seen)
}

/// As [`flood`], of something that nobody honest does: the connection is ended for it.
fn ends(what: &str, first: &[Frame], pieces: impl Iterator<Item = Vec<u8>>) {
    let (poured, seen) = flood(what, first, pieces);
    if crate::front::Kind::chosen().is_ours() {
        assert!(poured.ended, "{what}: {poured:?}");
        let calm = matches!(
            poured.code,
            Some(code::ENHANCE_YOUR_CALM | code::PROTOCOL_ERROR) | None
        );
        assert!(calm, "{what}: {poured:?}");
        assert!(seen < 3000, "{what}: {seen} requests went through");
    }
}

/// Streams 1, 3, 5 ...
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|n| 2 * n + 1)
}

#[test]
fn rapid_reset_is_bounded_and_ended() {
    let pieces = streams(200_000).map(|stream| {
        let mut bytes = Frame::headers(stream, true, REQUEST).encode();
        bytes.extend(Frame::reset(stream, code::CANCEL).encode());
        bytes
    });
    ends("rapid reset", &[], pieces);
}

#[test]
fn streams_that_the_proxy_itself_is_made_to_reset_are_bounded() {
    // "MadeYouReset": an increment of 0 is an error of the stream (RFC 9113 6.9).
    let pieces = streams(200_000).map(|stream| {
        let mut bytes = Frame::headers(stream, false, REQUEST).encode();
        bytes.extend(Frame::new(kind::WINDOW_UPDATE, 0, stream, [0; 4]).encode());
        bytes
    });
    ends("made to reset", &[], pieces);
}

#[test]
fn a_head_that_never_ends_is_ended() {
    let first = || Frame::new(kind::HEADERS, 0, 1, block(REQUEST));
    let field = |n: usize| block(&[(format!("x-{n}").as_bytes(), &[b'y'; 1000])]);
    let pieces = (0..100_000).map(move |n| Frame::new(kind::CONTINUATION, 0, 1, field(n)).encode());
    ends("CONTINUATION flood", &[first()], pieces);
    let empty = Frame::new(kind::CONTINUATION, 0, 1, []).encode();
    let pieces = (0..20_000).map(|_| empty.repeat(100));
    ends("empty CONTINUATION flood", &[first()], pieces);
}

#[test]
fn a_field_block_that_grows_when_it_is_read_is_refused() {
    // A field of 4,000 bytes is put into the table once, and then meant 16,000 times.
    let mut bomb = block(REQUEST);
    bomb.push(0x40);
    string(b"x", &mut bomb);
    string(&[b'y'; 4000], &mut bomb);
    bomb.extend([0xbe; 10_000]);
    let pieces = streams(500)
        .map(|stream| Frame::new(kind::HEADERS, END_HEADERS | 1, stream, bomb.clone()).encode());
    let (poured, seen) = flood("HPACK bomb", &[], pieces);
    if crate::front::Kind::chosen().is_ours() {
        assert_eq!(seen, 0, "{poured:?}");
    }
}

#[test]
fn frames_that_only_ask_for_answers_are_ended_and_counted() {
    let mut setting = vec![0, 4];
    setting.extend(65_535u32.to_be_bytes());
    for (what, frame) in [
        ("PING flood", Frame::new(kind::PING, 0, 0, [7; 8])),
        ("SETTINGS flood", Frame::new(kind::SETTINGS, 0, 0, setting)),
    ] {
        let origin = Origin::start();
        let front = Front::start(origin.addr());
        let watch = Watch::begin(&front);
        let bytes = frame.encode().repeat(200);
        let poured = pour(front.addr_h2, &[], (0..2_000).map(|_| bytes.clone()));
        let calm = matches!(poured.code, Some(code::ENHANCE_YOUR_CALM) | None);
        check(&front, what, poured.ended && calm, &poured);
        watch.counted(what, &["rate_limited"]);
        watch.end(what, Bounds::default());
    }
}

#[test]
fn a_client_that_pings_no_more_than_it_may_is_answered() {
    let origin = Origin::start();
    let front = Front::start(origin.addr());
    let raw = Raw::connect(front.addr_h2).expect("the front accepts");
    let mut h2 = frames::Connection::open(raw).expect("it reads");
    for n in 0..40 {
        h2.send(&[Frame::new(kind::PING, 0, 0, [n; 8])])
            .expect("the front reads");
        loop {
            let frame = h2.next(LONG).expect("the front answers");
            assert_ne!(frame.kind, kind::GOAWAY, "after {n} pings");
            if frame.kind == kind::PING && frame.payload == [n; 8] {
                break;
            }
        }
    }
}

#[test]
fn frames_that_mean_nothing_cost_little() {
    let many = |frame: Frame| {
        let bytes = frame.encode().repeat(200);
        (0..2_000).map(move |_| bytes.clone())
    };
    flood(
        "PRIORITY flood",
        &[],
        many(Frame::new(kind::PRIORITY, 0, 1, [0, 0, 0, 0, 1])),
    );
    let update = Frame::new(kind::WINDOW_UPDATE, 0, 0, [0, 0, 0, 1]);
    flood("WINDOW_UPDATE flood", &[], many(update));
    flood(
        "unknown frames",
        &[],
        many(Frame::new(0xee, 0xff, 0, [1; 16])),
    );
    let open = [Frame::headers(1, false, REQUEST)];
    flood("empty DATA flood", &open, many(Frame::data(1, false, [])));
    let padded = Frame::new(kind::DATA, 8, 1, [0]);
    flood("padding flood", &open, many(padded));
}

#[test]
fn requests_whose_answers_are_not_read_do_not_pile_up() {
    // 100 streams with a window of nothing, again and again.
    let origin = Origin::start();
    let front = Front::start(origin.addr());
    let watch = Watch::begin(&front);
    let mut held = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(front.addr_h2).expect("the front accepts");
        let mut payload = vec![0, 4];
        payload.extend(0u32.to_be_bytes());
        let mut bytes = PREFACE.to_vec();
        bytes.extend(Frame::new(kind::SETTINGS, 0, 0, payload).encode());
        for number in streams(100) {
            let fields = [REQUEST, &[(b"x-long".as_slice(), [b'y'; 2000].as_slice())]].concat();
            bytes.extend(Frame::headers(number, true, &fields).encode());
        }
        stream.write_all(&bytes).expect("the front reads");
        held.push(stream);
    }
    testkit::deadline::try_wait_for(Duration::from_secs(2), || {
        (origin.count() >= 2001).then_some(())
    });
    let bounds = Bounds {
        memory: 64 << 10,
        ..Bounds::default()
    };
    watch.end("2,000 answers that nobody reads", bounds);
    drop(held);
}

#[test]
fn integers_and_strings_of_hpack_that_never_end_are_refused() {
    let mut endless = vec![0x7f];
    endless.extend([0xff; 200]);
    let mut long = vec![0];
    integer(usize::MAX / 4, 7, 0, &mut long);
    let cases = [
        ("endless index", endless),
        ("string beyond the block", long),
        ("index beyond the table", vec![0xff, 0x80, 0x80, 0x01]),
        ("index 0", vec![0x80]),
        (
            "table beyond the setting",
            vec![0x3f, 0xe1, 0xff, 0xff, 0x03],
        ),
        (
            "Huffman code of EOS",
            vec![0, 0x84, 0xff, 0xff, 0xff, 0xff, 0],
        ),
    ];
    let origin = Origin::start();
    let front = Front::start(origin.addr());
    let before = origin.count();
    let watch = Watch::begin(&front);
    for (what, bytes) in cases {
        let frame = Frame::new(kind::HEADERS, END_HEADERS | 1, 1, bytes);
        let poured = pour(front.addr_h2, &[frame], std::iter::empty());
        check(&front, what, poured.ended && poured.code.is_some(), &poured);
    }
    assert_eq!(origin.count(), before);
    watch.end("broken HPACK", Bounds::default());
}
