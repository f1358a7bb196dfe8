//! Rust code from `proto/`, one file for each protobuf package, without protoc.
//!
//! Maps become `BTreeMap`s, so that the same message always has the same bytes: the version of a
//! resource is the hash of its bytes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// What is generated: from which files, into which directory.
struct Unit {
    files: &'static [&'static str],
    out: &'static str,
}

const UNITS: [Unit; 3] = [
    Unit {
        files: &[
            "envoy/service/discovery/v3/ads.proto",
            "envoy/service/ratelimit/v3/rls.proto",
            "tulle/v1/ca.proto",
            "tulle/v1/cache.proto",
            "tulle/v1/registry.proto",
            "tulle/v1/resources.proto",
        ],
        out: "crates/xds/src/proto",
    },
    Unit {
        files: &["opentelemetry/proto/collector/trace/v1/trace_service.proto"],
        out: "crates/telemetry/src/proto",
    },
    Unit {
        files: &["bookshop/v1/bookshop.proto"],
        out: "examples/bookshop/src/proto",
    },
];

/// Writes the generated files, and removes those that are generated no longer.
pub(crate) fn write(root: &Path) -> Result<()> {
    for unit in &UNITS {
        let out = root.join(unit.out);
        let new = generate(root, unit)?;
        fs::create_dir_all(&out).with_context(|| format!("cannot create {}", unit.out))?;
        for (name, text) in &new {
            fs::write(out.join(name), text)
                .with_context(|| format!("cannot write {}/{name}", unit.out))?;
        }
        for name in present(&out)?.into_keys() {
            if !new.contains_key(&name) {
                fs::remove_file(out.join(&name))
                    .with_context(|| format!("cannot remove {}/{name}", unit.out))?;
            }
        }
    }
    Ok(())
}

/// Fails where what is checked in is not what would be generated.
pub(crate) fn check(root: &Path) -> Result<()> {
    let mut stale = Vec::new();
    for unit in &UNITS {
        let new = generate(root, unit)?;
        let old = present(&root.join(unit.out))?;
        let differs = new
            .iter()
            .filter(|(name, text)| old.get(*name) != Some(text))
            .map(|(name, _)| name)
            .chain(old.keys().filter(|name| !new.contains_key(*name)));
        stale.extend(differs.map(|name| format!("{}/{name}", unit.out)));
    }
    if !stale.is_empty() {
        bail!(
            "not what proto/ generates: {}; run `cargo xtask gen` and commit the result",
            stale.join(", ")
        );
    }
    Ok(())
}

fn generate(root: &Path, unit: &Unit) -> Result<BTreeMap<String, String>> {
    let scratch = tempfile::tempdir().context("cannot create a temporary directory")?;
    let descriptors = protox::compile(unit.files, [root.join("proto")])
        .with_context(|| format!("cannot compile proto/{}", unit.files.join(", proto/")))?;
    tonic_prost_build::configure()
        .out_dir(scratch.path())
        .btree_map(".")
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)
        .with_context(|| format!("cannot generate {}", unit.out))?;
    let mut files = present(scratch.path())?;
    files.retain(|_, text| {
        text.lines()
            .any(|line| !line.starts_with("//") && !line.is_empty())
    });
    Ok(files)
}

/// The generated files in a directory, by name.
fn present(directory: &Path) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    if !directory.exists() {
        return Ok(files);
    }
    for entry in
        fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?
    {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry
            .path()
            .extension()
            .is_some_and(|extension| extension == "rs")
        {
            let text = fs::read_to_string(entry.path())
                .with_context(|| format!("cannot read {}", entry.path().display()))?;
            files.insert(name, text);
        }
    }
    Ok(files)
}
