use std::future::Future;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UdpSocket, UnixDatagram};
use tokio::sync::Notify;
use tokio::task::LocalSet;

use super::*;

/// What happened, in order of kind.
#[derive(Debug, Default)]
struct Seen {
    opened: Cell<usize>,
    refused: Cell<usize>,
    sent: Cell<usize>,
    received: Cell<usize>,
    dropped: Cell<usize>,
    ended: RefCell<Vec<String>>,
    gone: Cell<usize>,
    /// Told when the other end of a pair goes.
    broken: Notify,
}

struct Picks {
    /// For the n-th session.
    upstream: Box<dyn Fn(usize) -> Upstream>,
    seen: Rc<Seen>,
}

struct Picked(RefCell<Option<Upstream>>, Rc<Seen>);

fn up(cell: &Cell<usize>, by: usize) {
    cell.set(cell.get() + by);
}

impl Handler for Picks {
    type Session = Picked;

    fn open(&self, _: SocketAddr) -> Option<Picked> {
        let n = self.seen.opened.get();
        up(&self.seen.opened, 1);
        let upstream = (self.upstream)(n);
        Some(Picked(RefCell::new(Some(upstream)), Rc::clone(&self.seen)))
    }

    fn full(&self, _: SocketAddr) {
        up(&self.seen.refused, 1);
    }
}

impl Session for Picked {
    fn upstream(&self) -> io::Result<Upstream> {
        Ok(self.0.take().expect("asked once"))
    }
    async fn broken(&self) -> io::Error {
        self.1.broken.notified().await;
        io::ErrorKind::ConnectionReset.into()
    }
    fn sent(&self, bytes: usize) {
        up(&self.1.sent, bytes);
    }
    fn received(&self, bytes: usize) {
        up(&self.1.received, bytes);
    }
    fn dropped(&self) {
        up(&self.1.dropped, 1);
    }
    fn ended(&self, end: &End) {
        self.1.ended.borrow_mut().push(format!("{end:?}"));
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        up(&self.1.gone, 1);
    }
}

async fn bind(address: &str) -> UdpSocket {
    UdpSocket::bind(address).await.unwrap()
}

/// Answers each datagram with itself and its own name.
async fn echo(name: &'static str) -> SocketAddr {
    let socket = bind("127.0.0.1:0").await;
    let address = socket.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        let mut buffer = vec![0; LARGEST];
        loop {
            let (n, from) = socket.recv_from(&mut buffer).await.unwrap();
            let answer = [&buffer[..n], name.as_bytes()].concat();
            let _ = socket.send_to(&answer, from).await;
        }
    });
    address
}

fn start(bound: &str, upstreams: Vec<SocketAddr>, options: Options) -> (SocketAddr, Rc<Seen>) {
    let nth = move |n| Upstream::Address(upstreams[n % upstreams.len()]);
    start_with(bound, nth, options)
}

fn start_with(
    bound: &str,
    upstream: impl Fn(usize) -> Upstream + 'static,
    options: Options,
) -> (SocketAddr, Rc<Seen>) {
    let socket = crate::socket::bind_udp(bound.parse().unwrap(), None).unwrap();
    let listener = Listener::new(socket).unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Rc::new(Seen::default());
    let picks = Picks {
        upstream: Box::new(upstream),
        seen: Rc::clone(&seen),
    };
    tokio::task::spawn_local(relay(listener, options, picks));
    (address, seen)
}

async fn ask(client: &UdpSocket, to: SocketAddr, words: &[u8]) -> Vec<u8> {
    client.send_to(words, to).await.unwrap();
    let mut buffer = vec![0; LARGEST];
    let answer = tokio::time::timeout(Duration::from_secs(10), client.recv_from(&mut buffer));
    let (n, from) = answer.await.expect("an answer in time").unwrap();
    assert_eq!(from, to, "answered from where it was asked");
    buffer.truncate(n);
    buffer
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(10), wait).await;
    assert!(waited.is_ok(), "{what}");
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, test);
}

