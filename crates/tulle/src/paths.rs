//! Where things are on disk.

use std::path::PathBuf;

/// The control plane's data directory unless a flag says otherwise: `TULLE_DATA_DIR`, else
/// `/var/lib/tulle` for root, else `$XDG_STATE_HOME/tulle` (`~/.local/state/tulle`).
pub(crate) fn data_dir() -> PathBuf {
    if let Some(dir) = non_empty("TULLE_DATA_DIR") {
        return dir;
    }
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/var/lib/tulle");
    }
    if let Some(state) = non_empty("XDG_STATE_HOME").filter(|p| p.is_absolute()) {
        return state.join("tulle");
    }
    let home = non_empty("HOME").unwrap_or_else(|| PathBuf::from("/tmp"));
    home.join(".local/state/tulle")
}

/// The control plane's socket in a data directory.
pub(crate) fn control_socket(data_dir: &std::path::Path) -> PathBuf {
    data_dir.join("control.sock")
}

/// This binary, to be started again. Where it was removed meanwhile, the kernel's own name for it.
pub(crate) fn this_binary() -> PathBuf {
    std::env::current_exe()
        .ok()
        .filter(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
}

fn non_empty(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}
