//! The `tulle` binary: a service mesh in one file.
//!
//! One file per command under `command/`, each thin: it reads its flags, asks the crate that
//! knows, and shows the answer through [`ui`]. What is data goes to stdout, what is talk to
//! stderr. Exit codes: 0 done, 1 it ran and the answer is no, 2 usage or configuration error.
#![forbid(unsafe_code)]

mod cli;
mod client;
mod command;
mod demo;
mod failure;
mod kind;
mod objects;
mod paths;
mod standalone;
mod supervisor;
mod ui;

use std::process::ExitCode;

use clap::Parser as _;

/// Measured beside the system's: less CPU per request, and memory is given back when load ends.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let ui = ui::Ui::new(cli.talk.quiet, cli.talk.verbose);
    match cli.command.execute(&cli.talk, &ui) {
        Ok(code) => code,
        Err(error) => failure::report(&ui, &error),
    }
}
