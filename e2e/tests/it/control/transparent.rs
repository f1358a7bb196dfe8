//! Transparent mode: what a namespace's traffic meets, and that nothing of it is left behind.
//!
//! Needs root and what redirects traffic; elsewhere it is said that these tests were not run.

use std::fs::File;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::thread;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;
use testkit::upstream::{Step, Upstream};

use super::*;

/// Runs `f` on a thread in the network namespace of a process; sockets opened there stay there.
#[track_caller]
fn inside<T: Send>(pid: i32, f: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(format!("/proc/{pid}/ns/net")).expect("the process is there");
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("root may enter");
            f()
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A workload in a namespace of its own.
struct Captured {
    supervisor: Process,
    program: i32,
    addresses: Vec<IpAddr>,
}

impl Captured {
    /// `name` is that of service and instance; its program serves `ports`, which answer with
    /// their own numbers.
    fn start(plane: &Plane, name: &str, ports: &[u16]) -> (Self, Vec<Upstream>) {
        let mut command = tulle(plane.dir.path());
        command.args([
            "run",
            "--mode",
            "transparent",
            "--service",
            name,
            "-n",
            "shop",
        ]);
        command.args(["--instance", name]);
        for port in ports {
            command.args(["--port", &port.to_string()]);
        }
        command.args(["--", "sleep", "1000"]);
        let mut supervisor = Process::spawn(name, &mut command, plane.dir.path());
        let pid = supervisor.pid();
        let program = supervisor.wait_for("its program", 2 * SOON, || {
            programmed::find_child(pid, "sleep")
        });
        let program = program.as_raw();
        let servers = ports.iter().map(|port| {
            let listener = inside(program, || {
                TcpListener::bind(("::", *port)).expect("a free port")
            });
            let answer = port.to_string();
            Upstream::on(listener, move |_| Step::answer(&answer))
        });
        let servers = servers.collect();
        let workload = supervisor.wait_for("it is ready", SOON, || {
            plane.workload(name).filter(|w| w["ready"] == true)
        });
        let mut addresses: Vec<IpAddr> = Vec::new();
        for text in workload["addresses"]
            .as_array()
            .into_iter()
            .flatten()
            .chain([&workload["address"]])
        {
            if let Some(ip) = text.as_str().and_then(|t| t.parse().ok())
                && !addresses.contains(&ip)
            {
                addresses.push(ip);
            }
        }
        assert_eq!(addresses.len(), 2, "one of each family: {workload}");
        (
            Self {
                supervisor,
                program,
                addresses,
            },
            servers,
        )
    }

    /// What its program gets for a GET.
    fn get(&self, ip: IpAddr, port: u16) -> Result<Response, String> {
        inside(self.program, || get(ip, port))
    }

    /// Where its namespace is.
    fn namespace(&self) -> PathBuf {
        let owner = format!("tulle-{}-", self.supervisor.pid());
        let mut all = fs::read_dir("/run/netns").expect("it has one").flatten();
        let own = all.find(|e| e.file_name().to_string_lossy().starts_with(&owner));
        own.expect("it has one").path()
    }
}

fn get(ip: IpAddr, port: u16) -> Result<Response, String> {
    let mut raw = Raw::connect((ip, port)).map_err(|e| e.to_string())?;
    let request = "GET / HTTP/1.1\r\nhost: web.shop\r\nconnection: close\r\n\r\n";
    raw.send(request).map_err(|e| e.to_string())?;
    raw.response(SOON).map_err(|e| format!("{e:?}"))
}

fn wait_text(what: &str, wanted: &str, mut ask: impl FnMut() -> Result<Response, String>) {
    let mut last = None;
    let found = testkit::deadline::try_wait_for(SOON, || {
        let answer = ask();
        let fits = matches!(&answer, Ok(r) if r.status == 200 && r.text() == wanted);
        last = Some(answer);
        fits.then_some(())
    });
    assert!(found.is_some(), "{what}: {last:?}");
}

/// Addresses of a service, one of each family.
fn vips(plane: &Plane, name: &str) -> Vec<IpAddr> {
    let object = plane.json(&["get", "service", name, "-n", "shop"]);
    let list = object["spec"]["clusterIPs"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    list.iter()
        .map(|ip| ip.as_str().expect("text").parse().expect("an address"))
        .collect()
}

/// A host of the world outside: a plain network namespace behind a link of its own.
struct Outside {
    name: String,
    _server: Upstream,
}

const OUTSIDE: [&str; 2] = ["198.51.100.2", "2001:db8:7e57::2"];

fn ip(arguments: &str) -> bool {
    let run = Command::new("ip").args(arguments.split(' ')).output();
    run.is_ok_and(|run| run.status.success())
}

impl Outside {
    fn start() -> Self {
        let name = format!("outside{}", std::process::id());
        let link = format!("out{}", std::process::id());
        for arguments in [
            &format!("netns add {name}") as &str,
            &format!("link add {link} type veth peer name eth0 netns {name}"),
            &format!("address add 198.51.100.1/30 dev {link}"),
            &format!("-6 address add 2001:db8:7e57::1/64 dev {link} nodad"),
            &format!("link set {link} up"),
            &format!("-n {name} address add 198.51.100.2/30 dev eth0"),
            &format!("-n {name} -6 address add 2001:db8:7e57::2/64 dev eth0 nodad"),
            // No route back: answers find their way only because the bridge masquerades.
            &format!("-n {name} link set eth0 up"),
        ] {
            assert!(ip(arguments), "ip {arguments}");
        }
        let namespace = File::open(format!("/run/netns/{name}")).expect("made");
        let listener = thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("root may enter");
            TcpListener::bind(("::", 8000)).expect("a free port")
        });
        let listener = listener.join().expect("no panic");
        Self {
            name,
            _server: Upstream::on(listener, |_| Step::answer("outside")),
        }
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = ip(&format!("netns del {}", self.name));
    }
}

