//! Where a workload's proxy keeps its certificate and its last good configuration.

use std::path::{Path, PathBuf};

/// The state directory of a workload's proxy, within a data directory.
pub(crate) fn dir(data_dir: &Path, namespace: &str, name: &str) -> PathBuf {
    data_dir.join("workloads").join(namespace).join(name)
}
