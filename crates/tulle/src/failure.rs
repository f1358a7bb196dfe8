//! How a command fails: the exit code and the one line on stderr.

use std::process::ExitCode;

use crate::ui::Ui;

/// What the user wrote is wrong, on the command line or in a file: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// The answer is no and everything has been said already: exit code 1, no further line.
#[derive(Debug, thiserror::Error)]
#[error("the answer is no")]
pub(crate) struct AnswerIsNo;

/// Everything wrong has been said already: exit code 2, no further line.
#[derive(Debug, thiserror::Error)]
#[error("configuration error")]
pub(crate) struct AlreadySaid;

/// A usage error from a formatted message.
macro_rules! usage {
    ($($arg:tt)*) => {
        anyhow::Error::new($crate::failure::Usage(format!($($arg)*)))
    };
}
pub(crate) use usage;

/// Says what went wrong and gives the exit code that stands for it.
pub(crate) fn report(ui: &Ui, error: &anyhow::Error) -> ExitCode {
    if error.is::<AnswerIsNo>() {
        return ExitCode::from(1);
    }
    if error.is::<AlreadySaid>() {
        return ExitCode::from(2);
    }
    ui.error(&format!("{error:#}"));
    ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
}
