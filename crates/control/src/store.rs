//! What must survive a `kill -9`: objects, leases, tokens, addresses, and who changed what.
//!
//! One SQLite database (WAL, `synchronous=FULL`), one thread that owns the connection. A job is a
//! function over a transaction; it is answered only after its commit has reached the disk, so
//! whatever was acknowledged is there after a crash. The queue is bounded: a slow disk slows
//! writers down, it does not fill memory. The database is locked exclusively; a second control
//! plane on it is refused.
//!
//! Nothing here knows what an object means: it is a key, a few columns and JSON.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

pub mod lease;
pub mod object;
mod schema;
pub mod token;

/// Jobs that may wait for the disk.
const QUEUE: usize = 256;

/// Why the store cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened or made.
    #[error("store {}: {source}; check that the directory exists and can be written", path.display())]
    Open {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The file is damaged, or no SQLite database at all.
    #[error(
        "store {}: the database is damaged ({detail}); restore a copy, or move it away and start again: objects from files and running workloads come back by themselves, what was written with `tulle apply` has to be applied again",
        path.display()
    )]
    Corrupt {
        /// The database.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// Written by a later version.
    #[error(
        "store {}: has schema version {found}, this version of tulle knows up to {known}; use the later version, or another --store",
        path.display()
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// The version found.
        found: i64,
        /// The last version known here.
        known: i64,
    },
    /// Another process has it.
    #[error("store {}: in use by another process; stop it, or choose another --store", path.display())]
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// A statement failed; nothing of the transaction was kept.
    #[error("store {}: {source}; nothing was changed", path.display())]
    Failed {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The control plane is stopping.
    #[error("the store is closed: the control plane is stopping")]
    Closed,
}

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// The store. Cheap to clone; closed when the last clone is gone.
#[derive(Debug, Clone)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
    path: Arc<Path>,
    /// Held for the drop of the last clone, which waits for the thread.
    thread: Arc<Joined>,
}

/// Lets whoever drops the last handle wait until the database is closed.
#[derive(Debug)]
struct Joined(Option<thread::JoinHandle<()>>);

impl Drop for Joined {
    fn drop(&mut self) {
        // The sender was dropped before this (field order), so the thread ends after what is queued.
        if let Some(thread) = self.0.take() {
            let _ = thread.join();
        }
    }
}

impl Store {
    /// Opens the database, making it when missing, and brings its schema up to date.
    ///
    /// Reads the whole file once to find damage; blocks.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let connection = connect(path)?;
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        let handle = thread::Builder::new()
            .name("tulle-store".to_owned())
            .spawn(move || {
                let mut connection = connection;
                while let Some(job) = queue.blocking_recv() {
                    job(&mut connection);
                }
            })
            .map_err(|error| StoreError::Open {
                path: path.to_owned(),
                source: rusqlite::Error::ToSqlConversionFailure(Box::new(error)),
            })?;
        Ok(Self {
            jobs,
            path: path.into(),
            thread: Arc::new(Joined(Some(handle))),
        })
    }

    /// Runs a function in a transaction and waits for its commit. If the function fails, nothing
    /// of it is kept. Work that was begun is finished even when the caller is dropped.
    pub async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let result = connection
                .transaction_with_behavior(TransactionBehavior::Immediate)
                .and_then(|transaction| {
                    let value = work(&transaction)?;
                    transaction.commit()?;
                    Ok(value)
                });
            // Nobody waits any more: the work is done all the same.
            let _ = reply.send(result);
        });
        self.jobs.send(job).await.map_err(|_| StoreError::Closed)?;
        answer
            .await
            .map_err(|_| StoreError::Closed)?
            .map_err(|source| explain(&self.path, source))
    }

    /// How many clones there are.
    pub fn handles(&self) -> usize {
        Arc::strong_count(&self.thread)
    }

    /// The database's path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    make_private(path).map_err(|error| StoreError::Open {
        path: path.to_owned(),
        source: rusqlite::Error::ToSqlConversionFailure(Box::new(error)),
    })?;
    let opening = |source| match explain(path, source) {
        StoreError::Failed { path, source } => StoreError::Open { path, source },
        other => other,
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(opening)?;
    connection
        .busy_timeout(std::time::Duration::from_millis(500))
        .map_err(opening)?;
    connection
        .execute_batch(
            "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;",
        )
        .map_err(opening)?;
    let found: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(opening)?;
    if found != "ok" {
        return Err(StoreError::Corrupt {
            path: path.to_owned(),
            detail: found,
        });
    }
    schema::migrate(&mut connection, path).map_err(|error| match error {
        schema::MigrateError::Newer { found, known } => StoreError::Newer {
            path: path.to_owned(),
            found,
            known,
        },
        schema::MigrateError::Sqlite(source) => opening(source),
    })?;
    Ok(connection)
}

/// Makes the file with mode 0600 before SQLite would make it with another.
fn make_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map(drop)
}

fn explain(path: &Path, source: rusqlite::Error) -> StoreError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Corrupt {
            path,
            detail: source.to_string(),
        },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::InUse { path },
        _ => StoreError::Failed { path, source },
    }
}

#[cfg(test)]
mod tests;
