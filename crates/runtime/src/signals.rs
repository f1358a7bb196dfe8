//! Stop signals as a cancellation.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled by the first SIGTERM, SIGINT or SIGQUIT. A second signal ends the
/// process at once with status 130, for those who will not wait for the drain.
///
/// Must be called within a runtime.
pub fn stop() -> std::io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    let cancelled = token.clone();
    tokio::spawn(async move {
        let mut received = 0;
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => received += 1,
                _ = quit.recv() => received += 1,
            }
            cancelled.cancel();
            if received > 1 {
                std::process::exit(130);
            }
        }
    });
    Ok(token)
}
