//! `AuthenticationPolicy` (`tulle.dev/v1alpha1`): which callers workloads take. So far its mTLS part.
//!
//! Levels, the most specific first: the Services that select a workload, its namespace, the mesh
//! (`MeshConfig`). At one level the oldest policy wins and the others are reported as conflicted.
//! A level that sets no `mode` leaves it to the next; a level that sets one also ends the search
//! for modes of single ports, so that a strict Service is not opened by a lax mesh.

use std::collections::BTreeMap;

use model::workload::{Mtls, MtlsMode};
use serde::{Deserialize, Serialize};

use crate::check::Check;
use crate::kind::TULLE_GROUP;
use crate::reference::{TargetRef, check_targets, shorten};

/// The namespace of what belongs to the whole mesh.
pub const SYSTEM_NAMESPACE: &str = "tulle-system";

/// `spec` of an `AuthenticationPolicy`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthenticationPolicySpec {
    /// What it is for: Services, the policy's own namespace, or the mesh.
    #[serde(default)]
    pub target_refs: Vec<TargetRef>,
    /// Whether plain text is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtls: Option<MtlsSpec>,
}

/// Whether plain text is taken.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MtlsSpec {
    /// For ports without a mode of their own; `None` leaves it to a less specific policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// By port of the workload.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub ports: BTreeMap<String, Mode>,
}

/// Whether plain text is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Mutual TLS only.
    Strict,
    /// Both.
    Permissive,
    /// Plain text only.
    Disable,
}

impl From<Mode> for MtlsMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Strict => Self::Strict,
            Mode::Permissive => Self::Permissive,
            Mode::Disable => Self::Disable,
        }
    }
}

impl AuthenticationPolicySpec {
    pub(crate) fn check(&self, namespace: &str, c: &mut Check<'_>) {
        c.at("spec", |c| {
            let kinds = [
                ("", "Service"),
                ("", "Namespace"),
                (TULLE_GROUP, "MeshConfig"),
            ];
            let later = ["Workload", "Gateway", "HTTPRoute", "GRPCRoute"];
            check_targets(&self.target_refs, &kinds, &later, c);
            c.each("targetRefs", &self.target_refs, |c, target| {
                check_reach(target, namespace, c);
            });
            match &self.mtls {
                None => c.error_at("mtls", "is required", "add `mtls: {mode: Strict}`"),
                Some(mtls) => c.at("mtls", |c| mtls.check(c)),
            }
        });
    }
}

/// A policy governs its own namespace; only the system's governs the mesh.
fn check_reach(target: &TargetRef, namespace: &str, c: &mut Check<'_>) {
    if target.section_name.is_some() {
        c.error_at(
            "sectionName",
            "is not served by this version of Tulle for this kind",
            "name ports in `mtls.ports`",
        );
    }
    match target.kind.as_str() {
        "Namespace" if target.name != namespace => c.error_at(
            "name",
            format!(
                "a policy in namespace {namespace} cannot be for namespace \"{}\"",
                shorten(&target.name)
            ),
            format!("write \"{namespace}\", or put the policy into that namespace"),
        ),
        "MeshConfig" if namespace != SYSTEM_NAMESPACE => c.error_at(
            "kind",
            "only a policy in the namespace tulle-system can be for the whole mesh",
            "put it there, or set `mtls` in the MeshConfig",
        ),
        "MeshConfig" if target.name != "default" => {
            c.error_at(
                "name",
                "the MeshConfig is named \"default\"",
                "write \"default\"",
            );
        }
        _ => {}
    }
}

impl MtlsSpec {
    fn check(&self, c: &mut Check<'_>) {
        if self.mode.is_none() && self.ports.is_empty() {
            c.error("says nothing", "add `mode`, `ports` or both");
        }
        c.at("ports", |c| {
            for port in self.ports.keys() {
                if !port.parse::<u16>().is_ok_and(|p| p > 0) {
                    c.at_key(port, |c| {
                        c.error(
                            format!("\"{}\" is not a port", shorten(port)),
                            "write the number on which the workload listens",
                        );
                    });
                }
            }
        });
    }
}

/// The policy of a workload from its levels, the most specific first, and the mesh's own mode.
pub(crate) fn merge<'s>(levels: impl IntoIterator<Item = &'s MtlsSpec>, default: MtlsMode) -> Mtls {
    let mut merged = Mtls {
        mode: default,
        ports: BTreeMap::new(),
    };
    for level in levels {
        for (port, mode) in &level.ports {
            if let Ok(port) = port.parse() {
                merged.ports.entry(port).or_insert((*mode).into());
            }
        }
        if let Some(mode) = level.mode {
            merged.mode = mode.into();
            break;
        }
    }
    merged
}
