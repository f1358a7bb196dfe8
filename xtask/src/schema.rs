//! The schemas of Gateway API's kinds: from the experimental channel's CRDs of the Go module
//! `sigs.k8s.io/gateway-api` to the compact files in `crates/config/src/schema/crd`.
//!
//! What a user writes is all that is kept: the schema of `spec` for each version that is served,
//! without descriptions. `status` is the controllers', and the API server ignores it in what users
//! send. The kinds of the group `gateway.networking.x-k8s.io` are not served by Tulle and left out.
//!
//! The CRDs themselves are 1.4 MB and not copied here (unlike `proto/`, of which little is used and
//! which is trimmed by hand). They come by `go mod download` and must have the module's checksum
//! below; where there is no Go, `gen` leaves the files as they are. `gen --check` needs neither Go
//! nor the network: each file carries a checksum of its content, so that an edit by hand is seen, and
//! names the module it was made from, so that another version is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};

const MODULE: &str = "sigs.k8s.io/gateway-api";
const VERSION: &str = "v1.6.3";
/// The module's checksum, as in a `go.sum`.
const SUM: &str = "h1:lKpJa5bGlraC/QeACvCpsHLdmO6y0iKfzVl6gzaFEYc=";
const OUT: &str = "crates/config/src/schema/crd";
const GROUP: &str = "gateway.networking.k8s.io";
const LICENCE: &str = "Copyright The Kubernetes Authors. Licensed under the Apache License, Version 2.0 (http://www.apache.org/licenses/LICENSE-2.0). Descriptions and what users do not write are left out.";

/// Writes the schemas, if there is a Go tool to fetch the CRDs with.
pub(crate) fn write(root: &Path) -> Result<()> {
    let Some(module) = download()? else {
        eprintln!("xtask: there is no `go`: {OUT} is left as it is");
        return Ok(());
    };
    let out = root.join(OUT);
    fs::create_dir_all(&out).with_context(|| format!("cannot create {OUT}"))?;
    let new = generate(&module.join("config/crd/experimental"))?;
    for (name, text) in &new {
        fs::write(out.join(name), text).with_context(|| format!("cannot write {OUT}/{name}"))?;
    }
    for name in present(&out)?.into_keys() {
        if !new.contains_key(&name) {
            fs::remove_file(out.join(&name))
                .with_context(|| format!("cannot remove {OUT}/{name}"))?;
        }
    }
    Ok(())
}

/// Fails where a file is not as `write` left it.
pub(crate) fn check(root: &Path) -> Result<()> {
    let mut stale = Vec::new();
    for (name, text) in present(&root.join(OUT))? {
        let as_written = serde_json::from_str(&text)
            .ok()
            .and_then(|file: Value| file.get("content").cloned())
            .map(|content| file_text(&name, content));
        if as_written != Some(text) {
            stale.push(format!("{OUT}/{name}"));
        }
    }
    if !stale.is_empty() {
        bail!(
            "not what {MODULE}@{VERSION} generates: {}; run `cargo xtask gen` and commit the result",
            stale.join(", ")
        );
    }
    Ok(())
}

/// The directory of the Go module; `None` without Go.
fn download() -> Result<Option<PathBuf>> {
    let wanted = format!("{MODULE}@{VERSION}");
    let mut go = Command::new("go");
    go.args(["mod", "download", "-json", &wanted]);
    let output = match go.current_dir(std::env::temp_dir()).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.context("cannot run go")?,
    };
    ensure!(
        output.status.success(),
        "go mod download {wanted}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let module: Value = serde_json::from_slice(&output.stdout).context("go's answer")?;
    ensure!(
        module["Sum"] == SUM,
        "{wanted} has the checksum {}, not {SUM}",
        module["Sum"]
    );
    let directory = module["Dir"].as_str().context("go names no directory")?;
    Ok(Some(directory.into()))
}

