//! HTTP/2 connections that several requests wait for; connections that are kept apart.

use std::pin::pin;
use std::task::Poll;

use futures_util::poll;
use model::Reason;
use model::traffic::ProxyVersion;
use policy::Effective;
use tokio::net::TcpListener;

use super::*;
use crate::connect;
use crate::destination::Candidate;
use crate::http2::client::MOST;
use crate::outbound::tests::{destination, run};
use crate::pending::{self, Room};
use crate::worker::Worker;

/// Something to connect to.
async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Where connections to an endpoint on this port of the loopback are kept, and what making one needs.
fn home(worker: &Rc<Worker>, port: u16) -> (Home, Arc<Endpoint>, Effective) {
    let destination = destination(&[port], None, Vec::new());
    let view = destination.view();
    let at = view.port(80).unwrap();
    let endpoint = Arc::clone(&at.endpoints[0].endpoint);
    let home = worker.pool.home(&endpoint, port, None, None);
    (home, endpoint, at.policy.clone())
}

#[test]
fn requests_that_begin_together_share_one_connection() {
    run(async |worker| {
        let (_listener, port) = listener().await;
        let (home, endpoint, policy) = home(&worker, port);
        let connect = || connect::http2(&worker, &endpoint, port, &policy, &home);
        let (first, second) = tokio::join!(connect(), connect());
        let (first, second) = (first.unwrap(), second.unwrap());
        assert!(Rc::ptr_eq(&first.link, &second.link));
        let third = home.http2().expect("it has room");
        assert!(Rc::ptr_eq(&first.link, &third.link));
    });
}

#[test]
fn a_request_that_goes_away_takes_no_connection_from_those_who_wait_for_it_too() {
    run(async |worker| {
        let (_listener, port) = listener().await;
        let (home, endpoint, policy) = home(&worker, port);
        let connect = || connect::http2(&worker, &endpoint, port, &policy, &home);
        let mut second = pin!(connect());
        {
            let mut first = pin!(connect());
            assert!(poll!(&mut first).is_pending());
            assert!(poll!(&mut second).is_pending());
        }
        assert!(second.await.is_ok());
    });
}

#[test]
fn a_connection_has_no_more_streams_than_its_window_is_made_for() {
    run(async |worker| {
        let (_listener, port) = listener().await;
        let (home, endpoint, policy) = home(&worker, port);
        let connecting = connect::http2(&worker, &endpoint, port, &policy, &home);
        let handle = connecting.await.unwrap();
        let mut streams = vec![handle];
        while let Some(handle) = home.http2() {
            streams.push(handle);
        }
        assert_eq!(streams.len(), MOST);
    });
}

/// A new connection, if there may be one more.
async fn connected(
    worker: &Rc<Worker>,
    endpoint: &Arc<Endpoint>,
    port: u16,
    policy: &Effective,
    home: &Home,
) -> Result<Box<Conn>, Failure> {
    let slot = connect::reserve(worker, endpoint, policy)?;
    connect::http1(worker, endpoint, port, policy, home, slot).await
}

#[test]
fn requests_wait_for_a_connection_in_their_order_and_not_too_many() {
    run(async |worker| {
        let (_listener, port) = listener().await;
        let (home, endpoint, mut policy) = home(&worker, port);
        (policy.max_connections, policy.max_pending) = (1, 2);
        let only = connected(&worker, &endpoint, port, &policy, &home).await;
        let mut only = Some(only.unwrap());
        let wait = || pending::wait(&worker, &endpoint, &policy, &home);
        let (mut first, mut second) = (pin!(wait()), pin!(wait()));
        assert!(poll!(first.as_mut()).is_pending());
        assert!(poll!(second.as_mut()).is_pending());
        let failure = wait().await.err().expect("no third one waits");
        assert_eq!(failure.reason, Reason::CircuitOpen);
        Home::give_back(only.take().unwrap());
        let turn = poll!(second.as_mut()).is_pending();
        assert!(turn, "the first to come is the first to go");
        let Poll::Ready(Ok(Room::Kept(conn))) = poll!(first.as_mut()) else {
            panic!("the connection that was given back");
        };
        drop(conn);
        let Poll::Ready(Ok(Room::New(_))) = poll!(second.as_mut()) else {
            panic!("room for another, where one was closed");
        };
        // One that goes away leaves its turn to the next.
        let slot = connect::reserve(&worker, &endpoint, &policy).unwrap();
        let (mut third, mut fourth) = (Box::pin(wait()), Box::pin(wait()));
        assert!(poll!(third.as_mut()).is_pending());
        assert!(poll!(fourth.as_mut()).is_pending());
        drop(slot);
        drop(third);
        assert!(poll!(fourth.as_mut()).is_ready());
    });
}

