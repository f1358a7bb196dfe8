//! Worker threads: one single-threaded runtime each, nothing shared between them.

use std::future::Future;
use std::thread::JoinHandle;

use tokio::runtime::Builder;
use tokio::task::LocalSet;

/// Threads that run the same thing, each in a runtime of its own.
#[derive(Debug)]
pub struct Workers(Vec<JoinHandle<()>>);

impl Workers {
    /// Starts `count` threads named `NAME-N`. `main` is called once on each thread, with its
    /// number, and may use `tokio::task::spawn_local`; when its future completes, the thread ends
    /// and what was spawned on it is dropped.
    pub fn start<M, F>(count: usize, name: &str, main: M) -> std::io::Result<Self>
    where
        M: Fn(usize) -> F + Clone + Send + 'static,
        F: Future<Output = ()> + 'static,
    {
        let mut threads = Vec::with_capacity(count);
        for index in 0..count {
            let main = main.clone();
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let thread = std::thread::Builder::new()
                .name(format!("{name}-{index}"))
                .spawn(move || {
                    let local = LocalSet::new();
                    runtime.block_on(local.run_until(async move { main(index).await }));
                })?;
            threads.push(thread);
        }
        Ok(Self(threads))
    }

    /// Waits for all threads; says how many ended in a panic.
    pub fn join(self) -> usize {
        self.0
            .into_iter()
            .map(JoinHandle::join)
            .filter(Result::is_err)
            .count()
    }
}
