//! A server that plays a script on each connection: answers, stalls, resets, lies.
//!
//! ```
//! use testkit::raw::Raw;
//! use testkit::upstream::{Step, Upstream};
//!
//! // The first connection is reset in the middle of the response, later ones are answered.
//! let upstream = Upstream::start(|connection| match connection {
//!     0 => vec![Step::ReadRequest, Step::send("HTTP/1.1 200 OK\r\n"), Step::Reset],
//!     _ => Step::answer("hello"),
//! });
//! let mut client = Raw::connect(upstream.addr()).unwrap();
//! client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
//! assert!(client.response(std::time::Duration::from_secs(5)).is_err());
//! let mut client = Raw::connect(upstream.addr()).unwrap();
//! assert_eq!(client.get("a", "/").text(), "hello");
//! ```

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::SockRef;

/// One thing to do on a connection. When the script is at its end, the connection is closed; when a
/// step cannot be done because the peer left, the rest is not played.
#[derive(Debug, Clone)]
pub enum Step {
    /// Read until these bytes were seen.
    ReadUntil(Vec<u8>),
    /// Read this many bytes.
    ReadExact(usize),
    /// Read a request of HTTP/1 with its body (by content-length or chunked).
    ReadRequest,
    /// Read until the peer ends its side.
    ReadToEnd,
    /// Send these bytes.
    Send(Vec<u8>),
    /// Send these bytes one by one with a pause after each.
    SendSlowly(Vec<u8>, Duration),
    /// Send back what comes until the peer ends its side.
    Echo,
    /// Wait this long: for what takes time by its nature.
    Pause(Duration),
    /// Do nothing, reading nothing, until the upstream is dropped.
    Stall,
    /// Answer with 200, these fields, and the head of the last request as the body.
    Reflect(Vec<(String, String)>),
    /// End our side; the peer may go on sending.
    ShutWrite,
    /// End the connection with a reset.
    Reset,
    /// Begin the script again.
    Again,
}

impl Step {
    /// [`Step::Send`] of anything.
    pub fn send(bytes: impl AsRef<[u8]>) -> Self {
        Self::Send(bytes.as_ref().to_vec())
    }

    /// A script: every request is answered with 200 and this body, the connection kept alive.
    pub fn answer(body: &str) -> Vec<Self> {
        Self::answer_with(200, &[], body)
    }

    /// A script: every request is answered with these fields and its own head as the body, the
    /// connection kept alive.
    pub fn reflect(headers: &[(&str, &str)]) -> Vec<Self> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let headers = headers.iter().map(owned).collect();
        vec![Self::ReadRequest, Self::Reflect(headers), Self::Again]
    }

    /// A script: every request is answered so, the connection kept alive.
    pub fn answer_with(status: u16, headers: &[(&str, &str)], body: &str) -> Vec<Self> {
        use std::fmt::Write as _;
        let mut text = format!(
            "HTTP/1.1 {status} Scripted\r\ncontent-length: {}\r\n",
            body.len()
        );
        for (name, value) in headers {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        text.push_str("\r\n");
        text.push_str(body);
        vec![Self::ReadRequest, Self::send(text), Self::Again]
    }
}

/// A listening server; stops, with all its connections, when dropped.
pub struct Upstream {
    addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    stopping: AtomicBool,
    requests: AtomicUsize,
    connections: Mutex<Vec<Connection>>,
}

