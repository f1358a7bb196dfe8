//! What the operating system lets the process have.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the number of files that may be open to what the process is allowed: the usual soft
/// limit of 1,024 is there for programs that use `select`, and a proxy has two for each request in
/// flight. Returns the limit in force. Not for a process whose children inherit it unasked.
pub fn raise_open_files() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return 0;
    };
    if soft >= hard {
        return soft;
    }
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(error) => {
            tracing::warn!(%error, limit = soft, "the number of open files stays low");
            soft
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("readable");
        assert_eq!(raise_open_files(), hard);
        let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).expect("readable");
        assert_eq!(soft, hard);
    }
}
