//! `tulle run` as a program and its caller meet it: input, output, exit code, environment, signals
//! and what is left behind. In explicit mode, so that nobody needs root.

use std::io::{BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long anything may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// A control plane on free ports, and the directory it lives in.
struct Mesh {
    dir: tempfile::TempDir,
    control: Child,
}

impl Mesh {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let control = tulle(dir.path())
            .args(["control", "--xds", "127.0.0.1:0", "--api", "127.0.0.1:0"])
            .args(["--metrics", "127.0.0.1:0", "--otlp", "127.0.0.1:0"])
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let mesh = Self { dir, control };
        eventually("the control plane answers", || {
            let output = mesh
                .tulle()
                .args(["status", "-q"])
                .output()
                .expect("starts");
            output.status.success().then_some(())
        });
        mesh
    }

    fn tulle(&self) -> Command {
        tulle(self.dir.path())
    }

    /// `tulle run` of a shell script.
    fn run(&self, options: &[&str], script: &str) -> Command {
        let mut command = self.tulle();
        command
            .args(["run", "--mode", "explicit", "--service", "it"])
            .args(options)
            .args(["--", "sh", "-c", script]);
        command
    }

    fn workloads(&self) -> String {
        let output = self
            .tulle()
            .args(["get", "workloads", "-o", "json"])
            .output()
            .expect("starts");
        text(&output.stdout)
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        let _ = self.control.kill();
        let _ = self.control.wait();
    }
}

/// A child that does not outlive its test, even a failed one.
struct Guarded(Option<Child>);

impl Guarded {
    fn start(command: &mut Command) -> Self {
        Self(Some(command.spawn().expect("starts")))
    }

    /// To be waited for by the caller.
    fn into_inner(mut self) -> Child {
        self.0.take().expect("taken once")
    }
}

impl std::ops::Deref for Guarded {
    type Target = Child;

    fn deref(&self) -> &Child {
        self.0.as_ref().expect("not taken")
    }
}

impl std::ops::DerefMut for Guarded {
    fn deref_mut(&mut self) -> &mut Child {
        self.0.as_mut().expect("not taken")
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn tulle(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tulle"));
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("TULLE_DATA_DIR", dir);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn shown(output: &Output) -> String {
    format!(
        "{}\n--- stdout\n{}--- stderr\n{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    )
}

/// Asks until there is an answer.
fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).expect("a process id");
    kill(Pid::from_raw(pid), signal).expect("it runs");
}

/// The processes whose command line names this directory.
fn processes_in(dir: &Path) -> Vec<String> {
    let needle = dir.display().to_string();
    let lines = std::fs::read_dir("/proc").expect("proc").flatten();
    lines
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .map(|line| text(&line).replace('\0', " "))
        .filter(|line| line.contains(&needle))
        .collect()
}

/// The next line of a child's stdout.
fn line(out: &mut impl std::io::BufRead) -> String {
    let mut line = String::new();
    out.read_line(&mut line).expect("readable");
    line.trim_end().to_owned()
}

#[test]
fn input_output_and_exit_code_are_the_programs_own() {
    let mesh = Mesh::start();
    let mut child = Guarded::start(
        mesh.run(&[], "cat; echo talk >&2; exit 7")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
    );
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(b"\x00binary\xff in\n")
        .expect("writable");
    let output = child.into_inner().wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(7), "{}", shown(&output));
    assert_eq!(output.stdout, b"\x00binary\xff in\n", "{}", shown(&output));
    assert_eq!(text(&output.stderr), "talk\n");
}

#[test]
fn death_by_a_signal_is_128_and_the_signal() {
    let mesh = Mesh::start();
    let output = mesh.run(&[], "kill -KILL $$").output().expect("starts");
    assert_eq!(output.status.code(), Some(137), "{}", shown(&output));
}

#[test]
fn the_environment_names_the_proxy_and_the_port_and_nothing_else() {
    let mesh = Mesh::start();
    let output = mesh.run(&["--port", "9"], "env").output().expect("starts");
    let mut names: Vec<String> = text(&output.stdout)
        .lines()
        .filter_map(|line| line.split_once('=').map(|(name, _)| name.to_owned()))
        // What the shell itself adds.
        .filter(|name| !matches!(name.as_str(), "PWD" | "_" | "SHLVL" | "OLDPWD"))
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "HTTPS_PROXY",
            "HTTP_PROXY",
            "NO_PROXY",
            "PATH",
            "PORT",
            "TULLE_DATA_DIR",
            "http_proxy",
            "https_proxy",
            "no_proxy"
        ],
        "{}",
        shown(&output)
    );
    assert!(text(&output.stdout).contains("PORT=9\n"));
}

#[test]
fn signals_reach_the_program_and_none_is_blocked_or_ignored_for_it() {
    let mesh = Mesh::start();
    let script = "trap 'echo hup' HUP; trap 'echo usr1' USR1; trap 'echo term; exit 3' TERM
        grep -E 'Sig(Blk|Ign)' /proc/self/status; echo ready
        while :; do sleep 0.02; done";
    let mut child = Guarded::start(mesh.run(&[], script).stdout(Stdio::piped()));
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    assert_eq!(line(&mut out), "SigBlk:\t0000000000000000");
    // The C library's own signals, above 31, come as the test's caller left them.
    let ignored = line(&mut out);
    assert!(ignored.starts_with("SigIgn:"), "{ignored}");
    let mask = u64::from_str_radix(ignored.trim_start_matches("SigIgn:").trim(), 16);
    assert_eq!(mask.expect("hexadecimal") & 0x7fff_ffff, 0, "{ignored}");
    assert_eq!(line(&mut out), "ready");
    for (sent, heard) in [
        (Signal::SIGHUP, "hup"),
        (Signal::SIGUSR1, "usr1"),
        (Signal::SIGTERM, "term"),
    ] {
        signal(&child, sent);
        assert_eq!(line(&mut out), heard);
    }
    assert_eq!(child.wait().expect("ends").code(), Some(3));
}

