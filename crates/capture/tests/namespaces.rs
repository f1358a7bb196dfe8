//! Real namespaces, rules and sockets: needs root and nft or iptables; says so and passes elsewhere.

#![allow(clippy::unwrap_used)] // helpers of tests count as no tests for clippy.toml

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use capture::rules::{self, Redirect};
use capture::{Backend, Bridge, Namespace, namespace};
use net::socket::{ListenOptions, canonical, listen, original_destination};
use socket2::{Domain, Socket, Type};

/// The tests share the host's network; one at a time.
static HOST: Mutex<()> = Mutex::new(());
const WAIT: Duration = Duration::from_secs(3);
const MARK: Option<u32> = Some(0x539);

fn host() -> Option<MutexGuard<'static, ()>> {
    if let Err(reason) = capture::available() {
        eprintln!("skipped: {reason}");
        return None;
    }
    Some(HOST.lock().unwrap_or_else(PoisonError::into_inner))
}

fn bridge(n: u8) -> Bridge {
    Bridge {
        name: format!("tlt{}-{n}", std::process::id()),
        v4: format!("10.213.{n}.1/24").parse().unwrap(),
        v6: format!("fd7e:7e57:{n}::1/64").parse().unwrap(),
    }
}

fn create(bridge: &Bridge, last: u8) -> Namespace {
    let v4 = u32::from(bridge.v4.addr()) - 1 + u32::from(last);
    let v6 = u128::from(bridge.v6.addr()) - 1 + u128::from(last);
    let addresses = [
        ipnet::IpNet::new(Ipv4Addr::from(v4).into(), 24).unwrap(),
        ipnet::IpNet::new(Ipv6Addr::from(v6).into(), 64).unwrap(),
    ];
    Namespace::create_blocking(&namespace::next_name(), bridge, &addresses).unwrap()
}

fn ip(namespace: &Namespace, v6: bool) -> IpAddr {
    namespace.addresses()[usize::from(v6)].addr()
}

fn server(namespace: &Namespace, address: &str) -> TcpListener {
    let options = ListenOptions {
        dual_stack: address.starts_with("[::]"),
        ..ListenOptions::default()
    };
    let listener = namespace
        .run(|| listen(address.parse().unwrap(), &options))
        .unwrap()
        .unwrap();
    listener.set_nonblocking(false).unwrap();
    socket2::SockRef::from(&listener)
        .set_read_timeout(Some(WAIT))
        .unwrap(); // for accept
    listener
}

fn connect(namespace: &Namespace, to: SocketAddr, mark: Option<u32>) -> io::Result<TcpStream> {
    namespace.run(|| {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        if let Some(mark) = mark {
            socket.set_mark(mark)?;
        }
        socket.connect_timeout(&to.into(), WAIT)?;
        Ok(socket.into())
    })?
}

/// Connects, and says where the connection was meant to go according to whoever accepted it, and
/// whom it came from.
#[track_caller]
fn arrival(
    from: &Namespace,
    to: SocketAddr,
    mark: Option<u32>,
    at: &TcpListener,
) -> (Option<SocketAddr>, IpAddr) {
    let mut client = connect(from, to, mark).unwrap_or_else(|e| panic!("{to}: {e}"));
    let (mut accepted, peer) = at
        .accept()
        .unwrap_or_else(|e| panic!("{to} did not arrive at {:?}: {e}", at.local_addr()));
    let mut byte = [0];
    client.write_all(b"x").unwrap();
    accepted.read_exact(&mut byte).unwrap();
    accepted.write_all(b"y").unwrap();
    client.read_exact(&mut byte).unwrap();
    (original_destination(&accepted), canonical(peer).ip())
}

fn backends() -> Vec<Backend> {
    let has = |tool: &str| Command::new(tool).arg("--version").output().is_ok();
    let mut backends = Vec::new();
    if has("nft") {
        backends.push(Backend::Nft);
    }
    if has("iptables-restore") && has("ip6tables-restore") {
        backends.push(Backend::Iptables);
    }
    backends
}

fn pair(backend: Backend, bridge: &Bridge) -> (Namespace, Namespace) {
    let (a, b) = (create(bridge, 10), create(bridge, 11));
    for namespace in [&a, &b] {
        // Twice: whatever is applied again must replace.
        for _ in 0..2 {
            rules::apply_with(backend, namespace, &Redirect::default()).unwrap();
        }
    }
    (a, b)
}

