//! Replays the kept inputs of a fuzz target: each was odd enough to be kept once. For tests of the
//! crates, whose folders are two below this repository's.

use std::fs;
use std::path::Path;

pub(crate) fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(target);
    let mut count = 0;
    for entry in fs::read_dir(&folder).expect("a corpus") {
        let path = entry.expect("a file").path();
        let bytes = fs::read(&path).expect("readable");
        if let Err(panic) = std::panic::catch_unwind(|| check(&bytes)) {
            eprintln!("{target}: {} {}", path.display(), bytes.escape_ascii());
            std::panic::resume_unwind(panic);
        }
        count += 1;
    }
    assert!(count > 10, "{} holds only {count} files", folder.display());
}
