//! A long run: mixed traffic (HTTP/1.1, HTTP/2, gRPC, WebSocket, TCP) while the configuration
//! changes every second and servers come and go. No request may fail, and the proxy may not grow.
//!
//! Not part of a normal run: `make soak` (30 minutes), or by hand
//! `SOAK_SECONDS=60 cargo test --profile quick --workspace --test it -- --ignored soak --nocapture`.

mod world;

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use testkit::frames::{Connection, Frame, Outcome};
use testkit::raw::Raw;

use crate::front::Front;
use crate::grpc;
use world::World;

/// For an answer, on a machine with much else to do.
const SOON: Duration = Duration::from_secs(10);
/// Between two requests of one client: what is tested is time, not load.
const PAUSE: Duration = Duration::from_millis(3);

/// What all clients report to.
#[derive(Default)]
struct Tally {
    stop: AtomicBool,
    done: BTreeMap<&'static str, AtomicU64>,
    failures: Mutex<Vec<String>>,
}

impl Tally {
    fn new(kinds: &[&'static str]) -> Arc<Self> {
        Arc::new(Self {
            done: kinds
                .iter()
                .map(|kind| (*kind, AtomicU64::new(0)))
                .collect(),
            ..Self::default()
        })
    }

    fn going(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn note(&self, kind: &'static str, result: Result<(), String>) {
        if let Some(count) = self.done.get(kind) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if let Err(failure) = result {
            let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
            // The first ones say most.
            if failures.len() < 100 {
                failures.push(format!("{kind}: {failure}"));
            }
        }
    }
}

/// A client: calls `session` again and again; a session is one connection and some requests.
fn client(
    tally: &Arc<Tally>,
    kind: &'static str,
    mut session: impl FnMut(&Tally) -> Result<(), String> + Send + 'static,
) -> thread::JoinHandle<()> {
    let tally = Arc::clone(tally);
    thread::spawn(move || {
        while tally.going() {
            if let Err(failure) = session(&tally) {
                tally.note(kind, Err(failure));
                thread::sleep(Duration::from_millis(100));
            }
        }
    })
}

fn http1(world: &World, tally: &Tally) -> Result<(), String> {
    let mut raw = Raw::connect(world.http).map_err(|e| e.to_string())?;
    for n in 0..200 {
        let path = format!("/h1/{n}");
        let (request, wanted) = match n % 4 {
            0 => (
                format!(
                    "POST {path} HTTP/1.1\r\nHost: app.local\r\nContent-Length: 5\r\n\r\nhello"
                ),
                format!("POST {path}\nhello"),
            ),
            1 => (
                format!(
                    "PUT {path} HTTP/1.1\r\nHost: app.local\r\nTransfer-Encoding: chunked\r\n\r\n\
                     5\r\nhello\r\n0\r\n\r\n"
                ),
                format!("PUT {path}\nhello"),
            ),
            _ => (
                format!("GET {path} HTTP/1.1\r\nHost: app.local\r\n\r\n"),
                format!("GET {path}\n"),
            ),
        };
        raw.send(request).map_err(|e| format!("{path}: {e}"))?;
        let response = raw.response(SOON).map_err(|e| format!("{path}: {e:?}"))?;
        if response.status != 200 || response.text() != wanted {
            return Err(format!("{path}: {response:?}"));
        }
        tally.note("http1", Ok(()));
        if !tally.going() {
            break;
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

fn http2(world: &World, tally: &Tally) -> Result<(), String> {
    let raw = Raw::connect(world.http).map_err(|e| e.to_string())?;
    let mut connection = Connection::open(raw).map_err(|e| e.to_string())?;
    for n in 0..200u32 {
        let path = format!("/h2/{n}");
        let fields: &[(&[u8], &[u8])] = &[
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":authority", b"app.local"),
            (b":path", path.as_bytes()),
        ];
        let stream = 2 * n + 1;
        let frames = [
            Frame::headers(stream, false, fields),
            Frame::data(stream, true, "hello"),
        ];
        connection.send(&frames).map_err(|e| e.to_string())?;
        match connection.outcome(stream, SOON) {
            // The status may refer to an earlier block; the body says it all.
            Outcome::Answered(None | Some(200), body)
                if body == format!("POST {path}\nhello").into_bytes() => {}
            other => return Err(format!("{path}: {other:?}; {:?}", connection.log.last())),
        }
        connection.log.clear();
        tally.note("http2", Ok(()));
        if !tally.going() {
            break;
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

fn grpc_calls(world: &World, tally: &Tally) -> Result<(), String> {
    grpc::runtime().block_on(async {
        let mut client = grpc::client_at(world.grpc, "app.local").await?;
        for n in 0..200 {
            let text = n.to_string();
            let answer = grpc::unary(&mut client, "Unary", &text).await;
            match answer {
                Ok(answer) if answer == format!("hello {text}") => {}
                other => return Err(format!("call {n}: {other:?}")),
            }
            tally.note("grpc", Ok(()));
            if !tally.going() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    })
}

/// Bytes go and come back, in pieces of many sizes.
fn echoes(raw: &mut Raw, kind: &'static str, tally: &Tally) -> Result<(), String> {
    for n in 0..300usize {
        let piece = vec![n as u8; 1 + (n * 37) % 5000];
        raw.send(&piece).map_err(|e| format!("piece {n}: {e}"))?;
        let back = raw.read_exact(piece.len(), SOON);
        if back.as_ref() != Ok(&piece) {
            return Err(format!("piece {n}: {:?}", back.err()));
        }
        tally.note(kind, Ok(()));
        if !tally.going() {
            break;
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

fn websocket(world: &World, tally: &Tally) -> Result<(), String> {
    let mut raw = Raw::connect(world.websocket).map_err(|e| e.to_string())?;
    raw.send(
        "GET /ws HTTP/1.1\r\nHost: app.local\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    )
    .map_err(|e| e.to_string())?;
    let head = raw
        .read_until(b"\r\n\r\n", SOON)
        .map_err(|e| format!("{e:?}"))?;
    if !head.starts_with(b"HTTP/1.1 101") {
        return Err(String::from_utf8_lossy(&head).into_owned());
    }
    echoes(&mut raw, "websocket", tally)
}

fn tcp(world: &World, tally: &Tally) -> Result<(), String> {
    let mut raw = Raw::connect(world.tcp).map_err(|e| e.to_string())?;
    echoes(&mut raw, "tcp", tally)
}

/// The proxy at one moment.
#[derive(Debug, Clone, Copy)]
struct Sample {
    memory: usize,
    descriptors: usize,
    threads: usize,
}

impl Sample {
    fn of(front: &Front) -> Self {
        let tasks = fs::read_dir(format!("/proc/{}/task", front.process.pid()));
        Self {
            memory: front.memory(),
            descriptors: front.descriptors(),
            threads: tasks.map_or(0, Iterator::count),
        }
    }
}

/// The median of each, over these samples.
fn median(samples: &[Sample]) -> Sample {
    let middle = |of: fn(&Sample) -> usize| {
        let mut values: Vec<_> = samples.iter().map(of).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    Sample {
        memory: middle(|s| s.memory),
        descriptors: middle(|s| s.descriptors),
        threads: middle(|s| s.threads),
    }
}

#[test]
#[ignore = "runs for half an hour: make soak"]
fn mixed_traffic_while_everything_changes() {
    let seconds = std::env::var("SOAK_SECONDS");
    let seconds: u64 = seconds.ok().and_then(|s| s.parse().ok()).unwrap_or(60);
    let (mut world, front) = World::start();
    let tally = Tally::new(&["http1", "http2", "grpc", "websocket", "tcp"]);
    let shared = Arc::new(world.addresses());
    let mut clients = Vec::new();
    for (kind, run, count) in [
        (
            "http1",
            http1 as fn(&World, &Tally) -> Result<(), String>,
            4,
        ),
        ("http2", http2, 2),
        ("grpc", grpc_calls, 2),
        ("websocket", websocket, 2),
        ("tcp", tcp, 2),
    ] {
        for _ in 0..count {
            let shared = Arc::clone(&shared);
            clients.push(client(&tally, kind, move |tally| run(&shared, tally)));
        }
    }
    let begun = Instant::now();
    let mut samples = Vec::new();
    let mut next = begun;
    while begun.elapsed() < Duration::from_secs(seconds) {
        world.change();
        samples.push(Sample::of(&front));
        next += Duration::from_secs(1);
        thread::sleep(next.saturating_duration_since(Instant::now()));
        let failures = tally
            .failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= 100 {
            break;
        }
    }
    tally.stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().expect("no client panics");
    }
    // A sixth of the time to warm up, then the same span at the end.
    let span = (samples.len() / 6).max(1);
    let early = median(&samples[span..(2 * span).min(samples.len())]);
    let late = median(&samples[samples.len() - span..]);
    println!(
        "{} changes of configuration in {:.0?}",
        world.changes(),
        begun.elapsed()
    );
    for (kind, done) in &tally.done {
        println!("{kind:>10}: {} exchanges", done.load(Ordering::Relaxed));
    }
    println!("after warming up: {early:?}");
    println!("at the end:       {late:?}");
    let failures = tally
        .failures
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    for failure in failures.iter().take(20) {
        println!("failed: {failure}");
    }
    assert!(failures.is_empty(), "{} failed", failures.len());
    for (kind, done) in &tally.done {
        assert!(
            done.load(Ordering::Relaxed) > seconds * 20,
            "{kind} did next to nothing"
        );
    }
    // An allocator keeps some of what was needed once: a tenth and 2 MiB. Connections come and go.
    assert!(
        late.memory <= early.memory + early.memory / 10 + (2 << 10),
        "memory grew from {} to {} KiB",
        early.memory,
        late.memory
    );
    assert!(
        late.descriptors <= early.descriptors + 16,
        "descriptors: {early:?}, {late:?}"
    );
    assert!(
        late.threads <= early.threads,
        "threads: {early:?}, {late:?}"
    );
}
