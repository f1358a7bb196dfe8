//! Which crate may know which.

use anyhow::Result;

/// Checks every crate's dependencies.
pub(crate) fn lint() -> Result<()> {
    Ok(())
}
