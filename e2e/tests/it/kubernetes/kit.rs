//! The test cluster's own processes: what cannot be asked of just any cluster.
//!
//! The kit keeps a file `pid/NAME` with process and start time beside `pki/admin.kubeconfig`. What is
//! restarted here is noted there, so that the kit still finds and ends it.

use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// An API server takes its time on a busy machine.
const UP: Duration = Duration::from_mins(2);
const SERVER: &str = "kube-apiserver";

pub(super) struct Kit {
    run: PathBuf,
    kubeconfig: PathBuf,
}

impl Kit {
    /// The kit whose cluster this is the administrator's kubeconfig of.
    pub(super) fn of(kubeconfig: &Path) -> Self {
        let run = kubeconfig.parent().and_then(Path::parent);
        let kit = Self {
            run: run.expect("a path").to_owned(),
            kubeconfig: kubeconfig.to_owned(),
        };
        assert!(
            kit.pid_file(SERVER).is_file(),
            "{} is not the cluster kit's: its API server cannot be restarted",
            kubeconfig.display()
        );
        kit
    }

    fn pid_file(&self, name: &str) -> PathBuf {
        self.run.join("pid").join(name)
    }

    fn pid(&self, name: &str) -> u32 {
        let text = fs::read_to_string(self.pid_file(name)).unwrap();
        text.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Kills the API server. It may be started again by what is returned.
    pub(super) fn kill_api_server(&self) -> Killed<'_> {
        let pid = self.pid(SERVER);
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        let words = line.split(|byte| *byte == 0).filter(|w| !w.is_empty());
        let command: Vec<String> = words
            .map(|word| String::from_utf8(word.to_vec()).unwrap())
            .collect();
        kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
        // One that is dead and not collected yet has given its port back.
        testkit::wait_for("the end of the API server", UP, || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
            let ended = stat.map_or(true, |stat| stat.contains(") Z "));
            ended.then_some(())
        });
        Killed { kit: self, command }
    }

    /// Runs a program where the API server and etcd run.
    fn inside(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.pid("etcd")));
        command.arg("--");
        command
    }

    fn etcd(&self, call: &str, body: &Value) -> Value {
        let url = format!("http://127.0.0.1:2379/v3/kv/{call}");
        let mut command = self.inside();
        command.args(["curl", "--silent", "--show-error", "--fail", &url]);
        let done = command.args(["--data", &body.to_string()]).output();
        let done = done.expect("nsenter runs");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "etcd {call}: {said}");
        serde_json::from_slice(&done.stdout).unwrap()
    }

    /// Has etcd forget all revisions but the last.
    pub(super) fn compact(&self) {
        let now = self.etcd("range", &json!({"key": "AA=="}));
        let revision = now["header"]["revision"].as_str().expect("a revision");
        self.etcd(
            "compaction",
            &json!({"revision": revision, "physical": true}),
        );
    }
}

/// An API server that does not run.
pub(super) struct Killed<'a> {
    kit: &'a Kit,
    command: Vec<String>,
}

impl Killed<'_> {
    /// Starts it as it was, and waits until it is ready.
    pub(super) fn start(self) {
        let answers = |arguments: &[&str]| {
            let mut command = Command::new("kubectl");
            command
                .args(["--request-timeout=5s", "get"])
                .args(arguments);
            let asked = command.env("KUBECONFIG", &self.kit.kubeconfig).output();
            asked.is_ok_and(|asked| asked.status.success())
        };
        let mut server = self.run();
        // It is ready before it serves the kinds of CRDs.
        testkit::wait_for("the API server", UP, || {
            // Threads of the one before may have its port for a moment after its end.
            if server.try_wait().unwrap().is_some() {
                server = self.run();
            }
            (answers(&["--raw", "/readyz"]) && answers(&["gatewayclasses"])).then_some(())
        });
    }

    fn run(&self) -> Child {
        let kit = self.kit;
        let log = kit.run.join("log").join(format!("{SERVER}.log"));
        let log = OpenOptions::new().append(true).create(true).open(log);
        let log = log.unwrap();
        // `nsenter` becomes the program, under the same process id; it is the kit that ends it.
        let child = kit
            .inside()
            .args(&self.command)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("nsenter runs");
        let pid = child.id();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let (_, rest) = stat.rsplit_once(") ").unwrap();
        let started = rest.split_whitespace().nth(19).unwrap();
        fs::write(kit.pid_file(SERVER), format!("{pid} {started}\n")).unwrap();
        child
    }
}
