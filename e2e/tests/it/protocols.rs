//! What each protocol allows comes through as it was meant, byte by byte where bytes matter.

mod bridge;
mod grpc;
mod grpc_web;
mod h1;
mod paths;
mod response;
mod websocket;

use std::time::Duration;

use testkit::raw::Raw;
use testkit::upstream::Step;

use crate::front::Front;

/// For anything that should happen at once, on a machine with much else to do.
const SOON: Duration = Duration::from_secs(20);

/// A head as text, with its last empty line.
#[track_caller]
fn head(raw: &mut Raw) -> String {
    match raw.read_until(b"\r\n\r\n", SOON) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(ended) => panic!("no head: {ended:?}; received {:?}", raw.received()),
    }
}

/// A connection on which a request was sent.
#[track_caller]
fn sent(front: &Front, request: &str) -> Raw {
    let mut raw = front.connect();
    raw.send(request).expect("the front reads");
    raw
}

/// The script of a server's first connection, over which the front is seen to serve: one answer,
/// so that the next request comes over the next connection.
fn ready() -> Vec<Step> {
    let answer = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nready";
    vec![Step::ReadRequest, Step::send(answer)]
}
