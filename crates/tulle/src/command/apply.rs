//! `tulle apply`: files to the control plane, as one set that is taken whole or not at all.
//!
//! Everything is checked here first, so that a broken file is reported with its own name and
//! line and nothing is sent. What only the control plane can know (a reference to what does not
//! exist) comes back with lines of the joined text, which are turned back into files and lines.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use http::{Method, StatusCode};
use serde_json::Value;

use crate::cli::Connection;
use crate::client::Client;
use crate::command::block_on;
use crate::failure::{AlreadySaid, usage};
use crate::ui::{Format, Ui};

/// Create or change resources from files.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tulle apply -f routes.yaml\n  tulle apply -f examples/bookshop/manifests --dry-run\n  echo '{\"kind\": ...}' | tulle apply -f -"
)]
pub(crate) struct Apply {
    /// File, directory (its *.yaml, *.yml and *.json) or - for stdin; may be repeated.
    #[arg(
        long = "filename",
        short = 'f',
        value_name = "FILE|DIR|-",
        required = true
    )]
    files: Vec<PathBuf>,
    /// Check everything, change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Output.
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    connection: Connection,
}

/// One file's text.
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
}

impl Apply {
    pub(crate) fn execute(self, ui: &Ui) -> anyhow::Result<ExitCode> {
        let sources = read_all(&self.files)?;
        check(ui, &sources)?;
        let (body, map) = join(&sources);
        let client = Client::of(&self.connection)?;
        let path = if self.dry_run {
            "/api/v1/apply?dryRun=true"
        } else {
            "/api/v1/apply"
        };
        let answer = block_on(client.send(Method::POST, path, "application/yaml", body))?;
        if answer.status == StatusCode::BAD_REQUEST {
            let body = answer.json()?;
            if let Some(errors) = body.get("errors").and_then(Value::as_array) {
                for error in errors {
                    ui.error(&diagnostic_line(error, &map));
                }
                return Err(AlreadySaid.into());
            }
        }
        if !answer.status.is_success() {
            return Err(answer.error());
        }
        let body = answer.json()?;
        for warning in list(&body, "warnings") {
            ui.warn(&diagnostic_line(warning, &map));
        }
        match self.output {
            Format::Table => {
                let suffix = if self.dry_run { " (dry run)" } else { "" };
                for entry in list(&body, "applied") {
                    ui.data(&format!("{}{suffix}", applied_line(entry)))?;
                }
            }
            format => ui.value(format, &body)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The files named, directories opened, each once.
pub(crate) fn read_all(files: &[PathBuf]) -> anyhow::Result<Vec<Source>> {
    let mut sources = Vec::new();
    for file in files {
        if file.as_os_str() == "-" {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .map_err(|e| usage!("stdin: cannot be read as UTF-8 text: {e}"))?;
            sources.push(Source {
                name: "stdin".into(),
                text,
            });
        } else if file.is_dir() {
            let inside = manifests_in(file)?;
            if inside.is_empty() {
                return Err(usage!(
                    "{}: no *.yaml, *.yml or *.json in this directory",
                    file.display()
                ));
            }
            for path in inside {
                sources.push(read(&path)?);
            }
        } else {
            sources.push(read(file)?);
        }
    }
    Ok(sources)
}

fn read(path: &Path) -> anyhow::Result<Source> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| usage!("{}: cannot be read: {e}", path.display()))?;
    Ok(Source {
        name: path.display().to_string(),
        text,
    })
}

/// Manifests of a directory and those below, sorted.
fn manifests_in(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries =
        std::fs::read_dir(dir).with_context(|| format!("{}: cannot be listed", dir.display()))?;
    for entry in entries {
        let path = entry?.path();
        let hidden = path
            .file_name()
            .is_some_and(|n| n.to_string_lossy().starts_with('.'));
        if hidden {
            continue;
        }
        if path.is_dir() {
            found.extend(manifests_in(&path)?);
        } else if matches!(
            path.extension().and_then(|e| e.to_str()),
            Some("yaml" | "yml" | "json")
        ) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Says everything that is wrong with the files by themselves.
fn check(ui: &Ui, sources: &[Source]) -> anyhow::Result<()> {
    // So that the sources share them.
    let _schemas = config::Schemas::shared();
    let mut broken = false;
    let mut objects = 0;
    for source in sources {
        let parsed = config::parse(&source.name, &source.text);
        objects += parsed.objects.len();
        for diagnostic in &parsed.diagnostics {
            if diagnostic.severity == config::Severity::Error {
                ui.error(&diagnostic.to_string());
                broken = true;
            }
        }
    }
    if broken {
        return Err(AlreadySaid.into());
    }
    if objects == 0 {
        let names: Vec<_> = sources.iter().map(|s| s.name.as_str()).collect();
        return Err(usage!(
            "{}: no object in it; write at least one with `apiVersion`, `kind` and `metadata.name`",
            names.join(", ")
        ));
    }
    Ok(())
}

/// Where each source begins in the joined text: first line, name.
pub(super) type LineMap = Vec<(u64, String)>;

fn join(sources: &[Source]) -> (String, LineMap) {
    let mut body = String::new();
    let mut map = LineMap::new();
    let mut line = 1;
    for source in sources {
        if !body.is_empty() {
            body.push_str("---\n");
            line += 1;
        }
        map.push((line, source.name.clone()));
        body.push_str(&source.text);
        if !source.text.ends_with('\n') {
            body.push('\n');
        }
        line += source.text.lines().count() as u64;
    }
    (body, map)
}

/// The file and line that a line of the joined text is.
fn origin(map: &LineMap, line: u64) -> Option<(&str, u64)> {
    map.iter()
        .rev()
        .find(|(first, _)| *first <= line)
        .map(|(first, name)| (name.as_str(), line - first + 1))
}

/// A finding of the control plane as one line.
pub(super) fn diagnostic_line(diagnostic: &Value, map: &LineMap) -> String {
    if let Some(text) = diagnostic.as_str() {
        return text.to_owned();
    }
    let text = |name: &str| diagnostic.get(name).and_then(Value::as_str).unwrap_or("");
    let place = diagnostic
        .get("line")
        .and_then(Value::as_u64)
        .filter(|line| *line > 0)
        .and_then(|line| origin(map, line))
        .map_or_else(String::new, |(name, line)| format!("{name}:{line}: "));
    let mut out = place;
    if let Some(object) = diagnostic.get("object").filter(|o| o.is_object()) {
        let part = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or("");
        let namespace = part("namespace");
        let slash = if namespace.is_empty() { "" } else { "/" };
        let (kind, name) = (part("kind"), part("name"));
        let _ = write!(out, "{kind} {namespace}{slash}{name}: ");
    }
    let field = match text("field") {
        "" => text("path"),
        field => field,
    };
    if !field.is_empty() {
        out.push_str(field);
        out.push_str(": ");
    }
    out.push_str(text("message"));
    if !text("hint").is_empty() {
        out.push_str("; ");
        out.push_str(text("hint"));
    }
    out
}

fn applied_line(entry: &Value) -> String {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or("");
    let name = match text("namespace") {
        "" => text("name").to_owned(),
        namespace => format!("{namespace}/{}", text("name")),
    };
    format!("{} {name} {}", text("kind"), text("action"))
}

fn list<'a>(body: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    body.get(name)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_joined_text_lead_back_to_their_files() {
        let source = |name: &str, text: &str| Source {
            name: name.into(),
            text: text.into(),
        };
        let (body, map) = join(&[source("a.yaml", "a: 1\nb: 2"), source("b.yaml", "c: 3\n")]);
        assert_eq!(body, "a: 1\nb: 2\n---\nc: 3\n");
        assert_eq!(origin(&map, 2), Some(("a.yaml", 2)));
        assert_eq!(origin(&map, 4), Some(("b.yaml", 1)));
    }
}
