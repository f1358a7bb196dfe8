//! The command line: what can be said, and what it means when left out.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::command;

/// A service mesh in one binary.
#[derive(Debug, Parser)]
#[command(
    name = "tulle",
    version,
    about = "A service mesh in one binary: mutual TLS, routing and telemetry between services.",
    after_help = "Example: see a whole mesh at work, with nothing but this binary\n  tulle demo\n\nExit codes: 0 done, 1 it ran and the answer is no, 2 usage or configuration error.",
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) talk: Talk,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How much is said on stderr.
#[derive(Debug, Clone, Args)]
pub(crate) struct Talk {
    /// Say nothing but errors.
    #[arg(
        long,
        short,
        global = true,
        conflicts_with = "verbose",
        help_heading = "Global options"
    )]
    pub(crate) quiet: bool,
    /// Say more; -vv more still.
    #[arg(long, short, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    pub(crate) verbose: u8,
}

impl Talk {
    /// The same, for a child.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--verbose".to_owned(); usize::from(self.verbose)];
        if self.quiet {
            arguments.push("--quiet".to_owned());
        }
        arguments
    }
}

/// Where the control plane is.
#[derive(Debug, Clone, Args)]
pub(crate) struct Connection {
    /// The control plane: HOST:PORT, or the path of its unix socket [default: the socket in the
    /// data directory].
    #[arg(
        long,
        env = "TULLE_CONTROL",
        value_name = "ADDRESS",
        hide_env_values = true
    )]
    pub(crate) control: Option<String>,
    /// Data directory of the control plane [default: ~/.local/state/tulle, as root
    /// /var/lib/tulle].
    #[arg(
        long,
        env = "TULLE_DATA_DIR",
        value_name = "DIR",
        hide_env_values = true
    )]
    pub(crate) data_dir: Option<PathBuf>,
}

/// Which namespace is meant.
#[derive(Debug, Clone, Args)]
pub(crate) struct Namespace {
    /// Namespace.
    #[arg(
        long,
        short,
        env = "TULLE_NAMESPACE",
        value_name = "NS",
        default_value = "default",
        hide_env_values = true
    )]
    pub(crate) namespace: String,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(command::demo::Demo),
    Control(command::control::Control),
    Run(command::run::Run),
    Proxy(Box<command::proxy::Proxy>),
    Gateway(Box<command::gateway::Gateway>),
    Ratelimit(command::ratelimit::Ratelimit),
    Apply(command::apply::Apply),
    Get(command::get::Get),
    Describe(command::describe::Describe),
    Delete(command::delete::Delete),
    Simulate(command::simulate::Simulate),
    Diff(command::diff::Diff),
    Analyze(command::analyze::Analyze),
    Status(command::status::Status),
    Token(command::token::Token),
    Cert(command::cert::Cert),
    Completions(command::completions::Completions),
    Version(command::version::Version),
    Bookshop(command::bookshop::Bookshop),
    #[command(name = "__exec")]
    Exec(command::exec::Exec),
}
