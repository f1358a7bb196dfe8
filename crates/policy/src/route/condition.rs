//! Whether a single match holds for a request, and if not, why.

use std::borrow::Cow;

use model::route::{HeaderMatch, Match, PathMatch, QueryMatch, ValueMatch};

use super::{RequestView, index};

/// Whether everything but the path holds.
#[inline]
pub(super) fn others_hold(condition: &Match, request: &RequestView<'_>) -> bool {
    condition
        .method
        .as_ref()
        .is_none_or(|m| m == request.method)
        && condition.headers.iter().all(|h| header_holds(h, request))
        && condition
            .query
            .iter()
            .all(|q| query_holds(q, request.query))
}

/// The first condition that fails, in words; `None` when all hold.
pub(super) fn failure(condition: &Match, request: &RequestView<'_>) -> Option<String> {
    if !path_holds(&condition.path, request.path) {
        return Some(format!(
            "path {:?} is not {}",
            request.path,
            describe_path(&condition.path)
        ));
    }
    if let Some(method) = condition.method.as_ref().filter(|m| *m != request.method) {
        return Some(format!("method {} is not {method}", request.method));
    }
    let header = condition.headers.iter().find(|h| !header_holds(h, request));
    if let Some(header) = header {
        let given = match joined(request, header) {
            Some(value) => format!("{:?}", String::from_utf8_lossy(&value)),
            None => "absent".to_owned(),
        };
        return Some(format!(
            "header {} is {given}, not {}",
            header.name,
            describe(&header.value)
        ));
    }
    let query = condition
        .query
        .iter()
        .find(|q| !query_holds(q, request.query))?;
    let given = match parameter(request.query, &query.name) {
        Some(value) => format!("{:?}", String::from_utf8_lossy(&decoded(value))),
        None => "absent".to_owned(),
    };
    Some(format!(
        "query parameter {} is {given}, not {}",
        query.name,
        describe(&query.value)
    ))
}

/// Gateway API's path conditions, one path at a time.
#[inline]
pub(super) fn path_holds(condition: &PathMatch, path: &str) -> bool {
    match condition {
        PathMatch::Exact(exact) => exact == path,
        PathMatch::Prefix(prefix) => path
            .strip_prefix(prefix.trim_end_matches('/'))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        PathMatch::Regex(pattern) => pattern.matches(path),
        PathMatch::GrpcMethod(method) => index::method_of(path) == Some(method.as_str()),
    }
}

fn describe_path(condition: &PathMatch) -> String {
    match condition {
        PathMatch::Exact(exact) => format!("{exact:?}"),
        PathMatch::Prefix(prefix) => format!("{prefix:?} or below it"),
        PathMatch::Regex(pattern) => format!("matched by {pattern:?}"),
        PathMatch::GrpcMethod(method) => format!("a call of method {method:?}"),
    }
}

fn describe(value: &ValueMatch) -> String {
    match value {
        ValueMatch::Exact(exact) => format!("{exact:?}"),
        ValueMatch::Regex(pattern) => format!("matched by {pattern:?}"),
    }
}

fn header_holds(condition: &HeaderMatch, request: &RequestView<'_>) -> bool {
    let value = joined(request, condition);
    value.is_some_and(|value| value_holds(&condition.value, &value))
}

/// The header's value; several are joined by commas, as Envoy does (RFC 9110 5.3).
fn joined<'h>(request: &RequestView<'h>, condition: &'h HeaderMatch) -> Option<Cow<'h, [u8]>> {
    let mut values = request.headers.get_all(condition.name.as_str());
    let authority = || {
        let asked = condition.name == http::header::HOST && !request.authority.is_empty();
        asked.then_some(request.authority.as_bytes())
    };
    let first = values.next().or_else(authority)?;
    let mut joined = Cow::Borrowed(first);
    for value in values {
        let joined = joined.to_mut();
        joined.push(b',');
        joined.extend_from_slice(value);
    }
    Some(joined)
}

fn query_holds(condition: &QueryMatch, query: Option<&str>) -> bool {
    let Some(value) = parameter(query, &condition.name) else {
        return false;
    };
    match &condition.value {
        ValueMatch::Exact(exact) => decode(value).eq(exact.bytes()),
        ValueMatch::Regex(_) => value_holds(&condition.value, &decoded(value)),
    }
}

fn value_holds(condition: &ValueMatch, value: &[u8]) -> bool {
    match condition {
        ValueMatch::Exact(exact) => exact.as_bytes() == value,
        ValueMatch::Regex(pattern) => {
            std::str::from_utf8(value).is_ok_and(|text| pattern.matches(text))
        }
    }
}

/// The encoded value of the first parameter with this name.
fn parameter<'q>(query: Option<&'q str>, name: &str) -> Option<&'q str> {
    query?
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .find(|(key, _)| decode(key).eq(name.bytes()))
        .map(|(_, value)| value)
}

/// The value of the first parameter of a query with this name.
pub fn query_value<'q>(query: Option<&'q str>, name: &str) -> Option<Cow<'q, [u8]>> {
    parameter(query, name).map(decoded)
}

fn decoded(value: &str) -> Cow<'_, [u8]> {
    if value.contains(['%', '+']) {
        Cow::Owned(decode(value).collect())
    } else {
        Cow::Borrowed(value.as_bytes())
    }
}

/// Decodes `application/x-www-form-urlencoded`; an escape that is none stays as it is.
fn decode(value: &str) -> impl Iterator<Item = u8> {
    let mut rest = value.as_bytes();
    std::iter::from_fn(move || {
        let (&byte, after) = rest.split_first()?;
        let (byte, after) = match (byte, after) {
            (b'%', [high, low, after @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => (high * 16 + low, after),
                _ => (byte, &rest[1..]),
            },
            (b'+', after) => (b' ', after),
            (byte, after) => (byte, after),
        };
        rest = after;
        Some(byte)
    })
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|d| d as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_the_first_counts() {
        let query = Some("a=1&b%5B%5D=x+y&a=2&&c&d=%zz");
        let value = |name| parameter(query, name).map(|v| decode(v).collect::<Vec<_>>());
        assert_eq!(value("a"), Some(b"1".to_vec()));
        assert_eq!(value("b[]"), Some(b"x y".to_vec()));
        assert_eq!(value("c"), Some(Vec::new()));
        assert_eq!(value("d"), Some(b"%zz".to_vec()));
        assert_eq!(value(""), None);
        assert_eq!(parameter(None, "a"), None);
    }

    #[test]
    fn prefixes_match_whole_elements() {
        let prefix = |p: &str| PathMatch::Prefix(p.to_owned());
        for (path, holds) in [
            ("/abc", true),
            ("/abc/", true),
            ("/abc/def", true),
            ("/abcd", false),
            ("/ab", false),
        ] {
            assert_eq!(path_holds(&prefix("/abc"), path), holds, "{path}");
            assert_eq!(path_holds(&prefix("/abc/"), path), holds, "{path}");
        }
        assert!(path_holds(&prefix("/"), "/anything"));
    }
}
