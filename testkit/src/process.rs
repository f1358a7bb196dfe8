//! A child process under observation.
//!
//! Its output is kept in memory and in files; it runs in a process group of its own, which is killed
//! whole when the [`Process`] is dropped. When the test fails, the end of its output is printed.

use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::deadline::try_wait_for;

/// Bytes of each output kept in memory; files have it all.
const KEPT: usize = 4 * 1024 * 1024;
/// Lines of each output that are printed when a test fails.
const PRINTED: usize = 60;

/// A running child, or one that has ended and not yet been dropped.
pub struct Process {
    name: String,
    child: Child,
    ended: Option<ExitStatus>,
    stdout: Arc<Output>,
    stderr: Arc<Output>,
    stdin: Option<ChildStdin>,
}

/// What a process left behind.
#[derive(Debug, Clone)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// All it wrote to stdout.
    pub stdout: String,
    /// All it wrote to stderr.
    pub stderr: String,
}

impl Finished {
    /// The exit code; fails the test, showing the output, when it was ended by a signal.
    #[track_caller]
    pub fn code(&self) -> i32 {
        match self.status.code() {
            Some(code) => code,
            None => panic!("{}\n{}\n{}", self.status, self.stdout, self.stderr),
        }
    }

    /// Its stdout; fails the test, showing the output, unless it ended with 0.
    #[track_caller]
    pub fn success(self) -> String {
        let (status, stdout, stderr) = (self.status, self.stdout, self.stderr);
        assert!(
            status.success(),
            "{status}\nstdout:\n{stdout}\nstderr:\n{stderr}"
        );
        stdout
    }
}

#[derive(Default)]
struct Output {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    at_end: bool,
}

impl Output {
    fn read(mut from: impl Read + Send + 'static, file: &Path) -> Arc<Self> {
        let output = Arc::new(Self::default());
        let mut file = File::create(file).expect("the log file can be made");
        let writer = Arc::clone(&output);
        thread::spawn(move || {
            let mut bytes = [0; 16 * 1024];
            while let Ok(n @ 1..) = from.read(&mut bytes) {
                let _ = file.write_all(&bytes[..n]);
                writer.with(|state| {
                    let room = KEPT.saturating_sub(state.bytes.len());
                    state.bytes.extend_from_slice(&bytes[..n.min(room)]);
                });
            }
            writer.with(|state| state.at_end = true);
        });
        output
    }

    fn with(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    fn text(&self) -> String {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&state.bytes).into_owned()
    }

    /// Waits until `found` finds something; `None` at the end of the output or of the time.
    fn wait<T>(&self, limit: Duration, found: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
        let end = Instant::now() + limit;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(found) = found(&state.bytes) {
                return Some(found);
            }
            let left = end.checked_duration_since(Instant::now())?;
            if state.at_end {
                return None;
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn wait_end(&self, limit: Duration) {
        self.wait(limit, |_| None::<()>);
    }
}

impl Process {
    /// Starts a command in a process group of its own, with output to `NAME.stdout.log` and
    /// `NAME.stderr.log` in `logs`, and a stdin that [`close_stdin`](Self::close_stdin) ends.
    #[track_caller]
    pub fn spawn(name: &str, command: &mut Command, logs: &Path) -> Self {
        let spawned = command
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = match spawned {
            Ok(child) => child,
            Err(e) => panic!("{name} does not start: {e}; {command:?}"),
        };
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let file = |stream: &str| -> PathBuf { logs.join(format!("{name}.{stream}.log")) };
        Self {
            name: name.to_owned(),
            stdin: child.stdin.take(),
            stdout: Output::read(stdout, &file("stdout")),
            stderr: Output::read(stderr, &file("stderr")),
            child,
            ended: None,
        }
    }

    /// Runs a command to its end.
    #[track_caller]
    pub fn run(name: &str, command: &mut Command, logs: &Path, limit: Duration) -> Finished {
        let mut process = Self::spawn(name, command, logs);
        process.close_stdin();
        process.finish(limit)
    }

    /// Process id; also that of its process group.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All that came out of stdout so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// All that came out of stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        self.poll().is_none()
    }

    fn poll(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self
                .child
                .try_wait()
                .expect("our own child can be waited for");
        }
        self.ended
    }

    /// Writes to its stdin; fails the test when it is closed.
    #[track_caller]
    pub fn write_stdin(&mut self, bytes: impl AsRef<[u8]>) {
        let stdin = self.stdin.as_mut().expect("stdin was not closed before");
        stdin.write_all(bytes.as_ref()).expect("the process reads");
    }

    /// Ends its stdin.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits for a line of stdout that contains `part`, and gives it; fails the test, with its
    /// output, when the process ends or the time is up without it.
    #[track_caller]
    pub fn wait_stdout(&mut self, part: &str, limit: Duration) -> String {
        match self.stdout.wait(limit, |bytes| line_with(bytes, part)) {
            Some(line) => line,
            None => self.fail(&format!("no line with {part:?} on stdout within {limit:?}")),
        }
    }

    /// As [`wait_stdout`](Self::wait_stdout), of stderr.
    #[track_caller]
    pub fn wait_stderr(&mut self, part: &str, limit: Duration) -> String {
        match self.stderr.wait(limit, |bytes| line_with(bytes, part)) {
            Some(line) => line,
            None => self.fail(&format!("no line with {part:?} on stderr within {limit:?}")),
        }
    }

