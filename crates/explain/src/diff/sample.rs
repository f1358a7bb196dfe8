//! A text that a regular expression takes.

use model::pattern::Pattern;
use regex_syntax::hir::{Class, Hir, HirKind};

/// A sample is not longer than this.
const MAX_CHARS: usize = 256;

/// A path.
pub(super) fn path(pattern: &Pattern) -> Option<String> {
    let text = any(pattern)?;
    [text.clone(), format!("/{text}")].into_iter().find(|path| {
        let sendable = path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic());
        let normal = policy::path::normalize(path).is_ok_and(|n| n == *path);
        sendable && normal && !path.contains(['?', '#']) && pattern.matches(path)
    })
}

/// A value of a header or parameter.
pub(super) fn value(pattern: &Pattern) -> Option<String> {
    let text = any(pattern)?;
    let sendable = text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    (sendable && text.trim() == text && pattern.matches(&text)).then_some(text)
}

fn any(pattern: &Pattern) -> Option<String> {
    let hir = regex_syntax::parse(pattern.source()).ok()?;
    let mut out = String::new();
    write(&hir, &mut out).then_some(out)
}

/// Whether it could be written.
fn write(hir: &Hir, out: &mut String) -> bool {
    if out.len() > MAX_CHARS {
        return false;
    }
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => true,
        HirKind::Literal(literal) => std::str::from_utf8(&literal.0).is_ok_and(|text| {
            out.push_str(text);
            true
        }),
        HirKind::Class(class) => one_of(class).is_some_and(|c| {
            out.push(c);
            true
        }),
        HirKind::Repetition(repeated) => (0..repeated.min).all(|_| write(&repeated.sub, out)),
        HirKind::Capture(capture) => write(&capture.sub, out),
        HirKind::Concat(all) => all.iter().all(|hir| write(hir, out)),
        HirKind::Alternation(all) => all.first().is_some_and(|hir| write(hir, out)),
    }
}

/// A character of a class, a letter or digit if there is one.
fn one_of(class: &Class) -> Option<char> {
    let takes = |c: char| match class {
        Class::Unicode(class) => class
            .ranges()
            .iter()
            .any(|r| (r.start()..=r.end()).contains(&c)),
        Class::Bytes(class) => u8::try_from(c).is_ok_and(|b| {
            class
                .ranges()
                .iter()
                .any(|r| (r.start()..=r.end()).contains(&b))
        }),
    };
    let letters = ('a'..='z').chain('0'..='9').chain('A'..='Z');
    letters.chain('!'..='~').find(|c| takes(*c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_taken_by_its_expression() {
        for (source, want) in [
            ("/api/v[0-9]+/.*", Some("/api/v0/")),
            (".*", Some("/")),
            ("/(a|b)/x{3}", Some("/a/xxx")),
            ("[^a-z]{2}", None),
            ("/a?b", Some("/b")),
            ("no-slash", None),
        ] {
            let pattern = Pattern::new(source).expect("valid");
            assert_eq!(path(&pattern).as_deref(), want, "{source}");
        }
        let pattern = Pattern::new("(?i)gold|silver").expect("valid");
        assert!(value(&pattern).is_some_and(|v| pattern.matches(&v)));
    }
}
