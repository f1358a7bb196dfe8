//! Open-loop HTTP/1.1 load: requests leave at the moments of a Poisson process, whatever the answers
//! do, and latency counts from the planned moment, so that a proxy that stalls is not let off the
//! requests that would have come meanwhile. Prints one line of JSON.
//!
//! `--addr ADDR --rate 2000 --secs 5 --warm 1 --conns 32 --path / --patience 5`: an answer that takes
//! longer than so many seconds is none.
#![forbid(unsafe_code)]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use bench::{Arguments, Random, quantile};

/// What one connection saw.
#[derive(Default)]
struct Tally {
    sent: u64,
    errors: u64,
    nanoseconds: Vec<u64>,
}

fn main() {
    let arguments = Arguments::of_process();
    let address = arguments.text("addr").expect("--addr ADDR");
    let path = arguments.text("path").unwrap_or("/");
    let connections: u64 = arguments.number("conns", 32);
    let rate = arguments.number("rate", 2000.0) / connections as f64;
    let warm = Duration::from_secs_f64(arguments.number("warm", 1.0));
    let time = Duration::from_secs_f64(arguments.number("secs", 5.0));
    let request = format!("GET {path} HTTP/1.1\r\nhost: app.local\r\nuser-agent: bench\r\n\r\n");
    let patience = Duration::from_secs_f64(arguments.number("patience", 5.0));
    let begin = Instant::now() + Duration::from_millis(100);
    let tallies: Vec<Tally> = thread::scope(|scope| {
        let threads: Vec<_> = (0..connections)
            .map(|number| {
                let request = request.as_bytes();
                scope.spawn(move || {
                    load(
                        (address, patience),
                        request,
                        number,
                        rate,
                        begin,
                        (warm, warm + time),
                    )
                })
            })
            .collect();
        let joined = threads.into_iter().map(thread::ScopedJoinHandle::join);
        joined.map(|tally| tally.expect("no panic")).collect()
    });
    let sent: u64 = tallies.iter().map(|t| t.sent).sum();
    let errors: u64 = tallies.iter().map(|t| t.errors).sum();
    let mut all: Vec<u64> = tallies.into_iter().flat_map(|t| t.nanoseconds).collect();
    all.sort_unstable();
    let at = |share| quantile(&all, share) as f64 / 1e3;
    let line = format!(
        "{{\"sent\":{sent},\"measured\":{},\"errors\":{errors},\"p50_us\":{},\"p90_us\":{},\
         \"p99_us\":{},\"p999_us\":{},\"max_us\":{}}}\n",
        all.len(),
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        at(1.0)
    );
    let _ = std::io::stdout().write_all(line.as_bytes());
}

fn load(
    (address, patience): (&str, Duration),
    request: &[u8],
    number: u64,
    rate: f64,
    begin: Instant,
    (from, until): (Duration, Duration),
) -> Tally {
    // The kernel may let timers be 50 us late; not ours.
    let _ = fs::write("/proc/thread-self/timerslack_ns", "1");
    let mut random = Random::new(number + 1);
    let mut tally = Tally::default();
    let mut stream = None;
    let mut planned = random.gap(rate);
    while planned < until.as_secs_f64() {
        let moment = begin + Duration::from_secs_f64(planned);
        if let Some(left) = moment.checked_duration_since(Instant::now()) {
            thread::sleep(left);
        }
        tally.sent += 1;
        if stream.is_none() {
            stream = connect(address, patience);
        }
        if stream
            .as_mut()
            .is_some_and(|s| exchange(s, request).is_some())
        {
            if planned >= from.as_secs_f64() {
                tally.nanoseconds.push(moment.elapsed().as_nanos() as u64);
            }
        } else {
            tally.errors += 1;
            stream = None;
        }
        planned += random.gap(rate);
    }
    tally
}

fn connect(address: &str, patience: Duration) -> Option<TcpStream> {
    let stream = TcpStream::connect(address).ok()?;
    stream.set_nodelay(true).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    Some(stream)
}

/// One request and its whole answer; `None` unless that is 200.
fn exchange(stream: &mut TcpStream, request: &[u8]) -> Option<()> {
    stream.write_all(request).ok()?;
    let mut received = Vec::with_capacity(4096);
    let mut bytes = vec![0; 64 << 10];
    let mut whole = None;
    while whole.is_none_or(|length| received.len() < length) {
        let count = stream.read(&mut bytes).ok().filter(|count| *count > 0)?;
        received.extend_from_slice(&bytes[..count]);
        if whole.is_none() {
            whole = length(&received);
        }
    }
    received.starts_with(b"HTTP/1.1 200").then_some(())
}

/// Length of head and body, once the head is whole.
fn length(received: &[u8]) -> Option<usize> {
    let end = received.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&received[..end]).to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    Some(end + length.unwrap_or(0usize))
}