    /// Waits for any condition, and fails the test, with the output, as soon as the process ends
    /// without it.
    #[track_caller]
    pub fn wait_for<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut condition: impl FnMut() -> Option<T>,
    ) -> T {
        let mut ended = false;
        let found = try_wait_for(limit, || {
            // Looked at in this order, so that what it did last is seen.
            let gone = self.poll().is_some();
            let found = condition();
            ended = gone && found.is_none();
            (found.is_some() || ended).then_some(found)
        });
        match found.flatten() {
            Some(found) => found,
            None if ended => self.fail(&format!("ended before {what}")),
            None => self.fail(&format!("{what} did not happen within {limit:?}")),
        }
    }

    /// Sends a signal to the process alone.
    pub fn signal(&self, signal: Signal) {
        if self.ended.is_none() {
            let _ = kill(self.target(), signal);
        }
    }

    /// Sends a signal to its whole process group, as a terminal does.
    pub fn signal_group(&self, signal: Signal) {
        let _ = killpg(self.target(), signal);
    }

    fn target(&self) -> Pid {
        // Linux' process ids are below 2^22.
        Pid::from_raw(self.pid().cast_signed())
    }

    /// Waits for its end; fails the test when it does not come.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        match try_wait_for(limit, || self.poll()) {
            Some(status) => status,
            None => self.fail(&format!("did not end within {limit:?}")),
        }
    }

    /// Asks it to end (SIGTERM) and waits for that.
    #[track_caller]
    pub fn terminate(&mut self, limit: Duration) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait(limit)
    }

    /// Kills it at once (SIGKILL), leaving its children alive.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        let _ = try_wait_for(Duration::from_secs(10), || self.poll());
    }

    /// Waits for its end and gives all its output.
    #[track_caller]
    pub fn finish(mut self, limit: Duration) -> Finished {
        let status = self.wait(limit);
        // A grandchild that lives on may hold the pipes; what is in them has come by then.
        self.stdout.wait_end(Duration::from_secs(2));
        self.stderr.wait_end(Duration::from_secs(2));
        Finished {
            status,
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }

    #[track_caller]
    fn fail(&mut self, what: &str) -> ! {
        let state = match self.poll() {
            Some(status) => format!("ended with {status}"),
            None => "still running".to_owned(),
        };
        panic!("{} (pid {}, {state}): {what}", self.name, self.pid());
    }

    fn print(&self) {
        for (stream, output) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            let text = output.text();
            let lines: Vec<_> = text.lines().collect();
            let skipped = lines.len().saturating_sub(PRINTED);
            eprintln!("--- {} {stream} ({skipped} lines before these)", self.name);
            for line in &lines[skipped..] {
                eprintln!("{line}");
            }
        }
    }
}

fn line_with(bytes: &[u8], part: &str) -> Option<String> {
    // The last line may still be growing.
    let whole = &bytes[..=bytes.iter().rposition(|b| *b == b'\n')?];
    String::from_utf8_lossy(whole)
        .lines()
        .find(|line| line.contains(part))
        .map(str::to_owned)
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = killpg(self.target(), Signal::SIGKILL);
        let _ = try_wait_for(Duration::from_secs(10), || self.poll());
        if thread::panicking() {
            self.stdout.wait_end(Duration::from_millis(200));
            self.stderr.wait_end(Duration::from_millis(200));
            self.print();
        }
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Process({}, {})", self.name, self.pid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::DataDir;
    use crate::wait_for;

    const SOON: Duration = Duration::from_secs(10);

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_is_seen_line_by_line_and_kept() {
        let dir = DataDir::new("process");
        let script = "echo ready port=7; read line; echo got $line >&2; exit 3";
        let mut process = Process::spawn("talker", &mut sh(script), dir.path());
        assert_eq!(process.wait_stdout("ready", SOON), "ready port=7");
        assert!(process.is_running());
        process.write_stdin("words\n");
        assert_eq!(process.wait_stderr("got", SOON), "got words");
        let finished = process.finish(SOON);
        assert_eq!(finished.code(), 3);
        let log = std::fs::read_to_string(dir.join("talker.stdout.log")).unwrap();
        assert_eq!(log, finished.stdout);
    }

    #[test]
    fn the_whole_group_goes_with_it() {
        let dir = DataDir::new("process");
        let script = "sleep 1000 & echo child $!; wait";
        let mut process = Process::spawn("parent", &mut sh(script), dir.path());
        let line = process.wait_stdout("child", SOON);
        let child = Pid::from_raw(line.split(' ').nth(1).unwrap().parse().unwrap());
        assert!(kill(child, None).is_ok());
        drop(process);
        // Dead, or a zombie that nobody has collected yet.
        wait_for("the grandchild's end", SOON, || {
            let stat = std::fs::read_to_string(format!("/proc/{child}/stat"));
            stat.map_or(true, |stat| stat.contains(") Z "))
                .then_some(())
        });
    }

    #[test]
    #[should_panic(expected = "ended before the port opens")]
    fn waiting_for_the_dead_ends_at_once() {
        let dir = DataDir::new("process");
        let mut process = Process::spawn("short", &mut sh("exit 1"), dir.path());
        process.wait_for("the port opens", Duration::from_mins(10), || None::<()>);
    }

    #[test]
    fn signals_reach_it() {
        let dir = DataDir::new("process");
        let script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done";
        let mut process = Process::spawn("polite", &mut sh(script), dir.path());
        process.wait_stdout("ready", SOON);
        assert_eq!(process.terminate(SOON).code(), Some(9));
        let run = Process::run("true", &mut sh("echo fine"), dir.path(), SOON);
        assert_eq!(run.success(), "fine\n");
    }
}
