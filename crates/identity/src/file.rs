//! Files that hold secrets: written whole or not at all, readable by their owner only.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// What is wrong with a file that should hold a secret.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system refused.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Others than its owner may read or write it.
    #[error(
        "{path} may be read or written by others (mode {mode:03o}): it holds a private key; \
         if nobody can have copied it, run `chmod 600` on it, otherwise replace the key"
    )]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is no regular file, or far larger than it can be.
    #[error("{path} is not a file of the expected size and kind; is the path right?")]
    Unexpected {
        /// The file.
        path: PathBuf,
    },
}

impl FileError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// Whether the file does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Largest file read: a chain of certificates and a key have a few KiB.
const MAX_BYTES: u64 = 256 * 1024;

/// Reads a whole file that only its owner may read.
pub(crate) fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let file = File::open(path).map_err(FileError::io("open", path))?;
    let metadata = file.metadata().map_err(FileError::io("look at", path))?;
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        return Err(FileError::Unexpected {
            path: path.to_owned(),
        });
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(FileError::TooOpen {
            path: path.to_owned(),
            mode,
        });
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(metadata.len() as usize + 1));
    file.take(MAX_BYTES)
        .read_to_end(&mut bytes)
        .map_err(FileError::io("read", path))?;
    Ok(bytes)
}

/// Replaces a file atomically: after a crash there is the old content or the new, never a part.
pub(crate) fn replace_private(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let temporary = Temporary::write(path, bytes)?;
    fs::rename(&temporary.0, path).map_err(FileError::io("replace", path))?;
    sync_directory(path)
}

/// Creates a file atomically; `false`, and nothing is touched, when there is one already.
pub(crate) fn create_private(path: &Path, bytes: &[u8]) -> Result<bool, FileError> {
    let temporary = Temporary::write(path, bytes)?;
    match fs::hard_link(&temporary.0, path) {
        Ok(()) => sync_directory(path).map(|()| true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(FileError::io("create", path)(e)),
    }
}

/// A file beside its destination, removed when dropped (which fails harmlessly once renamed).
struct Temporary(PathBuf);

impl Temporary {
    fn write(destination: &Path, bytes: &[u8]) -> Result<Self, FileError> {
        let mut random = [0; 8];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| {
            FileError::io("name a temporary file beside", destination)(io::Error::other(
                "no randomness",
            ))
        })?;
        let mut name = OsString::from(".");
        name.push(destination.file_name().unwrap_or_default());
        name.push(format!(".{:016x}.tmp", u64::from_ne_bytes(random)));
        let temporary = Self(destination.with_file_name(name));
        let path = &temporary.0;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(FileError::io("create", path))?;
        file.write_all(bytes)
            .and_then(|()| file.sync_all())
            .map_err(FileError::io("write", path))?;
        Ok(temporary)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn sync_directory(path: &Path) -> Result<(), FileError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)
        .and_then(|d| d.sync_all())
        .map_err(FileError::io("write", directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_private_whole_and_created_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        assert!(create_private(&path, b"one").unwrap());
        assert!(!create_private(&path, b"two").unwrap());
        assert_eq!(&**read_private(&path).unwrap(), b"one");
        replace_private(&path, b"three").unwrap();
        assert_eq!(&**read_private(&path).unwrap(), b"three");
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(names.len(), 1, "no temporary file is left: {names:?}");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        fs::write(&path, b"x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = read_private(&path).unwrap_err();
        assert!(matches!(error, FileError::TooOpen { mode: 0o640, .. }));
        assert!(error.to_string().contains("chmod 600"), "{error}");
        assert!(matches!(
            read_private(dir.path()).unwrap_err(),
            FileError::Unexpected { .. }
        ));
        assert!(
            read_private(&dir.path().join("none"))
                .unwrap_err()
                .is_not_found()
        );
    }
}
