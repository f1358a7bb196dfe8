//! Leases of registered workloads: that they exist, not when they were last renewed.
//!
//! A heartbeat writes nothing; after a restart every lease begins afresh.

use rusqlite::{Transaction, params};

use super::object::unsigned;

/// A lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// `namespace/name` of the workload.
    pub workload: String,
    /// Its SPIFFE ID.
    pub identity: String,
    /// `explicit` or `transparent`.
    pub mode: String,
    /// Whether it took requests when that last changed.
    pub ready: bool,
    /// When it first registered, in seconds since 1970.
    pub created: u64,
    /// Hash of the join token that registered it, if one did: it goes on to prove who sends the
    /// heartbeats, and nothing else.
    pub token_hash: Option<String>,
}

/// All leases.
pub fn all(transaction: &Transaction<'_>) -> rusqlite::Result<Vec<Lease>> {
    let mut statement = transaction.prepare_cached(
        "SELECT workload, identity, mode, ready, created, token_hash FROM leases",
    )?;
    let rows = statement.query_map([], |row| {
        Ok(Lease {
            workload: row.get(0)?,
            identity: row.get(1)?,
            mode: row.get(2)?,
            ready: row.get(3)?,
            created: unsigned(row, 4)?,
            token_hash: row.get(5)?,
        })
    })?;
    rows.collect()
}

/// Writes a lease, new or not.
pub fn put(transaction: &Transaction<'_>, lease: &Lease) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO leases (workload, identity, mode, ready, created, token_hash)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            lease.workload,
            lease.identity,
            lease.mode,
            lease.ready,
            lease.created as i64,
            lease.token_hash,
        ])
        .map(drop)
}

/// Removes a lease.
pub fn delete(transaction: &Transaction<'_>, workload: &str) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("DELETE FROM leases WHERE workload = ?1")?
        .execute([workload])
        .map(drop)
}