const POLICY: &str = r#"
apiVersion: tulle.dev/v1alpha1
kind: AuthenticationPolicy
metadata: {name: one-open, namespace: shop}
spec:
  targetRefs: [{group: "", kind: Service, name: SERVICE}]
  mtls: {mode: Strict, ports: {"9080": Permissive}}
"#;

const REGISTRY_ONLY: &str = r"
apiVersion: tulle.dev/v1alpha1
kind: MeshConfig
metadata: {name: default}
spec: {outboundPolicy: RegistryOnly}
";

#[test]
fn captured_traffic_is_refused_passed_and_left_as_the_policy_says() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: transparent mode needs root");
        return;
    }
    if let Err(missing) = capture::available() {
        eprintln!("skipped: {missing}");
        return;
    }
    let plane = Plane::start_in(DataDir::new("capture"), "0.0.0.0", &[]);
    // Other meshes may run on this host: names, and so addresses, of our own.
    let unique = std::process::id();
    let name = format!("web{unique}");
    let (web, servers) = Captured::start(&plane, &name, &[9080, 9081]);
    let (mut caller, _) = Captured::start(&plane, &format!("caller{unique}"), &[]);

    // Inside the mesh: by the service's address and the workload's own, in both families.
    for ip in vips(&plane, &name) {
        wait_text(&format!("{ip}"), "9080", || caller.get(ip, 9080));
        wait_text(&format!("{ip}"), "9081", || caller.get(ip, 9081));
    }
    for ip in &web.addresses {
        wait_text(&format!("{ip}"), "9080", || caller.get(*ip, 9080));
    }
    let reached: usize = servers.iter().map(Upstream::requests).sum();

    // Plain text from the host: refused with the reason, on every way in.
    for ip in &web.addresses {
        for port in [9080, 9081, 15006, 15008] {
            match get(*ip, port) {
                Ok(response) => {
                    assert_eq!(response.status, 403, "{ip}:{port}: {response:?}");
                    has(
                        response.header("proxy-status").unwrap_or_default(),
                        &["unauthenticated"],
                    );
                }
                // Whoever connects to the proxy's own ports is no redirected caller.
                Err(_) => assert!(port > 15000, "{ip}:{port} was closed without a word"),
            }
        }
    }
    assert_eq!(
        servers.iter().map(Upstream::requests).sum::<usize>(),
        reached,
        "plain text reached the program"
    );

    // One port is opened, the other stays shut.
    plane
        .apply("open.yaml", &POLICY.replace("SERVICE", &name))
        .success();
    for ip in &web.addresses {
        wait_text(&format!("{ip} when permissive"), "9080", || get(*ip, 9080));
        assert_eq!(get(*ip, 9081).map(|r| r.status), Ok(403));
    }
    plane
        .cli(&["delete", "authenticationpolicy", "one-open", "-n", "shop"])
        .success();
    for ip in &web.addresses {
        wait_for("the port is shut again", SOON, || {
            (get(*ip, 9080).ok()?.status == 403).then_some(())
        });
    }

    names(&caller, &plane, &name);
    garbage_inside(&caller, &web);
    wait_text("after garbage", "9080", || {
        caller.get(vips(&plane, &name)[0], 9080)
    });
    outside(&caller, &plane);
    remains(&plane, web, &mut caller, &format!("next{unique}"));
}

/// Names resolve to the service's addresses, from whatever server is asked.
fn names(caller: &Captured, plane: &Plane, service: &str) {
    let vips = vips(plane, service);
    for (kind, index) in [(1_u16, 0), (28, 1)] {
        let answer = caller.dns(&query(&format!("{service}.shop"), kind));
        let bytes = match vips[index] {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let answer = answer.expect("an answer");
        assert!(
            answer.windows(bytes.len()).any(|w| w == bytes),
            "{service}.shop is not {}: {answer:?}",
            vips[index]
        );
    }
}

impl Captured {
    /// Asks a name server of its namespace.
    fn dns(&self, query: &[u8]) -> Option<Vec<u8>> {
        inside(self.program, || {
            let socket = UdpSocket::bind(("0.0.0.0", 0)).expect("a port");
            socket
                .set_read_timeout(Some(Duration::from_secs(5)))
                .expect("a limit");
            // An address of documentation: whoever is asked, the proxy answers.
            socket.send_to(query, ("192.0.2.53", 53)).expect("sent");
            let mut answer = [0; 1500];
            let (n, _) = socket.recv_from(&mut answer).ok()?;
            Some(answer[..n].to_vec())
        })
    }
}

/// A DNS query.
fn query(name: &str, kind: u16) -> Vec<u8> {
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).expect("short"));
        query.extend(label.as_bytes());
    }
    query.push(0);
    query.extend(kind.to_be_bytes());
    query.extend([0, 1]);
    query
}

