//! The wish to stop, as a service sees it.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Becomes true once; cheap to clone.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// One that the caller pulls by sending `true`.
    pub fn by_hand() -> (watch::Sender<bool>, Self) {
        let (pull, stop) = watch::channel(false);
        (pull, Self(stop))
    }

    /// SIGTERM or SIGINT.
    pub(crate) fn on_signal() -> anyhow::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (pull, stop) = Self::by_hand();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            let _ = pull.send(true);
        });
        Ok(stop)
    }

    /// Waits for it. Whoever could have asked for it going away counts, too.
    pub(crate) async fn wait(mut self) {
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}
