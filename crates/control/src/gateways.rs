//! The proxies of Gateways, as the control plane runs them itself.
//!
//! Off Kubernetes each is a child process ([`local`]); on Kubernetes objects that Kubernetes runs
//! are written instead (`kubernetes::gateways`). Both say where a Gateway can be reached in
//! [`crate::published`]. What a proxy serves, it learns over xDS like every other: a change of
//! listeners starts and stops nothing.

mod child;
pub(crate) mod local;
mod unit;

#[cfg(test)]
mod tests;

pub use local::Children;
pub(crate) use unit::Unit;

use std::path::PathBuf;

/// Who runs the proxies of Gateways.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Gateways {
    /// Whoever starts `tulle gateway`.
    #[default]
    External,
    /// This control plane, as child processes.
    Spawn(Program),
    /// This control plane, as Deployments of the Kubernetes whose objects it follows.
    Deploy(crate::kubernetes::gateways::Settings),
}

/// The program that serves a Gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The executable.
    pub path: PathBuf,
    /// Its arguments before `gateway --name ...`; `{pid}` stands for the control plane's process.
    pub arguments: Vec<String>,
}

/// Longest name that Kubernetes takes for a Service, and longest value of a label.
const MAX_LABEL: usize = 63;

/// The name of what is made for a Gateway on Kubernetes, as GEP-1762 has it:
/// `<gateway>-<class>`, shortened where that is too long for a Service.
pub fn generated_name(gateway: &str, class: &str) -> String {
    shortened(&format!("{gateway}-{class}"))
}

/// A name as a label's value or a Service's name takes it: one that is too long ends in a hash.
pub fn shortened(name: &str) -> String {
    if name.len() <= MAX_LABEL {
        return name.to_owned();
    }
    // Names of objects are ASCII; what is cut is told apart by FNV-1a.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let kept: String = name.chars().take(MAX_LABEL - 13).collect();
    let kept = kept.trim_end_matches(['-', '.']);
    format!("{kept}-{:012x}", hash & 0xffff_ffff_ffff)
}
