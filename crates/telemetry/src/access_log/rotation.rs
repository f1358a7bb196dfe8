//! A file that does not grow without bound: when it is full it becomes `NAME.1`, in place of the one
//! before, and a new one begins.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

/// Bytes of one file; with its predecessor a log takes at most twice as much.
pub(super) const LIMIT: u64 = 64 * 1024 * 1024;

pub(super) struct Rotating {
    path: PathBuf,
    file: File,
    size: u64,
    limit: u64,
}

impl Rotating {
    /// Appends to the file, created if need be.
    pub(super) fn open(path: PathBuf, limit: u64) -> io::Result<Self> {
        let file = append(&path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path,
            file,
            size,
            limit,
        })
    }

    fn rotate(&mut self) -> io::Result<()> {
        let mut before = self.path.clone().into_os_string();
        before.push(".1");
        std::fs::rename(&self.path, before)?;
        self.file = append(&self.path)?;
        self.size = 0;
        Ok(())
    }
}

fn append(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

impl Write for Rotating {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Written in whole buffers of whole lines, mostly; a line may be split between two files.
        if self.size >= self.limit {
            self.rotate()?;
        }
        let written = self.file.write(bytes)?;
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_makes_room_and_the_one_before_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let mut log = Rotating::open(path.clone(), 10).unwrap();
        for n in 0..5 {
            log.write_all(format!("line {n} ....\n").as_bytes())
                .unwrap();
        }
        let sizes: Vec<u64> = ["access.log", "access.log.1"]
            .map(|name| dir.path().join(name).metadata().unwrap().len())
            .into();
        assert_eq!(sizes, [12, 12]);
        assert!(
            std::fs::read_to_string(&path)
                .unwrap()
                .starts_with("line 4")
        );
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
