use std::future::{pending, ready};

use model::endpoint::{self, Health};
use model::workload::{Locality, Tunnel};
use testkit::upstream::{Step, Upstream};
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::*;
use crate::connect::Io;
use crate::destination::{Endpoint, EndpointLive};
use crate::outbound::local_caller;
use crate::outbound::tests::{destination, run};
use crate::pool::Link;

fn endpoint() -> Arc<Endpoint> {
    let config = endpoint::Endpoint {
        service: "shop/a".parse().unwrap(),
        workload: "shop/a-0".parse().unwrap(),
        addresses: vec!["127.0.0.1".parse().unwrap()],
        ports: [(80, 8080)].into(),
        tunnel: Tunnel::None,
        identity: "spiffe://mesh.local/ns/shop/sa/a".parse().unwrap(),
        health: Health::Healthy,
        weight: 1,
        locality: Locality::default(),
        version: String::new(),
    };
    Arc::new(Endpoint::new(&config, EndpointLive::alone()))
}

async fn opened() -> (Opened, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (io, server) = tokio::join!(TcpStream::connect(address), listener.accept());
    let link = Link::plain(address);
    let opened = Opened::new(Io::from(io.unwrap()), link, &endpoint());
    (opened, server.unwrap().0)
}

fn refused() -> Failure {
    Failure::new(Reason::ConnectRefused, "nobody listens")
}

/// The client's bytes and the server's, as the race gives them back.
async fn bytes(spoken: Spoken<DuplexStream>, client: usize, server: usize) -> (Vec<u8>, Vec<u8>) {
    let Spoken::Bytes(mut near, Some(mut opened)) = spoken else {
        panic!("bytes expected");
    };
    let (mut a, mut b) = (vec![0; client], vec![0; server]);
    near.read_exact(&mut a).await.unwrap();
    opened.io.read_exact(&mut b).await.unwrap();
    (a, b)
}

#[tokio::test]
async fn a_server_that_speaks_first_wins_with_what_it_said() {
    let (_client, near) = duplex(64);
    let (opened, mut server) = opened().await;
    server.write_all(b"220 ready\r\n").await.unwrap();
    let spoken = race(near, ready(Ok(opened))).await.unwrap();
    assert_eq!(bytes(spoken, 0, 11).await.1, b"220 ready\r\n");
}

#[tokio::test]
async fn a_client_that_speaks_http_is_told_before_anybody_is_reached() {
    for (words, wire) in [
        (&b"GET / HTTP/1.1\r\n"[..], Wire::Http1),
        (detect::H2_PREFACE, Wire::Http2),
    ] {
        let (mut client, near) = duplex(64);
        client.write_all(words).await.unwrap();
        let Spoken::Http(mut stream, spoken) = race(near, pending()).await.unwrap() else {
            panic!("HTTP expected");
        };
        assert_eq!(spoken, wire);
        let mut again = vec![0; words.len()];
        stream.read_exact(&mut again).await.unwrap();
        assert_eq!(again, words, "the words are still to be read");
    }
}

#[tokio::test]
async fn other_words_wait_for_the_server() {
    let (mut client, near) = duplex(64);
    client.write_all(b"*1\r\n").await.unwrap();
    let spoken = race(near, async { Ok(opened().await.0) }).await.unwrap();
    assert_eq!(bytes(spoken, 4, 0).await.0, b"*1\r\n");

    let (mut client, near) = duplex(64);
    client.write_all(b"*1\r\n").await.unwrap();
    let failure = race(near, ready(Err(refused()))).await.err().unwrap();
    assert_eq!(failure.reason, Reason::ConnectRefused);
}

#[tokio::test]
async fn a_client_that_has_said_all_is_carried() {
    let (client, near) = duplex(64);
    drop(client);
    let spoken = race(near, async { Ok(opened().await.0) }).await.unwrap();
    assert!(matches!(spoken, Spoken::Bytes(_, Some(_))));
}

