//! The tables, and how an older database becomes a current one.

use std::path::Path;

use rusqlite::Connection;

/// Each entry brings the schema from its index to the next version. Never edit one that was
/// released: add another.
const STEPS: &[&str] = &["
    CREATE TABLE objects (
        kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
        generation INTEGER NOT NULL, resource_version INTEGER NOT NULL, created INTEGER NOT NULL,
        origin TEXT NOT NULL, json TEXT NOT NULL,
        PRIMARY KEY (kind, namespace, name)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE leases (
        workload TEXT NOT NULL PRIMARY KEY,
        identity TEXT NOT NULL, mode TEXT NOT NULL, ready INTEGER NOT NULL, created INTEGER NOT NULL,
        token_hash TEXT
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE tokens (
        id TEXT NOT NULL PRIMARY KEY, hash TEXT NOT NULL,
        namespace TEXT NOT NULL, service_account TEXT NOT NULL,
        created INTEGER NOT NULL, created_by TEXT NOT NULL, expires INTEGER NOT NULL,
        used INTEGER, used_by TEXT
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE addresses (
        pool TEXT NOT NULL, owner TEXT NOT NULL, place INTEGER NOT NULL,
        PRIMARY KEY (pool, owner), UNIQUE (pool, place)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE audit (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at INTEGER NOT NULL, who TEXT NOT NULL, action TEXT NOT NULL,
        kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, generation INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE counters (name TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    INSERT INTO counters VALUES ('resource_version', 0);
"];

pub(super) enum MigrateError {
    Newer { found: i64, known: i64 },
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for MigrateError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Runs the steps that are missing, each in a transaction with its version.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), MigrateError> {
    let known = STEPS.len() as i64;
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > known {
        return Err(MigrateError::Newer { found, known });
    }
    for (version, step) in (1_i64..).zip(STEPS).skip(found.max(0) as usize) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
        tracing::debug!(store = %path.display(), version, "store schema brought up to date");
    }
    // Takes the exclusive lock now, not at the first write.
    connection.execute_batch("BEGIN IMMEDIATE; COMMIT;")?;
    Ok(())
}
