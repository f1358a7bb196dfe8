//! Running `nft` and `iptables-restore` with rules on standard input.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::error::CaptureError;

/// Where the tools are, even where a user's PATH lacks the sbin directories.
const PLACES: [&str; 6] = [
    "/usr/sbin",
    "/sbin",
    "/usr/local/sbin",
    "/usr/bin",
    "/bin",
    "/usr/local/bin",
];

/// Finds a tool by name.
pub(crate) fn find(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .filter(|p| p.is_absolute())
        .chain(PLACES.iter().map(PathBuf::from))
        .map(|directory| directory.join(tool))
        .find(|candidate| candidate.is_file())
}

/// Applies a ruleset in the network namespace of the calling thread. The whole text takes effect,
/// or nothing of it.
pub(crate) fn nft(rules: &str) -> Result<(), CaptureError> {
    feed("nft", &["-f", "-"], rules)
}

/// Runs a tool with text on its standard input.
pub(crate) fn feed(tool: &str, arguments: &[&str], text: &str) -> Result<(), CaptureError> {
    let refused = |message: String| CaptureError::Rules {
        tool: tool.to_owned(),
        message,
    };
    let path = find(tool).ok_or_else(|| refused("the program is not installed".to_owned()))?;
    let output = run(&path, arguments, text).map_err(|e| refused(e.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<_> = message.lines().take(4).map(str::trim).collect();
    Err(refused(format!("{} ({})", lines.join(" "), output.status)))
}

/// What a tool prints; nothing where it is missing or fails.
pub(crate) fn listing(tool: &str, arguments: &[&str]) -> String {
    let output = find(tool).and_then(|path| run_with(&path, arguments, "", Stdio::piped()).ok());
    output.map_or_else(String::new, |o| {
        String::from_utf8_lossy(&o.stdout).into_owned()
    })
}

fn run(path: &Path, arguments: &[&str], text: &str) -> std::io::Result<Output> {
    run_with(path, arguments, text, Stdio::null())
}

fn run_with(path: &Path, arguments: &[&str], text: &str, stdout: Stdio) -> std::io::Result<Output> {
    let mut child = Command::new(path)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A tool that ends early says why on stderr; the broken pipe would only hide it.
        let _ = stdin.write_all(text.as_bytes());
    }
    child.wait_with_output()
}
