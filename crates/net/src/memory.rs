//! Giving back memory that only the start of the process needed.

use std::ffi::c_void;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::ptr::NonNull;

use nix::sys::mman::{MmapAdvise, madvise};

/// Unmaps the pages of the program's own code; those still needed come back from the page cache when
/// they are next run. Starting touches most of a large program (command line, YAML, cryptography
/// tables), serving a small part of it.
pub fn release_code() -> io::Result<()> {
    let program = std::env::current_exe()?;
    let maps = std::fs::read("/proc/self/maps")?;
    for line in maps.split(|b| *b == b'\n') {
        let Some((start, length)) = code(line, program.as_os_str().as_bytes()) else {
            continue;
        };
        // SAFETY: the range is one mapping of this process, private, executable and not writable,
        // backed by the program's file: its pages hold what the file holds, and the kernel reads
        // them again when they are touched. Nothing is unmapped that could be written.
        #[expect(unsafe_code, reason = "advice on the program's own text")]
        unsafe {
            madvise(start, length, MmapAdvise::MADV_DONTNEED)?;
        }
    }
    Ok(())
}

/// Address and length of a line of `/proc/PID/maps` that is code of `program`.
fn code(line: &[u8], program: &[u8]) -> Option<(NonNull<c_void>, usize)> {
    let line = line.strip_suffix(program)?;
    let text = std::str::from_utf8(line).ok()?;
    let mut words = text.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    if words.next()? != "r-xp" {
        return None;
    }
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    let address = NonNull::new(std::ptr::with_exposed_provenance_mut(start))?;
    Some((address, end.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_the_program_itself_is_meant() {
        let line = b"55bd7572e000-55bd7572f000 r-xp 00726000 fe:00 9977893    /bin/tulle";
        let (address, length) = code(line, b"/bin/tulle").unwrap();
        assert_eq!((address.addr().get(), length), (0x55bd_7572_e000, 4096));
        for (line, program) in [
            (
                &b"55bd76d52000-55bd76d5a000 rw-p 01d48000 fe:00 1 /bin/tulle"[..],
                &b"/bin/tulle"[..],
            ),
            (
                b"55bd7572e000-55bd7572f000 r-xp 00726000 fe:00 1 /lib/libc.so.6",
                b"/bin/tulle",
            ),
            (b"garbage /bin/tulle", b"/bin/tulle"),
            (b"", b"/bin/tulle"),
        ] {
            assert!(code(line, program).is_none());
        }
    }

    #[test]
    fn the_program_runs_on() {
        release_code().unwrap();
        assert_eq!(std::hint::black_box(20) + 1, 21);
    }
}