#[test]
fn an_applications_connections_reach_its_proxy_with_their_destination() {
    let Some(_host) = host() else { return };
    for backend in backends() {
        let (a, b) = pair(backend, &bridge(1));
        for v6 in [false, true] {
            let proxy = server(&a, if v6 { "[::1]:15001" } else { "127.0.0.1:15001" });
            let vip: SocketAddr = if v6 { "[fd7e::9]:80" } else { "240.240.0.9:80" }
                .parse()
                .unwrap();
            let elsewhere = SocketAddr::new(ip(&b, v6), 8080);
            for to in [vip, elsewhere] {
                let (meant, from) = arrival(&a, to, None, &proxy);
                assert_eq!(meant, Some(to), "{backend:?}");
                assert_eq!(from, ip(&a, v6), "{backend:?}");
            }
            // To itself: by loopback and by its own address, without the proxy.
            let itself = server(&a, if v6 { "[::]:7070" } else { "0.0.0.0:7070" });
            let loopback: IpAddr = if v6 {
                Ipv6Addr::LOCALHOST.into()
            } else {
                Ipv4Addr::LOCALHOST.into()
            };
            for own in [loopback, ip(&a, v6)] {
                let to = SocketAddr::new(own, 7070);
                assert_eq!(arrival(&a, to, None, &itself).0, None, "{backend:?}");
            }
        }
    }
}

#[test]
fn connections_from_outside_reach_the_proxy_and_its_own_ports_are_what_they_should() {
    let Some(_host) = host() else { return };
    for backend in backends() {
        let (a, b) = pair(backend, &bridge(2));
        let inbound = server(&b, "[::]:15006");
        let _app = server(&b, "[::]:8080");
        let _admin = server(&b, "[::]:15000");
        let tunnel = server(&b, "[::]:15008");
        let metrics = server(&b, "[::]:15020");
        for v6 in [false, true] {
            let to = |port| SocketAddr::new(ip(&b, v6), port);
            // A marked socket is the proxy's: not redirected where it starts.
            let (meant, from) = arrival(&a, to(8080), MARK, &inbound);
            assert_eq!((meant, from), (Some(to(8080)), ip(&a, v6)), "{backend:?}");
            for (port, listener) in [(15008, &tunnel), (15020, &metrics)] {
                let (meant, from) = arrival(&a, to(port), MARK, listener);
                assert_eq!((meant, from), (None, ip(&a, v6)), "{backend:?} {port}");
            }
            for closed in [15000, 15001, 15006, 15053] {
                let e = connect(&a, to(closed), MARK).expect_err("closed to others");
                assert_eq!(
                    e.kind(),
                    io::ErrorKind::ConnectionRefused,
                    "{backend:?} {closed}"
                );
            }
        }
    }
}

#[test]
fn questions_to_any_resolver_reach_the_proxy_and_answers_come_back() {
    let Some(_host) = host() else { return };
    for backend in backends() {
        let (a, _b) = pair(backend, &bridge(3));
        for (at, resolvers) in [
            (
                "127.0.0.1:15053",
                &["10.255.255.53:53", "127.0.0.53:53", "127.0.0.11:53"][..],
            ),
            ("[::1]:15053", &["[fd7e::53]:53", "[::1]:53"][..]),
        ] {
            let over_tcp = server(&a, at);
            let dns = a.run(|| UdpSocket::bind(at)).unwrap().unwrap();
            for resolver in resolvers {
                let any = if resolver.starts_with('[') {
                    "[::]:0"
                } else {
                    "0.0.0.0:0"
                };
                let client = a.run(|| UdpSocket::bind(any)).unwrap().unwrap();
                // Connected, so that an answer from anywhere else would not be seen.
                client.connect(resolver).unwrap();
                for socket in [&client, &dns] {
                    socket.set_read_timeout(Some(WAIT)).unwrap();
                }
                client.send(b"question").unwrap();
                let mut buffer = [0; 16];
                let (n, from) = dns
                    .recv_from(&mut buffer)
                    .unwrap_or_else(|e| panic!("{resolver}: {e}"));
                dns.send_to(&buffer[..n], from).unwrap();
                let n = client
                    .recv(&mut buffer)
                    .unwrap_or_else(|e| panic!("{resolver}: {e}"));
                assert_eq!(&buffer[..n], b"question");
                let to = resolver.parse().unwrap();
                assert_eq!(arrival(&a, to, None, &over_tcp).0, Some(to), "{backend:?}");
            }
        }
    }
}

