//! What a rule's filters make of a request: header changes, redirects, rewrites.
//!
//! Follows Gateway API's HTTPHeaderFilter, HTTPRequestRedirectFilter and HTTPURLRewriteFilter,
//! its table for `ReplacePrefixMatch` included. Filters never touch what frames a message or
//! belongs to one connection only (RFC 9110 7.6.1), nor `Host`, which only a rewrite may change.

use http::StatusCode;
use http::header::{self, HeaderName};
use http::uri::PathAndQuery;
use model::route::{HeaderChange, Match, PathChange, PathMatch, Redirect, Rewrite};
use wire::Fields;

use crate::route::RequestView;

/// A filter whose result is no valid path: the configuration let through what it should not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the rewritten path {path:?} is not valid in a URL; escape its special characters")]
pub struct InvalidPath {
    path: String,
}

/// Whether filters leave this header alone: it frames the message, belongs to one connection, or
/// is `Host`.
pub fn is_protected(name: &HeaderName) -> bool {
    [
        header::HOST,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
        header::UPGRADE,
        header::TE,
        header::TRAILER,
    ]
    .contains(name)
        || matches!(
            name.as_str(),
            "keep-alive" | "proxy-connection" | "http2-settings"
        )
}

/// Sets, adds, then removes, skipping what [`is_protected`].
pub fn apply_headers(fields: &mut Fields, change: &HeaderChange) {
    for (name, value) in change.set.iter().filter(|(n, _)| !is_protected(n)) {
        fields.set(name.as_str(), value.as_bytes());
    }
    for (name, value) in change.add.iter().filter(|(n, _)| !is_protected(n)) {
        fields.append(name.as_str(), value.as_bytes());
    }
    for name in change.remove.iter().filter(|n| !is_protected(n)) {
        fields.remove(name.as_str());
    }
}

/// How a request came in: what a redirect keeps where it says nothing else.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// `Host` or `:authority`, with or without port.
    pub authority: &'a str,
    /// The port that the request was sent to.
    pub port: u16,
}

/// The status and `Location` of a redirect.
pub fn redirect(
    redirect: &Redirect,
    request: &RequestView<'_>,
    origin: &Origin<'_>,
    matched: &Match,
) -> (StatusCode, String) {
    let scheme = redirect.scheme.as_deref().unwrap_or(origin.scheme);
    let well_known = match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    // Gateway API, HTTPRequestRedirectFilter.port: without one, that of the new scheme, else the
    // one the request came to; 80 and 443 are not written where the scheme implies them.
    let implied = redirect.scheme.as_ref().and(well_known);
    let port = redirect.port.or(implied).unwrap_or(origin.port);
    let host = redirect
        .hostname
        .as_deref()
        .unwrap_or_else(|| without_port(origin.authority));

    let mut location = format!("{scheme}://{host}");
    if well_known != Some(port) {
        location.push(':');
        location.push_str(&port.to_string());
    }
    match &redirect.path {
        Some(change) => location.push_str(&changed_path(change, request.path, &matched.path)),
        None => location.push_str(request.path),
    }
    if let Some(query) = request.query {
        location.push('?');
        location.push_str(query);
    }
    (redirect.status, location)
}

/// The path and query that a rewrite makes; `None` when it leaves them as they are. The new host
/// is [`Rewrite::hostname`] as it stands.
pub fn rewrite(
    rewrite: &Rewrite,
    path: &str,
    query: Option<&str>,
    matched: &Match,
) -> Result<Option<PathAndQuery>, InvalidPath> {
    let Some(change) = &rewrite.path else {
        return Ok(None);
    };
    let mut new = changed_path(change, path, &matched.path);
    if new == path {
        return Ok(None);
    }
    if let Some(query) = query {
        new.push('?');
        new.push_str(query);
    }
    match PathAndQuery::try_from(new.as_str()) {
        Ok(valid) => Ok(Some(valid)),
        Err(_) => Err(InvalidPath { path: new }),
    }
}

/// Always begins with a slash.
fn changed_path(change: &PathChange, path: &str, matched: &PathMatch) -> String {
    match change {
        PathChange::Full(new) => absolute(new),
        PathChange::Prefix(new) => match matched {
            PathMatch::Prefix(prefix) => path
                .strip_prefix(prefix.trim_end_matches('/'))
                .map_or_else(|| path.to_owned(), |rest| replace_prefix(new, rest)),
            PathMatch::Exact(_) => replace_prefix(new, ""),
            // Gateway API allows it with prefixes only; nothing says which part to replace.
            PathMatch::Regex(_) | PathMatch::GrpcMethod(_) => path.to_owned(),
        },
    }
}

/// Gateway API, HTTPPathModifier.replacePrefixMatch: a slash at the end of the new prefix counts
/// as none, and `rest` (empty or beginning with a slash) follows as it is.
fn replace_prefix(new: &str, rest: &str) -> String {
    let new = new.trim_end_matches('/');
    absolute(&format!("{new}{rest}"))
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    }
}

/// The host of an authority, brackets of an IPv6 address kept.
fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !host.is_empty() => {
            let inside_brackets = host.starts_with('[') && !host.ends_with(']');
            if inside_brackets { authority } else { host }
        }
        _ => authority,
    }
}

#[cfg(test)]
mod tests;
