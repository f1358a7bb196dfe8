//! Where a workload's proxy keeps its certificate and its last good configuration.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The state directory of a workload's proxy, within a data directory.
pub(crate) fn dir(data_dir: &Path, namespace: &str, name: &str) -> PathBuf {
    data_dir.join("workloads").join(namespace).join(name)
}

/// Makes a state directory, for its owner only.
pub(crate) fn create(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Writes a join token so that nobody else can read it, even for a moment.
pub(crate) fn write_token(path: &Path, token: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(token.as_bytes())?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_token_is_for_its_owner_only() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("token");
        write_token(&path, "tulle1.a.b.c").expect("written");
        assert_eq!(fs::read_to_string(&path).expect("readable"), "tulle1.a.b.c");
        let mode = path.metadata().expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