/// Garbage to the proxy's ports in the namespace, from inside, DNS over UDP and TCP among them.
fn garbage_inside(caller: &Captured, web: &Captured) {
    let target = web.addresses[0];
    inside(caller.program, || {
        let socket = UdpSocket::bind(("0.0.0.0", 0)).expect("a port");
        for (n, (_, bytes)) in garbage::samples().iter().enumerate() {
            let part = &bytes[..bytes.len().min(1200)];
            for to in [("192.0.2.53", 53), ("127.0.0.1", 15053)] {
                let _ = socket.send_to(part, to);
            }
            // Well begun: a header that promises more than there is.
            let mut cut = query("a.b", 1);
            cut.truncate(12 + n % 5);
            cut[5] = 0xff;
            let _ = socket.send_to(&cut, ("127.0.0.1", 15053));
            for to in [
                ("192.0.2.53", 53),
                ("127.0.0.1", 15001),
                ("127.0.0.1", 15053),
                ("127.0.0.1", 15006),
                ("127.0.0.1", 15008),
                ("127.0.0.1", 15000),
                ("127.0.0.1", 15020),
            ] {
                if let Ok(mut raw) = Raw::connect(to) {
                    let _ = raw.send(bytes);
                }
            }
            if let Ok(mut raw) = Raw::connect((target, 9080)) {
                let _ = raw.send(bytes);
            }
        }
    });
    // From the host, too.
    for (_, bytes) in garbage::samples() {
        for port in [9080, 15006, 15008, 15020] {
            if let Ok(mut raw) = Raw::connect((target, port)) {
                let _ = raw.send(&bytes);
            }
        }
    }
    for process in [&caller.supervisor, &web.supervisor] {
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
    assert!(
        caller.dns(&query("nothing.invalid", 1)).is_some(),
        "DNS is silent after garbage"
    );
}

/// What is outside the mesh is passed through, until only the registry counts.
fn outside(caller: &Captured, plane: &Plane) {
    if !ip("-V") {
        eprintln!("skipped: the world outside needs the command `ip` (iproute2)");
        return;
    }
    let _outside = Outside::start();
    for ip in OUTSIDE {
        let ip = ip.parse().expect("an address");
        wait_text(&format!("{ip} outside"), "outside", || caller.get(ip, 8000));
    }
    plane.apply("registry.yaml", REGISTRY_ONLY).success();
    for ip in OUTSIDE {
        let ip = ip.parse().expect("an address");
        let refused = wait_for("the refusal", SOON, || {
            caller.get(ip, 8000).ok().filter(|r| r.status != 200)
        });
        assert!(
            (500..600).contains(&refused.status) || refused.status == 404,
            "{refused:?}"
        );
        has(
            refused.header("proxy-status").unwrap_or_default(),
            &["no_route", "RegistryOnly"],
        );
    }
    plane.cli(&["delete", "meshconfig", "default"]).success();
    let ip = OUTSIDE[0].parse().expect("an address");
    wait_text("outside again", "outside", || caller.get(ip, 8000));
}

/// After an end in order nothing is left, after a kill nothing once the next one starts.
fn remains(plane: &Plane, mut web: Captured, caller: &mut Captured, next: &str) {
    let (of_web, of_caller) = (web.namespace(), caller.namespace());
    let IpAddr::V4(address) = web.addresses.iter().find(|a| a.is_ipv4()).expect("one") else {
        unreachable!("it is one of IPv4")
    };
    let bridge = format!("/sys/class/net/tulle{}", address.octets()[1]);
    assert!(Path::new(&bridge).exists(), "no {bridge}");
    web.supervisor.signal(Signal::SIGTERM);
    web.supervisor.wait(SOON);
    assert!(!of_web.exists(), "{} is left", of_web.display());

    caller.supervisor.kill();
    let (mut third, _) = Captured::start(plane, next, &[]);
    assert!(
        !of_caller.exists(),
        "{} is left after the next start",
        of_caller.display()
    );
    let of_third = third.namespace();
    third.supervisor.signal(Signal::SIGTERM);
    third.supervisor.wait(SOON);
    assert!(!of_third.exists(), "{} is left", of_third.display());

    // The bridge goes with the last workload of this control plane.
    wait_for("the end of the bridge", SOON, || {
        (!Path::new(&bridge).exists()).then_some(())
    });
}
