//! `tulle diff`: what a change would do to requests.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use config::{Diagnostic, Object, Spec};
use explain::diff::{Diff as Changes, Difference};
use serde_json::json;

use crate::cli::Connection;
use crate::objects::{self, Set};
use crate::ui::{Format, Paint, Ui};

/// Say what a change of configuration would do to requests.
///
/// Decisions are compared, not texts: the same requests are decided under the old and the new.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tulle diff -f routes.yaml\n  tulle diff --old deployed/ -f next/ -o json\n\nWithout --old the files are laid over what the control plane has, as `tulle apply` would do it. With\n--old they stand for everything: what is in OLD only is gone.\n\nExit code: 0 no request fares differently, 1 some do, 2 usage or configuration error."
)]
pub(crate) struct Diff {
    /// What is new: file, directory or - for stdin; may be repeated.
    #[arg(
        long = "filename",
        short = 'f',
        value_name = "FILE|DIR|-",
        required = true
    )]
    files: Vec<PathBuf>,
    /// What is old: file or directory; may be repeated [default: what the control plane has].
    #[arg(long, value_name = "FILE|DIR")]
    old: Vec<PathBuf>,
    /// Output.
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    connection: Connection,
}

impl Diff {
    pub(crate) fn execute(self, ui: &Ui) -> anyhow::Result<ExitCode> {
        let new = objects::of_files(&self.files)?;
        let old = objects::of(&self.old, &self.connection)?;
        let refused: Vec<Diagnostic> = new
            .diagnostics
            .iter()
            .filter(|d| d.is_error())
            .cloned()
            .collect();
        let next = if self.old.is_empty() {
            laid_over(&old, new)
        } else {
            new
        };
        let changes = explain::diff(&old.world(), &next.world());
        for diagnostic in &refused {
            ui.error(&diagnostic.to_string());
        }
        match self.output {
            Format::Table => {
                ui.data(&page(ui, &changes))?;
                ui.say(&summary(&changes));
            }
            format => {
                let mut value = serde_json::to_value(&changes)?;
                value["refused"] = json!(refused);
                ui.value(format, &value)?;
            }
        }
        Ok(ExitCode::from(
            match (refused.is_empty(), changes.is_empty()) {
                (false, _) => 2,
                (true, false) => 1,
                (true, true) => 0,
            },
        ))
    }
}

/// What the control plane would have after `tulle apply`: what is new is younger than all that is there.
fn laid_over(old: &Set, new: Set) -> Set {
    let mut objects = old.objects.clone();
    for (key, object) in new.objects {
        let before = objects.get(&key);
        let created = before.map_or_else(|| Some(objects::now()), |b| b.metadata.created);
        let mut object = Object::clone(&object);
        object.metadata.created = created;
        keep_address(&mut object, before);
        objects.insert(key, Arc::new(object));
    }
    Set {
        objects,
        diagnostics: new.diagnostics,
        defaults: old.defaults.clone(),
    }
}

/// A Service keeps the address that the control plane has chosen for it.
fn keep_address(object: &mut Object, before: Option<&Arc<Object>>) {
    let before = before.map(|before| &before.spec);
    match (&mut object.spec, before) {
        (Spec::Service(new), Some(Spec::Service(old))) if new.cluster_ip.is_none() => {
            new.cluster_ip.clone_from(&old.cluster_ip);
            new.cluster_ips.clone_from(&old.cluster_ips);
        }
        (Spec::ServiceImport(new), Some(Spec::ServiceImport(old))) if new.ips.is_empty() => {
            new.ips.clone_from(&old.ips);
        }
        _ => {}
    }
}

fn page(ui: &Ui, changes: &Changes) -> String {
    let mut out = String::new();
    for difference in &changes.differences {
        one(&mut out, ui, difference);
    }
    if !changes.without_effect.is_empty() {
        out.push_str("without effect on any request that was tried:\n");
        for object in &changes.without_effect {
            let _ = writeln!(out, "  {} {}", object.object, object.change);
        }
    }
    out
}

fn one(out: &mut String, ui: &Ui, difference: &Difference) {
    for request in &difference.requests {
        let _ = writeln!(out, "{}", ui.paint(Paint::Bold, request));
    }
    let more = difference.count.saturating_sub(difference.requests.len());
    if more > 0 {
        let _ = writeln!(out, "and {more} more like these");
    }
    if difference.before == difference.after {
        let _ = writeln!(out, "  still {}", difference.after);
    } else {
        let _ = writeln!(out, "  {} {}", ui.paint(Paint::Red, "-"), difference.before);
        let _ = writeln!(
            out,
            "  {} {}",
            ui.paint(Paint::Green, "+"),
            difference.after
        );
    }
    for detail in &difference.details {
        let _ = writeln!(out, "  {} {detail}", ui.paint(Paint::Yellow, "~"));
    }
    out.push('\n');
}

fn summary(changes: &Changes) -> String {
    let tried = changes.tried;
    let bound = if changes.truncated {
        "; there are more, which were not tried"
    } else {
        ""
    };
    let differing: usize = changes.differences.iter().map(|d| d.count).sum();
    match differing {
        0 if tried == 0 => "no object changes".to_owned(),
        0 => format!("no request fares differently ({tried} tried{bound})"),
        _ => format!("{differing} of {tried} requests that were tried fare differently{bound}"),
    }
}