/// What came over a connection, and a hold on it while its script is played.
struct Connection {
    stream: Weak<TcpStream>,
    received: Arc<Mutex<Vec<u8>>>,
    open: Arc<AtomicBool>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Upstream {
    /// Listens on a free port of 127.0.0.1 and plays `script(n)` on the n-th connection, from 0.
    pub fn start(script: impl Fn(usize) -> Vec<Step> + Send + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port of the loopback");
        Self::on(listener, script)
    }

    /// As [`start`](Self::start), on a listener of the test's own.
    pub fn on(listener: TcpListener, script: impl Fn(usize) -> Vec<Step> + Send + 'static) -> Self {
        let addr = listener
            .local_addr()
            .expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            stopping: AtomicBool::new(false),
            requests: AtomicUsize::new(0),
            connections: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        let acceptor = thread::spawn(move || accept(&listener, &accepting, &script));
        Self {
            addr,
            shared,
            acceptor: Some(acceptor),
        }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The port where it listens.
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        locked(&self.shared.connections).len()
    }

    /// Connections whose script is still being played.
    pub fn open(&self) -> usize {
        locked(&self.shared.connections)
            .iter()
            .filter(|c| c.open.load(Ordering::Acquire))
            .count()
    }

    /// Requests read so far by [`Step::ReadRequest`].
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::Acquire)
    }

    /// Everything read so far on the n-th connection; empty when there is none.
    pub fn received(&self, connection: usize) -> Vec<u8> {
        locked(&self.shared.connections)
            .get(connection)
            .map(|c| locked(&c.received).clone())
            .unwrap_or_default()
    }

    /// [`received`](Self::received) as text.
    pub fn received_text(&self, connection: usize) -> String {
        String::from_utf8_lossy(&self.received(connection)).into_owned()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        // Wakes the acceptor.
        let woken = TcpStream::connect_timeout(&self.addr, Duration::from_secs(1)).is_ok();
        for connection in &*locked(&self.shared.connections) {
            if let Some(stream) = connection.stream.upgrade() {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        if let Some(acceptor) = self.acceptor.take()
            && woken
        {
            let _ = acceptor.join();
        }
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upstream({})", self.addr)
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>, script: &dyn Fn(usize) -> Vec<Step>) {
    for number in 0.. {
        let Ok((stream, _)) = listener.accept() else {
            return;
        };
        if shared.stopping.load(Ordering::Acquire) {
            return;
        }
        let _ = stream.set_nodelay(true);
        let stream = Arc::new(stream);
        let received = Arc::new(Mutex::default());
        let open = Arc::new(AtomicBool::new(true));
        locked(&shared.connections).push(Connection {
            stream: Arc::downgrade(&stream),
            received: Arc::clone(&received),
            open: Arc::clone(&open),
        });
        let mut player = Player {
            stream,
            received,
            pending: Vec::new(),
            head: Vec::new(),
            shared: Arc::clone(shared),
        };
        let steps = script(number);
        thread::spawn(move || {
            let ended = player.play(&steps);
            open.store(false, Ordering::Release);
            if ended == Ended::InOrder {
                player.close();
            }
        });
    }
}

#[derive(PartialEq, Eq)]
enum Ended {
    InOrder,
    ByReset,
}

struct Player {
    stream: Arc<TcpStream>,
    received: Arc<Mutex<Vec<u8>>>,
    /// Read and not yet asked for by a step.
    pending: Vec<u8>,
    /// Of the last request.
    head: Vec<u8>,
    shared: Arc<Shared>,
}

impl Player {
    fn play(&mut self, steps: &[Step]) -> Ended {
        loop {
            let mut again = false;
            for step in steps {
                match step {
                    Step::Again => {
                        again = true;
                        break;
                    }
                    Step::Reset => {
                        // A linger time of zero makes the close a reset.
                        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
                        return Ended::ByReset;
                    }
                    step => {
                        if self.step(step).is_none() {
                            return Ended::InOrder;
                        }
                    }
                }
            }
            if !again || self.shared.stopping.load(Ordering::Acquire) {
                return Ended::InOrder;
            }
        }
    }

    /// Closing with bytes unread would be a reset, which can overtake what was sent.
    fn close(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
        let _ = self.stream.set_read_timeout(Some(Duration::from_secs(1)));
        while self.fill().is_some() {}
    }

    /// `None` when the connection is at its end.
    fn step(&mut self, step: &Step) -> Option<()> {
        match step {
            Step::ReadUntil(pattern) => drop(self.until(pattern)?),
            Step::ReadExact(count) => drop(self.exactly(*count)?),
            Step::ReadRequest => {
                self.request()?;
                self.shared.requests.fetch_add(1, Ordering::AcqRel);
            }
            Step::ReadToEnd => while self.fill().is_some() {},
            Step::Send(bytes) => (&*self.stream).write_all(bytes).ok()?,
            Step::SendSlowly(bytes, pause) => {
                for byte in bytes {
                    (&*self.stream).write_all(&[*byte]).ok()?;
                    thread::sleep(*pause);
                }
            }
            Step::Echo => loop {
                let bytes = std::mem::take(&mut self.pending);
                (&*self.stream).write_all(&bytes).ok()?;
                if self.fill().is_none() {
                    break;
                }
            },
            Step::Pause(time) => thread::sleep(*time),
            Step::Stall => {
                while !self.shared.stopping.load(Ordering::Acquire) {
                    thread::sleep(Duration::from_millis(20));
                }
                return None;
            }
            Step::Reflect(headers) => {
                let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}", self.head.len());
                for (name, value) in headers {
                    answer.extend(["\r\n", name, ": ", value]);
                }
                answer.push_str("\r\n\r\n");
                let answer = [answer.as_bytes(), &self.head].concat();
                (&*self.stream).write_all(&answer).ok()?;
            }
            Step::ShutWrite => self.stream.shutdown(Shutdown::Write).ok()?,
            // Done by `play`, as they are about the script and not within it.
            Step::Reset | Step::Again => {}
        }
        Some(())
    }

    fn request(&mut self) -> Option<()> {
        self.head = self.until(b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&self.head).to_ascii_lowercase();
        let header = |name: &str| {
            head.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(str::trim)
        };
        if header("transfer-encoding") == Some("chunked") {
            loop {
                let line = self.until(b"\r\n")?;
                let line = String::from_utf8_lossy(&line).into_owned();
                let size = line.split(';').next().unwrap_or_default().trim();
                let size = usize::from_str_radix(size, 16).ok()?;
                if size == 0 {
                    while self.until(b"\r\n")? != b"\r\n" {}
                    return Some(());
                }
                self.exactly(size + 2)?;
            }
        }
        let length = header("content-length").and_then(|v| v.parse().ok());
        self.exactly(length.unwrap_or(0)).map(drop)
    }

    fn until(&mut self, pattern: &[u8]) -> Option<Vec<u8>> {
        loop {
            let found = self
                .pending
                .windows(pattern.len())
                .position(|w| w == pattern);
            if let Some(at) = found {
                return Some(self.pending.drain(..at + pattern.len()).collect());
            }
            self.fill()?;
        }
    }

    fn exactly(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.pending.len() < count {
            self.fill()?;
        }
        Some(self.pending.drain(..count).collect())
    }

    fn fill(&mut self) -> Option<()> {
        let mut bytes = [0; 16 * 1024];
        loop {
            match (&*self.stream).read(&mut bytes) {
                Ok(0) => return None,
                Ok(n) => {
                    self.pending.extend_from_slice(&bytes[..n]);
                    locked(&self.received).extend_from_slice(&bytes[..n]);
                    return Some(());
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw::{Ended, Raw};
    use crate::wait_for;

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn every_step_is_played() {
        let upstream = Upstream::start(|n| match n {
            0 => vec![
                Step::send("220 ready\r\n"),
                Step::ReadUntil(b"\r\n".to_vec()),
                Step::ShutWrite,
                Step::ReadToEnd,
            ],
            1 => vec![Step::ReadExact(2), Step::Reset],
            2 => vec![Step::Echo],
            3 => vec![Step::Stall],
            4 => vec![Step::SendSlowly(b"abc".to_vec(), Duration::from_millis(1))],
            6 => Step::reflect(&[("x-by", "six")]),
            _ => Step::answer_with(503, &[("x-why", "script")], "busy"),
        });
        let mut first = Raw::connect(upstream.addr()).unwrap();
        assert_eq!(first.read_until(b"\r\n", SOON).unwrap(), b"220 ready\r\n");
        first.send("EHLO a\r\nmore").unwrap();
        assert_eq!(first.read_to_end(SOON), (vec![], Ended::Closed));
        first.shut_write().unwrap();
        wait_for("all bytes", SOON, || {
            (upstream.received(0) == b"EHLO a\r\nmore").then_some(())
        });

        let mut second = Raw::connect(upstream.addr()).unwrap();
        second.send("xy").unwrap();
        assert_eq!(second.read_to_end(SOON).1, Ended::Reset);

        let mut third = Raw::connect(upstream.addr()).unwrap();
        third.send("echo").unwrap();
        third.shut_write().unwrap();
        assert_eq!(third.read_to_end(SOON), (b"echo".to_vec(), Ended::Closed));

        let mut fourth = Raw::connect(upstream.addr()).unwrap();
        let silent = fourth.read_exact(1, Duration::from_millis(50));
        assert_eq!(silent, Err(Ended::TimedOut));

        let mut fifth = Raw::connect(upstream.addr()).unwrap();
        assert_eq!(fifth.read_to_end(SOON).0, b"abc");

        let mut sixth = Raw::connect(upstream.addr()).unwrap();
        for _ in 0..3 {
            let response = sixth.get("a", "/");
            assert_eq!((response.status, response.text()), (503, "busy".to_owned()));
            assert_eq!(response.header("x-why"), Some("script"));
        }
        sixth
            .send("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
            .unwrap();
        assert_eq!(sixth.response(SOON).unwrap().status, 503);
        let mut seventh = Raw::connect(upstream.addr()).unwrap();
        let response = seventh.get("a", "/b");
        assert_eq!(response.text(), "GET /b HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(response.header("x-by"), Some("six"));
        assert_eq!((upstream.requests(), upstream.connections()), (5, 7));
        drop(upstream);
        assert_eq!(sixth.read_to_end(SOON).1, Ended::Closed);
    }

    #[test]
    fn responses_are_read_to_their_end_and_no_further() {
        let upstream = Upstream::start(|_| {
            vec![
                Step::send("HTTP/1.1 100 Continue\r\n\r\n"),
                Step::send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
                Step::send("5;x=y\r\nhello\r\n1\r\n!\r\n0\r\ntrailer: t\r\n\r\n"),
                Step::send("HTTP/1.0 204 No\r\n\r\nHTTP/1.1 200 OK\r\n\r\nto the end"),
            ]
        });
        let mut client = Raw::connect(upstream.addr()).unwrap();
        assert_eq!(client.response(SOON).unwrap().text(), "hello!");
        assert_eq!(client.response(SOON).unwrap().status, 204);
        assert_eq!(client.response(SOON).unwrap().text(), "to the end");
        assert_eq!(client.response(SOON), Err(Ended::Closed));
    }
}