#[test]
fn each_client_keeps_its_upstream_and_gets_only_its_own_answers() {
    run(async {
        let upstreams = vec![echo("-one").await, echo("-two").await];
        let (relay, seen) = start("127.0.0.1:0", upstreams, Options::default());
        let (a, b) = (bind("127.0.0.1:0").await, bind("127.0.0.1:0").await);
        for round in 0..20 {
            let words = format!("a{round}");
            assert_eq!(
                ask(&a, relay, words.as_bytes()).await,
                format!("{words}-one").into_bytes()
            );
            let words = format!("b{round}");
            assert_eq!(
                ask(&b, relay, words.as_bytes()).await,
                format!("{words}-two").into_bytes()
            );
        }
        let large = vec![7; 60_000];
        assert_eq!(ask(&a, relay, &large).await.len(), 60_004);
        assert_eq!(
            ask(&a, relay, b"").await,
            b"-one",
            "an empty datagram is one too"
        );
        assert_eq!(seen.opened.get(), 2);
        assert_eq!(seen.received.get() - seen.sent.get(), 42 * 4);
        assert_eq!(seen.dropped.get(), 0);
    });
}

#[test]
fn a_socket_bound_to_no_address_answers_from_the_one_that_was_asked() {
    run(async {
        for (bound, asked) in [
            ("0.0.0.0:0", &["127.0.0.1", "127.0.0.2", "127.1.2.3"][..]),
            ("[::]:0", &["::1"]),
        ] {
            let (relay, _) = start(bound, vec![echo("").await], Options::default());
            for ip in asked {
                let asked = SocketAddr::new(ip.parse().unwrap(), relay.port());
                let any = if asked.is_ipv4() {
                    "0.0.0.0:0"
                } else {
                    "[::]:0"
                };
                let client = bind(any).await;
                assert_eq!(ask(&client, asked, b"who").await, b"who");
            }
        }
    });
}

#[test]
fn a_full_table_refuses_newcomers_and_serves_the_others() {
    run(async {
        let options = Options {
            sessions: 2,
            ..Options::default()
        };
        let (relay, seen) = start("127.0.0.1:0", vec![echo("").await], options);
        let clients = [bind("127.0.0.1:0").await, bind("127.0.0.1:0").await];
        for client in &clients {
            assert_eq!(ask(client, relay, b"x").await, b"x");
        }
        let late = bind("127.0.0.1:0").await;
        late.send_to(b"me too", relay).await.unwrap();
        until("the refusal", || seen.refused.get() == 1).await;
        assert_eq!(ask(&clients[0], relay, b"still").await, b"still");
        assert_eq!(seen.opened.get(), 2);
    });
}

#[test]
fn idle_sessions_end_and_those_never_answered_sooner() {
    run(async {
        let options = Options {
            idle: Duration::from_millis(400),
            unanswered: Duration::from_millis(20),
            ..Options::default()
        };
        let mute = bind("127.0.0.1:0").await;
        let (relay, seen) = start(
            "127.0.0.1:0",
            vec![mute.local_addr().unwrap(), echo("").await],
            options,
        );
        let (a, b) = (bind("127.0.0.1:0").await, bind("127.0.0.1:0").await);
        let begun = Instant::now();
        a.send_to(b"anybody?", relay).await.unwrap();
        assert_eq!(ask(&b, relay, b"x").await, b"x");
        until("the end of the unanswered one", || seen.gone.get() == 1).await;
        assert_eq!(ask(&b, relay, b"y").await, b"y");
        assert_eq!(seen.opened.get(), 2, "the answered one goes on");
        until("the end of the other", || seen.gone.get() == 2).await;
        assert!(begun.elapsed() >= options.idle);
        assert_eq!(*seen.ended.borrow(), ["Idle", "Idle"]);
        // A client that comes back gets a new session; its old one is the mute upstream's turn.
        b.send_to(b"z", relay).await.unwrap();
        until("a new session", || seen.opened.get() == 3).await;
    });
}

#[test]
fn an_upstream_that_is_gone_ends_the_session_and_the_next_datagram_finds_another() {
    run(async {
        let closed = bind("127.0.0.1:0").await.local_addr().unwrap();
        let (relay, seen) = start(
            "127.0.0.1:0",
            vec![closed, echo("").await],
            Options::default(),
        );
        let client = bind("127.0.0.1:0").await;
        client.send_to(b"lost", relay).await.unwrap();
        until("the refusal", || seen.ended.borrow().len() == 1).await;
        assert!(
            seen.ended.borrow()[0].starts_with("Failed"),
            "{:?}",
            seen.ended
        );
        assert_eq!(ask(&client, relay, b"found").await, b"found");
        assert_eq!(seen.opened.get(), 2);
    });
}

