//! The workshop: what is done to Tulle's source rather than with Tulle.
//!
//! `cargo xtask gen [--check]` writes (or checks) what is generated: code from `proto/`, and the
//! schemas of Gateway API's kinds from its CRDs; `cargo xtask lint-directions` checks which crate may
//! know which. Building Tulle needs neither: what they make is checked in.

mod directions;
mod generate;
mod schema;

use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask <task>

tasks:
  gen [--check]      write the code from proto/ and the schemas from the CRDs;
                     with --check, fail where they differ
  lint-directions    check the crates' dependencies against ARCHITECTURE.md";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args.as_slice() {
        ["gen"] => generate::write(&root()).and_then(|()| schema::write(&root())),
        ["gen", "--check"] => generate::check(&root()).and_then(|()| schema::check(&root())),
        ["lint-directions"] => directions::lint(),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's directory: the parent of this crate's.
fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map(PathBuf::from).unwrap_or(here)
}
