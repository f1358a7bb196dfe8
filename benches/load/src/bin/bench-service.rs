//! A service of several endpoints, some of them bad: what `benches/resilience.py` sends requests to.
//!
//! `--port PORT --count 10 --time 20 --at-once 2 [--bad 1 --slow 1000 | --bad 1 --fail 50]`
//!
//! Endpoint `n` listens at `127.0.0.(n+1)`, works on so many requests at once, each for `time`
//! milliseconds, and lets others queue. The first `bad` of them take `slow` milliseconds longer, or
//! answer `fail` percent with 503. `GET /outage?ms=2000` on `127.0.0.200` has all answer 503 for so long,
//! `GET /counts` there says how many requests came.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bench::Arguments;

/// What all connections share.
struct Service {
    begun: Instant,
    time: Duration,
    /// Milliseconds since the beginning until which all answer 503.
    outage: AtomicU64,
    requests: AtomicU64,
}

/// One endpoint.
struct Endpoint {
    service: Arc<Service>,
    /// Places to work that are free.
    free: Mutex<u32>,
    changed: Condvar,
    slow: Duration,
    /// Of a hundred requests, how many fail.
    fail: u64,
    count: AtomicU64,
}

fn main() {
    let arguments = Arguments::of_process();
    let port: u16 = arguments.number("port", 29_190);
    let (count, bad): (u64, u64) = (arguments.number("count", 10), arguments.number("bad", 0));
    let milliseconds = |name| Duration::from_millis(arguments.number(name, 0));
    let service = Arc::new(Service {
        begun: Instant::now(),
        time: milliseconds("time"),
        outage: AtomicU64::new(0),
        requests: AtomicU64::new(0),
    });
    for n in 0..count {
        let is_bad = n < bad;
        let endpoint = Arc::new(Endpoint {
            service: Arc::clone(&service),
            free: Mutex::new(arguments.number("at-once", 2)),
            changed: Condvar::new(),
            slow: if is_bad {
                milliseconds("slow")
            } else {
                Duration::ZERO
            },
            fail: if is_bad {
                arguments.number("fail", 0)
            } else {
                0
            },
            count: AtomicU64::new(0),
        });
        listen(&format!("127.0.0.{}:{port}", n + 1), move |stream| {
            serve(stream, |_| endpoint.work());
        });
    }
    let command = Arc::clone(&service);
    listen(&format!("127.0.0.200:{port}"), move |stream| {
        serve(stream, |path| command.told(path));
    });
    loop {
        thread::park();
    }
}

/// A thread for each connection.
fn listen(address: &str, act: impl Fn(TcpStream) + Send + Sync + 'static) {
    let listener = TcpListener::bind(address).expect("a free address");
    let act = Arc::new(act);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let act = Arc::clone(&act);
            let builder = thread::Builder::new().stack_size(128 << 10);
            // Without a thread the connection is closed, which the load reports.
            let _ = builder.spawn(move || act(stream));
        }
    });
}

/// Answers requests without bodies, one after the other.
fn serve(mut stream: TcpStream, answer: impl Fn(&str) -> (u16, String)) {
    let _ = stream.set_nodelay(true);
    let mut pending = Vec::new();
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        pending.extend_from_slice(&bytes[..count]);
        while let Some(end) = pending.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&pending[..end]).into_owned();
            let path = head.split(' ').nth(1).unwrap_or("/");
            let (status, body) = answer(path);
            let length = body.len();
            let text = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n{body}");
            if stream.write_all(text.as_bytes()).is_err() {
                return;
            }
            pending.drain(..end + 4);
        }
    }
}

impl Service {
    fn now(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    fn told(&self, path: &str) -> (u16, String) {
        if let Some((_, ms)) = path.split_once("ms=") {
            let until = self.now() + ms.parse::<u64>().unwrap_or(0);
            self.outage.store(until, Ordering::Relaxed);
        }
        (200, self.requests.load(Ordering::Relaxed).to_string())
    }
}

impl Endpoint {
    fn work(&self) -> (u16, String) {
        let service = &*self.service;
        service.requests.fetch_add(1, Ordering::Relaxed);
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        if service.now() < service.outage.load(Ordering::Relaxed) {
            return (503, String::new());
        }
        // Evenly mixed: of any hundred in a row so many.
        if number * 37 % 100 < self.fail {
            return (503, String::new());
        }
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free == 0 {
            free = self
                .changed
                .wait(free)
                .unwrap_or_else(PoisonError::into_inner);
        }
        *free -= 1;
        drop(free);
        thread::sleep(service.time + self.slow);
        *self.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_one();
        (200, "x".to_owned())
    }
}
