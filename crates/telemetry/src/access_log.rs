//! Access log: one JSON object a line, keys stable, written by a thread of its own.
//!
//! [`Log::write`] formats the line and puts it into a bounded queue; when the reader of stdout or
//! the disk is too slow, lines are dropped and counted, never waited for. Secrets stay out: paths
//! are logged without query, authorities without user information, no header but `user-agent`.
//! Texts that a client chooses are cut at [`MAX_TEXT`] bytes.

mod rotation;

use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::time::{Duration, SystemTime};

use model::Reason;

use crate::Direction;
use rotation::Rotating;

/// Bytes kept of a text that a client chooses.
pub const MAX_TEXT: usize = 2048;

/// Lines that may wait for the writer.
const QUEUE: usize = 8192;

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

    /// The line, with its newline.
    pub fn to_line(&self) -> Vec<u8> {
        let mut line = Line(Vec::with_capacity(768));
        line.time(self.time);
        line.hex("trace_id", self.trace_id.as_ref().map(<[u8; 16]>::as_slice));
        line.hex("span_id", self.span_id.as_ref().map(<[u8; 8]>::as_slice));
        line.text("request_id", self.request_id);
        line.text("direction", self.direction.as_str());
        line.text("method", self.method);
        line.text("authority", without_userinfo(self.authority));
        line.text("path", without_query(self.path));
        line.text("protocol", self.protocol);
        line.number("status", u64::from(self.status));
        line.optional("grpc_status", self.grpc_status.map(u64::from));
        line.text("reason", self.reason.map_or("", Reason::as_str));
        line.text("details", self.details);
        line.millis("duration_ms", Some(self.duration));
        line.millis("upstream_duration_ms", self.upstream_duration);
        line.number("request_bytes", self.request_bytes);
        line.number("response_bytes", self.response_bytes);
        line.text("source", self.source);
        line.text("source_principal", self.source_principal);
        line.address("source_address", self.source_address);
        line.text("destination", self.destination);
        line.text("destination_workload", self.destination_workload);
        line.text("destination_version", self.destination_version);
        line.text("destination_principal", self.destination_principal);
        line.text("route", self.route);
        line.address("upstream_address", self.upstream_address);
        line.number("attempts", u64::from(self.attempts));
        line.raw("mtls", if self.mtls { "true" } else { "false" });
        line.text("tls_group", self.tls_group);
        line.text("user_agent", self.user_agent);
        line.0.extend_from_slice(b"}\n");
        line.0
    }
}

fn without_query(path: &str) -> &str {
    path.split(['?', '#']).next().unwrap_or(path)
}

fn without_userinfo(authority: &str) -> &str {
    authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host)
}

/// An object being written.
struct Line(Vec<u8>);

impl Line {
    fn key(&mut self, key: &str) {
        self.0
            .extend_from_slice(if self.0.is_empty() { b"{\"" } else { b",\"" });
        self.0.extend_from_slice(key.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    fn raw(&mut self, key: &str, value: &str) {
        self.key(key);
        self.0.extend_from_slice(value.as_bytes());
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        let value = &value[..value.floor_char_boundary(MAX_TEXT)];
        // Writing a string into memory has no way to fail.
        let _ = serde_json::to_writer(&mut self.0, value);
    }

    fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        let _ = write!(self.0, "{value}");
    }

    fn optional(&mut self, key: &str, value: Option<u64>) {
        match value {
            Some(value) => self.number(key, value),
            None => self.raw(key, "null"),
        }
    }

    fn millis(&mut self, key: &str, value: Option<Duration>) {
        self.key(key);
        let _ = match value {
            Some(d) => write!(self.0, "{}.{:03}", d.as_millis(), d.as_micros() % 1000),
            None => write!(self.0, "null"),
        };
    }

    fn hex(&mut self, key: &str, value: Option<&[u8]>) {
        self.key(key);
        self.0.push(b'"');
        for byte in value.unwrap_or_default() {
            let _ = write!(self.0, "{byte:02x}");
        }
        self.0.push(b'"');
    }

    fn address(&mut self, key: &str, value: Option<SocketAddr>) {
        self.key(key);
        let _ = match value {
            Some(address) => write!(self.0, "\"{address}\""),
            None => write!(self.0, "\"\""),
        };
    }

    /// RFC 3339 with microseconds, in UTC.
    fn time(&mut self, time: SystemTime) {
        self.key("time");
        let t = time::OffsetDateTime::from(time);
        let _ = write!(
            self.0,
            "\"{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z\"",
            t.year(),
            u8::from(t.month()),
            t.day(),
            t.hour(),
            t.minute(),
            t.second(),
            t.microsecond()
        );
    }
}

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// The way to the writer; cheap to clone. The thread ends when the last clone is gone.
#[derive(Clone)]
pub struct Log {
    queue: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
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

    /// Starts a writer to anything, with room for `queue` lines.
    pub fn to_writer(writer: impl Write + Send + 'static, queue: usize) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(queue);
        let dropped = Arc::new(AtomicU64::new(0));
        let lost = Arc::clone(&dropped);
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || {
                drain(
                    &receiver,
                    BufWriter::with_capacity(64 * 1024, writer),
                    &lost,
                );
            })?;
        Ok(Self {
            queue: sender,
            dropped,
        })
    }

    /// Queues a line; never waits.
    pub fn write(&self, entry: &Entry<'_>) {
        match self.queue.try_send(Message::Line(entry.to_line())) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Lines that were not written: the queue was full, or the target failed.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits, at most `timeout`, until all lines queued before are written; blocks the thread.
    /// Whether they were.
    pub fn flush(&self, timeout: Duration) -> bool {
        let (done, wait) = sync_channel(1);
        let mut message = Message::Flush(done);
        let start = std::time::Instant::now();
        loop {
            match self.queue.try_send(message) {
                Ok(()) => break,
                Err(TrySendError::Full(back)) if start.elapsed() < timeout => {
                    message = back;
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(_) => return false,
            }
        }
        let left = timeout.saturating_sub(start.elapsed());
        wait.recv_timeout(left).is_ok()
    }
}

/// Writes until every sender is gone; flushes whenever the queue is empty.
fn drain(queue: &Receiver<Message>, mut out: impl Write, dropped: &AtomicU64) {
    loop {
        let message = match queue.try_recv() {
            Ok(message) => message,
            Err(TryRecvError::Disconnected) => break,
            Err(TryRecvError::Empty) => {
                let _ = out.flush();
                match queue.recv() {
                    Ok(message) => message,
                    Err(_) => break,
                }
            }
        };
        match message {
            Message::Line(line) => {
                if out.write_all(&line).is_err() {
                    dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
            Message::Flush(done) => {
                let _ = out.flush();
                let _ = done.try_send(());
            }
        }
    }
    let _ = out.flush();
}

#[cfg(test)]
mod tests;
