use std::future::poll_fn;
use std::pin::Pin;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap());
    let (near, far) = tokio::join!(near, listener.accept());
    (near.unwrap(), far.unwrap().0)
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|i| (i as u8).wrapping_mul(31) ^ (i >> 8) as u8)
        .collect()
}

fn out() -> usize {
    LIST.with_borrow(|list| list.out)
}

/// Polls once, within a runtime.
async fn turn(
    splice: &mut Splice,
    from: &TcpStream,
    to: &TcpStream,
) -> Poll<Result<Turn, SpliceError>> {
    poll_fn(|cx| Poll::Ready(splice.poll(cx, from, to))).await
}

#[tokio::test]
async fn exactly_the_bytes_asked_for_are_moved() {
    let ((mut client, from), (to, mut server)) = (pair().await, pair().await);
    let sent = pattern(3 << 20);
    let (body, rest) = sent.split_at((3 << 20) - 5);
    let write = async {
        client.write_all(&sent).await.unwrap();
        client
    };
    let read = async {
        let mut got = vec![0; body.len()];
        server.read_exact(&mut got).await.unwrap();
        got
    };
    let moved = splice_exact(&from, &to, body.len() as u64);
    let (_client, got, moved) = tokio::join!(write, read, moved);
    assert_eq!(moved.unwrap(), body.len() as u64);
    assert!(got == body);
    let (mut from, mut next) = (from, [0; 5]);
    from.read_exact(&mut next).await.unwrap();
    assert_eq!(next, rest, "what follows is still there to be read");
    assert_eq!(out(), 0, "the pipe was given back");
}

#[tokio::test]
async fn a_source_that_ends_early_is_told_by_the_count() {
    let ((mut client, from), (to, mut server)) = (pair().await, pair().await);
    client.write_all(b"abc").await.unwrap();
    drop(client);
    assert_eq!(splice_exact(&from, &to, 10).await.unwrap(), 3);
    let mut got = [0; 3];
    server.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"abc");
}

#[tokio::test]
async fn no_bytes_are_no_work() {
    let ((_client, from), (to, _server)) = (pair().await, pair().await);
    assert_eq!(splice_exact(&from, &to, 0).await.unwrap(), 0);
}

#[tokio::test]
async fn a_reader_that_stops_holds_the_sender_back_and_the_count_says_what_was_delivered() {
    let ((client, from), (to, mut server)) = (pair().await, pair().await);
    let mut splice = Splice::until_end();
    let chunk = vec![7; 1 << 20];
    let mut sent = 0;
    // Until neither the client's socket nor the splice takes any more.
    let mut quiet = 0;
    while quiet < 100 {
        let n = client.try_write(&chunk).unwrap_or(0);
        sent += n;
        let before = splice.moved();
        assert!(turn(&mut splice, &from, &to).await.is_pending());
        quiet = if n == 0 && splice.moved() == before {
            quiet + 1
        } else {
            0
        };
        tokio::task::yield_now().await;
    }
    assert!(out() <= 1);
    assert!((splice.moved() as usize) < sent, "something is still held");
    drop(client);
    let all = async {
        while !matches!(
            poll_fn(|cx| splice.poll(cx, &from, &to)).await.unwrap(),
            Turn::End
        ) {}
        drop(to);
    };
    let mut got = Vec::new();
    let ((), n) = tokio::join!(all, server.read_to_end(&mut got));
    n.unwrap();
    assert!(got.len() == sent && got.iter().all(|&b| b == 7));
    assert_eq!(splice.moved(), sent as u64);
    assert_eq!(out(), 0);
}

#[tokio::test]
async fn small_pieces_are_a_trickle() {
    let ((mut client, from), (to, mut server)) = (pair().await, pair().await);
    let mut splice = Splice::until_end();
    for _ in 0..TRICKLE {
        client.write_all(b"ping").await.unwrap();
        from.readable().await.unwrap();
        let turn = turn(&mut splice, &from, &to).await;
        assert!(!matches!(turn, Poll::Ready(Err(_))), "{turn:?}");
        let mut got = [0; 4];
        server.read_exact(&mut got).await.unwrap();
        if let Poll::Ready(Ok(end)) = turn {
            assert_eq!(end, Turn::Trickle);
            return;
        }
    }
    panic!("never told");
}

#[tokio::test]
async fn without_a_pipe_the_bytes_are_copied() {
    let all: Vec<_> = std::iter::from_fn(Pipe::take).collect();
    assert_eq!(all.len(), PIPES);
    let ((mut client, from), (to, mut server)) = (pair().await, pair().await);
    let sent = pattern(1 << 20);
    let write = async {
        client.write_all(&sent).await.unwrap();
        drop(client);
    };
    let read = async {
        let mut got = vec![0; sent.len()];
        server.read_exact(&mut got).await.unwrap();
        got
    };
    let ((), got, moved) = tokio::join!(write, read, splice_exact(&from, &to, u64::MAX));
    assert_eq!(moved.unwrap(), sent.len() as u64);
    assert!(got == sent);
    all.into_iter().for_each(Pipe::free);
    assert_eq!(out(), 0);
    assert_eq!(
        LIST.with_borrow(|list| list.free.len()),
        FREE,
        "no more are kept"
    );
}

#[tokio::test]
async fn a_failure_is_blamed_on_its_side() {
    let ((mut client, from), (to, server)) = (pair().await, pair().await);
    crate::socket::reset_on_close(&server).unwrap();
    drop(server);
    client.write_all(b"x").await.unwrap();
    let mut splice = Splice::until_end();
    let error = loop {
        match poll_fn(|cx| splice.poll(cx, &from, &to)).await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(error, SpliceError::Write(_)), "{error:?}");

    let ((client, from), (to, _server)) = (pair().await, pair().await);
    crate::socket::reset_on_close(&client).unwrap();
    drop(client);
    let mut splice = Splice::until_end();
    let error = poll_fn(|cx| Pin::new(&mut splice).poll(cx, &from, &to)).await;
    assert!(matches!(error, Err(SpliceError::Read(_))), "{error:?}");
}
