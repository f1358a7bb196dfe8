use std::sync::Arc;

use proptest::prelude::*;
use rustls::pki_types::ServerName;

use super::*;

/// A ClientHello as rustls sends it, hybrid key share and all (about 1.7 KB).
fn real_hello(name: &'static str, alpn: &[&[u8]]) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    let name = ServerName::try_from(name).unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// The same handshake bytes in records of at most `size`.
fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for part in hello[RECORD_HEADER..].chunks(size) {
        out.extend_from_slice(&[22, 3, 1]);
        out.extend_from_slice(&(part.len() as u16).to_be_bytes());
        out.extend_from_slice(part);
    }
    out
}

#[test]
fn first_bytes_tell_the_protocol() {
    use Sniff::{Http1, Http2, NeedMore, Other, Tls};
    let table: &[(&[u8], Sniff)] = &[
        (b"", NeedMore),
        (b"G", NeedMore),
        (b"GET", NeedMore),
        (b"GET ", NeedMore),
        (b"GET /", Http1),
        (b"OPTIONS *", Http1),
        (b"GET http://reviews", NeedMore),
        (b"GET http://reviews/ HTTP/1.1\r\n", Http1),
        (b"CONNECT reviews:80 HTTP/1.1\r\n", Http1),
        (b"PROPFIND /dav HTTP/1.1\r\n", Http1),
        (b"PROPFIND /dav HTTP/1.0\n", Http1),
        (b"\r\nGET /", Http1),
        (b"GET key\r\n", Other),
        (b"get key\r\n", Other),
        (b"*1\r\n$4\r\nPING\r\n", Other),
        (b"PING\r\n", Other),
        (b"EHLO me\r\n", Other),
        (b"SSH-2.0-OpenSSH\r\n", Other),
        (b"AVERYLONGWORDTHATISNOMETHOD", Other),
        (b"GET k\0", Other),
        (b"P", NeedMore),
        (b"PRI", NeedMore),
        (b"PRI * HTTP/2.0\r\n", NeedMore),
        (H2_PREFACE, Http2),
        (b"PRI * HTTP/1.1\r\n", Http1),
        (b"POST /", Http1),
        (&[22], NeedMore),
        (&[22, 3, 1, 0, 5], NeedMore),
        (&[22, 3, 1, 0, 5, 1], Tls),
        (&[22, 3, 1, 0, 5, 2], Other),
        (&[22, 3, 1, 0, 0], Other),
        (&[22, 3, 1, 0x50, 0], Other),
        (&[22, 2], Other),
        (&[0], Other),
        (&[0x80, 0x2e, 1, 0, 2], Other),
    ];
    for (bytes, expected) in table {
        assert_eq!(
            sniff(bytes),
            *expected,
            "{:?}",
            String::from_utf8_lossy(bytes)
        );
    }
}

#[test]
fn an_endless_request_line_is_given_up_at_the_limit() {
    let mut line = b"FETCH ".to_vec();
    line.resize(LIMIT - 1, b'a');
    assert_eq!(sniff(&line), Sniff::NeedMore);
    line.push(b'a');
    assert_eq!(sniff(&line), Sniff::Other);
}

#[test]
fn a_client_hello_gives_name_and_protocols_however_it_is_cut() {
    let hello = real_hello("9080.Reviews.bookshop.tulle", &[b"tulle-h2", b"h2"]);
    let expected = ClientHello::Found {
        sni: Some("9080.reviews.bookshop.tulle".into()),
        alpn: vec![b"tulle-h2".to_vec(), b"h2".to_vec()],
    };
    for size in [1, 3, 100, 1000, 16_384] {
        let bytes = in_records(&hello, size);
        assert_eq!(client_hello(&bytes), expected, "records of {size}");
        for cut in 0..bytes.len() {
            assert_eq!(
                client_hello(&bytes[..cut]),
                ClientHello::NeedMore,
                "{size}: cut at {cut}"
            );
        }
    }
}

#[test]
fn no_name_and_no_protocols_is_an_answer_too() {
    let found = client_hello(&real_hello("10.0.0.1", &[]));
    let nothing = ClientHello::Found {
        sni: None,
        alpn: vec![],
    };
    assert_eq!(found, nothing);
}

#[test]
fn a_hello_that_claims_to_be_huge_or_never_ends_is_invalid() {
    let mut huge = vec![22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff];
    huge.resize(LIMIT - 1, 0);
    assert_eq!(client_hello(&huge), ClientHello::NeedMore);
    huge.resize(LIMIT, 0);
    assert_eq!(client_hello(&huge), ClientHello::Invalid);
    let mut endless = Vec::new();
    while endless.len() < LIMIT {
        endless.extend_from_slice(&[22, 3, 1, 0, 1, 1]);
    }
    assert_eq!(client_hello(&endless), ClientHello::Invalid);
    assert_eq!(client_hello(b"GET / HTTP/1.1\r\n"), ClientHello::Invalid);
    let mut second_is_alert = in_records(&real_hello("a", &[]), 10);
    second_is_alert[15] = 21;
    assert_eq!(client_hello(&second_is_alert), ClientHello::Invalid);
}

/// Replaces what stands for the server name, whose length stays the same.
fn with_name(hello: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = hello.windows(from.len()).position(|w| w == from).unwrap();
    [&hello[..at], to, &hello[at + to.len()..]].concat()
}