#[test]
fn workloads_reach_each_other_the_host_and_the_outside_but_are_not_reached_from_it() {
    let Some(_host) = host() else { return };
    let (near, far) = (bridge(4), bridge(5));
    let (a, b, outside) = (create(&near, 10), create(&near, 11), create(&far, 10));
    let (inside, beyond) = (server(&b, "[::]:80"), server(&outside, "[::]:80"));
    let gateway = TcpListener::bind(SocketAddr::new(near.v4.addr().into(), 0)).unwrap();
    assert_eq!(
        arrival(&a, gateway.local_addr().unwrap(), None, &gateway).1,
        ip(&a, false)
    );
    for v6 in [false, true] {
        let to = SocketAddr::new(ip(&b, v6), 80);
        assert_eq!(
            arrival(&a, to, None, &inside).1,
            ip(&a, v6),
            "no translation within the mesh"
        );
    }
    let to = SocketAddr::new(ip(&outside, false), 80);
    let socket = a
        .run(|| TcpStream::connect_timeout(&to, Duration::from_millis(300)))
        .unwrap();
    assert!(
        socket.is_err(),
        "another bridge's workloads are reached through gateways only"
    );
    if !backends().contains(&Backend::Nft) {
        return;
    }
    // Without its rules that bridge is as good as the outside.
    let table = format!("tulle-{}", far.name);
    let deleted = Command::new("nft")
        .args(["delete", "table", "inet", &table])
        .status();
    assert!(deleted.unwrap().success());
    for (v6, as_whom) in [
        (false, IpAddr::from(far.v4.addr())),
        (true, far.v6.addr().into()),
    ] {
        if v6
            && std::fs::read_to_string("/proc/sys/net/ipv6/conf/all/forwarding")
                .unwrap()
                .trim()
                == "0"
        {
            eprintln!("skipped: this host has its IPv6 route from router advertisements");
            continue;
        }
        let to = SocketAddr::new(ip(&outside, v6), 80);
        assert_eq!(arrival(&a, to, None, &beyond).1, as_whom, "as the host");
    }
}

/// Whoever is attached knows it by that, and goes on sending there.
#[test]
fn the_bridges_address_stays_whoever_is_attached() {
    let Some(_host) = host() else { return };
    let bridge = bridge(10);
    bridge.ensure_blocking().unwrap();
    let address = || {
        let path = format!("/sys/class/net/{}/address", bridge.name);
        std::fs::read_to_string(path).unwrap()
    };
    let before = address();
    let attached: Vec<Namespace> = (2..8).map(|last| create(&bridge, last)).collect();
    assert_eq!(address(), before);
    drop(attached);
    now(bridge.remove()).unwrap();
}

#[test]
fn a_program_can_be_confined() {
    let Some(_host) = host() else { return };
    let a = create(&bridge(6), 10);
    let mut command = Command::new("readlink");
    command.arg("/proc/self/ns/net");
    a.confine(&mut command);
    let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(a.path()).unwrap());
    assert_eq!(output.trim(), format!("net:[{inode}]"));
}

/// Runs what is asynchronous, while the host is locked.
fn now<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(work)
}

/// Everything on the host that bears a bridge's or a process's mark.
fn traces(bridge: &Bridge, pid: u32) -> Vec<String> {
    let mut traces = Vec::new();
    for directory in ["/run/netns", "/sys/class/net"] {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let of_process = [format!("tulle-{pid}-"), format!("tv{pid:x}-")];
            if name == bridge.name || of_process.iter().any(|p| name.starts_with(p.as_str())) {
                traces.push(format!("{directory}/{name}"));
            }
        }
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let of_process = format!("/run/netns/tulle-{pid}-");
    traces.extend(
        mounts
            .lines()
            .filter(|m| m.contains(&of_process))
            .map(str::to_owned),
    );
    if let Ok(tables) = Command::new("nft").args(["list", "ruleset"]).output() {
        let tables = String::from_utf8_lossy(&tables.stdout).into_owned();
        let rules = tables.lines().filter(|l| l.contains(&bridge.name));
        traces.extend(rules.map(str::to_owned));
    }
    traces
}