#[test]
fn what_is_kept_apart_has_its_place_while_it_is_lent_out() {
    run(async |worker| {
        let (_listener, port) = listener().await;
        let (_, endpoint, policy) = home(&worker, port);
        let client = Client {
            address: ([192, 0, 2, 7], 4711).into(),
            local: None,
        };
        let behalf = Behalf::of(Some(ProxyVersion::V1), client, None);
        let home = worker.pool.home(&endpoint, port, None, behalf);
        let connecting = connected(&worker, &endpoint, port, &policy, &home);
        let lent = connecting.await.unwrap();
        worker.pool.sweep();
        Home::give_back(lent);
        assert!(home.http1().is_some());
        drop(home);
        worker.pool.sweep();
        assert!(worker.pool.apart.borrow().is_empty());
    });
}

#[test]
fn kept_connections_make_room_and_an_endpoint_always_gets_its_first() {
    run(async |worker| {
        let ((_one, one), (_two, two)) = (listener().await, listener().await);
        let destination = destination(&[one, two], None, Vec::new());
        let view = destination.view();
        let at = view.port(80).unwrap();
        let mut policy = at.policy.clone();
        policy.max_connections = 2;
        let connect = async |which: usize| {
            let Candidate { endpoint, port, .. } = &at.endpoints[which];
            let home = worker.pool.home(endpoint, *port, None, None);
            connected(&worker, endpoint, *port, &policy, &home).await
        };
        let live = &at.endpoints[0].endpoint.live;
        let (a, b) = (connect(0).await.unwrap(), connect(0).await.unwrap());
        Home::give_back(a);
        Home::give_back(b);
        // One of the two makes room, and then the other.
        let (c, d) = (connect(1).await.unwrap(), connect(1).await.unwrap());
        assert!(live.connections.is_full(2) && !live.connections.is_full(3));
        assert!(connect(1).await.is_err(), "all are in use");
        let first = connect(0).await.unwrap();
        assert!(live.connections.is_full(3));
        Home::give_back(c);
        Home::give_back(d);
        // Two have to go before there is room again.
        let second = connect(0).await.unwrap();
        assert!(live.connections.is_full(2) && !live.connections.is_full(3));
        drop((first, second));
    });
}

#[test]
fn connections_that_another_worker_keeps_are_in_nobodys_way() {
    run(async |worker| {
        let (_listener, port) = listener().await;
        let destination = destination(&[port], None, Vec::new());
        let view = destination.view();
        let at = view.port(80).unwrap();
        let mut policy = at.policy.clone();
        policy.max_connections = 2;
        let other = Rc::new(Worker::new(Arc::clone(&worker.shared)));
        let endpoint = &at.endpoints[0].endpoint;
        let connect = async |worker: &Rc<Worker>| {
            let home = worker.pool.home(endpoint, port, None, None);
            connected(worker, endpoint, port, &policy, &home).await
        };
        let kept = [
            connect(&worker).await.unwrap(),
            connect(&worker).await.unwrap(),
        ];
        for conn in kept {
            Home::give_back(conn);
        }
        let (a, b) = (
            connect(&other).await.unwrap(),
            connect(&other).await.unwrap(),
        );
        assert!(connect(&other).await.is_err(), "two are in use");
        // Back to the limit, as soon as each worker looks at what it keeps.
        Home::give_back(a);
        worker.pool.sweep();
        assert!(endpoint.live.connections.is_full(2) && !endpoint.live.connections.is_full(3));
        drop(b);
    });
}
