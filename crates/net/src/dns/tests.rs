use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::op::Query as Asked;
use proptest::prelude::*;

use super::*;

fn query_bytes(name: &str, kind: RecordType, payload: Option<u16>) -> Vec<u8> {
    let mut message = Message::new(0xbeef, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Asked::query(Name::from_ascii(name).unwrap(), kind));
    if let Some(payload) = payload {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        message.set_edns(edns);
    }
    message.to_vec().unwrap()
}

fn query(name: &str, kind: RecordType) -> Query {
    Query::parse(&query_bytes(name, kind, None), Transport::Udp).unwrap()
}

fn addresses() -> Vec<IpAddr> {
    vec!["240.240.0.1".parse().unwrap(), "fd7e::1".parse().unwrap()]
}

#[test]
fn a_question_is_read_and_its_case_echoed() {
    let query = query("Reviews.BookShop.", RecordType::A);
    let expected = Question {
        name: "reviews.bookshop".into(),
        kind: QueryType::A,
    };
    assert_eq!(*query.question(), expected);
    let answer = Message::from_vec(&query.answer(&addresses(), 30)).unwrap();
    assert_eq!(answer.metadata.id, 0xbeef);
    assert!(answer.metadata.recursion_desired && answer.metadata.recursion_available);
    // Clients that vary the case of their questions (0x20) check it.
    assert_eq!(answer.queries[0].name().to_ascii(), "Reviews.BookShop.");
    let [record] = &answer.answers[..] else {
        panic!("one address expected: {answer:?}")
    };
    assert_eq!(
        (record.ttl, record.data.ip_addr()),
        (30, Some(addresses()[0]))
    );
}

#[test]
fn each_type_gets_its_own_addresses_and_others_none() {
    let aaaa = query("reviews", RecordType::AAAA).answer(&addresses(), 5);
    let aaaa = Message::from_vec(&aaaa).unwrap();
    assert_eq!(aaaa.answers[0].data.ip_addr(), Some(addresses()[1]));
    for (kind, of) in [
        (RecordType::MX, &addresses()[..]),
        (RecordType::AAAA, &addresses()[..1]),
    ] {
        let none = Message::from_vec(&query("reviews", kind).answer(of, 5)).unwrap();
        assert!(none.answers.is_empty());
        assert_eq!(none.metadata.response_code, ResponseCode::NoError);
    }
}

#[test]
fn errors_carry_their_code() {
    let query = query("nowhere", RecordType::A);
    for (bytes, code) in [
        (query.nxdomain(), ResponseCode::NXDomain),
        (query.servfail(), ResponseCode::ServFail),
        (query.refused(), ResponseCode::Refused),
    ] {
        let message = Message::from_vec(&bytes).unwrap();
        assert_eq!(message.metadata.response_code, code);
        assert_eq!(message.queries, query.message.queries);
    }
}

#[test]
fn an_answer_over_udp_stays_within_what_the_client_takes() {
    let many: Vec<IpAddr> = (0..=255).map(|i| IpAddr::from([10, 0, 0, i])).collect();
    for (payload, most) in [(None, 512), (Some(1000), 1000), (Some(60_000), MAX_UDP)] {
        let bytes = query_bytes("reviews", RecordType::A, payload);
        let answer = Query::parse(&bytes, Transport::Udp)
            .unwrap()
            .answer(&many, 1);
        assert!(answer.len() <= most, "{} > {most}", answer.len());
        let answer = Message::from_vec(&answer).unwrap();
        assert!(answer.metadata.truncation && !answer.answers.is_empty());
        assert_eq!(answer.edns.is_some(), payload.is_some());
    }
    let bytes = query_bytes("reviews", RecordType::A, None);
    let over_tcp = Query::parse(&bytes, Transport::Tcp).unwrap();
    let answer = Message::from_vec(&over_tcp.answer(&many, 1)).unwrap();
    assert_eq!(
        (answer.answers.len(), answer.metadata.truncation),
        (256, false)
    );
}

#[test]
fn what_is_no_query_gets_the_right_refusal_or_none() {
    let mut response = query_bytes("a", RecordType::A, None);
    response[2] |= 0x80;
    let e = Query::parse(&response, Transport::Udp).unwrap_err();
    assert!(matches!(e, QueryError::NotAQuery) && e.reply().is_none());

    let e = Query::parse(&[1, 2, 0, 0], Transport::Udp).unwrap_err();
    assert!(e.reply().is_none(), "not even a header");

    let mut cut = query_bytes("reviews", RecordType::A, None);
    cut.truncate(15);
    let e = Query::parse(&cut, Transport::Udp).unwrap_err();
    let reply = Message::from_vec(e.reply().unwrap()).unwrap();
    assert_eq!(reply.metadata.response_code, ResponseCode::FormErr);
    assert_eq!(reply.metadata.id, 0xbeef);

    let mut notify = query_bytes("a", RecordType::A, None);
    notify[2] |= 4 << 3;
    let e = Query::parse(&notify, Transport::Udp).unwrap_err();
    let reply = Message::from_vec(e.reply().unwrap()).unwrap();
    assert_eq!(reply.metadata.response_code, ResponseCode::NotImp);
}

#[test]
fn a_resolv_conf_is_read_as_the_c_library_does() {
    let text = "# c\nnameserver 10.0.0.1 # x\n nameserver ::1\nnameserver what\nsearch a.b. C.d\n\
                options ndots:5\nnameserver 1.1.1.1\nnameserver 2.2.2.2\ndomain\n; x\nsearch e.f\n";
    let resolver = Resolver::parse(text);
    let servers: Vec<SocketAddr> = ["10.0.0.1:53", "[::1]:53", "1.1.1.1:53"]
        .iter()
        .map(|s| s.parse().unwrap())
        .collect();
    assert_eq!(resolver.servers, servers);
    assert_eq!(resolver.search, ["e.f"]);
    assert_eq!(Resolver::parse("").servers, []);
}

