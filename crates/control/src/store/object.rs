//! Objects, the addresses allotted to them, and the audit log of their changes.

use rusqlite::{Row, Transaction, params};

/// Entries of the audit log that are kept.
const AUDIT_KEPT: i64 = 10_000;

/// An object as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Kind, as in `kind:`.
    pub kind: String,
    /// Namespace, or empty.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Counts changes of the specification.
    pub generation: u64,
    /// When it was created, in seconds since 1970.
    pub created: u64,
    /// `api`, `registry`, or the path of a file.
    pub origin: String,
    /// The object.
    pub json: String,
    /// Position in the sequence of all changes.
    pub resource_version: u64,
}

/// A line of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// When, in seconds since 1970.
    pub at: u64,
    /// Who, as [`crate::caller::Caller::name`] has it, or the file.
    pub who: String,
    /// `created`, `configured` or `deleted`.
    pub action: String,
    /// Kind.
    pub kind: String,
    /// Namespace, or empty.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The generation it led to.
    pub generation: u64,
}

/// All objects, by kind, namespace and name.
pub fn all(transaction: &Transaction<'_>) -> rusqlite::Result<Vec<Stored>> {
    let mut statement = transaction.prepare_cached(
        "SELECT kind, namespace, name, generation, resource_version, created, origin, json
         FROM objects ORDER BY kind, namespace, name",
    )?;
    let rows = statement.query_map([], |row| {
        Ok(Stored {
            kind: row.get(0)?,
            namespace: row.get(1)?,
            name: row.get(2)?,
            generation: unsigned(row, 3)?,
            resource_version: unsigned(row, 4)?,
            created: unsigned(row, 5)?,
            origin: row.get(6)?,
            json: row.get(7)?,
        })
    })?;
    rows.collect()
}

/// The last resource version given.
pub fn version(transaction: &Transaction<'_>) -> rusqlite::Result<u64> {
    transaction
        .prepare_cached("SELECT value FROM counters WHERE name = 'resource_version'")?
        .query_row([], |row| unsigned(row, 0))
}

/// Notes the last resource version given.
pub fn set_version(transaction: &Transaction<'_>, version: u64) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("UPDATE counters SET value = ?1 WHERE name = 'resource_version'")?
        .execute([version as i64])
        .map(drop)
}

/// Writes an object, new or not, at its resource version.
pub fn put(transaction: &Transaction<'_>, object: &Stored) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO objects (kind, namespace, name, generation, resource_version, created, origin, json)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (kind, namespace, name) DO UPDATE SET
                generation = ?4, resource_version = ?5, created = ?6, origin = ?7, json = ?8",
        )?
        .execute(params![
            object.kind,
            object.namespace,
            object.name,
            object.generation as i64,
            object.resource_version as i64,
            object.created as i64,
            object.origin,
            object.json,
        ])
        .map(drop)
}

/// Removes an object; whether there was one.
pub fn delete(
    transaction: &Transaction<'_>,
    kind: &str,
    namespace: &str,
    name: &str,
) -> rusqlite::Result<bool> {
    transaction
        .prepare_cached("DELETE FROM objects WHERE kind = ?1 AND namespace = ?2 AND name = ?3")?
        .execute(params![kind, namespace, name])
        .map(|count| count > 0)
}

/// All allotted addresses: pool, owner, place.
pub fn addresses(transaction: &Transaction<'_>) -> rusqlite::Result<Vec<(String, String, u32)>> {
    let mut statement = transaction.prepare_cached("SELECT pool, owner, place FROM addresses")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    rows.collect()
}

/// Keeps an address for its owner.
pub fn allot(
    transaction: &Transaction<'_>,
    pool: &str,
    owner: &str,
    place: u32,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO addresses (pool, owner, place) VALUES (?1, ?2, ?3)",
        )?
        .execute(params![pool, owner, place])
        .map(drop)
}

/// Gives an address back.
pub fn release(transaction: &Transaction<'_>, pool: &str, owner: &str) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("DELETE FROM addresses WHERE pool = ?1 AND owner = ?2")?
        .execute(params![pool, owner])
        .map(drop)
}

/// Adds a line to the audit log, dropping the oldest beyond the bound.
pub fn audit(transaction: &Transaction<'_>, entry: &AuditEntry) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO audit (at, who, action, kind, namespace, name, generation)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            entry.at as i64,
            entry.who,
            entry.action,
            entry.kind,
            entry.namespace,
            entry.name,
            entry.generation as i64,
        ])?;
    let last = transaction.last_insert_rowid();
    transaction
        .prepare_cached("DELETE FROM audit WHERE id <= ?1")?
        .execute([last - AUDIT_KEPT])
        .map(drop)
}

/// The latest lines of the audit log, newest first.
pub fn audit_log(transaction: &Transaction<'_>, limit: u32) -> rusqlite::Result<Vec<AuditEntry>> {
    let mut statement = transaction.prepare_cached(
        "SELECT at, who, action, kind, namespace, name, generation
         FROM audit ORDER BY id DESC LIMIT ?1",
    )?;
    let rows = statement.query_map([limit], |row| {
        Ok(AuditEntry {
            at: unsigned(row, 0)?,
            who: row.get(1)?,
            action: row.get(2)?,
            kind: row.get(3)?,
            namespace: row.get(4)?,
            name: row.get(5)?,
            generation: unsigned(row, 6)?,
        })
    })?;
    rows.collect()
}

/// SQLite's integers are signed; what is kept here never is negative.
pub(super) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(|n| n.max(0) as u64)
}
