//! `tulle cert`: certificates, and whom the mesh trusts.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use config::ObjectKind;
use http::Method;
use identity::inspect::{self, Description};

use crate::cli::{Connection, Namespace};
use crate::client::Client;
use crate::command::block_on;
use crate::command::get::columns::text;
use crate::failure::usage;
use crate::kind;
use crate::paths;
use crate::supervisor::state;
use crate::ui::{Format, Ui};

/// Look at certificates and trust bundles.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tulle cert show svid.pem\n  tulle cert bundle > roots.pem\n  tulle cert of reviews-v1-0 -n bookshop"
)]
pub(crate) struct Cert {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    Show(Show),
    Bundle(Bundle),
    Of(Of),
}

/// Explain the certificates in a file (PEM or DER; - for stdin).
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tulle cert show svid.pem")]
struct Show {
    /// The file.
    file: PathBuf,
    /// Output.
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

/// Print the root certificates that the mesh trusts, in PEM.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tulle cert bundle > roots.pem")]
struct Bundle {
    #[command(flatten)]
    connection: Connection,
}

/// Explain the certificate that a workload on this host holds.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tulle cert of reviews-v1-0 -n bookshop")]
struct Of {
    /// The workload.
    workload: String,
    #[command(flatten)]
    namespace: Namespace,
    /// Output.
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    connection: Connection,
}

impl Cert {
    pub(crate) fn execute(self, ui: &Ui) -> anyhow::Result<ExitCode> {
        match self.action {
            Action::Show(show) => {
                let bytes = read(&show.file)?;
                print(ui, show.output, &bytes, &show.file.display().to_string())?;
            }
            Action::Bundle(bundle) => {
                let client = Client::of(&bundle.connection)?;
                let answer = block_on(client.send(
                    Method::GET,
                    "/api/v1/trust",
                    "application/x-pem-file",
                    "",
                ))?;
                if !answer.status.is_success() {
                    return Err(answer.error());
                }
                ui.data(&String::from_utf8_lossy(&answer.body))?;
            }
            Action::Of(of) => of.execute(ui)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Of {
    fn execute(self, ui: &Ui) -> anyhow::Result<()> {
        let dir = self
            .connection
            .data_dir
            .clone()
            .unwrap_or_else(paths::data_dir);
        let namespace = &self.namespace.namespace;
        let file = state::dir(&dir, namespace, &self.workload).join("svid.pem");
        if file.exists() {
            let bytes = read(&file)?;
            return print(ui, self.output, &bytes, &file.display().to_string());
        }
        // Say which of the two it is: no such workload, or one that runs elsewhere.
        let client = Client::of(&self.connection)?;
        let path = kind::path(ObjectKind::Workload, Some(namespace), Some(&self.workload));
        let workload = block_on(client.get(&path))?;
        anyhow::bail!(
            "workload {namespace}/{} (at {}) keeps its certificate in its own proxy's state directory, and {} is not there; run this on its host as its user",
            self.workload,
            text(&workload, "/spec/address"),
            file.display()
        )
    }
}

fn read(file: &std::path::Path) -> anyhow::Result<Vec<u8>> {
    if file.as_os_str() == "-" {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin(), &mut bytes).context("stdin")?;
        return Ok(bytes);
    }
    std::fs::read(file).map_err(|e| usage!("{}: cannot be read: {e}", file.display()))
}

fn print(ui: &Ui, format: Format, bytes: &[u8], name: &str) -> anyhow::Result<()> {
    let found: Vec<Description> = inspect::describe(bytes, std::time::SystemTime::now())
        .map_err(|e| usage!("{name}: {e}"))?;
    match format {
        Format::Table => {
            let pages: Vec<String> = found.iter().map(ToString::to_string).collect();
            ui.data(&pages.join("\n"))
        }
        format => ui.value(format, &found),
    }
}