/// The files, by name.
fn generate(crds: &Path) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    let entries = fs::read_dir(crds).with_context(|| format!("cannot list {}", crds.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some(plural) = name
            .strip_prefix(&format!("{GROUP}_"))
            .and_then(|rest| rest.strip_suffix(".yaml"))
        else {
            continue;
        };
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let crd: Value = serde_saphyr::from_multiple(&text)
            .with_context(|| format!("{} is not YAML", path.display()))?
            .into_iter()
            .next()
            .unwrap_or_default();
        // The directory also holds a policy against unsafe upgrades.
        if crd["kind"] == "CustomResourceDefinition" {
            let file = format!("{plural}.json");
            let content = content(&crd).with_context(|| format!("in {}", path.display()))?;
            files.insert(file.clone(), file_text(&file, content));
        }
    }
    ensure!(!files.is_empty(), "{} has no CRDs", crds.display());
    Ok(files)
}

/// What is kept of a CRD. Versions with the same schema share it.
fn content(crd: &Value) -> Result<Value> {
    let versions = crd["spec"]["versions"].as_array().context("no versions")?;
    let mut schemas: Vec<Value> = Vec::new();
    let mut index = Map::new();
    for version in versions.iter().filter(|v| v["served"] == true) {
        let root = &version["schema"]["openAPIV3Schema"];
        ensure!(root["properties"]["spec"].is_object(), "no schema of spec");
        ensure!(
            root.get("x-kubernetes-validations").is_none(),
            "there are rules about the whole object, which are not read"
        );
        ensure!(root["required"] == json!(["spec"]), "spec is optional");
        let spec = kept(&root["properties"]["spec"]);
        let at = schemas.iter().position(|s| *s == spec).unwrap_or_else(|| {
            schemas.push(spec);
            schemas.len() - 1
        });
        let name = version["name"].as_str().context("a version has no name")?;
        index.insert(name.to_owned(), json!(at));
    }
    Ok(json!({
        "kind": crd["spec"]["names"]["kind"],
        "versions": index,
        "schemas": schemas,
    }))
}

/// A schema without its descriptions and those of its parts.
fn kept(schema: &Value) -> Value {
    let Value::Object(entries) = schema else {
        return schema.clone();
    };
    let part = |(key, value): (&String, &Value)| {
        let value = match (key.as_str(), value) {
            ("description", _) => return None,
            ("properties", Value::Object(fields)) => {
                fields.iter().map(|(k, v)| (k.clone(), kept(v))).collect()
            }
            ("items" | "additionalProperties" | "not", value) => kept(value),
            ("allOf" | "anyOf" | "oneOf", Value::Array(parts)) => parts.iter().map(kept).collect(),
            (_, value) => value.clone(),
        };
        Some((key.clone(), value))
    };
    entries.iter().filter_map(part).collect()
}

/// A file's text. Keys are sorted, whatever order the JSON library keeps.
fn file_text(name: &str, content: Value) -> String {
    let content = sorted(content);
    let file = json!({
        "source": format!("{MODULE}@{VERSION} {SUM} config/crd/experimental, by `cargo xtask gen`"),
        "licence": LICENCE,
        "checksum": format!("{:016x}", fnv(&format!("{name}\n{content}"))),
        "content": content,
    });
    let mut text = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b" ");
    let mut writer = serde_json::Serializer::with_formatter(&mut text, format);
    serde::Serialize::serialize(&sorted(file), &mut writer).expect("JSON goes into memory");
    text.push(b'\n');
    String::from_utf8(text).expect("JSON is UTF-8")
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        Value::Object(entries) => {
            let entries: BTreeMap<String, Value> = entries.into_iter().collect();
            entries.into_iter().map(|(k, v)| (k, sorted(v))).collect()
        }
        other => other,
    }
}

/// FNV-1a, which is enough to see an edit.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

fn present(directory: &Path) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        files.insert(name.into_owned(), text);
    }
    Ok(files)
}
