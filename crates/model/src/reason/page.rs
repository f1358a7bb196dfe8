//! The reference page docs/reasons.md: made here, compared with what is checked in.
//!
//! After a change: `UPDATE_GOLDEN=1 cargo test --profile quick -p tulle-model reasons`.

use std::fmt::Write as _;
use std::path::Path;

use super::Reason;

const INTRODUCTION: &str = "\
# Reasons

When Tulle answers in an application's stead, or ends a connection, it says why. The same word
stands in four places:

- the response's `Proxy-Status` header (RFC 9209), with what happened in the details:
  `Proxy-Status: tulle; error=connection_refused; details=\"connect_refused: ...\"`
- the access log, as `reason`
- the metrics, as the label `reason`
- the span of the request

A response without `Proxy-Status` comes from the application. The list is closed: each word, its
status and its remedy are below. A connection that is not HTTP is closed, with the reason in log
and metrics.

<!-- Made from crates/model/src/reason.rs; a test compares the two. -->
";

fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    page.push_str("\n| reason | status | RFC 9209 error |\n|---|---|---|\n");
    for reason in Reason::ALL {
        let (word, status, error) = (reason.as_str(), reason.status(), reason.proxy_error());
        let _ = writeln!(page, "| [`{word}`](#{word}) | {status} | `{error}` |");
    }
    for reason in Reason::ALL {
        let (meaning, remedy) = (reason.meaning(), reason.remedy());
        let _ = write!(page, "\n## {reason}\n\n{meaning}\n\n**Remedy:** {remedy}\n");
    }
    page
}

#[test]
fn the_page_of_reasons_says_what_the_code_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reasons.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, page()).expect("docs/reasons.md can be written");
    }
    let checked_in = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        checked_in == page(),
        "docs/reasons.md is out of date; run UPDATE_GOLDEN=1 cargo test --profile quick -p tulle-model reasons"
    );
}
