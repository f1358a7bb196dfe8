//! Diagnostics of the process itself: to standard error, filtered by `TULLE_LOG` and the
//! command line, and changeable while it runs.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

type Handle = reload::Handle<EnvFilter, Registry>;

static HANDLE: OnceLock<Handle> = OnceLock::new();

/// How much to say when `TULLE_LOG` says nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verbosity {
    /// Errors only.
    pub quiet: bool,
    /// 0: warnings, 1: information, 2: debugging, 3 and more: everything.
    pub verbose: u8,
    /// One JSON object a line instead of text.
    pub json: bool,
}

/// A filter that does not parse, or a process without logging.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The text is no filter directive.
    #[error(
        "\"{0}\" is not a log filter: expected a level (error, warn, info, debug, trace) or module=level, joined by commas"
    )]
    Filter(String),
    /// [`init`] was not called, or the filter could not be replaced.
    #[error("logging is not set up in this process")]
    NotRunning,
}

/// Starts logging. Called once, early; a second call changes nothing.
pub fn init(verbosity: Verbosity) {
    let default = match (verbosity.quiet, verbosity.verbose) {
        (true, _) => "error",
        (false, 0) => "warn,kube_client=off,kube_runtime=error",
        // What fails at an API server is told once, by whoever asked.
        (false, 1) => "info,h2=warn,hyper=warn,rustls=warn,kube_client=off,kube_runtime=error",
        (false, 2) => {
            "debug,h2=info,hyper=info,rustls=info,kube_client=off,kube_runtime=info,tower=info"
        }
        (false, _) => "trace",
    };
    let filter = std::env::var("TULLE_LOG")
        .ok()
        .and_then(|text| EnvFilter::try_new(text).ok())
        .unwrap_or_else(|| EnvFilter::new(default));
    let (filter, handle) = reload::Layer::new(filter);
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let text = (!verbosity.json).then(|| {
        fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(colour)
            .with_target(false)
    });
    let json = verbosity.json.then(|| {
        fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(std::io::stderr)
    });
    if tracing_subscriber::registry()
        .with(filter)
        .with(text)
        .with(json)
        .try_init()
        .is_ok()
    {
        // A second `init` fails above, so the cell is still empty here.
        drop(HANDLE.set(handle));
    }
}

/// Replaces the filter of the running process.
pub fn set_filter(text: &str) -> Result<(), LoggingError> {
    let filter = EnvFilter::try_new(text).map_err(|_| LoggingError::Filter(text.to_owned()))?;
    HANDLE
        .get()
        .ok_or(LoggingError::NotRunning)?
        .reload(filter)
        .map_err(|_| LoggingError::NotRunning)
}

/// The filter in force.
pub fn filter() -> Option<String> {
    HANDLE.get()?.with_current(ToString::to_string).ok()
}