#[test]
fn a_relay_that_is_dropped_takes_its_sessions_along() {
    run(async {
        let socket = crate::socket::bind_udp("127.0.0.1:0".parse().unwrap(), None).unwrap();
        let listener = Listener::new(socket).unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Rc::new(Seen::default());
        let to = echo("").await;
        let picks = Picks {
            upstream: Box::new(move |_| Upstream::Address(to)),
            seen: Rc::clone(&seen),
        };
        let relay = tokio::task::spawn_local(relay(listener, Options::default(), picks));
        let client = bind("127.0.0.1:0").await;
        assert_eq!(ask(&client, address, b"x").await, b"x");
        relay.abort();
        until("its end", || seen.gone.get() == 1).await;
        assert!(seen.ended.borrow().is_empty());
        drop(bind(&address.to_string()).await);
    });
}

/// A stream, and a socket whose datagrams are carried on it.
fn carried() -> (
    tokio::io::DuplexStream,
    UnixDatagram,
    tokio::task::JoinHandle<String>,
) {
    let (near, far) = tokio::io::duplex(4096);
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let carrying = tokio::task::spawn_local(async move {
        let ended = carry(far, &Socket::Pair(theirs), |_| {}).await;
        ended.map_or_else(|error| error.to_string(), |()| "ended".to_owned())
    });
    (near, ours, carrying)
}

#[test]
fn a_datagram_on_a_stream_stands_behind_its_length() {
    run(async {
        let (mut stream, socket, carrying) = carried();
        socket.send(b"abc").await.unwrap();
        socket.send(b"").await.unwrap();
        let mut frames = [0; 7];
        stream.read_exact(&mut frames).await.unwrap();
        assert_eq!(&frames, b"\0\x03abc\0\0");
        // In pieces that have nothing to do with the frames.
        for piece in [b"\0".as_slice(), b"\x02h", b"i\0\0\0", b"\x01x"] {
            stream.write_all(piece).await.unwrap();
        }
        for expected in [b"hi".as_slice(), b"", b"x"] {
            let mut buffer = [0; 16];
            let n = socket.recv(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..n], expected);
        }
        drop(stream);
        assert_eq!(carrying.await.unwrap(), "ended");
    });
}

#[test]
fn the_largest_datagram_is_carried_whole_and_a_broken_stream_is_told() {
    run(async {
        let (mut stream, socket, carrying) = carried();
        let largest = vec![b'x'; 65_507];
        let (sent, read) = tokio::join!(socket.send(&largest), async {
            let mut frame = vec![0; 2 + largest.len()];
            stream.read_exact(&mut frame).await.map(|_| frame)
        });
        sent.unwrap();
        let frame = read.unwrap();
        assert_eq!(&frame[..2], 65_507_u16.to_be_bytes());
        assert!(frame[2..] == largest);
        // The end in the middle of a frame.
        stream.write_all(b"\0\x09half").await.unwrap();
        drop(stream);
        assert_eq!(carrying.await.unwrap(), "the stream broke");
    });
}

#[test]
fn the_other_end_of_a_pair_ends_the_session_when_it_goes() {
    run(async {
        let (first, one) = UnixDatagram::pair().unwrap();
        let (second, two) = UnixDatagram::pair().unwrap();
        let ends = RefCell::new(vec![two, one]);
        let next = move |_| Upstream::Pair(ends.borrow_mut().pop().expect("two sessions"));
        let (address, seen) = start_with("127.0.0.1:0", next, Options::default());
        let client = bind("127.0.0.1:0").await;
        let mut buffer = [0; 16];
        client.send_to(b"one", address).await.unwrap();
        let n = first.recv(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..n], b"one");
        first.send(b"answer").await.unwrap();
        let n = client.recv(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..n], b"answer");
        drop(first);
        seen.broken.notify_one();
        until("the session to end", || seen.ended.borrow().len() == 1).await;
        client.send_to(b"two", address).await.unwrap();
        let n = second.recv(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..n], b"two");
        assert_eq!(seen.opened.get(), 2);
    });
}