#[tokio::test(start_paused = true)]
async fn who_has_nobody_to_talk_to_has_a_moment_to_ask_for_words() {
    let (_client, near) = duplex(64);
    let begun = Instant::now();
    let failure = race(near, ready(Err(refused()))).await.err().unwrap();
    assert_eq!(
        (failure.reason, begun.elapsed()),
        (Reason::ConnectRefused, Duration::from_secs(1))
    );

    let (mut client, near) = duplex(64);
    client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let spoken = race(near, ready(Err(refused()))).await.unwrap();
    assert!(matches!(spoken, Spoken::Http(..)));
}

#[tokio::test(start_paused = true)]
async fn silence_ends() {
    let (_client, near) = duplex(64);
    let failure = race(near, pending()).await.err().unwrap();
    assert_eq!(failure.reason, Reason::StreamIdleTimeout);
}

#[tokio::test(start_paused = true)]
async fn a_server_name_is_waited_for_within_bounds() {
    let limit = Duration::from_secs(10);
    let hello = real_hello();
    let (mut client, mut near) = duplex(1 << 16);
    client.write_all(&hello).await.unwrap();
    let mut seen = BytesMut::new();
    let name = server_name(&mut near, &mut seen, limit).await.unwrap();
    assert_eq!(name.as_deref(), Some("shop.example.com"));
    assert_eq!(seen, hello, "all of it goes on to the server");

    for (sent, ends, reason) in [
        (&hello[..100], false, Reason::RequestTimeout),
        (&hello[..100], true, Reason::BadRequest),
        (&b"GET / HTTP/1.1\r\n\r\n"[..], false, Reason::BadRequest),
    ] {
        let (mut client, mut near) = duplex(1 << 16);
        client.write_all(sent).await.unwrap();
        if ends {
            client.shutdown().await.unwrap();
        }
        let begun = Instant::now();
        let failure = server_name(&mut near, &mut BytesMut::new(), limit)
            .await
            .unwrap_err();
        assert_eq!(failure.reason, reason, "{failure}");
        assert!(begun.elapsed() <= limit);
    }
}

/// A real one.
fn real_hello() -> Vec<u8> {
    let mut config = rustls::ClientConfig::builder_with_provider(identity::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = "Shop.Example.com".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_tls_connection_is_passed_on_unopened_to_where_its_name_leads() {
    run(async |worker| {
        let hello = real_hello();
        let sent = hello.clone();
        let upstream = Upstream::start(move |_| {
            vec![
                Step::ReadExact(sent.len()),
                Step::send("server hello"),
                Step::ReadToEnd,
            ]
        });
        let destination = destination(&[upstream.port()], None, Vec::new());
        let caller = local_caller(&worker, "127.0.0.1:1".parse().unwrap());
        let (mut client, near) = duplex(1 << 16);
        let talk = async {
            let (first, rest) = hello.split_at(500);
            client.write_all(first).await.unwrap();
            tokio::task::yield_now().await;
            client.write_all(rest).await.unwrap();
            let mut answer = [0; 12];
            client.read_exact(&mut answer).await.unwrap();
            client.shutdown().await.unwrap();
            answer
        };
        let pick = async |name: Option<&str>| {
            assert_eq!(name, Some("shop.example.com"));
            Ok((Arc::clone(&destination), 80))
        };
        let limit = Duration::from_secs(10);
        let (answer, carried) =
            tokio::join!(talk, passthrough(&worker, near, &caller, limit, pick));
        carried.unwrap();
        assert_eq!(&answer, b"server hello");
        assert_eq!(upstream.received(0), hello);

        let (mut client, near) = duplex(1 << 16);
        client.write_all(&hello).await.unwrap();
        let nowhere = async |_: Option<&str>| Err(Failure::new(Reason::NoRoute, "no such name"));
        let refused = passthrough(&worker, near, &caller, limit, nowhere).await;
        assert_eq!(refused.unwrap_err().reason, Reason::NoRoute);
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0, "closed");
    });
}
