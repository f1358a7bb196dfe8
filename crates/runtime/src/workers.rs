//! Worker threads: one single-threaded runtime each, nothing shared between them.

use std::future::Future;
use std::sync::mpsc;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, LocalOptions};

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
            let (tell, told) = mpsc::sync_channel(1);
            let thread = std::thread::Builder::new()
                .name(format!("{name}-{index}"))
                .spawn(move || {
                    // It never leaves its thread, so it is made there.
                    let runtime = Builder::new_current_thread()
                        .enable_all()
                        .build_local(LocalOptions::default());
                    let (runtime, built) = match runtime {
                        Ok(runtime) => (Some(runtime), Ok(())),
                        Err(error) => (None, Err(error)),
                    };
                    let heard = tell.send(built);
                    if let (Some(runtime), Ok(())) = (runtime, heard) {
                        runtime.block_on(main(index));
                    }
                })?;
            threads.push(thread);
            // A thread that is gone without a word has panicked, which `join` reports.
            told.recv().unwrap_or(Ok(()))?;
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
