//! A real mesh: a control plane and workloads, each in processes of its own.
//!
//! A workload is `tulle run` around a program that does nothing: what it would serve is served by
//! the test itself, which in explicit mode shares the loopback interface with it, and in
//! transparent mode enters its network namespace. So every byte on both sides of the mesh is in the
//! test's hands. In transparent mode the whole mesh has a network namespace and a mount namespace
//! of its own: meshes do not meet, and nothing of them outlives their processes.

mod workload;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::place::DataDir;
use testkit::process::Process;
use testkit::upstream::{Step, Upstream};

pub(crate) use workload::{Server, Workload};

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
        // target/quick/deps/it-0123 -> target/quick/tulle
        let this = std::env::current_exe().expect("the test knows where it is");
        let target = this.ancestors().nth(2).expect("tests are built into deps");
        target.join("tulle")
    });
    assert!(
        found.is_file(),
        "{} is not there: cargo build --profile quick --workspace, or set TULLE_BIN",
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
    /// More arguments of `tulle control`.
    pub(crate) control_arguments: Vec<&'static str>,
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
        Self::start_with(mode, &[])
    }

    /// The same, with more arguments of `tulle control`.
    pub(crate) fn start_with(mode: Mode, arguments: &[&'static str]) -> Self {
        let mut mesh = Self {
            mode,
            control_arguments: arguments.to_vec(),
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
        command.args(&self.control_arguments);
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
fn call(socket: &Path, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
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
