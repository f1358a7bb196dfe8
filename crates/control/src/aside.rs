//! Work that takes the processor for longer than others should wait.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Runs `work` here, letting the runtime move its other tasks to another thread meanwhile. A
/// runtime with a single thread has none, and waits.
pub(crate) fn aside<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}
