//! The program itself: found before anything else happens, started last, never interfered with.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use anyhow::Context as _;
use tokio::process::{Child, Command};

use crate::command::exec::{NOT_FOUND, NOT_STARTED};
use crate::paths;

/// A program that cannot be started, with the exit status that shells give it.
#[derive(Debug, thiserror::Error)]
#[error("{program}: {why}")]
pub(crate) struct Missing {
    program: String,
    why: &'static str,
    pub(crate) status: u8,
}

/// Looks for a program as `execvp` will.
pub(crate) fn look_up(program: &OsStr) -> Result<(), Missing> {
    let missing = |why, status| Missing {
        program: program.to_string_lossy().into_owned(),
        why,
        status,
    };
    let candidates: Vec<PathBuf> = if program.to_string_lossy().contains('/') {
        vec![PathBuf::from(program)]
    } else {
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
        std::env::split_paths(&path)
            .map(|dir| dir.join(program))
            .collect()
    };
    let mut found = false;
    for candidate in candidates {
        if let Ok(metadata) = candidate.metadata() {
            found = true;
            if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 {
                return Ok(());
            }
        }
    }
    if found {
        Err(missing("is not an executable file", NOT_STARTED))
    } else {
        Err(missing("no such program; is it in PATH?", NOT_FOUND))
    }
}

/// A command that ends with this process and, where given, runs in a network namespace.
pub(crate) fn tied(program: &OsStr, netns: Option<&Path>) -> std::process::Command {
    let mut command = std::process::Command::new(paths::this_binary());
    command
        .arg("__exec")
        .arg(format!("--parent={}", std::process::id()));
    if let Some(path) = netns {
        command.arg("--netns").arg(path);
    }
    command.arg("--").arg(program);
    command
}

/// Starts the program. Input, output and process group are those of the supervisor, so that the
/// terminal works as if the supervisor were not there.
pub(crate) fn start(
    command: &[OsString],
    environment: &[(String, String)],
    netns: Option<&Path>,
) -> anyhow::Result<Child> {
    let (program, arguments) = command.split_first().context("no program given")?;
    let mut tied = tied(program, netns);
    tied.args(arguments);
    tied.envs(environment.iter().map(|(k, v)| (k, v)));
    Command::from(tied)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", program.to_string_lossy()))
}

/// The exit code that stands for how a program ended: its own, or 128 and its signal.
pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    let code = match status.code() {
        Some(code) => code,
        None => 128 + status.signal().unwrap_or(0),
    };
    u8::try_from(code & 0xff).unwrap_or(1)
}

/// The environment that tells a program to use its proxy.
pub(crate) fn proxy_environment(port: u16) -> Vec<(String, String)> {
    let proxy = format!("http://127.0.0.1:{port}");
    let mut exempt = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ];
    let inherited = std::env::var("NO_PROXY").or_else(|_| std::env::var("no_proxy"));
    for host in inherited.unwrap_or_default().split(',') {
        let host = host.trim();
        if !host.is_empty() && !exempt.iter().any(|e| e == host) {
            exempt.push(host.to_owned());
        }
    }
    let exempt = exempt.join(",");
    [
        ("HTTP_PROXY", &proxy),
        ("http_proxy", &proxy),
        ("HTTPS_PROXY", &proxy),
        ("https_proxy", &proxy),
        ("NO_PROXY", &exempt),
        ("no_proxy", &exempt),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.clone()))
    .collect()
}

/// A TCP socket that listens, as the kernel's tables have it.
const LISTEN: &str = "0A";
/// A UDP socket that hears everybody.
const UNCONNECTED: &str = "07";

/// The TCP or the UDP ports that are served in the network namespace of a process, read from the
/// kernel's tables: nobody's accept queue sees a connection that means nothing.
pub(crate) fn listening_ports(pid: u32, udp: bool) -> BTreeSet<u16> {
    let (tables, state) = if udp {
        (["udp", "udp6"], UNCONNECTED)
    } else {
        (["tcp", "tcp6"], LISTEN)
    };
    let mut ports = BTreeSet::new();
    for table in tables {
        if let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")) {
            ports.extend(ports_of(&text, state));
        }
    }
    ports
}

fn ports_of<'t>(table: &'t str, wanted: &'t str) -> impl Iterator<Item = u16> + 't {
    table.lines().skip(1).filter_map(move |line| {
        let mut fields = line.split_ascii_whitespace();
        let local = fields.nth(1)?;
        let state = fields.nth(1)?;
        let (_, port) = local.rsplit_once(':')?;
        (state == wanted)
            .then(|| u16::from_str_radix(port, 16).ok())
            .flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_sockets_are_told_from_connected_ones() {
        let table = "  sl  local_address rem_address   st tx_queue\n\
             0: 0100007F:2378 00000000:0000 0A 00000000:00000000\n\
             1: 0100007F:1F90 0100007F:9C40 01 00000000:00000000\n";
        assert_eq!(ports_of(table, LISTEN).collect::<Vec<_>>(), [0x2378]);
    }

    #[test]
    fn what_this_process_serves_is_seen() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("bound").port();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
        let udp = socket.local_addr().expect("bound").port();
        let own = std::process::id();
        assert!(listening_ports(own, false).contains(&port));
        assert!(listening_ports(own, true).contains(&udp));
    }

    #[test]
    fn exit_codes_are_those_of_shells() {
        assert_eq!(exit_code(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(exit_code(ExitStatus::from_raw(9)), 137);
    }

    #[test]
    fn a_missing_program_is_told_from_one_that_may_not_run() {
        assert_eq!(look_up(OsStr::new("sh")).map_err(|e| e.status), Ok(()));
        assert_eq!(
            look_up(OsStr::new("no-such-program-here")).map_err(|e| e.status),
            Err(NOT_FOUND)
        );
        assert_eq!(
            look_up(OsStr::new("/")).map_err(|e| e.status),
            Err(NOT_STARTED)
        );
    }
}
