//! A real mesh: a control plane and workloads, each in processes of its own.
//!
//! A workload is `tulle run` around a program that does nothing: what it would serve is served by
//! the test itself, which in explicit mode shares the loopback interface with it, and in
//! transparent mode enters its network namespace. So every byte on both sides of the mesh is in the
//! test's hands. In transparent mode the whole mesh has a network namespace and a mount namespace
//! of its own: meshes do not meet, and nothing of them outlives their processes.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use serde_json::Value;
use testkit::deadline::try_wait_for;
use testkit::place::DataDir;
use testkit::process::Process;
use testkit::raw::{Raw, Response};
use testkit::upstream::{Step, Upstream};

/// For anything that should happen at once, on a machine with much else to do.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// A program that says where it is and then does nothing.
const IDLE: &str = "echo \"app=$$ proxy=$HTTP_PROXY\"; exec sleep 600";
/// The port of applications in transparent mode.
const PORT: u16 = 8080;

/// How traffic comes to the proxies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Explicit,
    Transparent,
}

/// Declares tests that run in both modes: each function takes the [`Mode`].
macro_rules! in_both_modes {
    ($($(#[$meta:meta])* $name:ident),+ $(,)?) => {
        mod explicit {
            $($(#[$meta])* #[test] fn $name() { super::$name($crate::mesh::Mode::Explicit); })+
        }
        mod transparent {
            $($(#[$meta])* #[test] fn $name() {
                if $crate::mesh::transparent_is_available(stringify!($name)) {
                    super::$name($crate::mesh::Mode::Transparent);
                }
            })+
        }
    };
}
pub(crate) use in_both_modes;

/// Whether a mesh in transparent mode can be made here; says why not.
pub(crate) fn transparent_is_available(test: &str) -> bool {
    static MISSING: OnceLock<Option<String>> = OnceLock::new();
    let missing = MISSING.get_or_init(|| {
        if !nix::unistd::geteuid().is_root() {
            return Some("this is not root".to_owned());
        }
        let trial =
            isolated("ip link add name one type veth && (nft list tables || iptables -S)").output();
        match trial {
            Ok(out) if out.status.success() => None,
            Ok(out) => Some(String::from_utf8_lossy(&out.stderr).trim().to_owned()),
            Err(error) => Some(format!("unshare: {error}")),
        }
    });
    if let Some(missing) = missing {
        eprintln!("skipped in transparent mode: {test}: {missing}");
    }
    missing.is_none()
}

/// A shell script in network and mount namespaces of its own.
fn isolated(script: &str) -> Command {
    let mut command = Command::new("unshare");
    let setup = "mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns && ip link set lo up";
    command.args(["--net", "--mount", "sh", "-c"]);
    command.arg(format!("{setup} && {script}"));
    command
}

/// The binary under test.
pub(crate) fn binary() -> PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    let found = BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("TULLE_BIN") {
            return path.into();
        }
        // target/release/deps/it-0123 -> target/release/tulle
        let this = std::env::current_exe().expect("the test knows where it is");
        let target = this.ancestors().nth(2).expect("tests are built into deps");
        target.join("tulle")
    });
    assert!(
        found.is_file(),
        "{} is not there: cargo build --release -p tulle, or set TULLE_BIN",
        found.display()
    );
    found.clone()
}

/// A running mesh; everything ends when it is dropped.
pub(crate) struct Mesh {
    pub(crate) mode: Mode,
    /// Ends before its directory goes.
    pub(crate) control: Option<Process>,
    pub(crate) dir: DataDir,
    /// What `tulle run` and all below it find in their environment.
    pub(crate) environment: Vec<(&'static str, &'static str)>,
}

impl Mesh {
    /// A mesh in explicit mode.
    pub(crate) fn start() -> Self {
        Self::start_in(Mode::Explicit)
    }

    /// A mesh with a control plane and nothing else.
    pub(crate) fn start_in(mode: Mode) -> Self {
        let mut mesh = Self {
            mode,
            dir: DataDir::new("e2e"),
            control: None,
            environment: Vec::new(),
        };
        mesh.start_control("127.0.0.1:0");
        mesh
    }

    /// Starts the control plane, its gRPC listener on this address in explicit mode.
    pub(crate) fn start_control(&mut self, xds: &str) {
        let (mut command, xds) = match self.mode {
            Mode::Explicit => (Command::new(binary()), xds),
            Mode::Transparent => {
                let mut command = isolated("exec \"$0\" \"$@\"");
                command.arg(binary());
                (command, "0.0.0.0:0")
            }
        };
        command.arg("control").arg("--data-dir");
        command.arg(self.dir.path()).args(["--xds", xds]);
        for listener in ["--api", "--metrics", "--otlp"] {
            command.args([listener, "127.0.0.1:0"]);
        }
        neutral(&mut command);
        let mut control = Process::spawn("control", &mut command, self.dir.path());
        let socket = self.dir.join("control.sock");
        control.wait_for("the control plane answers", SOON, || {
            let (status, _) = call(&socket, "GET", "/api/v1/status", "")?;
            (status == 200).then_some(())
        });
        self.control = Some(control);
    }

    /// A command of this binary, in the namespaces of the mesh.
    pub(crate) fn tulle(&self, arguments: &[&str]) -> Command {
        let mut command = match (&self.control, self.mode) {
            (Some(control), Mode::Transparent) => {
                let mut command = Command::new("nsenter");
                command.arg("--target").arg(control.pid().to_string());
                command.args(["--net", "--mount", "--"]).arg(binary());
                command
            }
            _ => Command::new(binary()),
        };
        command.args(arguments);
        neutral(&mut command);
        command.env("TULLE_DATA_DIR", self.dir.path());
        command.envs(self.environment.iter().copied());
        command
    }

    /// Calls the HTTP API; fails the test unless the answer is 200.
    #[track_caller]
    pub(crate) fn api(&self, method: &str, path: &str, body: &str) -> Value {
        let answer = call(&self.dir.join("control.sock"), method, path, body);
        let (status, body) = answer.expect("the control plane answers");
        assert_eq!(status, 200, "{method} {path}: {body}");
        serde_json::from_str(&body).expect("JSON")
    }

    /// Applies objects.
    #[track_caller]
    pub(crate) fn apply(&self, yaml: &str) {
        self.api("POST", "/api/v1/apply", yaml);
    }

    /// What `/api/v1/status` says of a workload; `None` while it does not know it.
    pub(crate) fn workload(&self, name: &str) -> Option<Value> {
        let socket = self.dir.join("control.sock");
        let (_, body) = call(&socket, "GET", "/api/v1/status", "")?;
        let status: Value = serde_json::from_str(&body).ok()?;
        let workloads = status["workloads"].as_array()?;
        workloads.iter().find(|w| w["name"] == name).cloned()
    }

    /// `tulle run --service SERVICE --instance INSTANCE ARGUMENTS -- COMMAND`.
    pub(crate) fn run(
        &self,
        service: &str,
        instance: &str,
        arguments: &[&str],
        command: &[&str],
    ) -> Process {
        let mode = match self.mode {
            Mode::Explicit => "explicit",
            Mode::Transparent => "transparent",
        };
        let mut run = self.tulle(&["run", "--service", service, "--instance", instance]);
        run.args(["--mode", mode]).args(arguments);
        run.arg("--").args(command);
        Process::spawn(instance, &mut run, self.dir.path())
    }

    /// A workload whose program does nothing.
    pub(crate) fn idle(&self, service: &str, instance: &str, arguments: &[&str]) -> Workload {
        let mut process = self.run(service, instance, arguments, &["sh", "-c", IDLE]);
        let line = process.wait_stdout("app=", SOON);
        let (app, proxy) = line.split_once(' ').expect("two words");
        let proxy = proxy.trim_start_matches("proxy=http://");
        Workload {
            mode: self.mode,
            name: instance.to_owned(),
            app: app["app=".len()..].parse().expect("a process id"),
            outbound: proxy.parse().ok(),
            state: self.dir.join("workloads/default").join(instance),
            socket: self.dir.join("control.sock"),
            process,
        }
    }

    /// A client: a workload without ports.
    pub(crate) fn client(&self) -> Workload {
        self.client_with(&[])
    }

    /// A client with more arguments of `tulle run`.
    pub(crate) fn client_with(&self, arguments: &[&str]) -> Workload {
        self.idle("client", "client", arguments)
    }

    /// A server that is ready: a workload whose port is served by the test. `protocol` is what is
    /// declared, for instance `/http` or nothing.
    pub(crate) fn server(
        &self,
        service: &str,
        protocol: &str,
        script: impl Fn(usize) -> Vec<Step> + Send + 'static,
    ) -> Server {
        self.instance(service, service, protocol, &[], script)
    }

    /// As [`server`](Self::server), one of several.
    pub(crate) fn instance(
        &self,
        service: &str,
        instance: &str,
        protocol: &str,
        arguments: &[&str],
        script: impl Fn(usize) -> Vec<Step> + Send + 'static,
    ) -> Server {
        let (workload, listener) = self.bound(service, instance, protocol, arguments);
        let upstream = Upstream::on(listener, script);
        self.wait_ready(instance);
        Server { workload, upstream }
    }

    /// A workload with a listener where its program would have one.
    pub(crate) fn bound(
        &self,
        service: &str,
        instance: &str,
        protocol: &str,
        arguments: &[&str],
    ) -> (Workload, TcpListener) {
        let bind = |ip: Ipv4Addr, port| TcpListener::bind((ip, port)).expect("a free port");
        let before = (self.mode == Mode::Explicit).then(|| bind(Ipv4Addr::LOCALHOST, 0));
        let port = match &before {
            Some(listener) => listener.local_addr().expect("bound").port(),
            None => PORT,
        };
        let port = format!("{port}{protocol}");
        let arguments = [&["--port", &port], arguments].concat();
        let workload = self.idle(service, instance, &arguments);
        let listener = match before {
            Some(listener) => listener,
            None => workload.inside(|| bind(Ipv4Addr::UNSPECIFIED, PORT)),
        };
        (workload, listener)
    }

    /// Waits until the control plane counts a workload as ready.
    pub(crate) fn wait_ready(&self, instance: &str) {
        testkit::wait_for(&format!("{instance} to be ready"), SOON, || {
            (self.workload(instance)?["ready"] == true).then_some(())
        });
    }
}

/// A workload whose program does nothing, with its proxy.
pub(crate) struct Workload {
    pub(crate) name: String,
    /// `tulle run`.
    pub(crate) process: Process,
    /// Process id of the program.
    app: i32,
    mode: Mode,
    /// What the program was told in `HTTP_PROXY`.
    outbound: Option<SocketAddr>,
    /// Its proxy's state directory.
    pub(crate) state: PathBuf,
    socket: PathBuf,
}

impl Workload {
    /// Does something in the network namespace of the workload.
    pub(crate) fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        if self.mode == Mode::Explicit {
            return act();
        }
        let path = format!("/proc/{}/ns/net", self.app);
        let namespace = File::open(path).expect("the program runs");
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                setns(namespace, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
                act()
            });
            match inside.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// A connection for requests to `host`, which may have a port.
    #[track_caller]
    pub(crate) fn connect(&self, host: &str) -> Raw {
        let address = self.way(host);
        self.inside(|| Raw::connect(address).expect("the proxy accepts"))
    }

    /// Where the program would connect to for requests to `host`: its proxy, or the service.
    pub(crate) fn way(&self, host: &str) -> SocketAddr {
        match self.outbound {
            Some(proxy) => proxy,
            None => self.service_address(host),
        }
    }

    fn service_address(&self, host: &str) -> SocketAddr {
        let (name, port) = host.split_once(':').unwrap_or((host, "80"));
        let port = port.parse().expect("a port");
        if let Ok(ip) = name.parse::<IpAddr>() {
            return SocketAddr::new(ip, port);
        }
        let service = name.split('.').next().unwrap_or(name);
        let (_, body) = call(&self.socket, "GET", "/api/v1/status", "").expect("an answer");
        let status: Value = serde_json::from_str(&body).expect("JSON");
        let services = status["services"].as_array().expect("services");
        let found = services.iter().find(|s| s["name"] == service);
        let address = found.and_then(|s| s["addresses"][0].as_str());
        let ip = address.unwrap_or_else(|| panic!("service {service} has no address: {body}"));
        SocketAddr::new(ip.parse().expect("an address"), port)
    }

    /// The first line of a request, with `Host`, in the form that the program would use.
    pub(crate) fn head(&self, method: &str, host: &str, path: &str) -> String {
        match self.mode {
            Mode::Explicit => format!("{method} http://{host}{path} HTTP/1.1\r\nHost: {host}\r\n"),
            Mode::Transparent => format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n"),
        }
    }

    /// One request without a body on a connection of its own.
    #[track_caller]
    pub(crate) fn get(&self, host: &str, path: &str) -> Response {
        self.request("GET", host, path, "", "")
    }

    /// One request on a connection of its own; `headers` are whole lines.
    #[track_caller]
    pub(crate) fn request(
        &self,
        method: &str,
        host: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> Response {
        self.connect(host)
            .request(self.text(method, host, path, headers, body))
    }

    /// The bytes of a request.
    pub(crate) fn text(
        &self,
        method: &str,
        host: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> String {
        let length = match body.len() {
            0 => String::new(),
            length => format!("Content-Length: {length}\r\n"),
        };
        let head = self.head(method, host, path);
        format!("{head}{headers}{length}\r\n{body}")
    }

    /// Repeats a request until the answer is as wanted: for changes that are on their way.
    #[track_caller]
    pub(crate) fn until(
        &self,
        what: &str,
        host: &str,
        path: &str,
        wanted: impl Fn(&Response) -> bool,
    ) -> Response {
        let mut last = None;
        let found = try_wait_for(SOON, || {
            let response = self.get(host, path);
            let found = wanted(&response);
            last = Some(response.clone());
            found.then_some(response)
        });
        found.unwrap_or_else(|| panic!("waited in vain for {what}; the last answer: {last:?}"))
    }

    /// A connection for bytes to a port of a service: a CONNECT tunnel, or a connection to it.
    #[track_caller]
    pub(crate) fn tunnel(&self, host_and_port: &str) -> Raw {
        let mut raw = self.connect(host_and_port);
        if self.mode == Mode::Explicit {
            raw.send(format!(
                "CONNECT {host_and_port} HTTP/1.1\r\nHost: {host_and_port}\r\n\r\n"
            ))
            .expect("the proxy takes the request");
            let head = raw
                .read_until(b"\r\n\r\n", SOON)
                .expect("an answer to CONNECT");
            let head = String::from_utf8_lossy(&head).into_owned();
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        }
        raw
    }

    /// A port of the proxy: `metrics`, `admin`, `tunnel`, `explicit_http`.
    pub(crate) fn proxy_port(&self, name: &str) -> u16 {
        testkit::wait_for(&format!("port {name} of {}", self.name), SOON, || {
            let (_, body) = call(&self.socket, "GET", "/api/v1/status", "")?;
            let status: Value = serde_json::from_str(&body).ok()?;
            let workloads = status["workloads"].as_array()?;
            let own = workloads.iter().find(|w| w["name"] == self.name.as_str())?;
            let port = own["lease"]["proxyPorts"][name].as_u64()?;
            u16::try_from(port).ok()
        })
    }

    /// A page of the proxy's `admin` or `metrics` port.
    #[track_caller]
    pub(crate) fn page(&self, port: &str, path: &str) -> String {
        let address = (Ipv4Addr::LOCALHOST, self.proxy_port(port));
        self.inside(|| {
            let mut raw = Raw::connect(address).expect("the proxy listens");
            let response = raw.get("localhost", path);
            assert_eq!(response.status, 200, "{path}: {response:?}");
            response.text()
        })
    }

    /// The value of a series: the sum over all whose labels include these.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let page = self.page("metrics", "/metrics");
        let wanted: Vec<_> = labels.iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
        let of_name = |line: &&str| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
        };
        page.lines()
            .filter(of_name)
            .filter(|line| wanted.iter().all(|label| line.contains(label.as_str())))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    }

    /// The lines of the proxy's access log so far.
    pub(crate) fn access_log(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.state.join("access.log")).unwrap_or_default();
        let lines = text.lines().map(serde_json::from_str);
        lines.map(|line| line.expect("each line is JSON")).collect()
    }

    /// The process id of the proxy.
    pub(crate) fn proxy_pid(&self) -> i32 {
        let parent = self.process.pid();
        testkit::wait_for("the proxy's process", SOON, || {
            let children = format!("/proc/{parent}/task/{parent}/children");
            let children = fs::read_to_string(children).ok()?;
            children.split_whitespace().find_map(|pid| {
                let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
                line.contains("--workload").then(|| pid.parse().ok())?
            })
        })
    }
}

/// A workload whose port is served by the test.
pub(crate) struct Server {
    pub(crate) workload: Workload,
    pub(crate) upstream: Upstream,
}

/// Takes out what the environment of the test could change, and what would send its own requests
/// elsewhere.
fn neutral(command: &mut Command) {
    for (name, _) in std::env::vars() {
        let lower = name.to_ascii_lowercase();
        if lower.starts_with("tulle_") || lower.ends_with("_proxy") {
            command.env_remove(name);
        }
    }
}

/// One call of the HTTP API over the unix socket; `None` while nobody answers.
fn call(socket: &std::path::Path, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(SOON)).ok()?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/yaml\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// How long something took, and what it gave.
pub(crate) fn timed<T>(act: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    let value = act();
    (value, begun.elapsed())
}

/// Passes bytes on to another address, as if that had taken over this one.
pub(crate) fn forward(listener: TcpListener, to: SocketAddr) {
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(to) else {
                continue;
            };
            for (mut from, mut to) in [
                (client.try_clone(), server.try_clone()),
                (Ok(server), Ok(client)),
            ]
            .map(|(a, b)| (a.expect("a descriptor"), b.expect("a descriptor")))
            {
                thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
}
