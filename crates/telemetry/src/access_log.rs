//! Access log: one JSON object a line, keys stable, written by a thread of its own.
//!
//! [`Log::write`] formats the line into a bounded buffer of the calling thread, and a writer takes
//! what has gathered there ten times a second: nobody is woken for a single line. So lines of
//! different threads stand in batches; `time` orders them. When the reader of
//! stdout or the disk is too slow, lines are dropped and counted, never waited for. Secrets stay out: paths
//! are logged without query, authorities without user information, no header but `user-agent`.
//! Texts that a client chooses are cut at [`MAX_TEXT`] bytes.

mod line;
mod rotation;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use model::Reason;

use crate::Direction;
use rotation::Rotating;

/// Bytes kept of a text that a client chooses.
pub const MAX_TEXT: usize = 2048;

/// Lines of a thread that may wait for the writer.
const QUEUE: usize = 8192;
/// Places where lines wait.
const SHARDS: usize = 8;
/// How long a line waits for others before it is written.
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes of a thread that are written without waiting for more.
const URGENT: usize = 256 * 1024;

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to, created if need be. At 64 MiB it becomes `NAME.1` and a new one begins.
    File(PathBuf),
}

/// One request or connection. Empty texts and `None` are written as they are, so that every line
/// has every key.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// When it arrived.
    pub time: SystemTime,
    /// Its trace.
    pub trace_id: Option<[u8; 16]>,
    /// The proxy's span in it.
    pub span_id: Option<[u8; 8]>,
    /// `x-request-id`.
    pub request_id: &'a str,
    /// Which way it went.
    pub direction: Direction,
    /// HTTP method; empty for TCP.
    pub method: &'a str,
    /// Host asked for; user information is cut off here.
    pub authority: &'a str,
    /// Path; a query is cut off here.
    pub path: &'a str,
    /// `http/1.1`, `http/2`, `grpc`, `tcp`, ...
    pub protocol: &'a str,
    /// Status of the response; 0 for TCP or when none was sent.
    pub status: u16,
    /// `grpc-status` of the response.
    pub grpc_status: Option<u8>,
    /// Why the proxy failed it, if it did.
    pub reason: Option<Reason>,
    /// More about that.
    pub details: &'a str,
    /// From arrival to the end of the response.
    pub duration: Duration,
    /// From sending upstream to the response's headers.
    pub upstream_duration: Option<Duration>,
    /// Body bytes received from the client.
    pub request_bytes: u64,
    /// Body bytes sent to the client.
    pub response_bytes: u64,
    /// Name of the calling workload's app.
    pub source: &'a str,
    /// SPIFFE ID of the caller.
    pub source_principal: &'a str,
    /// Address of the caller.
    pub source_address: Option<SocketAddr>,
    /// Host of the service.
    pub destination: &'a str,
    /// Workload that answered.
    pub destination_workload: &'a str,
    /// Its version.
    pub destination_version: &'a str,
    /// SPIFFE ID of the workload that answered.
    pub destination_principal: &'a str,
    /// Route that matched.
    pub route: &'a str,
    /// Where it was sent.
    pub upstream_address: Option<SocketAddr>,
    /// Tries made.
    pub attempts: u32,
    /// Whether the hop was mutual TLS.
    pub mtls: bool,
    /// Key exchange of that hop, such as `X25519MLKEM768`.
    pub tls_group: &'a str,
    /// `user-agent` of the request.
    pub user_agent: &'a str,
}

impl Entry<'_> {
    /// An entry with nothing in it yet.
    pub fn at(time: SystemTime, direction: Direction) -> Self {
        Self {
            time,
            trace_id: None,
            span_id: None,
            request_id: "",
            direction,
            method: "",
            authority: "",
            path: "",
            protocol: "",
            status: 0,
            grpc_status: None,
            reason: None,
            details: "",
            duration: Duration::ZERO,
            upstream_duration: None,
            request_bytes: 0,
            response_bytes: 0,
            source: "",
            source_principal: "",
            source_address: None,
            destination: "",
            destination_workload: "",
            destination_version: "",
            destination_principal: "",
            route: "",
            upstream_address: None,
            attempts: 0,
            mtls: false,
            tls_group: "",
            user_agent: "",
        }
    }
}

/// Where a thread's lines wait for the writer.
#[derive(Default)]
struct Shard {
    text: Vec<u8>,
    lines: usize,
}

/// What the writer waits for.
#[derive(Default)]
struct Signal {
    /// Lines have come since it last looked.
    lines: bool,
    /// It should not wait for more to come.
    urgent: bool,
    /// Flushes asked for, and done.
    asked: u64,
    done: u64,
    closed: bool,
}

struct Shared {
    shards: [Mutex<Shard>; SHARDS],
    /// Most lines of a shard.
    room: usize,
    /// Whether the writer knows that there are lines.
    told: AtomicBool,
    signal: Mutex<Signal>,
    changed: Condvar,
    dropped: AtomicU64,
}

