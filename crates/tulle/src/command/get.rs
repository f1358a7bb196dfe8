//! `tulle get`: resources as they are.

use std::process::ExitCode;

use config::ObjectKind;
use serde_json::Value;

use crate::cli::{Connection, Namespace};
use crate::client::Client;
use crate::command::block_on;
use crate::failure::usage;
use crate::kind;
use crate::ui::{Format, Ui};

pub(crate) mod columns;

/// Show resources.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tulle get services -A\n  tulle get httproute reviews -n bookshop -o yaml\n  tulle get all -n bookshop"
)]
pub(crate) struct Get {
    /// Kind, for example `services`, `svc` or `httproute`; `all` for all kinds.
    kind: String,
    /// Name; without it, all of the kind.
    name: Option<String>,
    #[command(flatten)]
    namespace: Namespace,
    /// All namespaces.
    #[arg(long, short = 'A', conflicts_with = "name")]
    all_namespaces: bool,
    /// Output.
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    connection: Connection,
}

impl Get {
    pub(crate) fn execute(self, ui: &Ui) -> anyhow::Result<ExitCode> {
        let client = Client::of(&self.connection)?;
        if self.kind == "all" {
            if self.name.is_some() {
                return Err(usage!(
                    "`get all` takes no name: name the kind instead of `all`"
                ));
            }
            return self.all(ui, &client);
        }
        let kind = kind::find(&self.kind)?;
        let path = kind::path(kind, self.scope(), self.name.as_deref());
        let answer = block_on(client.get(&path))?;
        match self.output {
            Format::Table => {
                let objects = items(&answer);
                if objects.is_empty() {
                    ui.say(&self.nothing(kind));
                } else {
                    columns::print(ui, kind, &objects, self.all_namespaces)?;
                }
            }
            format => ui.value(format, &answer)?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn all(&self, ui: &Ui, client: &Client) -> anyhow::Result<ExitCode> {
        let found = block_on(async {
            let mut found = Vec::new();
            for kind in ObjectKind::ALL {
                let path = kind::path(kind, self.scope(), None);
                found.push((kind, client.get(&path).await?));
            }
            Ok(found)
        })?;
        if self.output != Format::Table {
            let objects: Vec<Value> = found
                .iter()
                .flat_map(|(_, answer)| items(answer).into_iter().cloned())
                .collect();
            ui.value(self.output, &objects)?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut any = false;
        for (kind, answer) in &found {
            let objects = items(answer);
            if objects.is_empty() {
                continue;
            }
            if any {
                ui.data("\n")?;
            }
            any = true;
            ui.say(kind.plural());
            columns::print(ui, *kind, &objects, self.all_namespaces)?;
        }
        if !any {
            ui.say("nothing here yet: apply something with `tulle apply -f FILE`");
        }
        Ok(ExitCode::SUCCESS)
    }

    fn scope(&self) -> Option<&str> {
        (!self.all_namespaces).then_some(self.namespace.namespace.as_str())
    }

    fn nothing(&self, kind: ObjectKind) -> String {
        match self.scope().filter(|_| kind.namespaced()) {
            Some(namespace) => format!(
                "no {} in namespace \"{namespace}\"; look in all with -A",
                kind.plural()
            ),
            None => format!("no {}", kind.plural()),
        }
    }
}

/// The objects of an answer: a list's items, a bare array, or the one object that it is.
pub(crate) fn items(answer: &Value) -> Vec<&Value> {
    match answer {
        Value::Array(items) => items.iter().collect(),
        Value::Object(object) => match object.get("items").and_then(Value::as_array) {
            Some(items) => items.iter().collect(),
            None if object.contains_key("kind") => vec![answer],
            None => Vec::new(),
        },
        _ => Vec::new(),
    }
}