#[test]
fn a_server_name_is_a_host_name() {
    let hello = real_hello("reviews.shop", &[]);
    for name in [
        &b"rev\0ews.shop"[..],
        b"rev ews.shop",
        b"rev/ews.shop",
        b".eviews.shop",
        b"reviews..hop",
    ] {
        let text = String::from_utf8_lossy(name);
        assert_eq!(
            client_hello(&with_name(&hello, b"reviews.shop", name)),
            ClientHello::Invalid,
            "{text:?}"
        );
    }
    // Addresses are not allowed there (RFC 6066 3) and are sent by some; they lead nowhere.
    let address = client_hello(&with_name(&hello, b"reviews.shop", b"192.168.10.1"));
    assert_eq!(
        address,
        ClientHello::Found {
            sni: None,
            alpn: vec![]
        }
    );
}

#[test]
fn a_hello_is_that_of_a_hybrid_key_exchange() {
    let hello = real_hello("reviews", &[]);
    // The group X25519MLKEM768 is 0x11ec, its key share 1216 bytes.
    assert!(hello.windows(4).any(|w| w == [0x11, 0xec, 0x04, 0xc0]));
}

#[test]
fn with_encrypted_client_hello_the_outer_name_is_given() {
    use rustls::client::{EchGreaseConfig, EchMode};
    let suite = rustls::crypto::aws_lc_rs::hpke::ALL_SUPPORTED_SUITES[0];
    let (public, _) = suite.generate_key_pair().unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_ech(EchMode::Grease(EchGreaseConfig::new(suite, public)))
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from("outer.example").unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    assert!(
        bytes.windows(2).any(|w| w == [0xfe, 0x0d]),
        "the extension is there"
    );
    assert!(matches!(
        client_hello(&bytes),
        ClientHello::Found { sni: Some(name), .. } if name == "outer.example"
    ));
}

#[tokio::test]
async fn a_hello_that_comes_byte_by_byte_is_read_once_and_kept_whole() {
    use tokio::io::AsyncWriteExt;
    for size in [1, 16_384] {
        let bytes = in_records(&real_hello("reviews", &[b"h2"]), size);
        let (mut client, mut server) = tokio::io::duplex(1);
        let sent = bytes.clone();
        let writer = tokio::spawn(async move {
            client.write_all(&sent).await.unwrap();
            client
        });
        let mut buffer = BytesMut::new();
        let found = read_client_hello(&mut server, &mut buffer).await.unwrap();
        assert!(matches!(found, ClientHello::Found { sni: Some(name), .. } if name == "reviews"));
        drop(writer.await.unwrap());
        assert_eq!(buffer, bytes);
    }
}

#[tokio::test]
async fn reading_stops_as_soon_as_it_is_decided_or_the_client_ends() {
    use tokio::io::AsyncWriteExt;
    let (mut client, mut server) = tokio::io::duplex(4096);
    let mut buffer = BytesMut::new();
    client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    assert_eq!(read(&mut server, &mut buffer).await.unwrap(), Sniff::Http1);
    assert_eq!(&buffer[..], b"GET / HTTP/1.1\r\n");

    let (mut client, mut server) = tokio::io::duplex(4096);
    let mut buffer = BytesMut::new();
    client.write_all(b"GE").await.unwrap();
    drop(client);
    assert_eq!(read(&mut server, &mut buffer).await.unwrap(), Sniff::Other);

    let (client, mut server) = tokio::io::duplex(4096);
    drop(client);
    let sniff = read(&mut server, &mut BytesMut::new()).await.unwrap();
    assert_eq!(sniff, Sniff::NeedMore);

    let (mut client, mut server) = tokio::io::duplex(4096);
    let mut buffer = BytesMut::new();
    let hello = real_hello("a", &[]);
    client.write_all(&hello[..hello.len() - 1]).await.unwrap();
    drop(client);
    let end = read_client_hello(&mut server, &mut buffer).await.unwrap();
    assert_eq!(end, ClientHello::Invalid);
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        sniff(&bytes);
        client_hello(&bytes);
    }

    #[test]
    fn a_damaged_hello_never_panics(
        at in 0_usize..1800, to in any::<u8>(), size in 1_usize..2000, cut in 0_usize..4000,
    ) {
        let mut hello = real_hello("reviews", &[b"h2"]);
        let n = hello.len();
        hello[at % n] = to;
        let bytes = in_records(&hello, size);
        client_hello(&bytes[..cut.min(bytes.len())]);
        sniff(&bytes);
    }

    /// More bytes may decide, but never change a decision.
    #[test]
    fn a_decision_stands(
        start in prop_oneof![
            Just(&b"GET /x HTTP/1.1\r\n"[..]), Just(H2_PREFACE), Just(&b"PUT "[..]),
            Just(&b"\x16\x03\x01\x00\x20\x01"[..]), Just(&b"PROPFIND a HTTP/1.1\r\n"[..]), Just(&b""[..]),
        ],
        tail in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let bytes = [start, &tail].concat();
        let mut decided = Sniff::NeedMore;
        for end in 0..=bytes.len() {
            let now = sniff(&bytes[..end]);
            prop_assert!(decided == Sniff::NeedMore || now == decided, "{decided:?} then {now:?} at {end}");
            decided = now;
        }
    }
}
