//! What becomes of a request that a rule has taken: an answer of the rule's own, or what is sent to a
//! backend and with which changes.
//!
//! Order (Gateway API, HTTPRouteFilter): a preflight is answered before a redirect, a redirect before
//! a backend is thought of; the rule's filters are applied before the backend's, each in the order
//! written. Which backend it is, and whether a copy is made, is drawn by whoever asks.

use http::StatusCode;
use model::route::{Backend, Filter, Fraction, HeaderChange, Match, Mirror, Rule};
use wire::Fields;

use crate::cors::{self, cors};
use crate::filter::{self, InvalidPath, Origin};
use crate::route::RequestView;

/// What comes of a rule before any backend is thought of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// A response to a browser's question (CORS), complete.
    Preflight(Fields),
    /// A redirect.
    Redirect {
        /// Its status.
        status: StatusCode,
        /// Where to.
        location: String,
        /// Further fields of the response, for the page that sent the request.
        cors: Option<Fields>,
    },
    /// A backend is asked. The fields are for its response, as above.
    Backend(Option<Fields>),
}

/// Looks at what a rule answers by itself.
pub fn start(
    rule: &Rule,
    matched: &Match,
    request: &RequestView<'_>,
    origin: &Origin<'_>,
) -> Start {
    let mut fields = None;
    for filter in &rule.filters {
        if let Filter::Cors(policy) = filter {
            match cors(policy, request.method, request.headers) {
                Some(cors::Answer::Preflight(fields)) => return Start::Preflight(fields),
                Some(cors::Answer::Response(response)) => fields = Some(response),
                None => {}
            }
        }
    }
    for filter in &rule.filters {
        if let Filter::Redirect(redirect) = filter {
            let (status, location) = filter::redirect(redirect, request, origin, matched);
            return Start::Redirect {
                status,
                location,
                cors: fields,
            };
        }
    }
    Start::Backend(fields)
}

/// What filters make of a request, beside its fields.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes<'r> {
    /// In place of the request's own.
    pub authority: Option<&'r str>,
    /// In place of the request's own, with query.
    pub path: Option<String>,
    /// To make to the response, in this order.
    pub response_headers: Vec<&'r HeaderChange>,
    /// Who gets a copy.
    pub mirrors: Vec<&'r Mirror>,
}

/// Applies the filters of a rule and of the backend that was chosen; those on the request's fields to
/// `fields`. `copied` draws whether a request is among a share.
pub fn change<'r>(
    rule: &'r Rule,
    backend: &'r Backend,
    matched: &Match,
    (path, query): (&str, Option<&str>),
    fields: &mut Fields,
    mut copied: impl FnMut(Fraction) -> bool,
) -> Result<Changes<'r>, InvalidPath> {
    let mut changes = Changes::default();
    for filter in rule.filters.iter().chain(&backend.filters) {
        match filter {
            Filter::RequestHeaders(change) => filter::apply_headers(fields, change),
            Filter::ResponseHeaders(change) => changes.response_headers.push(change),
            Filter::Rewrite(rewrite) => {
                if let Some(path) = filter::rewrite(rewrite, path, query, matched)? {
                    changes.path = Some(path.as_str().to_owned());
                }
                if let Some(host) = &rewrite.hostname {
                    changes.authority = Some(host);
                }
            }
            Filter::Mirror(mirror) => {
                if copied(mirror.share) {
                    changes.mirrors.push(mirror);
                }
            }
            Filter::Redirect(_) | Filter::Cors(_) => {}
        }
    }
    Ok(changes)
}