#[tokio::test]
async fn framing_is_undone_and_cut_messages_noticed() {
    let (mut a, mut b) = tokio::io::duplex(1024);
    write_framed(&mut a, b"one").await.unwrap();
    write_framed(&mut a, b"").await.unwrap();
    assert_eq!(read_framed(&mut b).await.unwrap().unwrap(), b"one");
    assert_eq!(read_framed(&mut b).await.unwrap().unwrap(), b"");
    tokio::io::AsyncWriteExt::write_all(&mut a, &[0, 9, 1])
        .await
        .unwrap();
    drop(a);
    assert!(read_framed(&mut b).await.is_err());
    let (a, mut b) = tokio::io::duplex(8);
    drop(a);
    assert!(read_framed(&mut b).await.unwrap().is_none());
    assert!(frame(&vec![0; 70_000]).is_none());
}

/// A server that first sends what must be ignored, then a truncated answer; the whole over TCP.
async fn stubborn_server(udp: tokio::net::UdpSocket, tcp: tokio::net::TcpListener) {
    let mut buffer = [0; 512];
    let (n, client) = udp.recv_from(&mut buffer).await.unwrap();
    let query = Query::parse(&buffer[..n], Transport::Udp).unwrap();
    let mut wrong_id = query.nxdomain();
    wrong_id[0] ^= 1;
    udp.send_to(&wrong_id, client).await.unwrap();
    let mut other_question = query_bytes("evil", RecordType::A, None);
    other_question[2] |= 0x80;
    udp.send_to(&other_question, client).await.unwrap();
    udp.send_to(&buffer[..n], client).await.unwrap();
    let mut truncated = query.answer(&[], 1);
    truncated[2] |= 2;
    udp.send_to(&truncated, client).await.unwrap();
    let (mut stream, _) = tcp.accept().await.unwrap();
    let bytes = read_framed(&mut stream).await.unwrap().unwrap();
    let query = Query::parse(&bytes, Transport::Tcp).unwrap();
    let answer = query.answer(&addresses(), 1);
    write_framed(&mut stream, &answer).await.unwrap();
}

#[tokio::test]
async fn forwarding_ignores_strangers_and_goes_to_tcp_when_truncated() {
    let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let udp = tokio::net::UdpSocket::bind(address).await.unwrap();
    tokio::spawn(stubborn_server(udp, tcp));
    let query = query_bytes("example.com", RecordType::A, None);
    let answer = forward(&query, address, Duration::from_secs(5), None).await;
    let answer = Message::from_vec(&answer.unwrap()).unwrap();
    assert_eq!(answer.answers[0].data.ip_addr(), Some(addresses()[0]));
}

#[tokio::test]
async fn a_silent_server_is_left_for_the_next() {
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let good = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut forwarder = Forwarder {
        servers: vec![silent.local_addr().unwrap()],
        timeout: Duration::from_millis(50),
        mark: None,
    };
    let bytes = query_bytes("example.com", RecordType::A, None);
    let e = forwarder.ask(&bytes).await.unwrap_err();
    assert!(matches!(e, ForwardError::Timeout(..)), "{e:?}");
    let mut buffer = [0; 512];
    for _ in 0..2 {
        silent
            .recv(&mut buffer)
            .await
            .expect("the query and its repetition");
    }
    forwarder.servers.push(good.local_addr().unwrap());
    let serve = async {
        let (n, client) = good.recv_from(&mut buffer).await.unwrap();
        let query = Query::parse(&buffer[..n], Transport::Udp).unwrap();
        good.send_to(&query.nxdomain(), client).await.unwrap();
    };
    let (answer, ()) = tokio::join!(forwarder.ask(&bytes), serve);
    let answer = Message::from_vec(&answer.unwrap()).unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    let e = forwarder.ask(b"junk").await.unwrap_err();
    assert!(matches!(e, ForwardError::NotAQuery));
}

#[test]
fn a_long_foreign_answer_is_cut_for_udp_clients() {
    let query = query("example.com", RecordType::A);
    let long = vec![0; 600];
    let cut = Message::from_vec(&query.relay(long)).unwrap();
    assert!(cut.metadata.truncation && cut.metadata.id == 0xbeef);
    assert_eq!(query.relay(vec![0; 100]).len(), 100);
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for transport in [Transport::Udp, Transport::Tcp] {
            match Query::parse(&bytes, transport) {
                Ok(query) => prop_assert!(query.answer(&addresses(), 1).len() <= MAX_TCP),
                Err(e) => prop_assert!(e.reply().is_none_or(|r| r.len() <= bytes.len() + 300)),
            }
        }
    }

    #[test]
    fn a_damaged_query_never_panics_nor_gets_a_long_answer(
        at in 0_usize..60, to in any::<u8>(), payload in proptest::option::of(any::<u16>()),
    ) {
        let mut bytes = query_bytes("reviews.bookshop.svc.cluster.local", RecordType::AAAA, payload);
        let n = bytes.len();
        bytes[at % n] = to;
        let reply = match Query::parse(&bytes, Transport::Udp) {
            Ok(query) => query.answer(&addresses(), 1),
            Err(e) => e.reply().map(<[u8]>::to_vec).unwrap_or_default(),
        };
        prop_assert!(reply.len() <= MAX_UDP);
    }

    #[test]
    fn any_text_is_a_resolv_conf(text in "\\PC*") {
        Resolver::parse(&text);
    }
}
