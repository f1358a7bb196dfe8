//! Which process answered.

/// Response header that says so.
pub(crate) const HEADER: &str = "x-bookshop-instance";

/// `<workload>-<process id>`.
pub(crate) fn name(workload: &str) -> String {
    format!("{workload}-{}", std::process::id())
}
