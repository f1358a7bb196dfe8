//! What must hold of the HTTP/2 server's side for any bytes at all: no panic, and an end soon after
//! the client's. Used by the fuzz targets and by the test that replays their corpus.

use std::cell::Cell;
use std::future::poll_fn;
use std::net::Ipv4Addr;
use std::rc::{Rc, Weak};
use std::sync::Once;
use std::time::Duration;

use telemetry::Direction;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::LocalSet;
use wire::{Fields, Method, RequestHead};

use crate::http::body::Frame;
use crate::http::{self, Reply, Request, Service};
use crate::inbound::{Hbone, Mux};
use crate::pool::Wire;
use crate::record::{Caller, Exchange};
use crate::worker::{Worker, alone};

#[cfg(test)]
#[path = "../../../fuzz/checks/replay.rs"]
mod replay;

/// For what ends at once.
const SOON: Duration = Duration::from_secs(20);

/// Frames of a client whose requests are answered and whose tunnels are echoed.
pub fn http2(bytes: &[u8]) {
    run(bytes, |worker, alive| Echo {
        worker: Rc::clone(worker),
        caller: caller(),
        _alive: alive,
    });
}

/// Frames of a peer that opens tunnels to the application, of which nothing is known yet; of both
/// makes.
pub fn hbone(bytes: &[u8]) {
    run(bytes, |worker, _| Hbone {
        worker: Rc::clone(worker),
        caller: Rc::new(caller()),
    });
    run(bytes, |worker, _| Mux {
        worker: Rc::clone(worker),
        caller: Rc::new(caller()),
    });
}

fn caller() -> Caller {
    Caller::at(([127, 0, 0, 1], 1).into())
}

/// Reads bodies to their end, and sends back what comes through tunnels.
struct Echo {
    worker: Rc<Worker>,
    caller: Caller,
    _alive: Rc<()>,
}

impl Service for Echo {
    fn begin(&self, head: RequestHead) -> Exchange {
        Exchange::begin(&self.worker, Direction::Inbound, &self.caller, head)
    }

    async fn call(&self, mut exchange: Exchange, mut request: Request) -> Reply {
        exchange.reply(200);
        if exchange.head().method == Method::CONNECT {
            return Reply::own(200, Fields::new(), "").then(Box::new(|client| {
                Box::pin(async move {
                    let (mut from, mut to) = tokio::io::split(client);
                    // Whatever the client does is its own affair.
                    drop(tokio::io::copy(&mut from, &mut to).await);
                    drop(to.shutdown().await);
                })
            }));
        }
        let mut size = 0;
        while let Some(Ok(frame)) = poll_fn(|cx| request.body.poll_frame(cx)).await {
            match frame {
                Frame::Data(data) => size += data.len(),
                Frame::Trailers(fields) => size += fields.len(),
            }
        }
        Reply::own(200, Fields::new(), format!("{size}"))
    }
}

thread_local! {
    static BENCH: (Runtime, Rc<Worker>) = {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let worker = runtime.block_on(async { alone::worker() });
        (runtime, worker)
    };
}

fn run<S: Service>(bytes: &[u8], service: impl FnOnce(&Rc<Worker>, Rc<()>) -> S) {
    watch_panics();
    BENCH.with(|(runtime, worker)| {
        let local = LocalSet::new();
        let connection = connection(bytes, worker, service);
        let ended = local.block_on(runtime, async {
            tokio::time::timeout(SOON, connection).await
        });
        assert!(
            ended.is_ok(),
            "neither the server nor its streams have ended"
        );
    });
    // A panic in a stream's task is the task's alone.
    assert!(!PANICKED.get(), "a task has panicked");
}

async fn connection<S: Service>(
    bytes: &[u8],
    worker: &Rc<Worker>,
    service: impl FnOnce(&Rc<Worker>, Rc<()>) -> S,
) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.expect("a port of the loopback");
    let address = listener.local_addr().expect("bound");
    let client = TcpStream::connect(address).await.expect("it listens");
    let (server, _) = listener.accept().await.expect("a connection");
    let alive = Rc::new(());
    let streams: Weak<()> = Rc::downgrade(&alive);
    let service = service(worker, alive);
    let bounds = worker.bounds();
    let serving = http::serve(worker, server.into(), Wire::Http2, &bounds, service);
    let (mut read, mut write) = client.into_split();
    let speaking = async {
        // The server may have had enough before the end.
        drop(write.write_all(net::detect::H2_PREFACE).await);
        drop(write.write_all(bytes).await);
        drop(write.shutdown().await);
    };
    let listening = async {
        let mut said = Vec::new();
        drop(read.read_to_end(&mut said).await);
        assert_frames(&said);
    };
    tokio::join!(serving, speaking, listening);
    while streams.strong_count() > 0 {
        tokio::task::yield_now().await;
    }
}

/// Whole frames, apart from one that the end of the connection may have cut off.
fn assert_frames(mut said: &[u8]) {
    while let Some((head, rest)) = said.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        assert!(length <= 1 << 14, "a frame of {length} bytes");
        assert!(head[3] <= 9, "a frame of kind {}", head[3]);
        said = rest.get(length..).unwrap_or_default();
    }
}

thread_local! {
    /// Tasks and what drives them run on one thread.
    static PANICKED: Cell<bool> = const { Cell::new(false) };
}

fn watch_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICKED.set(true);
            before(info);
        }));
    });
    PANICKED.set(false);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use testkit::frames::{Frame, block};

    use super::replay;

    #[test]
    fn the_kept_inputs_for_http_2_end_well() {
        replay::replay("http2_frames", super::http2);
    }

    #[test]
    fn the_kept_inputs_for_hbone_end_well() {
        replay::replay("hbone", super::hbone);
    }

    /// Frames that are near enough to right to get far.
    fn frame() -> impl Strategy<Value = Vec<u8>> {
        let stream = prop_oneof![4 => 0..8u32, 1 => any::<u32>()];
        let head = (0..4usize, 0..4usize, any::<bool>()).prop_map(|(method, path, more)| {
            let methods: [&[u8]; 4] = [b"GET", b"POST", b"CONNECT", b"OPTIONS"];
            let paths: [&[u8]; 4] = [b"/", b"*", b"/a?b", b""];
            let mut fields: Vec<(&[u8], &[u8])> = vec![
                (b":method", methods[method]),
                (b":scheme", b"http"),
                (b":authority", b"a:80"),
                (b":path", paths[path]),
            ];
            if methods[method] == b"CONNECT" && !more {
                fields.drain(1..2);
                fields.pop();
                fields.push((b"x-tulle-form", b"tulle-h1"));
            } else if more {
                fields.insert(0, (b":protocol", b"websocket"));
            }
            block(&fields)
        });
        let payload = prop_oneof![
            3 => head,
            1 => proptest::collection::vec(any::<u8>(), 0..40),
            1 => any::<u32>().prop_map(|n| n.to_be_bytes().to_vec()),
        ];
        (0..11u8, any::<u8>(), stream, payload).prop_map(|(kind, flags, stream, payload)| {
            Frame::new(kind, flags, stream, payload).encode()
        })
    }

    proptest! {
        #[test]
        fn no_frames_make_a_server_panic_or_hang(frames in proptest::collection::vec(frame(), 0..12)) {
            super::http2(&frames.concat());
            super::hbone(&frames.concat());
        }
    }
}