/// The way to the writer; cheap to clone. The thread ends when the last clone is gone.
#[derive(Clone)]
pub struct Log(Arc<Handle>);

struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.signal(|signal| signal.closed = true);
    }
}

impl Log {
    /// Starts a writer to `target`. Fails if the file cannot be opened or no thread started.
    pub fn to(target: Target) -> io::Result<Self> {
        match target {
            Target::Stdout => Self::to_writer(io::stdout(), QUEUE),
            Target::Stderr => Self::to_writer(io::stderr(), QUEUE),
            Target::File(path) => Self::to_writer(Rotating::open(path, rotation::LIMIT)?, QUEUE),
        }
    }

    /// Starts a writer to anything, with room for `queue` lines of each thread.
    pub fn to_writer(writer: impl Write + Send + 'static, queue: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            shards: Default::default(),
            room: queue,
            told: AtomicBool::new(false),
            signal: Mutex::default(),
            changed: Condvar::new(),
            dropped: AtomicU64::new(0),
        });
        let own = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || own.drain(writer))?;
        Ok(Self(Arc::new(Handle(shared))))
    }

    /// Puts a line where the writer finds it; never waits for it.
    pub fn write(&self, entry: &Entry<'_>) {
        let shared = &self.0.0;
        let urgent = {
            let mut shard = lock(&shared.shards[shard_of_thread()]);
            if shard.lines >= shared.room {
                shared.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            let before = shard.text.len();
            entry.write_to(&mut shard.text);
            shard.lines += 1;
            before < URGENT && shard.text.len() >= URGENT
        };
        if urgent || !shared.told.swap(true, Ordering::AcqRel) {
            shared.signal(|signal| {
                signal.lines = true;
                signal.urgent |= urgent;
            });
        }
    }

    /// Lines that were not written: there was no room, or the target failed.
    pub fn dropped(&self) -> u64 {
        self.0.0.dropped.load(Ordering::Relaxed)
    }

    /// Waits, at most `timeout`, until all lines put in before are written; blocks the thread.
    /// Whether they were.
    pub fn flush(&self, timeout: Duration) -> bool {
        let shared = &self.0.0;
        let mut wanted = 0;
        shared.signal(|signal| {
            signal.asked += 1;
            wanted = signal.asked;
        });
        let signal = lock(&shared.signal);
        let waited = shared
            .changed
            .wait_timeout_while(signal, timeout, |signal| signal.done < wanted);
        match waited {
            Ok((signal, _)) => signal.done >= wanted,
            Err(_) => false,
        }
    }
}

impl Shared {
    fn signal(&self, change: impl FnOnce(&mut Signal)) {
        change(&mut lock(&self.signal));
        self.changed.notify_all();
    }

    /// Writes until the last handle is gone. A line waits for [`PAUSE`] at most; in between, those
    /// who write wake nobody.
    fn drain(&self, mut out: impl Write) {
        let mut text = Vec::new();
        loop {
            let (asked, closed) = self.wait();
            self.told.store(false, Ordering::Release);
            for shard in &self.shards {
                let lines = {
                    let mut shard = lock(shard);
                    std::mem::swap(&mut shard.text, &mut text);
                    std::mem::take(&mut shard.lines)
                };
                if out.write_all(&text).is_err() {
                    self.dropped.fetch_add(lines as u64, Ordering::Relaxed);
                }
                text.clear();
                text.shrink_to(URGENT);
            }
            // What cannot be flushed was reported by writing it.
            let _ = out.flush();
            self.signal(|signal| signal.done = asked);
            if closed {
                return;
            }
        }
    }

    /// Waits until there is something to do; which flushes were asked for by then, and whether the
    /// last handle is gone.
    fn wait(&self) -> (u64, bool) {
        let at_once = |s: &Signal| s.urgent || s.closed || s.done < s.asked;
        let idle = |s: &mut Signal| !s.lines && !at_once(s);
        let signal = lock(&self.signal);
        let signal = match self.changed.wait_while(signal, idle) {
            Ok(signal) => signal,
            Err(poisoned) => poisoned.into_inner(),
        };
        let more = |s: &mut Signal| !at_once(s);
        let mut signal = match self.changed.wait_timeout_while(signal, PAUSE, more) {
            Ok((signal, _)) => signal,
            Err(poisoned) => poisoned.into_inner().0,
        };
        signal.lines = false;
        signal.urgent = false;
        (signal.asked, signal.closed)
    }
}

/// Nothing is left half done by a thread that panics while it holds one of these.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Threads take turns, so that worker threads do not meet.
fn shard_of_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: usize = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
    }
    OWN.with(|own| *own)
}

#[cfg(test)]
mod tests;
