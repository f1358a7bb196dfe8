use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use bytes::BytesMut;
use proptest::prelude::*;
use tokio::io::{AsyncWriteExt, duplex};

use super::*;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = V2_PREFIX.to_vec();
    bytes.extend_from_slice(&[command, family]);
    bytes.extend_from_slice(&(body.len() as u16).to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

const IPV4_BODY: [u8; 12] = [192, 0, 2, 1, 192, 0, 2, 2, 0xdc, 0x04, 1, 0xbb];

#[test]
fn the_examples_of_the_specification_are_read() {
    let expected = Header::proxied(address("192.0.2.1:56324"), address("192.0.2.2:443"));
    let line = b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\nGET / HTTP/1.1\r\n";
    assert_eq!(parse(line), Parsed::Header(expected.clone(), 42));
    let binary = v2(0x21, 0x11, &IPV4_BODY);
    assert_eq!(parse(&binary), Parsed::Header(expected, 28));

    let longest = "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
                   ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
    assert!(matches!(parse(longest.as_bytes()), Parsed::Header(_, n) if n == longest.len()));
    let unknown = format!("PROXY UNKNOWN {}\r\n", "f".repeat(91));
    assert_eq!(unknown.len(), MAX_V1);
    assert_eq!(
        parse(unknown.as_bytes()),
        Parsed::Header(Header::default(), MAX_V1)
    );
}

#[test]
fn senders_that_speak_for_themselves_have_no_addresses() {
    // The specification: whatever follows is to be ignored.
    for (bytes, local) in [
        (b"PROXY UNKNOWN\r\n".to_vec(), false),
        (b"PROXY UNKNOWN ffff 1 ::\0\r\n".to_vec(), false),
        (v2(0x20, 0x00, b""), true),
        (v2(0x20, 0x11, &IPV4_BODY), true),
        (v2(0x20, 0x11, b"short"), true),
        (v2(0x21, 0x00, b"anything"), false),
        (v2(0x21, 0x31, &[0; 216]), false),
        (v2(0x21, 0x10, &IPV4_BODY), false),
    ] {
        let Parsed::Header(header, length) = parse(&bytes) else {
            panic!("{bytes:?}: {:?}", parse(&bytes));
        };
        assert_eq!((header.addresses, header.local), (None, local), "{bytes:?}");
        assert_eq!(length, bytes.len());
    }
}

#[test]
fn hostile_headers_are_refused() {
    let lines: &[&[u8]] = &[
        b"PROXY TCP4 192.0.2.1 192.0.2.2 56324\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443 1\r\n",
        b"PROXY TCP4  192.0.2.1 192.0.2.2 56324 443\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443 \r\n",
        b"PROXY  TCP4 192.0.2.1 192.0.2.2 56324 443\r\n",
        b"PROXY tcp4 192.0.2.1 192.0.2.2 56324 443\r\n",
        b"PROXY TCP5 192.0.2.1 192.0.2.2 56324 443\r\n",
        b"PROXY TCP4 ::1 ::2 56324 443\r\n",
        b"PROXY TCP6 192.0.2.1 192.0.2.2 56324 443\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 56324 443\r\n",
        b"PROXY TCP4 192.0.2.01 192.0.2.2 56324 443\r\n",
        b"PROXY TCP4 192.0.2.256 192.0.2.2 56324 443\r\n",
        b"PROXY TCP4 192.0.2 192.0.2.2 56324 443\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 443\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 +1 443\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 -1 443\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 01 443\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 0x10 443\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2  443\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\rX",
        b"PROXY TCP4 192.0.2.1\n192.0.2.2 56324 443\r\n",
        b"PROXY TCP4 192.0.2.1\t192.0.2.2 56324 443\r\n",
        b"PROXY TCP4 \xff192.0.2.1 192.0.2.2 56324 443\r\n",
        b"PROXY UNKNOWNX\r\n",
        b"PROXY \r\n",
        b"PROXY \n",
    ];
    for line in lines {
        let text = String::from_utf8_lossy(line);
        assert!(
            matches!(parse(line), Parsed::Invalid(_)),
            "{text:?}: {:?}",
            parse(line)
        );
    }
    let endless = [V1_PREFIX, &[b'a'; 200]].concat();
    assert_eq!(parse(&endless[..MAX_V1 - 1]), Parsed::NeedMore);
    assert!(matches!(parse(&endless), Parsed::Invalid(_)));
    let late = format!("PROXY UNKNOWN {}\r\n", "f".repeat(92));
    assert!(matches!(parse(late.as_bytes()), Parsed::Invalid(_)));

    let with = |tlvs: &[u8]| [&IPV4_BODY[..], tlvs].concat();
    for (name, bytes) in [
        ("version 1", v2(0x11, 0x11, &IPV4_BODY)),
        ("version 3", v2(0x31, 0x11, &IPV4_BODY)),
        ("command 2", v2(0x22, 0x11, &IPV4_BODY)),
        ("family 4", v2(0x21, 0x41, &IPV4_BODY)),
        ("protocol 3", v2(0x21, 0x13, &IPV4_BODY)),
        ("no room for IPv4", v2(0x21, 0x11, &IPV4_BODY[..11])),
        ("no room for IPv6", v2(0x21, 0x21, &[0; 35])),
        ("no room for unix", v2(0x21, 0x31, &[0; 215])),
        ("half a field", v2(0x21, 0x11, &with(&[4, 0]))),
        ("a field too long", v2(0x21, 0x11, &with(&[4, 0, 2, 0]))),
        (
            "a checksum that is none",
            v2(0x21, 0x11, &with(&[3, 0, 1, 0])),
        ),
        (
            "a wrong checksum",
            v2(0x21, 0x11, &with(&[3, 0, 4, 1, 2, 3, 4])),
        ),
        ("too long", v2(0x21, 0x11, &with(&[0; 4085]))),
    ] {
        assert!(
            matches!(parse(&bytes), Parsed::Invalid(_)),
            "{name}: {:?}",
            parse(&bytes)
        );
    }
    // Nothing is waited for once it is wrong.
    let claims = [V2_PREFIX, &[0x21, 0x11, 0xff, 0xff]].concat();
    assert!(matches!(parse(&claims), Parsed::Invalid(_)));
    let version = [V2_PREFIX, &[0x91]].concat();
    assert!(matches!(parse(&version), Parsed::Invalid(_)));
}

#[test]
fn other_protocols_are_not_taken_for_headers() {
    for bytes in [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        b"PROPFIND / HTTP/1.1\r\n",
        b"\r\nGET / HTTP/1.1\r\n",
        b"\x16\x03\x01",
        b"proxy tcp4",
        b"\r\n\r\n\0\r\nQUIT\r",
    ] {
        assert_eq!(
            parse(bytes),
            Parsed::Absent,
            "{:?}",
            String::from_utf8_lossy(bytes)
        );
    }
    assert_eq!(parse(b""), Parsed::NeedMore);
    assert_eq!(parse(b"PRO"), Parsed::NeedMore);
}

#[test]
fn fields_and_their_checksum_are_read_back() {
    let header = Header::proxied(address("192.0.2.1:1"), address("192.0.2.2:2"))
        .with_tlv(0x01, b"h2")
        .and_then(|h| h.with_tlv(0x02, b"shop.example.com"))
        .and_then(|h| h.with_tlv(0x03, &[0; 4]))
        .unwrap();
    let mut bytes = header.encode(Version::V2);
    let sum = crc::crc32c(&bytes).to_be_bytes();
    let at = bytes.len() - 4;
    bytes[at..].copy_from_slice(&sum);
    let Parsed::Header(read, length) = parse(&bytes) else {
        panic!("{:?}", parse(&bytes));
    };
    assert_eq!(length, bytes.len());
    let tlvs: Vec<_> = read.tlvs().collect();
    assert_eq!(
        tlvs,
        [(1, &b"h2"[..]), (2, b"shop.example.com"), (3, &sum[..])]
    );
    bytes[20] ^= 1;
    assert!(matches!(parse(&bytes), Parsed::Invalid(_)));
    assert!(header.with_tlv(5, &[0; MAX_V2]).is_none());
}

#[test]
fn two_families_are_told_in_the_one_that_holds_both() {
    let header = Header::proxied(address("192.0.2.1:1"), address("[2001:db8::1]:2"));
    assert_eq!(
        header.encode(Version::V1),
        b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 1 2\r\n"
    );
    let header = Header::proxied(address("[::ffff:192.0.2.1]:1"), address("192.0.2.2:2"));
    assert_eq!(
        header.encode(Version::V1),
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"
    );
    assert_eq!(Header::local().encode(Version::V1), b"PROXY UNKNOWN\r\n");
}

type Verdict = fn(&Result<Option<Header>, ReadError>) -> bool;

#[tokio::test(start_paused = true)]
async fn a_listener_gets_what_its_mode_asks_for() {
    let limit = Duration::from_secs(5);
    let header = Header::proxied(address("192.0.2.1:1"), address("192.0.2.2:2"));
    for version in [Version::V1, Version::V2] {
        for mode in [Mode::Accept, Mode::Require] {
            let (mut client, mut server) = duplex(4);
            let mut bytes = header.encode(version);
            bytes.extend_from_slice(b"hello");
            let mut buffer = BytesMut::new();
            // What follows the header does not fit: the writer is left waiting.
            let writer = tokio::spawn(async move { client.write_all(&bytes).await });
            let got = read(&mut server, &mut buffer, mode, limit).await;
            writer.abort();
            assert_eq!(got.unwrap(), Some(header.clone()));
            assert!(b"hello".starts_with(&buffer), "{buffer:?}");
        }
    }
    // What the client sends, whether it then ends, and what comes of it in each mode.
    let none: Verdict = |r| matches!(r, Ok(None));
    let absent: Verdict = |r| matches!(r, Err(ReadError::Absent));
    let eof: Verdict = |r| matches!(r, Err(ReadError::Eof));
    let late: Verdict = |r| matches!(r, Err(ReadError::Timeout(_)));
    let invalid: Verdict = |r| matches!(r, Err(ReadError::Invalid(_)));
    let table: &[(&[u8], bool, Verdict, Verdict)] = &[
        (b"GET / HTTP/1.1\r\n", false, none, absent),
        (b"", true, none, absent),
        (b"", false, none, late),
        (b"PROXY TCP4", true, eof, eof),
        (b"PROXY TCP4", false, late, late),
        (b"PROXY \r\n", false, invalid, invalid),
    ];
    for (sent, ends, accept, require) in table {
        for (mode, verdict) in [
            (Mode::Off, none),
            (Mode::Accept, *accept),
            (Mode::Require, *require),
        ] {
            let (mut client, mut server) = duplex(1024);
            client.write_all(sent).await.unwrap();
            if *ends {
                client.shutdown().await.unwrap();
            }
            let mut buffer = BytesMut::new();
            let result = read(&mut server, &mut buffer, mode, limit).await;
            let text = String::from_utf8_lossy(sent);
            assert!(
                verdict(&result),
                "{mode:?}, {text:?}, ends: {ends}: {result:?}"
            );
            assert!(
                mode == Mode::Off || buffer.starts_with(sent),
                "nothing is lost"
            );
        }
    }
}

fn any_pair() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    let v4 = (any::<[u32; 2]>(), any::<[u16; 2]>()).prop_map(|(ip, port)| {
        let end = |i: usize| SocketAddr::new(Ipv4Addr::from(ip[i]).into(), port[i]);
        (end(0), end(1))
    });
    let v6 = (any::<[u128; 2]>(), any::<[u16; 2]>()).prop_map(|(ip, port)| {
        let end =
            |i: usize| SocketAddr::new(IpAddr::from(Ipv6Addr::from(ip[i] | 1 << 120)), port[i]);
        (end(0), end(1))
    });
    prop_oneof![v4, v6]
}

