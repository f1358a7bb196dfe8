use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, duplex};

use super::*;

fn options() -> Options {
    Options {
        buffer: 1024,
        idle: Some(Duration::from_secs(10)),
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_one_direction_leaves_the_other_open() {
    let (mut client, a) = duplex(64);
    let (mut server, b) = duplex(64);
    let copy = tokio::spawn(bidirectional(a, b, options()));
    client.write_all(b"request").await.unwrap();
    client.shutdown().await.unwrap();
    let mut got = String::new();
    server.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "request");
    server.write_all(b"late answer").await.unwrap();
    server.shutdown().await.unwrap();
    let mut got = String::new();
    client.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "late answer");
    let outcome = copy.await.unwrap();
    assert!(outcome.result.is_ok(), "{outcome:?}");
    assert_eq!((outcome.a_to_b, outcome.b_to_a), (7, 11));
    assert_eq!(outcome.first_end, Some(Side::A));
}

#[tokio::test(start_paused = true)]
async fn idleness_ends_a_copy_and_traffic_in_either_direction_prevents_it() {
    let (mut client, a) = duplex(64);
    let (mut server, b) = duplex(64);
    let copy = tokio::spawn(bidirectional(a, b, options()));
    let started = Instant::now();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(6)).await;
        server.write_all(b"x").await.unwrap();
        client.read_u8().await.unwrap();
    }
    let outcome = copy.await.unwrap();
    assert!(
        matches!(outcome.result, Err(CopyError::Idle(_))),
        "{outcome:?}"
    );
    assert_eq!(started.elapsed().as_secs(), 40);
    assert_eq!(outcome.b_to_a, 5);
}

#[tokio::test(start_paused = true)]
async fn no_idle_limit_means_none() {
    let (mut client, a) = duplex(64);
    let (mut server, b) = duplex(64);
    let unlimited = Options {
        idle: None,
        ..options()
    };
    let copy = tokio::spawn(bidirectional(a, b, unlimited));
    tokio::time::sleep(Duration::from_secs(100_000)).await;
    client.write_all(b"x").await.unwrap();
    assert_eq!(server.read_u8().await.unwrap(), b'x');
    copy.abort();
}

/// Fails as a socket does after a reset.
struct Reset {
    on_read: bool,
}

impl AsyncRead for Reset {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.on_read {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        } else {
            Poll::Pending
        }
    }
}

impl Stream for Reset {}

impl AsyncWrite for Reset {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_reset_is_blamed_on_the_side_it_came_from() {
    let (_client, a) = duplex(64);
    let e = bidirectional(a, Reset { on_read: true }, options()).await;
    assert!(
        matches!(e.result, Err(CopyError::Read { side: Side::B, .. })),
        "{e:?}"
    );

    let (_server, b) = duplex(64);
    let e = bidirectional(Reset { on_read: true }, b, options()).await;
    assert!(
        matches!(e.result, Err(CopyError::Read { side: Side::A, .. })),
        "{e:?}"
    );

