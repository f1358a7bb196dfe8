//! The data directory: made private, locked against a second control plane, and the file through
//! which others find this one.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::error::ControlError;
use crate::options::Addresses;

/// A data directory that belongs to this process until it is dropped.
#[derive(Debug)]
pub(crate) struct Home {
    path: PathBuf,
    _lock: File,
}

impl Home {
    /// Makes the directory when missing and takes its lock, which ends with the process however
    /// that ends.
    pub(crate) fn open(path: &Path) -> Result<Self, ControlError> {
        let failed = |source| ControlError::DataDir {
            path: path.to_owned(),
            source,
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(failed)?;
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(path.join("control.lock"))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(ControlError::DataDirInUse {
                    path: path.to_owned(),
                    pid: pid_in(&mut lock),
                });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        lock.set_len(0).map_err(failed)?;
        lock.rewind().map_err(failed)?;
        writeln!(lock, "{}", std::process::id()).map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Tells others where this control plane is.
    pub(crate) fn announce(&self, addresses: &Addresses) -> Result<(), ControlError> {
        let write = || -> io::Result<()> {
            let text = serde_json::to_vec_pretty(addresses).map_err(io::Error::other)?;
            let next = self.path.join("control.json.next");
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .mode(0o600)
                .open(&next)?;
            file.write_all(&text)?;
            file.write_all(b"\n")?;
            fs::rename(&next, Addresses::file(&self.path))
        };
        write().map_err(|source| ControlError::DataDir {
            path: self.path.clone(),
            source,
        })
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // Best effort: who finds them all the same sees that nobody answers.
        let _ = fs::remove_file(Addresses::file(&self.path));
        let _ = fs::remove_file(Addresses::socket(&self.path));
    }
}

fn pid_in(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_control_plane_is_told_who_has_the_directory() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("deep/er");
        let first = Home::open(&path).expect("free");
        let error = Home::open(&path).expect_err("taken");
        let text = error.to_string();
        assert!(
            text.contains(&format!("process {}", std::process::id())),
            "{text}"
        );
        drop(first);
        Home::open(&path).expect("free again");
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().expect("tempdir");
        let file = dir.path().join("file");
        fs::write(&file, "").expect("written");
        let text = Home::open(&file.join("x"))
            .expect_err("no directory")
            .to_string();
        assert!(
            text.contains("file/x") && text.contains("TULLE_DATA_DIR"),
            "{text}"
        );
    }
}
