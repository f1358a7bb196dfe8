//! Where a test may listen and write.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A TCP port that nobody uses, on IPv4 nor (where there is one) on IPv6, and that this process has
/// not given out before.
///
/// It is taken from below the range that the kernel uses for outgoing connections, so that none of
/// those takes it before the test does.
pub fn free_port() -> u16 {
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 12_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        // Processes begin at different places, since tests of several binaries run at once.
        let offset = (std::process::id().wrapping_mul(97)).wrapping_add(step) % COUNT;
        let port = u16::try_from(FIRST + offset).expect("below 32768");
        let v4 = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok();
        let v6 = TcpListener::bind((Ipv6Addr::LOCALHOST, port));
        let v6 = !matches!(v6, Err(e) if e.kind() == std::io::ErrorKind::AddrInUse);
        if v4 && v6 {
            return port;
        }
    }
    panic!("no free TCP port between {FIRST} and {}", FIRST + COUNT);
}

/// A directory that is removed when the test passes and kept, and named, when it fails.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
}

impl DataDir {
    /// Makes one; `name` is for whoever looks into the temporary directory.
    pub fn new(name: &str) -> Self {
        let path = tempfile::Builder::new()
            .prefix(&format!("tulle-{name}-"))
            .tempdir()
            .expect("a temporary directory can be made")
            .keep();
        Self { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path inside.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file inside, with the directories on the way to it.
    pub fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).expect("a directory can be made in a temporary directory");
        }
        fs::write(&path, content).expect("a file can be written in a temporary directory");
        path
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("kept for inspection: {}", self.path.display());
        } else {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ports_are_free_and_not_given_out_twice() {
        let ports: BTreeSet<_> = (0..50).map(|_| free_port()).collect();
        assert_eq!(ports.len(), 50);
        for port in ports {
            TcpListener::bind(("127.0.0.1", port)).unwrap();
        }
    }

    #[test]
    fn a_directory_goes_with_its_test() {
        let dir = DataDir::new("place");
        let file = dir.write("a/b.yaml", "kind: Service");
        assert_eq!(fs::read_to_string(&file).unwrap(), "kind: Service");
        let path = dir.path().to_owned();
        drop(dir);
        assert!(!path.exists());
    }
}
