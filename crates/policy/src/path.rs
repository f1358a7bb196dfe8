//! One normal form for paths, so that a policy and the application read the same path.
//!
//! The proxy normalises the path of each request once, before routing, and forwards what it
//! matched. The rule:
//!
//! 1. `%XX` of an unreserved character (letters, digits, `-._~`) is decoded; other escapes stay,
//!    with upper-case digits (RFC 3986 6.2.2). An escape that is cut short or not hexadecimal, and
//!    `%00`, are refused: decoding around them could produce a new escape.
//! 2. `\` is `/`, as browsers and Envoy read it.
//! 3. Runs of `/` become one, and `.` and `..` elements are resolved (RFC 3986 5.2.4); `..` never
//!    climbs above the root.
//! 4. `%2F` and `%5C` stay escaped and separate nothing (names such as `@scope%2Fname` rely on it),
//!    but a path in which decoding them would produce a `.` or `..` element is refused.
//!
//! `*` (of `OPTIONS *`) stays as it is. The form is stable: normalising it again changes nothing.

use std::borrow::Cow;

/// Why a path is refused; the answer is 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It begins with something else than `/`.
    #[error("the path does not begin with \"/\"")]
    NotAbsolute,
    /// `%` without two hexadecimal digits.
    #[error(
        "the path has a \"%\" without two hexadecimal digits; write a plain percent sign as %25"
    )]
    BadEscape,
    /// `%00`.
    #[error("the path contains an escaped NUL")]
    Nul,
    /// `.` or `..` beside an escaped slash.
    #[error("the path hides a \".\" or \"..\" element behind an escaped slash")]
    HiddenDots,
}

/// Brings a path (without query) into normal form. Borrows when there is nothing to change, which
/// is found out in one pass.
pub fn normalize(path: &str) -> Result<Cow<'_, str>, PathError> {
    if !path.starts_with('/') {
        return if path == "*" {
            Ok(Cow::Borrowed(path))
        } else {
            Err(PathError::NotAbsolute)
        };
    }
    if is_plain(path.as_bytes()) {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode(path)?;
    if hides_dots(&decoded) {
        return Err(PathError::HiddenDots);
    }
    let normal = resolve(&decoded);
    Ok(if normal == path {
        Cow::Borrowed(path)
    } else {
        Cow::Owned(normal)
    })
}

/// Whether the path has nothing that normalising could change.
fn is_plain(path: &[u8]) -> bool {
    let mut before = 0;
    path.iter().all(|&b| {
        let suspect = b == b'%' || b == b'\\' || (before == b'/' && (b == b'/' || b == b'.'));
        before = b;
        !suspect
    })
}

/// Steps 1 and 2.
fn decode(path: &str) -> Result<String, PathError> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find(['%', '\\']) {
        let (plain, special) = rest.split_at(at);
        out.push_str(plain);
        if let Some(after) = special.strip_prefix('\\') {
            out.push('/');
            rest = after;
            continue;
        }
        let digits = special.get(1..3).ok_or(PathError::BadEscape)?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(PathError::BadEscape);
        }
        let byte = u8::from_str_radix(digits, 16).map_err(|_| PathError::BadEscape)?;
        match byte {
            0 => return Err(PathError::Nul),
            b if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~') => {
                out.push(char::from(b));
            }
            _ => {
                out.push('%');
                out.extend(digits.chars().map(|c| c.to_ascii_uppercase()));
            }
        }
        rest = &special[3..];
    }
    out.push_str(rest);
    Ok(out)
}

/// Step 4, on the decoded path.
fn hides_dots(decoded: &str) -> bool {
    decoded.split('/').any(|element| {
        (element.contains("%2F") || element.contains("%5C"))
            && element
                .split("%2F")
                .flat_map(|part| part.split("%5C"))
                .any(|part| matches!(part, "." | ".."))
    })
}

/// Step 3, on the decoded path.
fn resolve(decoded: &str) -> String {
    let mut out = String::with_capacity(decoded.len());
    let mut elements = decoded.split('/').skip(1).peekable();
    let mut directory = true;
    while let Some(element) = elements.next() {
        directory = elements.peek().is_none() && matches!(element, "" | "." | "..");
        match element {
            "" | "." => {}
            ".." => out.truncate(out.rfind('/').unwrap_or(0)),
            name => {
                out.push('/');
                out.push_str(name);
            }
        }
    }
    if directory || out.is_empty() {
        out.push('/');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn table_of_paths() {
        for (given, want) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("*", "*"),
            ("/a/.hidden", "/a/.hidden"),
            ("/a/..b/...", "/a/..b/..."),
            ("/a//b", "/a/b"),
            ("//", "/"),
            ("//a///", "/a/"),
            ("/a/./b", "/a/b"),
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/b/../c", "/a/c"),
            ("/../../a", "/a"),
            ("/..", "/"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/%61dmin", "/admin"),
            ("/a%20b%c3%a9", "/a%20b%C3%A9"),
            ("/@scope%2fname", "/@scope%2Fname"),
            ("/a%5cb", "/a%5Cb"),
            ("/a\\..\\b", "/b"),
            ("/100%25", "/100%25"),
            ("/%252e%252e/", "/%252e%252e/"),
            ("/a;v=1/,b:c", "/a;v=1/,b:c"),
            ("/\u{e9}/./x", "/\u{e9}/x"),
        ] {
            assert_eq!(normalize(given).as_deref(), Ok(want), "{given}");
        }
    }

    #[test]
    fn table_of_refusals() {
        for (given, want) in [
            ("", PathError::NotAbsolute),
            ("a/b", PathError::NotAbsolute),
            ("**", PathError::NotAbsolute),
            ("/100%", PathError::BadEscape),
            ("/%4", PathError::BadEscape),
            ("/%zz", PathError::BadEscape),
            ("/%+1", PathError::BadEscape),
            ("/%%32e", PathError::BadEscape),
            ("/%\u{e9}", PathError::BadEscape),
            ("/a%00", PathError::Nul),
            ("/a/..%2fb", PathError::HiddenDots),
            ("/a/%2e%2e%5cb", PathError::HiddenDots),
            ("/a%2f.", PathError::HiddenDots),
        ] {
            assert_eq!(normalize(given), Err(want), "{given}");
        }
    }

    #[test]
    fn a_plain_path_is_borrowed() {
        assert!(matches!(normalize("/a/b.c/d"), Ok(Cow::Borrowed(_))));
        assert!(matches!(normalize("/a%20b"), Ok(Cow::Borrowed(_))));
    }

    proptest! {
        #[test]
        fn the_form_is_stable_and_has_no_way_up(path in "/([a.%/\\\\]|%2[ef]|%5c|%61|\u{e9}){0,24}") {
            if let Ok(normal) = normalize(&path) {
                let again = normalize(&normal);
                prop_assert_eq!(again.as_deref(), Ok(&*normal));
                prop_assert!(normal.starts_with('/'));
                prop_assert!(!normal.contains("//") && !normal.contains('\\'));
                prop_assert!(normal.split('/').all(|e| e != "." && e != ".."));
            }
        }

        #[test]
        fn no_text_is_too_odd(path in "\\PC{0,40}") {
            let _ = normalize(&path);
        }
    }
}
