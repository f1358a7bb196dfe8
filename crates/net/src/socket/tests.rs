use std::net::Ipv4Addr;

use super::*;

fn loopback() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

#[test]
fn two_listeners_share_a_port_when_asked_to() {
    let options = ListenOptions::default();
    let first = listen(loopback(), &options).unwrap();
    let address = first.local_addr().unwrap();
    listen(address, &options).expect("SO_REUSEPORT lets the second in");
    let alone = ListenOptions {
        reuse_port: false,
        ..options
    };
    let e = listen(address, &alone).expect_err("without it the port is taken");
    assert_eq!(e.kind(), io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn a_dual_stack_listener_takes_ipv4() {
    let options = ListenOptions {
        dual_stack: true,
        ..ListenOptions::default()
    };
    let listener = listen("[::]:0".parse().unwrap(), &options).unwrap();
    let port = listener.local_addr().unwrap().port();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let target = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let client = connect(target, &ConnectOptions::default()).await.unwrap();
    let (server, peer) = listener.accept().await.unwrap();
    assert_eq!(canonical(peer), client.local_addr().unwrap());
    assert_eq!(original_destination(&server), None);
}

#[tokio::test]
async fn a_closed_port_is_refused_and_says_where() {
    let listener = listen(loopback(), &ListenOptions::default()).unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let e = connect(address, &ConnectOptions::default())
        .await
        .unwrap_err();
    assert!(
        matches!(e, ConnectError::Refused(a) if a == address),
        "{e:?}"
    );
    assert!(e.to_string().contains(&address.to_string()), "{e}");
}

#[tokio::test]
async fn a_listener_whose_queue_is_full_times_out() {
    let options = ListenOptions {
        backlog: 0,
        ..ListenOptions::default()
    };
    let listener = listen(loopback(), &options).unwrap();
    let address = listener.local_addr().unwrap();
    let options = ConnectOptions {
        timeout: Duration::from_millis(100),
        ..ConnectOptions::default()
    };
    let mut open = Vec::new();
    for _ in 0..10 {
        match connect(address, &options).await {
            Ok(stream) => open.push(stream),
            Err(e) => return assert!(matches!(e, ConnectError::Timeout(..)), "{e:?}"),
        }
    }
    panic!("a queue of length 0 took {} connections", open.len());
}

#[tokio::test]
async fn a_connection_has_the_options_asked_for() {
    let listener = listen(loopback(), &ListenOptions::default()).unwrap();
    let options = ConnectOptions {
        user_timeout: Some(Duration::from_millis(1500)),
        source: Some(Ipv4Addr::new(127, 0, 0, 9).into()),
        ..ConnectOptions::default()
    };
    let stream = connect(listener.local_addr().unwrap(), &options)
        .await
        .unwrap();
    let socket = SockRef::from(&stream);
    assert!(socket.tcp_nodelay().unwrap());
    assert!(socket.keepalive().unwrap());
    assert_eq!(
        socket.tcp_user_timeout().unwrap(),
        Some(Duration::from_millis(1500))
    );
    assert_eq!(stream.local_addr().unwrap().ip(), options.source.unwrap());
}

#[tokio::test]
async fn the_peer_of_a_unix_socket_has_our_uid() {
    let (a, _b) = UnixStream::pair().unwrap();
    assert_eq!(peer_uid(&a).unwrap(), nix::unistd::getuid().as_raw());
}
