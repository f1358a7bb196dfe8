//! Signals with their origin: what the terminal sends, the program has received already.
//!
//! A key like Ctrl-C reaches the whole foreground process group, the program included; passing it
//! on would deliver it twice, and many programs take the second for "at once". A signal sent by a
//! process (`kill`, an init system) reaches only the supervisor and must be passed on. signalfd
//! tells which is which.

use anyhow::Context as _;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tokio::sync::mpsc;

/// The signals that the supervisor takes.
const TAKEN: [Signal; 7] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];

/// A signal that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) signal: Signal,
    /// Sent by the terminal to the whole process group, so the program has it already.
    pub(crate) from_terminal: bool,
}

impl Arrived {
    /// Whether it asks the program to end. SIGHUP most often means something else to those who
    /// handle it.
    pub(crate) fn is_stop(self) -> bool {
        matches!(
            self.signal,
            Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT
        )
    }
}

/// Takes signals one after the other.
pub(crate) struct Signals(mpsc::Receiver<Arrived>);

/// Blocks the signals that will be taken. Must run before any thread is started; `tulle __exec`
/// unblocks them for children.
pub(crate) fn block() -> anyhow::Result<()> {
    set().thread_block().context("cannot block signals")
}

fn set() -> SigSet {
    TAKEN.iter().copied().collect()
}

impl Signals {
    /// Begins to take signals, after [`block`]. A thread waits for them until the process ends.
    pub(crate) fn take() -> anyhow::Result<Self> {
        let fd =
            SignalFd::with_flags(&set(), SfdFlags::SFD_CLOEXEC).context("cannot take signals")?;
        let (sender, receiver) = mpsc::channel(16);
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || wait(&fd, &sender))
            .context("cannot take signals")?;
        Ok(Self(receiver))
    }

    /// The next signal.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Arrived> {
        self.0.recv().await.context("signals are no longer taken")
    }
}

fn wait(fd: &SignalFd, sender: &mpsc::Sender<Arrived>) {
    while let Ok(info) = fd.read_signal() {
        let Some(info) = info else { continue };
        let number = i32::try_from(info.ssi_signo).unwrap_or(0);
        let Ok(signal) = Signal::try_from(number) else {
            continue;
        };
        let arrived = Arrived {
            signal,
            // SI_KERNEL: not sent by a process.
            from_terminal: info.ssi_code == 0x80,
        };
        if sender.blocking_send(arrived).is_err() {
            return;
        }
    }
}