    let (mut client, a) = duplex(64);
    client.write_all(b"x").await.unwrap();
    let e = bidirectional(a, Reset { on_read: false }, options()).await;
    assert!(
        matches!(e.result, Err(CopyError::Write { side: Side::B, .. })),
        "{e:?}"
    );
    assert_eq!(e.a_to_b, 0);
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_holds_its_sender_back() {
    let (client, a) = duplex(1 << 20);
    let (mut server, b) = duplex(16);
    let limits = Options {
        buffer: 100,
        idle: None,
    };
    let copy = tokio::spawn(bidirectional(a, b, limits));
    let (mut client_read, mut client_write) = tokio::io::split(client);
    client_write.write_all(&[7; 10_000]).await.unwrap();
    client_write.shutdown().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut got = vec![0; 16];
    server.read_exact(&mut got).await.unwrap();
    server.read_to_end(&mut got).await.unwrap();
    assert!(got.len() == 10_000 && got.iter().all(|&b| b == 7));
    drop(server);
    assert_eq!(client_read.read_to_end(&mut Vec::new()).await.unwrap(), 0);
    let outcome = copy.await.unwrap();
    assert_eq!((outcome.a_to_b, outcome.b_to_a), (10_000, 0));
}

#[test]
fn nothing_is_kept_once_the_other_side_took_it() {
    let mut direction = Direction::new(Side::A, 1024);
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let (mut near, mut from) = duplex(4096);
    let (mut to, mut far) = duplex(10);
    assert!(
        Pin::new(&mut near)
            .poll_write(&mut cx, &[1; 1000])
            .is_ready()
    );
    assert!(direction.poll(&mut cx, &mut from, &mut to).is_pending());
    assert_eq!(direction.kept.len(), 990, "what the writer did not take");
    let mut taken = 0;
    while taken < 1000 {
        let mut bytes = [0; 10];
        let mut buf = ReadBuf::new(&mut bytes);
        assert!(Pin::new(&mut far).poll_read(&mut cx, &mut buf).is_ready());
        taken += buf.filled().len();
        assert!(direction.poll(&mut cx, &mut from, &mut to).is_pending());
    }
    assert_eq!(direction.kept.capacity(), 0, "given back");
    assert_eq!(direction.moved, 1000);
}

#[tokio::test]
async fn megabytes_cross_real_sockets_unharmed_both_ways() {
    const SIZE: usize = 8 << 20;
    let ((client, a), (server, b)) = (pair().await, pair().await);
    let told = std::sync::Arc::new(std::sync::Mutex::new((0, 0)));
    let counted = std::sync::Arc::clone(&told);
    let copy = tokio::spawn(async move {
        let count = |there, back| {
            let mut told = counted.lock().unwrap();
            *told = (told.0 + there, told.1 + back);
        };
        bidirectional_counted(a, b, Options::default(), count).await
    });
    let pattern = |seed: u8| {
        (0..SIZE)
            .map(|i| (i as u8).wrapping_mul(31) ^ seed)
            .collect::<Vec<_>>()
    };
    let end = |stream: tokio::net::TcpStream, out: Vec<u8>| async move {
        let (mut read, mut write) = stream.into_split();
        let mut got = Vec::new();
        let send = async {
            write.write_all(&out).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let ((), n) = tokio::join!(send, read.read_to_end(&mut got));
        n.unwrap();
        got
    };
    let (got_back, got_there) = tokio::join!(end(client, pattern(1)), end(server, pattern(2)));
    assert!(got_there == pattern(1) && got_back == pattern(2));
    let outcome = copy.await.unwrap();
    assert!(outcome.result.is_ok(), "{outcome:?}");
    assert_eq!((outcome.a_to_b, outcome.b_to_a), (SIZE as u64, SIZE as u64));
    assert_eq!(*told.lock().unwrap(), (SIZE as u64, SIZE as u64));
}

/// What a direction does, driven by hand.
#[tokio::test]
async fn a_busy_direction_is_spliced_and_a_trickle_copied_again() {
    let ((mut client, mut a), (mut b, mut server)) = (pair().await, pair().await);
    let mut direction = Direction::new(Side::A, SCRATCH);
    let mut got = vec![0; 4 << 20];
    let (mut spliced, mut sent) = (0, 0);
    for size in [1 << 20, 1 << 20, 100, 100, 100, 100, 100, 100] {
        let data = vec![sent as u8; size];
        let write = client.write_all(&data);
        let pump = async {
            let read = server.read_exact(&mut got[..size]);
            tokio::pin!(read);
            poll_fn(|cx| {
                if let Poll::Ready(ended) = direction.poll(cx, &mut a, &mut b) {
                    panic!("ended: {ended:?}");
                }
                spliced += usize::from(matches!(direction.stage, Stage::Splicing(_)));
                read.as_mut().poll(cx)
            })
            .await
            .unwrap();
        };
        let (written, ()) = tokio::join!(write, pump);
        written.unwrap();
        sent += size;
        assert!(got[..size] == data);
    }
    assert!(spliced > 0);
    assert!(
        matches!(direction.stage, Stage::Copying),
        "{:?}",
        direction.stage
    );
    assert_eq!(direction.moved, sent as u64);
}

async fn pair() -> (tokio::net::TcpStream, tokio::net::TcpStream) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = tokio::net::TcpStream::connect(listener.local_addr().unwrap());
    let (near, far) = tokio::join!(near, listener.accept());
    (near.unwrap(), far.unwrap().0)
}
