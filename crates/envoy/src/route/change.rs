//! What a rule's filters change, in Envoy's words.

use model::gateway::{Listener, Protocol};
use model::route::{Filter, HeaderChange, Match, PathChange, PathMatch, Redirect, Rewrite};

use crate::proto::core::header_value_option::HeaderAppendAction;
use crate::proto::{core, matcher, route};
use crate::words::{escaped, regex};

/// Changes of headers in one direction.
#[derive(Default)]
pub(super) struct Change {
    pub(super) add: Vec<core::HeaderValueOption>,
    pub(super) remove: Vec<String>,
}

/// Changes of headers in both.
#[derive(Default)]
pub(super) struct Headers {
    pub(super) request: Change,
    pub(super) response: Change,
}

impl Headers {
    pub(super) fn of(filters: &[Filter]) -> Self {
        let mut made = Self::default();
        for filter in filters {
            match filter {
                Filter::RequestHeaders(change) => made.request.take(change),
                Filter::ResponseHeaders(change) => made.response.take(change),
                _ => {}
            }
        }
        made
    }
}

impl Change {
    /// Envoy removes first and adds then, Tulle the other way round: what is taken out in the end is not
    /// put in.
    fn take(&mut self, change: &HeaderChange) {
        for name in &change.remove {
            let name = name.as_str();
            self.add
                .retain(|option| option.header.as_ref().is_none_or(|h| h.key != name));
            self.remove.push(name.to_owned());
        }
        let both = [
            (&change.set, HeaderAppendAction::OverwriteIfExistsOrAdd),
            (&change.add, HeaderAppendAction::AppendIfExistsOrAdd),
        ];
        for (fields, action) in both {
            for (name, value) in fields {
                if change.remove.contains(name) {
                    continue;
                }
                // A percent sign begins a variable.
                let value = String::from_utf8_lossy(value.as_bytes()).replace('%', "%%");
                self.add.push(core::HeaderValueOption {
                    header: Some(core::HeaderValue {
                        key: name.as_str().to_owned(),
                        value,
                    }),
                    append_action: action as i32,
                });
            }
        }
    }
}

/// Changes of headers for all of a rule's requests.
pub(super) fn headers(made: &mut route::Route, filters: &[Filter]) {
    let changes = Headers::of(filters);
    made.request_headers_to_add = changes.request.add;
    made.request_headers_to_remove = changes.request.remove;
    made.response_headers_to_add = changes.response.add;
    made.response_headers_to_remove = changes.response.remove;
}

/// A redirect. Ports are Gateway API's: without one, that of the new scheme, else the listener's.
pub(super) fn redirect(
    to: &Redirect,
    listener: &Listener,
    matched: &Match,
) -> route::RedirectAction {
    use route::redirect_action::{
        PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
    };
    let code = match to.status.as_u16() {
        301 => RedirectResponseCode::MovedPermanently,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::Found,
    };
    let own = if listener.protocol == Protocol::Https {
        "https"
    } else {
        "http"
    };
    let scheme = to.scheme.as_deref().unwrap_or(own);
    let usual = if scheme == "https" { 443 } else { 80 };
    let port = to.port.unwrap_or(if to.scheme.is_some() {
        usual
    } else {
        listener.port
    });
    let path = to.path.as_ref().and_then(|change| match change {
        PathChange::Full(path) => Some(PathRewriteSpecifier::PathRedirect(absolute(path))),
        PathChange::Prefix(_) => {
            substitution(change, matched).map(PathRewriteSpecifier::RegexRewrite)
        }
    });
    route::RedirectAction {
        scheme_rewrite_specifier: to
            .scheme
            .clone()
            .map(SchemeRewriteSpecifier::SchemeRedirect),
        host_redirect: to.hostname.clone().unwrap_or_default(),
        port_redirect: port.into(),
        path_rewrite_specifier: path,
        response_code: code as i32,
        ..route::RedirectAction::default()
    }
}

/// A rewrite.
pub(super) fn rewrite(to: &mut route::RouteAction, rewrite: &Rewrite, matched: &Match) {
    if let Some(host) = &rewrite.hostname {
        to.host_rewrite_specifier =
            Some(route::route_action::HostRewriteSpecifier::HostRewriteLiteral(host.clone()));
    }
    if let Some(change) = &rewrite.path {
        to.regex_rewrite = substitution(change, matched);
    }
}

/// A change of path as an expression and what takes the place of what it finds. Envoy's own change of
/// prefixes knows nothing of where a slash is missing or one too many. `None`: nothing changes.
fn substitution(change: &PathChange, matched: &Match) -> Option<matcher::RegexMatchAndSubstitute> {
    let (expression, new) = match (change, &matched.path) {
        (PathChange::Full(path), _) => ("^.*$".to_owned(), absolute(path)),
        (PathChange::Prefix(new), PathMatch::Exact(_)) => ("^.*$".to_owned(), trimmed(new)),
        (PathChange::Prefix(new), PathMatch::Prefix(prefix)) => {
            let prefix = escaped(prefix.trim_end_matches('/'));
            let new = new.trim_end_matches('/');
            if new.is_empty() {
                // What is left begins with a slash, or is one.
                (format!("^{prefix}/?"), "/".to_owned())
            } else {
                (format!("^{prefix}"), absolute(new))
            }
        }
        (PathChange::Prefix(_), PathMatch::Regex(_) | PathMatch::GrpcMethod(_)) => return None,
    };
    Some(matcher::RegexMatchAndSubstitute {
        pattern: Some(regex(expression)),
        substitution: new.replace('\\', r"\\"),
    })
}

fn trimmed(path: &str) -> String {
    absolute(path.trim_end_matches('/'))
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    }
}