/// The host's switches; nothing where a mesh of somebody else runs beside the tests and has its say.
fn forwarding() -> Option<[String; 2]> {
    let aliases = std::fs::read_dir("/sys/class/net").unwrap().flatten();
    let mut aliases = aliases.map(|e| std::fs::read_to_string(e.path().join("ifalias")));
    if aliases.any(|alias| alias.is_ok_and(|a| a.starts_with("tulle bridge"))) {
        return None;
    }
    let switches = [
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sys/net/ipv6/conf/all/forwarding",
    ];
    Some(switches.map(|path| std::fs::read_to_string(path).unwrap_or_default()))
}

#[track_caller]
fn assert_restored(before: Option<[String; 2]>) {
    if let (Some(before), Some(now)) = (before, forwarding()) {
        assert_eq!(now, before);
    }
}

#[test]
fn nothing_is_left_behind() {
    let Some(_host) = host() else { return };
    let bridge = bridge(7);
    let before = forwarding();
    let a = create(&bridge, 10);
    let b = create(&bridge, 11);
    assert!(Path::new("/sys/class/net").join(&bridge.name).exists());
    let switch = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
    assert_eq!(switch.trim(), "1");
    drop(a);
    assert!(
        !traces(&bridge, std::process::id()).is_empty(),
        "one is still there"
    );
    drop(b);
    assert_eq!(traces(&bridge, std::process::id()), Vec::<String>::new());
    assert_restored(before);
}

#[test]
fn a_bridge_asked_for_stays_until_it_is_removed_or_its_last_namespace_goes() {
    let Some(_host) = host() else { return };
    let bridge = bridge(8);
    let there = || Path::new("/sys/class/net").join(&bridge.name).exists();
    for _ in 0..2 {
        now(bridge.ensure()).unwrap();
        now(bridge.ensure()).unwrap();
        assert!(there());
        now(bridge.remove()).unwrap();
        now(bridge.remove()).unwrap();
        assert!(!there());
    }
    now(bridge.ensure()).unwrap();
    assert_eq!(now(namespace::clean_stale()).unwrap(), 0);
    assert!(there());
    let name = namespace::next_name();
    let addresses = ["10.213.8.9/24".parse().unwrap()];
    let a = now(Namespace::create(&name, &bridge, &addresses)).unwrap();
    let e = now(Namespace::create(&name, &bridge, &[])).unwrap_err();
    assert!(e.to_string().contains(&name), "{e}");
    now(a.remove()).unwrap();
    assert!(!there());
    let stranger = ["192.168.77.1/24".parse().unwrap()];
    let e = now(Namespace::create(
        &namespace::next_name(),
        &bridge,
        &stranger,
    ))
    .unwrap_err();
    assert!(e.to_string().contains("192.168.77.1/24"), "{e}");
    assert_eq!(traces(&bridge, std::process::id()), Vec::<String>::new());
}

/// Not a test of its own: the process that is killed below.
#[test]
#[ignore = "runs as the child of the test beside it"]
fn dies_with_a_namespace() {
    if std::env::var_os("TULLE_TEST_DIE").is_none() {
        return;
    }
    let a = create(&bridge(9), 10);
    rules::apply(&a, &Redirect::default()).unwrap();
    println!("bridge {}", a.bridge().name);
    io::stdout().flush().unwrap();
    std::process::abort();
}

#[test]
fn what_a_killed_process_left_is_removed_by_the_next() {
    let Some(_host) = host() else { return };
    let before = forwarding();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "dies_with_a_namespace",
            "--exact",
            "--ignored",
            "--nocapture",
        ])
        .env("TULLE_TEST_DIE", "1")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pid = child.id();
    let mut output = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut output)
        .unwrap();
    assert!(!child.wait().unwrap().success());
    let name = output
        .split("bridge ")
        .nth(1)
        .expect("the bridge's name")
        .lines()
        .next()
        .unwrap();
    let dead = Bridge {
        name: name.to_owned(),
        ..bridge(9)
    };
    assert!(traces(&dead, pid).len() >= 3, "{:?}", traces(&dead, pid));
    assert!(now(namespace::clean_stale()).unwrap() >= 2);
    assert_eq!(traces(&dead, pid), Vec::<String>::new());
    assert_restored(before);
}
