//! Which files there are, and whether they look changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use config::{Diagnostic, MAX_INPUT_BYTES, Severity};

/// Files that are read from all paths together.
const MAX_FILES: usize = 10_000;
/// Directories below one another.
const MAX_DEPTH: usize = 32;

/// What changes when a file does, most often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fingerprint {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<&Metadata> for Fingerprint {
    fn from(m: &Metadata) -> Self {
        Self {
            device: m.dev(),
            inode: m.ino(),
            size: m.size(),
            modified: (m.mtime(), m.mtime_nsec()),
            changed: (m.ctime(), m.ctime_nsec()),
        }
    }
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Files to read.
    pub(super) files: BTreeMap<PathBuf, Fingerprint>,
    /// Paths that could not be looked at.
    pub(super) unreadable: BTreeMap<PathBuf, Diagnostic>,
}

/// Looks at all paths; links are followed.
pub(super) fn scan(roots: &[PathBuf]) -> Found {
    let mut found = Found::default();
    for root in roots {
        match fs::metadata(root) {
            Ok(m) if m.is_dir() => descend(root, &mut BTreeSet::new(), 0, &mut found),
            Ok(m) => {
                found.files.insert(root.clone(), Fingerprint::from(&m));
            }
            Err(error) => found.lost(root, &error),
        }
    }
    found
}

fn descend(dir: &Path, above: &mut BTreeSet<(u64, u64)>, depth: usize, found: &mut Found) {
    let identity = match fs::metadata(dir) {
        Ok(m) => (m.dev(), m.ino()),
        Err(error) => return found.lost(dir, &error),
    };
    // A link back to a directory above would never end.
    if depth > MAX_DEPTH || !above.insert(identity) {
        return;
    }
    match fs::read_dir(dir) {
        Ok(entries) => {
            for entry in entries {
                match entry {
                    Ok(entry) => visit(&entry.path(), above, depth, found),
                    Err(error) => found.lost(dir, &error),
                }
            }
        }
        Err(error) => found.lost(dir, &error),
    }
    above.remove(&identity);
}

fn visit(path: &Path, above: &mut BTreeSet<(u64, u64)>, depth: usize, found: &mut Found) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.starts_with('.') {
        return;
    }
    match fs::metadata(path) {
        Ok(m) if m.is_dir() => descend(path, above, depth + 1, found),
        Ok(m) if m.is_file() && is_manifest(path) => {
            if found.files.len() < MAX_FILES {
                found.files.insert(path.to_owned(), Fingerprint::from(&m));
            } else {
                let error =
                    io::Error::other(format!("more than {MAX_FILES} files; the rest is not read"));
                found.lost(path, &error);
            }
        }
        Err(error) if is_manifest(path) => {
            // Unless it was deleted since it was listed.
            if error.kind() != io::ErrorKind::NotFound || path.is_symlink() {
                found.lost(path, &error);
            }
        }
        Ok(_) | Err(_) => {}
    }
}

fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|e| {
        ["yaml", "yml", "json"]
            .iter()
            .any(|known| e.eq_ignore_ascii_case(known))
    })
}

impl Found {
    fn lost(&mut self, path: &Path, error: &io::Error) {
        // Bounded like the files are.
        if self.unreadable.len() < MAX_FILES {
            let diagnostic = Diagnostic {
                file: path.to_string_lossy().into(),
                ..unreadable(error)
            };
            self.unreadable.insert(path.to_owned(), diagnostic);
        }
    }
}

fn unreadable(error: &io::Error) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        object: None,
        file: "".into(),
        line: 0,
        column: 0,
        field: String::new(),
        message: format!("cannot be read: {error}"),
        hint: "the objects that it gave before stay in force; restore it, or restart the control plane without it".to_owned(),
    }
}

/// The text of a file, if it is text of a size that is taken.
pub(super) fn read(path: &Path) -> Result<String, Box<Diagnostic>> {
    let refuse = |message: String, hint: &str| {
        Box::new(Diagnostic {
            message,
            hint: hint.to_owned(),
            ..unreadable(&io::Error::other(""))
        })
    };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| {
            file.take(MAX_INPUT_BYTES as u64 + 1)
                .read_to_end(&mut bytes)
        })
        .map_err(|error| Box::new(unreadable(&error)))?;
    if bytes.len() > MAX_INPUT_BYTES {
        return Err(refuse(
            format!("larger than {} MiB", MAX_INPUT_BYTES >> 20),
            "split it",
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        refuse(format!("not UTF-8 text (byte {at})"), "save it as UTF-8")
    })
}
