//! Garbage on every port: plain, TLS, cut off half-way, and byte by byte. Everybody else is served
//! meanwhile, memory stays bounded, and nothing stays open.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;

use nix::unistd::Pid;
use rustls::ClientConnection;
use testkit::certs::anonymous_client_config;
use testkit::upstream::{Step, Upstream};

use super::*;

/// Resident memory in kB.
pub(super) fn memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let line = line.expect("every process has it");
    line.trim_end_matches("kB")
        .trim()
        .parse()
        .expect("a number")
}

/// Open file descriptors.
fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("it runs")
        .count()
}

/// A whole ClientHello.
fn client_hello() -> Vec<u8> {
    let name = "9080.reviews-0.shop.tulle".try_into().expect("a name");
    let mut tls =
        ClientConnection::new(anonymous_client_config(&[b"tulle-h1"]), name).expect("a client");
    let mut bytes = Vec::new();
    tls.write_tls(&mut bytes).expect("written");
    bytes
}

/// Not random, so that a failure can be repeated.
fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let step = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    std::iter::repeat_with(step).take(length).collect()
}

pub(super) fn samples() -> Vec<(&'static str, Vec<u8>)> {
    let hello = client_hello();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let frames = |frames: &[u8]| [preface, frames].concat();
    let mut endless = b"GET / HTTP/1.1\r\nhost: a\r\n".to_vec();
    endless.extend(b"x-header: and another one of them\r\n".repeat(30_000));
    vec![
        ("nothing", vec![]),
        ("one byte", vec![0]),
        ("noise", noise(1, 64 << 10)),
        ("other noise", noise(77, 1 << 10)),
        ("zeros", vec![0; 64 << 10]),
        ("half a ClientHello", hello[..hello.len() / 2].to_vec()),
        ("a TLS header", hello[..5].to_vec()),
        ("a TLS record that is too long", [&[22, 3, 1, 0xff, 0xff][..], &vec![1; 70_000]].concat()),
        ("a ClientHello and noise", [hello, noise(5, 4 << 10)].concat()),
        ("an old SSL", vec![0x80, 0x2e, 1, 3, 1]),
        ("half a preface of HTTP/2", preface[..12].to_vec()),
        ("a preface and no settings", preface.to_vec()),
        ("a frame that is too long", frames(&[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1])),
        ("settings and noise", frames(&[&[0, 0, 0, 4, 0, 0, 0, 0, 0][..], &noise(9, 4 << 10)].concat())),
        ("half a request", b"GET http://reviews.shop/ HTTP/1.1\r\nhost: rev".to_vec()),
        ("a request without an end", endless),
        ("a line without an end", vec![b'a'; 300 << 10]),
        ("a URI with zeros", b"GET http://\0\0/ HTTP/1.1\r\n\r\n".to_vec()),
        ("two lengths", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd".to_vec()),
        ("a bad chunk", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n".to_vec()),
        ("a body cut off", b"POST /api/v1/apply HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\nkind:".to_vec()),
        ("CONNECT nowhere", b"CONNECT \xff:99999 HTTP/1.1\r\n\r\n".to_vec()),
    ]
}

#[test]
fn garbage_on_every_port_disturbs_nobody() {
    let mut plane = Plane::start("garbage");
    let program = Upstream::start(|_| Step::answer("reviews"));
    let reviews = plane.serve("reviews", "reviews-0", program.port());
    let upstream = free_port();
    let (caller, proxy) = plane.client(
        "caller",
        &["--upstream", &format!("reviews.shop:80={upstream}")],
    );
    wait_through(proxy, "reviews.shop", "reviews");
    let mut kept = Raw::connect(("127.0.0.1", proxy)).expect("the proxy listens");
    let ask = "GET http://reviews.shop/ HTTP/1.1\r\nhost: reviews.shop\r\n\r\n";
    assert_eq!(kept.request(ask).status, 200);

    let mut ports: Vec<(String, SocketAddr)> = ["xds", "api", "metrics", "otlp"]
        .map(|name| (format!("control plane {name}"), plane.address(name)))
        .into();
    for (instance, names) in [
        (
            "reviews-0",
            &["tunnel", "explicit_http", "admin", "metrics"][..],
        ),
        ("caller", &["explicit_http", "tunnel"]),
    ] {
        for name in names {
            let port = plane.proxy_port(instance, name).expect("a port");
            ports.push((format!("{instance} {name}"), ([127, 0, 0, 1], port).into()));
        }
    }
    ports.push((
        "caller upstream".to_owned(),
        ([127, 0, 0, 1], upstream).into(),
    ));

    let control = Pid::from_raw(plane.process.pid().cast_signed());
    let processes: BTreeMap<&str, Pid> = [
        ("control plane", control),
        ("proxy of reviews-0", programmed::proxy_of(reviews.pid())),
        ("proxy of caller", programmed::proxy_of(caller.pid())),
    ]
    .into();
    let id = |pid: &Pid| pid.as_raw().cast_unsigned();
    let before: Vec<_> = processes
        .values()
        .map(|p| (memory(id(p)), descriptors(id(p))))
        .collect();

    for (what, bytes) in samples() {
        for (port, address) in &ports {
            // Once ended in order and once broken off; some stay until the end.
            for way in 0..3 {
                let mut raw =
                    Raw::connect(address).unwrap_or_else(|e| panic!("{port} after {what}: {e}"));
                // Who refuses early does not take it all.
                let _ = raw.send(&bytes);
                match way {
                    0 => drop(raw),
                    1 => raw.reset(),
                    _ => {
                        let _ = raw.shut_write();
                    }
                }
            }
        }
        assert_eq!(kept.request(ask).status, 200, "after {what}");
        assert_eq!(through(proxy, "reviews.shop").status, 200, "after {what}");
    }

    // Those who stall, at every byte of something that begins well.
    let hello = client_hello();
    let mut stalling = Vec::new();
    for (_, address) in &ports {
        for n in 0..20 {
            let stream = TcpStream::connect(address).expect("it listens");
            let bytes = match n % 3 {
                0 => hello.clone(),
                1 => b"GET http://reviews.shop/ HTTP/1.1\r\nhost: reviews.shop\r\nx: 0123456789"
                    .to_vec(),
                _ => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            };
            stalling.push((stream, bytes));
        }
    }
    for at in 0..60 {
        for (stream, bytes) in &mut stalling {
            if let Some(byte) = bytes.get(at) {
                // It may have been closed.
                let _ = stream.write_all(&[*byte]);
            }
        }
        assert_eq!(kept.request(ask).status, 200, "byte {at}");
    }
    assert_eq!(through(proxy, "reviews.shop").text(), "reviews");
    let mut through_upstream = Raw::connect(("127.0.0.1", upstream)).expect("it listens");
    assert_eq!(through_upstream.get("reviews.shop", "/").text(), "reviews");
    plane.apply("shop.yaml", SHOP).success();
    drop((stalling, through_upstream));

    for ((name, pid), (memory_before, descriptors_before)) in processes.iter().zip(before) {
        let mut now = 0;
        let back = testkit::deadline::try_wait_for(2 * SOON, || {
            now = descriptors(id(pid));
            // Pools and kept connections of the requests just made.
            (now <= descriptors_before + 8).then_some(())
        });
        assert!(
            back.is_some(),
            "{name}: {descriptors_before} open descriptors became {now}"
        );
        let after = memory(id(pid));
        assert!(
            after < memory_before + 100_000,
            "{name}: {memory_before} kB of memory became {after} kB"
        );
    }
    assert!(plane.process.is_running());
    assert!(
        !plane.process.stderr().contains("panicked"),
        "{}",
        plane.process.stderr()
    );
    for process in [&reviews, &caller] {
        assert!(
            !process.stderr().contains("panicked"),
            "{}",
            process.stderr()
        );
        assert!(
            !process.stderr().contains("starting another"),
            "{}",
            process.stderr()
        );
    }
}

#[test]
fn who_does_not_get_to_the_point_is_sent_away() {
    let plane = Plane::start("stall");
    let (_caller, _) = plane.client("caller", &[]);
    let tunnel = plane.proxy_port("caller", "tunnel").expect("a port");
    let hello = client_hello();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let request = b"GET / HTTP/1.1\r\nhost: loc".to_vec();
    let mut waiting = Vec::new();
    for (address, beginnings) in [
        (plane.address("xds"), vec![vec![], hello[..40].to_vec()]),
        (
            ([127, 0, 0, 1], tunnel).into(),
            vec![vec![], hello[..40].to_vec()],
        ),
        (
            plane.address("api"),
            vec![vec![], request.clone(), preface.clone()],
        ),
        (
            plane.address("metrics"),
            vec![vec![], request, preface.clone()],
        ),
        (plane.address("otlp"), vec![vec![], preface]),
    ] {
        for bytes in beginnings {
            let mut raw = Raw::connect(address).expect("it listens");
            raw.send(&bytes).expect("taken");
            waiting.push((address, bytes, raw));
        }
    }
    for (address, bytes, mut raw) in waiting {
        let (_, ended) = raw.read_to_end(SOON);
        assert_ne!(
            ended,
            testkit::raw::Ended::TimedOut,
            "{address} still waits after {}",
            bytes.escape_ascii()
        );
    }
}

#[test]
fn who_only_holds_connections_keeps_no_workload_out() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to the hard limit");
    if hard < 4000 {
        eprintln!("skipped: at most {hard} files may be open");
        return;
    }
    let plane = Plane::start("hold");
    let config = anonymous_client_config(&[b"http/1.1"]);
    let mut held = Vec::new();
    let mut refused = 0;
    for _ in 0..1100 {
        let raw = Raw::connect_tls(plane.address("xds"), Arc::clone(&config), "control.tulle");
        let mut raw = raw.expect("a handshake");
        // What is public, so that the connection is a good one.
        let _ = raw.send("GET /api/v1/trust HTTP/1.1\r\nhost: control.tulle\r\n\r\n");
        match raw.response(SOON) {
            Ok(response) => {
                assert_eq!(response.status, 200);
                held.push(raw);
            }
            Err(_) => refused += 1,
        }
    }
    assert!(
        refused > 0,
        "{} strangers hold a connection each",
        held.len()
    );
    let program = Upstream::start(|_| Step::answer("reviews"));
    // A newcomer's first certificate needs such a connection, for a moment; streams do not.
    held.truncate(held.len() - 50);
    let _reviews = plane.serve("reviews", "reviews-0", program.port());
    let (_caller, proxy) = plane.client("early", &[]);
    wait_through(proxy, "reviews.shop", "reviews");
}
