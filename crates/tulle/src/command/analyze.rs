//! `tulle analyze`: what in a configuration can do nothing, or not what it seems to.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use explain::Finding;
use explain::analyze::Severity;

use crate::cli::Connection;
use crate::objects;
use crate::ui::{Format, Paint, Ui};

/// Look for what can do nothing, or not what it seems to.
///
/// Rules that never match, references that lead nowhere, services that nobody serves, certificates
/// that are over.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tulle analyze -f examples/gateway\n  tulle analyze -o json\n\nExit code: 0 nothing at warning or above, 1 findings, 2 usage error."
)]
pub(crate) struct Analyze {
    /// File, directory or - for stdin; may be repeated [default: what the control plane has].
    #[arg(long = "filename", short = 'f', value_name = "FILE|DIR|-")]
    files: Vec<PathBuf>,
    /// Output.
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    connection: Connection,
}

impl Analyze {
    pub(crate) fn execute(self, ui: &Ui) -> anyhow::Result<ExitCode> {
        let set = objects::of(&self.files, &self.connection)?;
        let found = explain::analyze(&set.world(), &set.diagnostics, SystemTime::now());
        match self.output {
            Format::Table => {
                for finding in &found {
                    ui.data(&said(ui, finding))?;
                }
                ui.say(&summary(&found, set.objects.len()));
            }
            format => ui.value(format, &found)?,
        }
        let clean = found.iter().all(|f| f.severity == Severity::Info);
        Ok(ExitCode::from(u8::from(!clean)))
    }
}

/// A finding, what follows from it below.
fn said(ui: &Ui, finding: &Finding) -> String {
    let paint = match finding.severity {
        Severity::Error => Paint::Red,
        Severity::Warning => Paint::Yellow,
        Severity::Info => Paint::Bold,
    };
    let mut out = ui.paint(paint, &format!("{}:", finding.severity));
    out.push(' ');
    if !finding.file.is_empty() {
        let _ = write!(out, "{}:{}: ", finding.file, finding.line);
    }
    if let Some(object) = &finding.object {
        let _ = write!(out, "{object}: ");
    }
    if !finding.field.is_empty() {
        let _ = write!(out, "{}: ", finding.field);
    }
    out.push_str(&finding.message);
    for (name, text) in [("why", &finding.why), ("remedy", &finding.remedy)] {
        if !text.is_empty() {
            let _ = write!(out, "\n  {name}: {text}");
        }
    }
    out
}

fn summary(found: &[Finding], objects: usize) -> String {
    let count = |severity| found.iter().filter(|f| f.severity == severity).count();
    let several = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    format!(
        "{}: {}, {}, {} to know",
        several(objects, "object"),
        several(count(Severity::Error), "error"),
        several(count(Severity::Warning), "warning"),
        count(Severity::Info),
    )
}
