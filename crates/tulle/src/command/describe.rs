//! `tulle describe`: one resource with what the control plane and the proxies think of it.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::Value;

use crate::cli::{Connection, Namespace};
use crate::client::Client;
use crate::command::block_on;
use crate::command::get::columns::{array, conditions, text};
use crate::kind;
use crate::ui::{Paint, Ui, to_yaml};

/// Show one resource: its specification and its conditions, in words.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tulle describe httproute reviews -n bookshop")]
pub(crate) struct Describe {
    /// Kind, for example `httproute`.
    kind: String,
    /// Name.
    name: String,
    #[command(flatten)]
    namespace: Namespace,
    #[command(flatten)]
    connection: Connection,
}

impl Describe {
    pub(crate) fn execute(self, ui: &Ui) -> anyhow::Result<ExitCode> {
        let kind = kind::find(&self.kind)?;
        let client = Client::of(&self.connection)?;
        let path = kind::path(kind, Some(&self.namespace.namespace), Some(&self.name));
        let object = block_on(client.get(&path))?;
        ui.data(&page(ui, &object)?)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn page(ui: &Ui, object: &Value) -> anyhow::Result<String> {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            let _ = writeln!(out, "{:<12} {value}", format!("{name}:"));
        }
    };
    line("Kind", text(object, "/kind"));
    line("Name", text(object, "/metadata/name"));
    line("Namespace", text(object, "/metadata/namespace"));
    line("Created", text(object, "/metadata/creationTimestamp"));
    line("Generation", text(object, "/metadata/generation"));
    for (field, name) in [("labels", "Labels"), ("annotations", "Annotations")] {
        let pairs = object
            .pointer(&format!("/metadata/{field}"))
            .and_then(Value::as_object);
        for (index, (key, value)) in pairs.into_iter().flatten().enumerate() {
            let name = if index == 0 { name } else { "" };
            let _ = writeln!(
                out,
                "{:<12} {key}={}",
                if name.is_empty() {
                    String::new()
                } else {
                    format!("{name}:")
                },
                value.as_str().unwrap_or_default()
            );
        }
    }
    if let Some(spec) = object.get("spec") {
        let _ = writeln!(out, "Spec:");
        for spec_line in to_yaml(spec)?.lines() {
            let _ = writeln!(out, "  {spec_line}");
        }
    }
    let conditions = conditions(object);
    if !conditions.is_empty() {
        let _ = writeln!(out, "Conditions:");
    }
    for condition in conditions {
        out.push_str(&condition_line(condition, "  ", ui));
    }
    let listeners = array(object, "/status/listeners");
    for (index, listener) in listeners.enumerate() {
        if index == 0 {
            let _ = writeln!(out, "Listeners:");
        }
        let kinds = array(listener, "/supportedKinds").map(|kind| text(kind, "/kind"));
        let _ = writeln!(
            out,
            "  {:<14} {} routes attached; it takes {}",
            text(listener, "/name"),
            text(listener, "/attachedRoutes"),
            kinds.collect::<Vec<_>>().join(", "),
        );
        for condition in array(listener, "/conditions") {
            out.push_str(&condition_line(condition, "    ", ui));
        }
    }
    Ok(out)
}

/// One condition, green where it is as one would have it.
fn condition_line(condition: &Value, indent: &str, ui: &Ui) -> String {
    let (kind, status) = (text(condition, "/type"), text(condition, "/status"));
    // These say what is wrong, the others what is right.
    let wanted = match kind.as_str() {
        "Conflicted" | "InsecureFrontendValidationMode" => "False",
        _ => "True",
    };
    let paint = if status == wanted {
        Paint::Green
    } else {
        Paint::Red
    };
    format!(
        "{indent}{kind:<14} {} {}: {}\n",
        ui.paint(paint, &format!("{status:<7}")),
        text(condition, "/reason"),
        text(condition, "/message"),
    )
}
