//! Which crate may know which: ARCHITECTURE.md's directions, checked over `cargo metadata`.
//!
//! Only what a crate is built from counts; its tests may use what they like.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use cargo_metadata::{DependencyKind, MetadataCommand, Package};

/// Each crate of ours, and which others it may know. `tulle`, and what is never shipped, know all.
const MAY_KNOW: [(&str, &[&str]); 17] = [
    ("tulle-model", &[]),
    ("tulle-wire", &[]),
    ("tulle-policy", &["tulle-model", "tulle-wire"]),
    ("tulle-lb", &["tulle-model"]),
    ("tulle-identity", &["tulle-model"]),
    ("tulle-net", &["tulle-model", "tulle-identity"]),
    ("tulle-capture", &["tulle-model"]),
    // What a policy may not change is said in `policy`, and refused where users write it.
    // Whether a certificate can be used is `identity`'s to say.
    (
        "tulle-config",
        &["tulle-model", "tulle-policy", "tulle-identity"],
    ),
    // Certificates in words are `identity`'s.
    (
        "tulle-explain",
        &[
            "tulle-model",
            "tulle-wire",
            "tulle-policy",
            "tulle-config",
            "tulle-identity",
        ],
    ),
    ("tulle-xds", &["tulle-model"]),
    ("tulle-runtime", &[]),
    (
        "tulle-telemetry",
        &["tulle-model", "tulle-wire", "tulle-xds", "tulle-runtime"],
    ),
    (
        "tulle-proxy",
        &[
            "tulle-model",
            "tulle-wire",
            "tulle-policy",
            "tulle-lb",
            "tulle-identity",
            "tulle-net",
            "tulle-xds",
            "tulle-runtime",
            "tulle-telemetry",
        ],
    ),
    (
        "tulle-control",
        &[
            "tulle-model",
            "tulle-policy",
            "tulle-identity",
            "tulle-config",
            "tulle-xds",
            "tulle-runtime",
            "tulle-telemetry",
        ],
    ),
    // Its messages are `xds`'s.
    (
        "tulle-ratelimit",
        &["tulle-xds", "tulle-runtime", "tulle-telemetry"],
    ),
    ("tulle-bookshop", &[]),
    ("xtask", &[]),
];

/// Crates that see everything of ours.
const SEE_ALL: [&str; 4] = ["tulle", "tulle-testkit", "tulle-e2e", "tulle-bench"];

/// Crates of others that only some of ours may use, and why.
const KEPT_TO: [(&[&str], &[&str], &str); 7] = [
    (
        &["tokio", "hyper", "tonic", "axum", "rustls"],
        &[
            "!tulle-model",
            "!tulle-wire",
            "!tulle-policy",
            "!tulle-lb",
            "!tulle-config",
            "!tulle-explain",
        ],
        "these crates are pure",
    ),
    (
        &["prost", "prost-types", "tonic-prost"],
        &[
            "!tulle-proxy",
            "!tulle-net",
            "!tulle-identity",
            "!tulle-runtime",
            "!tulle-capture",
        ],
        "protobuf types end at `xds` and `telemetry`",
    ),
    (
        &["kube", "k8s-openapi", "gateway-api"],
        &["tulle-control", "tulle-config"],
        "the data plane does not know Kubernetes",
    ),
    (
        &["rusqlite"],
        &["tulle-control"],
        "state is the control plane's",
    ),
    (
        &["serde-saphyr"],
        &["tulle-config", "tulle-ratelimit", "tulle"],
        "the proxy does not read what users write",
    ),
    (
        &["redis"],
        &["tulle-ratelimit"],
        "what is shared by Redis is counts, and nothing else",
    ),
    (
        &["rcgen", "x509-parser"],
        &["tulle-identity", "tulle-testkit"],
        "certificates are `identity`'s",
    ),
];

/// Checks every crate of the workspace.
pub(crate) fn lint() -> Result<()> {
    let metadata = MetadataCommand::new()
        .no_deps()
        .exec()
        .context("cannot read the workspace")?;
    let members = metadata.workspace_packages();
    let ours: BTreeSet<&str> = members
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    let mut wrong = Vec::new();
    for package in &members {
        wrong.extend(strangers(package, &ours)?);
        wrong.extend(misplaced(package));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    bail!(
        "dependencies against ARCHITECTURE.md:\n  {}\nmove the code, or change xtask/src/directions.rs and ARCHITECTURE.md together",
        wrong.join("\n  ")
    )
}

/// Crates of ours that this one may not know.
fn strangers(package: &Package, ours: &BTreeSet<&str>) -> Result<Vec<String>> {
    let name = package.name.as_str();
    if SEE_ALL.contains(&name) {
        return Ok(Vec::new());
    }
    let Some((_, allowed)) = MAY_KNOW.iter().find(|(of, _)| *of == name) else {
        bail!("crate {name} has no place in xtask/src/directions.rs: say there what it may know");
    };
    Ok(built_from(package)
        .filter(|dependency| ours.contains(dependency) && !allowed.contains(dependency))
        .map(|dependency| format!("{name} may not know {dependency}"))
        .collect())
}

/// Crates of others that this one may not use.
fn misplaced(package: &Package) -> Vec<String> {
    let name = package.name.as_str();
    let mut wrong = Vec::new();
    for dependency in built_from(package) {
        for (crates, users, why) in KEPT_TO {
            if crates.contains(&dependency) && name.starts_with("tulle") && !may(name, users) {
                wrong.push(format!("{name} may not use {dependency}: {why}"));
            }
        }
    }
    wrong
}

/// A list either names who may, or, with `!`, who may not. Examples are not of the house.
fn may(name: &str, users: &[&str]) -> bool {
    let forbids = users.iter().any(|user| user.starts_with('!'));
    if name == "tulle-bookshop" {
        true
    } else if forbids {
        !users
            .iter()
            .any(|user| user.strip_prefix('!') == Some(name))
    } else {
        users.contains(&name)
    }
}

fn built_from(package: &Package) -> impl Iterator<Item = &str> {
    package
        .dependencies
        .iter()
        .filter(|dependency| dependency.kind != DependencyKind::Development)
        .map(|dependency| dependency.name.as_str())
}
