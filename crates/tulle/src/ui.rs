//! Talking to people and to programs: stdout is data, stderr is talk.
//!
//! `NO_COLOR` (and a stream that is no terminal) turns colour off, `--quiet` leaves only errors,
//! `--verbose` adds detail. A reader that closes its end early (`tulle get ... | head`) is no
//! error.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};

use anyhow::Context as _;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// One YAML document, or several with `---` between them.
    Yaml,
}

/// Colours that mean something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    /// Good.
    Green,
    /// Bad.
    Red,
    /// Noteworthy.
    Yellow,
    /// More important.
    Bold,
}

/// The terminal as the user wants it.
#[derive(Debug, Clone)]
pub(crate) struct Ui {
    quiet: bool,
    verbose: u8,
    color_out: bool,
    color_err: bool,
}

impl Ui {
    /// Reads the environment once.
    pub(crate) fn new(quiet: bool, verbose: u8) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
            || std::env::var_os("TERM").is_some_and(|v| v == "dumb");
        Self {
            quiet,
            verbose,
            color_out: !no_color && io::stdout().is_terminal(),
            color_err: !no_color && io::stderr().is_terminal(),
        }
    }

    /// Something worth knowing; silent with `--quiet`.
    pub(crate) fn say(&self, message: &str) {
        if !self.quiet {
            to_stderr(message);
        }
    }

    /// Something only the curious want to know; needs `--verbose`.
    pub(crate) fn detail(&self, message: &str) {
        if self.verbose > 0 && !self.quiet {
            to_stderr(message);
        }
    }

    /// Something that should be looked at, though the command goes on.
    pub(crate) fn warn(&self, message: &str) {
        if !self.quiet {
            let word = self.paint_err(Paint::Yellow, "warning:");
            to_stderr(&format!("{word} {message}"));
        }
    }

    /// What went wrong; said even with `--quiet`.
    pub(crate) fn error(&self, message: &str) {
        let word = self.paint_err(Paint::Red, "error:");
        to_stderr(&format!("{word} {message}"));
    }

    /// A status line that replaces the one before; only on a terminal.
    pub(crate) fn status_line(&self, message: &str) {
        if !self.quiet && io::stderr().is_terminal() {
            let mut err = io::stderr().lock();
            let _ = write!(err, "\r\x1b[2K{message}");
            let _ = err.flush();
        }
    }

    /// Takes the status line away.
    pub(crate) fn clear_status_line(&self) {
        self.status_line("");
    }

    /// Prints data, ending in a newline.
    #[expect(
        clippy::unused_self,
        reason = "all output goes through the user's `Ui`"
    )]
    pub(crate) fn data(&self, text: &str) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        let result = out
            .write_all(text.as_bytes())
            .and_then(|()| {
                if text.ends_with('\n') || text.is_empty() {
                    Ok(())
                } else {
                    out.write_all(b"\n")
                }
            })
            .and_then(|()| out.flush());
        match result {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.context("cannot write to stdout"),
        }
    }

    /// Prints one value as JSON or YAML.
    pub(crate) fn value<T: Serialize>(&self, format: Format, value: &T) -> anyhow::Result<()> {
        let text = match format {
            Format::Yaml => to_yaml(value)?,
            Format::Json | Format::Table => serde_json::to_string_pretty(value)?,
        };
        self.data(&text)
    }

    /// Prints a table as wide as the terminal, or as wide as it needs to be elsewhere.
    pub(crate) fn table(&self, header: &[&str], rows: Vec<Vec<String>>) -> anyhow::Result<()> {
        self.data(&render_table(header, rows, terminal_width()))
    }

    /// Colour for stdout.
    pub(crate) fn paint(&self, paint: Paint, text: &str) -> String {
        painted(self.color_out, paint, text)
    }

    /// Colour for stderr.
    pub(crate) fn paint_err(&self, paint: Paint, text: &str) -> String {
        painted(self.color_err, paint, text)
    }
}

fn to_stderr(message: &str) {
    // A closed stderr leaves nobody to tell.
    let _ = writeln!(io::stderr().lock(), "{message}");
}

/// YAML as people write it.
pub(crate) fn to_yaml<T: Serialize>(value: &T) -> anyhow::Result<String> {
    let text = serde_saphyr::to_string(value).context("cannot write this as YAML")?;
    Ok(text)
}

/// A duration since then, as `kubectl` shows ages: `42s`, `5m`, `3h`, `12d`.
pub(crate) fn age(seconds: i64) -> String {
    match seconds.max(0) {
        s @ 0..=119 => format!("{s}s"),
        s @ 120..=7_199 => format!("{}m", s / 60),
        s @ 7_200..=172_799 => format!("{}h", s / 3_600),
        s => format!("{}d", s / 86_400),
    }
}

fn painted(on: bool, paint: Paint, text: &str) -> String {
    if !on {
        return text.to_owned();
    }
    let code = match paint {
        Paint::Green => "32",
        Paint::Red => "31",
        Paint::Yellow => "33",

        Paint::Bold => "1",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

fn terminal_width() -> Option<u16> {
    if !io::stdout().is_terminal() {
        return None;
    }
    Table::new().width()
}

fn render_table(header: &[&str], rows: Vec<Vec<String>>, width: Option<u16>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    match width {
        Some(width) => {
            table.set_content_arrangement(ContentArrangement::Dynamic);
            table.set_width(width);
        }
        None => {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
    }
    table.set_header(header);
    table.add_rows(rows);
    let last = header.len().saturating_sub(1);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if index == last { 0 } else { 2 }));
    }
    let mut text = String::new();
    for line in table.lines() {
        // Nobody wants trailing blanks in what they copy.
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_aligned_columns_and_no_trailing_blanks() {
        let text = render_table(
            &["NAME", "AGE"],
            vec![
                vec!["reviews".into(), "5m".into()],
                vec!["a".into(), String::new()],
            ],
            None,
        );
        assert_eq!(text, "NAME     AGE\nreviews  5m\na\n");
    }

    #[test]
    fn ages_read_like_kubectl() {
        assert_eq!(age(5), "5s");
        assert_eq!(age(300), "5m");
        assert_eq!(age(90_000), "25h");
        assert_eq!(age(-3), "0s");
    }
}