#[test]
fn the_workload_is_known_while_it_runs_and_forgotten_after() {
    let mesh = Mesh::start();
    let mut child = Guarded::start(
        mesh.run(
            &["--instance", "it-0", "--label", "version=v9"],
            "echo up; read x",
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped()),
    );
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    assert_eq!(line(&mut out), "up");
    let known = mesh.workloads();
    assert!(
        known.contains("\"it-0\"") && known.contains("\"v9\""),
        "{known}"
    );
    drop(child.stdin.take());
    child.wait().expect("ends");
    assert!(!mesh.workloads().contains("\"it-0\""));
}

#[test]
fn a_killed_supervisor_leaves_no_process_behind() {
    let mesh = Mesh::start();
    let mut child = Guarded::start(
        mesh.run(&["--instance", "it-9"], "echo up; exec sleep 60")
            .stdout(Stdio::piped()),
    );
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    assert_eq!(line(&mut out), "up");
    let state = mesh.dir.path().join("workloads");
    assert_eq!(processes_in(&state).len(), 1, "the proxy");
    child.kill().expect("it runs");
    child.wait().expect("ends");
    eventually("the proxy is gone", || {
        processes_in(&state).is_empty().then_some(())
    });
    // The program held the other end.
    let mut rest = String::new();
    out.read_to_string(&mut rest).expect("readable");
}

#[test]
fn a_killed_proxy_is_replaced() {
    let mesh = Mesh::start();
    let mut child = Guarded::start(
        mesh.run(
            &["--instance", "it-1"],
            "echo up; read x; env | grep ^http_proxy",
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped()),
    );
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    assert_eq!(line(&mut out), "up");
    let first = proxy_of(&child);
    kill(Pid::from_raw(first), Signal::SIGKILL).expect("it runs");
    eventually("another proxy runs", || {
        Some(proxy_of(&child)).filter(|pid| *pid != first && *pid != 0)
    });
    drop(child.stdin.take());
    assert!(line(&mut out).starts_with("http_proxy=http://127.0.0.1:"));
    let output = child.into_inner().wait_with_output().expect("ends");
    assert!(
        text(&output.stderr).contains("the proxy ended"),
        "{}",
        shown(&output)
    );
}

/// The process id of a supervisor's proxy; 0 while there is none.
fn proxy_of(supervisor: &Child) -> i32 {
    let pid = supervisor.id();
    let children =
        std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children
        .split_ascii_whitespace()
        .find(|child| {
            let line = std::fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
            text(&line).contains("\0proxy\0")
        })
        .and_then(|child| child.parse().ok())
        .unwrap_or(0)
}

#[test]
fn a_request_from_inside_the_mesh_reaches_a_service() {
    let mesh = Mesh::start();
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|l| l.local_addr())
        .expect("a free port")
        .port();
    let serve: PathBuf = env!("CARGO_BIN_EXE_tulle").into();
    let mut server = mesh
        .tulle()
        .args(["run", "--mode", "explicit", "--service", "ratings"])
        .args(["--port", &format!("{port}/http"), "--"])
        .arg(&serve)
        .args(["bookshop", "ratings"])
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    eventually("the service answers", || {
        let mut client = mesh
            .tulle()
            .args(["run", "--mode", "explicit", "--service", "client", "--"])
            .arg(&serve)
            .args(["bookshop", "probe"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let plan = r#"{"command":"send","method":"GET","url":"http://ratings/ratings/9780141439518","count":1,"concurrency":1}"#;
        let mut stdin = client.stdin.take().expect("piped");
        writeln!(stdin, "{plan}").expect("writable");
        drop(stdin);
        let output = client.wait_with_output().expect("ends");
        text(&output.stdout)
            .contains("\"succeeded\":1")
            .then_some(())
    });
    signal(&server, Signal::SIGTERM);
    assert!(server.wait().expect("ends").success());
}

#[test]
fn another_host_joins_with_a_token_that_is_good_once() {
    let mesh = Mesh::start();
    let address = serde_json::from_slice::<serde_json::Value>(
        &std::fs::read(mesh.dir.path().join("control.json")).expect("written when ready"),
    )
    .expect("JSON")["xds"]
        .as_str()
        .expect("an address")
        .to_owned();
    let token = mesh
        .tulle()
        .args(["token", "create", "-s", "away"])
        .output()
        .expect("starts");
    assert!(token.status.success(), "{}", shown(&token));
    // A host of its own has a data directory of its own, with no control plane in it.
    let away = tempfile::tempdir().expect("temporary directory");
    let file = away.path().join("token");
    std::fs::write(&file, &token.stdout).expect("written");
    let join = |service: &str, instance: &str| {
        tulle(away.path())
            .args(["run", "--mode", "explicit", "--service", service])
            .args([
                "--instance",
                instance,
                "--control",
                &address,
                "--token-file",
            ])
            .arg(&file)
            .args(["--", "sh", "-c", "exit 5"])
            .output()
            .expect("starts")
    };
    let foreign = join("other", "other-0");
    assert_eq!(foreign.status.code(), Some(1), "{}", shown(&foreign));
    let first = join("away", "away-0");
    assert_eq!(first.status.code(), Some(5), "{}", shown(&first));
    let again = join("away", "away-0");
    assert_eq!(
        again.status.code(),
        Some(5),
        "by its certificate: {}",
        shown(&again)
    );
    let replayed = join("away", "away-1");
    assert_eq!(replayed.status.code(), Some(1), "{}", shown(&replayed));
}
