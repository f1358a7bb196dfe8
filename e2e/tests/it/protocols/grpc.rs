//! gRPC through a Gateway: statuses, details, deadlines and streams are the server's own.

use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use tonic::Code;

use crate::front::{Front, Kind, Setup};
use crate::grpc::{Echo, client_at, runtime, serve, unary};

pub(super) fn front() -> Option<Front> {
    // The others are set up for HTTP/1 towards their back ends.
    if !Kind::chosen().is_ours() {
        return None;
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let addr = listener.local_addr().expect("bound");
    serve(listener, Echo("it"));
    let setup = Setup {
        protocol: "kubernetes.io/h2c",
        ..Setup::default()
    };
    // A gRPC server answers a plain GET, but not with 200.
    Some(Front::with_ready(addr, &setup, |raw| {
        raw.read_until(b"HTTP/1.1 ", super::SOON).is_ok()
    }))
}

#[test]
fn calls_and_their_failures_pass_as_they_are() {
    let Some(front) = front() else { return };
    runtime().block_on(async {
        let mut client = client_at(front.addr, "app.local").await.unwrap();
        for n in 0..50 {
            let answer = unary(&mut client, "Unary", &n.to_string()).await;
            assert_eq!(answer.unwrap(), format!("hello {n}"));
        }
        let failed = unary(&mut client, "Fail", "").await.unwrap_err();
        assert_eq!(
            (failed.code(), failed.message()),
            (Code::FailedPrecondition, "not now: ä")
        );
        let late = unary(&mut client, "FailLate", "").await.unwrap_err();
        assert_eq!(late.code(), Code::ResourceExhausted, "{late:?}");
        let missing = unary(&mut client, "Nothing", "").await.unwrap_err();
        assert_eq!(missing.code(), Code::Unimplemented);
        assert_eq!(unary(&mut client, "Who", "").await.unwrap(), "it");
    });
}

#[test]
fn a_deadline_ends_the_call_and_not_the_connection() {
    let Some(front) = front() else { return };
    runtime().block_on(async {
        let mut client = client_at(front.addr, "app.local").await.unwrap();
        for _ in 0..20 {
            let begun = Instant::now();
            let slow =
                tokio::time::timeout(Duration::from_millis(30), unary(&mut client, "Slow", ""));
            assert!(slow.await.is_err(), "it takes 30 s");
            assert!(begun.elapsed() < Duration::from_secs(5));
        }
        // What was given up holds nothing back.
        assert_eq!(unary(&mut client, "Who", "").await.unwrap(), "it");
    });
}
