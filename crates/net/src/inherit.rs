//! Listening sockets handed from a parent process to a child.
//!
//! The parent names each in `TULLE_LISTEN_FDS="outbound=3,inbound=4"`; the descriptors keep their
//! numbers. They lose close-on-exec only in the child, between fork and exec, so that no other
//! program that the parent starts meanwhile gets them. The child takes each once, checks that it
//! is what was announced, and sets close-on-exec again. The idea is systemd's socket activation;
//! it differs in carrying names and in not binding to a process id, which is unknown before fork.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use socket2::{Domain, SockRef, Socket, Type};

/// The environment variable that names the sockets.
pub const VARIABLE: &str = "TULLE_LISTEN_FDS";

/// What a parent handed over, by name.
#[derive(Debug, Default)]
pub struct Inherited {
    /// Listening TCP sockets, non-blocking.
    pub tcp: BTreeMap<String, TcpListener>,
    /// Listening unix stream sockets, non-blocking.
    pub unix: BTreeMap<String, UnixListener>,
    /// Bound UDP sockets, non-blocking.
    pub udp: BTreeMap<String, UdpSocket>,
}

/// A socket in the environment that is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// The variable's text is not `name=number,...`.
    #[error("{VARIABLE}: \"{0}\" is not of the form name=descriptor; was it set by hand?")]
    Malformed(String),
    /// A name or a number appears twice.
    #[error("{VARIABLE}: {0} appears twice")]
    Twice(String),
    /// The number is no open descriptor of this process, or no socket.
    #[error(
        "{VARIABLE}: {name}={fd} is no open socket of this process; was the variable passed on by a program in between?"
    )]
    NotASocket {
        /// Its name in the variable.
        name: String,
        /// Its number.
        fd: RawFd,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It is a socket, but neither a listening stream nor a UDP socket.
    #[error("{VARIABLE}: {name}={fd} is a socket that does not listen")]
    NotListening {
        /// Its name in the variable.
        name: String,
        /// Its number.
        fd: RawFd,
    },
    /// [`take`] was called before.
    #[error("{VARIABLE}: the sockets were taken already")]
    Taken,
}

impl From<InheritError> for io::Error {
    fn from(e: InheritError) -> Self {
        Self::new(io::ErrorKind::InvalidInput, e)
    }
}

static TAKEN: AtomicBool = AtomicBool::new(false);

/// Takes the listening TCP sockets that the parent handed over; others are closed. Empty where
/// there are none. Works once in a process.
pub fn take() -> io::Result<BTreeMap<String, TcpListener>> {
    Ok(take_all()?.tcp)
}

/// Takes all sockets that the parent handed over. Works once in a process.
pub fn take_all() -> Result<Inherited, InheritError> {
    let Some(text) = std::env::var_os(VARIABLE) else {
        return Ok(Inherited::default());
    };
    let text = text.to_string_lossy();
    let entries = parse(&text)?;
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Err(InheritError::Taken);
    }
    let mut inherited = Inherited::default();
    for (name, fd) in entries {
        claim(&mut inherited, name, fd)?;
    }
    Ok(inherited)
}

/// Hands sockets to the program that `command` starts: listening TCP, unix or bound UDP ones.
///
/// Duplicates are kept in `command`, so that the originals may be dropped before it is spawned.
/// Once for each command: a second call would replace the list. For tokio's `Command`: `as_std_mut()`.
pub fn pass<S: AsFd>(command: &mut Command, sockets: &[(&str, &S)]) -> io::Result<()> {
    let sockets: Vec<_> = sockets.iter().map(|(name, s)| (*name, s.as_fd())).collect();
    pass_fds(command, &sockets)
}

/// As [`pass`], for sockets of several types.
pub fn pass_fds(command: &mut Command, sockets: &[(&str, BorrowedFd<'_>)]) -> io::Result<()> {
    let mut text = String::new();
    let mut owned = Vec::with_capacity(sockets.len());
    for (name, socket) in sockets {
        if name.is_empty() || name.contains([',', '=']) {
            return Err(InheritError::Malformed((*name).to_owned()).into());
        }
        let duplicate = socket.try_clone_to_owned()?;
        if !text.is_empty() {
            text.push(',');
        }
        let _ = write!(text, "{name}={}", duplicate.as_raw_fd());
        owned.push(duplicate);
    }
    command.env(VARIABLE, text);
    let clear_cloexec = move || {
        for fd in &owned {
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure calls only fcntl(2), which is async-signal-safe; it
    // neither allocates nor takes a lock.
    #[expect(unsafe_code, reason = "pre_exec runs between fork and exec")]
    unsafe {
        command.pre_exec(clear_cloexec);
    }
    Ok(())
}

fn parse(text: &str) -> Result<Vec<(String, RawFd)>, InheritError> {
    let mut entries: Vec<(String, RawFd)> = Vec::new();
    for part in text.split(',').filter(|p| !p.is_empty()) {
        let malformed = || InheritError::Malformed(part.to_owned());
        let (name, fd) = part.split_once('=').ok_or_else(malformed)?;
        let fd: RawFd = fd.parse().map_err(|_| malformed())?;
        // 0 to 2 are the standard streams, which std owns.
        if name.is_empty() || fd < 3 {
            return Err(malformed());
        }
        if entries.iter().any(|(n, f)| n == name || *f == fd) {
            return Err(InheritError::Twice(part.to_owned()));
        }
        entries.push((name.to_owned(), fd));
    }
    Ok(entries)
}

fn claim(into: &mut Inherited, name: String, fd: RawFd) -> Result<(), InheritError> {
    let not_a_socket = |name: &str, source| InheritError::NotASocket {
        name: name.to_owned(),
        fd,
        source,
    };
    // SAFETY: fcntl and getsockopt on a number that is not open fail with EBADF; the borrow ends
    // before anything else could open or close descriptors under that number on our behalf.
    #[expect(unsafe_code, reason = "the number comes from the environment")]
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))
        .map_err(|e| not_a_socket(&name, e.into()))?;
    let socket = SockRef::from(&borrowed);
    let kind = socket.r#type().map_err(|e| not_a_socket(&name, e))?;
    let domain = socket.domain().map_err(|e| not_a_socket(&name, e))?;
    let listens = socket.is_listener().unwrap_or(false);
    socket
        .set_nonblocking(true)
        .map_err(|e| not_a_socket(&name, e))?;
    let internet = domain == Domain::IPV4 || domain == Domain::IPV6;
    let stream = kind == Type::STREAM && listens;
    if !(stream && (internet || domain == Domain::UNIX) || kind == Type::DGRAM && internet) {
        return Err(InheritError::NotListening { name, fd });
    }
    // SAFETY: the descriptor is open (checked above), was announced to us by the parent, is not one
    // of the standard streams, and TAKEN and the check for doubles make this its only owner.
    #[expect(
        unsafe_code,
        reason = "takes over a descriptor named in the environment"
    )]
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    let socket = Socket::from(owned);
    if kind == Type::DGRAM {
        into.udp.insert(name, socket.into());
    } else if internet {
        into.tcp.insert(name, socket.into());
    } else {
        into.unix.insert(name, socket.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