proptest! {
    #[test]
    fn what_is_written_is_read_whole_and_never_before((source, destination) in any_pair()) {
        let header = Header::proxied(source, destination);
        for version in [Version::V1, Version::V2] {
            let mut bytes = header.encode(version);
            let length = bytes.len();
            for cut in 0..length {
                prop_assert_eq!(parse(&bytes[..cut]), Parsed::NeedMore);
            }
            bytes.extend_from_slice(b"\r\nwhat follows");
            prop_assert_eq!(parse(&bytes), Parsed::Header(header.clone(), length));
        }
    }

    #[test]
    fn random_bytes_never_panic_and_a_decision_stands(
        start in prop_oneof![Just(&b""[..]), Just(V1_PREFIX), Just(V2_PREFIX), Just(&b"PROXY TCP4 1.2.3.4 "[..]),
            Just(&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x14"[..])],
        tail in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let bytes = [start, &tail].concat();
        let mut decided = Parsed::NeedMore;
        for end in 0..=bytes.len() {
            let now = parse(&bytes[..end]);
            prop_assert!(decided == Parsed::NeedMore || now == decided, "{:?} then {:?}", decided, now);
            decided = now;
        }
        if let Parsed::Header(header, length) = decided {
            prop_assert!(length <= MAX_V2);
            header.tlvs().count();
        }
    }

    #[test]
    fn a_header_that_was_read_can_be_sent_on(tail in proptest::collection::vec(any::<u8>(), 0..80)) {
        let bytes = v2(0x21, 0x11, &[&IPV4_BODY[..], &tail].concat());
        if let Parsed::Header(header, _) = parse(&bytes) {
            prop_assert_eq!(header.encode(Version::V2), bytes);
        }
    }
}
