//! `tulle delete`: resources away from the control plane.

use std::process::ExitCode;

use http::Method;

use crate::cli::{Connection, Namespace};
use crate::client::Client;
use crate::command::block_on;
use crate::kind;
use crate::ui::Ui;

/// Delete resources.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tulle delete httproute reviews -n bookshop")]
pub(crate) struct Delete {
    /// Kind, for example `httproute`.
    kind: String,
    /// Names.
    #[arg(required = true)]
    names: Vec<String>,
    #[command(flatten)]
    namespace: Namespace,
    #[command(flatten)]
    connection: Connection,
}

impl Delete {
    pub(crate) fn execute(self, ui: &Ui) -> anyhow::Result<ExitCode> {
        let kind = kind::find(&self.kind)?;
        let client = Client::of(&self.connection)?;
        block_on(async {
            for name in &self.names {
                let path = kind::path(kind, Some(&self.namespace.namespace), Some(name));
                client.json(Method::DELETE, &path, None).await?;
                ui.data(&format!("{kind} {name} deleted"))?;
            }
            Ok(())
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
