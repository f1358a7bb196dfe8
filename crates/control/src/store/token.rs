//! Join tokens: a hash, what they are good for, and whether they were used.

use rusqlite::{OptionalExtension as _, Transaction, params};

use super::object::unsigned;

/// How long a spent or expired token is remembered, so that a replay is told from a forgery.
const REMEMBERED: u64 = 24 * 3600;

/// A join token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Public part of the token.
    pub id: String,
    /// Hash of the secret.
    pub hash: String,
    /// Namespace it is good for.
    pub namespace: String,
    /// Service account it is good for.
    pub service_account: String,
    /// When it was issued, in seconds since 1970.
    pub created: u64,
    /// Who asked for it.
    pub created_by: String,
    /// Until when it may be used, in seconds since 1970.
    pub expires: u64,
    /// When it was used.
    pub used: Option<u64>,
}

/// Keeps a new token, and forgets those that ended long ago.
pub fn add(transaction: &Transaction<'_>, token: &Token) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("DELETE FROM tokens WHERE expires < ?1")?
        .execute([token.created.saturating_sub(REMEMBERED) as i64])?;
    transaction
        .prepare_cached(
            "INSERT INTO tokens (id, hash, namespace, service_account, created, created_by, expires)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            token.id,
            token.hash,
            token.namespace,
            token.service_account,
            token.created as i64,
            token.created_by,
            token.expires as i64,
        ])
        .map(drop)
}

/// The token with this id.
pub fn find(transaction: &Transaction<'_>, id: &str) -> rusqlite::Result<Option<Token>> {
    transaction
        .prepare_cached(
            "SELECT id, hash, namespace, service_account, created, created_by, expires, used
             FROM tokens WHERE id = ?1",
        )?
        .query_row([id], |row| {
            Ok(Token {
                id: row.get(0)?,
                hash: row.get(1)?,
                namespace: row.get(2)?,
                service_account: row.get(3)?,
                created: unsigned(row, 4)?,
                created_by: row.get(5)?,
                expires: unsigned(row, 6)?,
                used: row.get::<_, Option<i64>>(7)?.map(|at| at.max(0) as u64),
            })
        })
        .optional()
}

/// Marks a token as used; `false` when somebody was quicker.
pub fn spend(
    transaction: &Transaction<'_>,
    id: &str,
    now: u64,
    by: &str,
) -> rusqlite::Result<bool> {
    transaction
        .prepare_cached(
            "UPDATE tokens SET used = ?2, used_by = ?3 WHERE id = ?1 AND used IS NULL AND expires > ?2",
        )?
        .execute(params![id, now as i64, by])
        .map(|count| count == 1)
}
