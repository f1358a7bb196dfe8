//! `HTTPRoute` (Gateway API v1) with Gateways and Services (GAMMA) as parents.
//!
//! What the CRD refuses is refused by its schema ([`crate::Schemas`]) and not looked at again here.
//! `hostnames` have no meaning with a Service as parent, and are reported there.

use http::Method;
use model::retry;
use model::route::{Match, PathMatch, QueryMatch, Rule, Timeouts};
use serde::{Deserialize, Serialize};

use super::backend::{
    BackendRef, NameValueMatch, Resolve, backends, check_hostnames, header_matches, pattern,
    unresolved, value_match,
};
use super::filter::{HttpFilter, filters};
use super::gateway::DefaultScope;
use super::session::SessionPersistence;
use crate::check::Check;
use crate::duration::Span;
use crate::reference::{ParentRef, check_parents};

/// `spec` of an `HTTPRoute`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteSpec {
    /// The Gateways and Services whose requests it steers.
    #[serde(default)]
    pub parent_refs: Vec<ParentRef>,
    /// Whether it is attached to default Gateways too.
    #[serde(skip_serializing_if = "DefaultScope::is_none", default)]
    pub use_default_gateways: DefaultScope,
    /// Hosts, for Gateways.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub hostnames: Vec<String>,
    /// Its rules; by default one that takes everything.
    #[serde(default = "default_rules")]
    pub rules: Vec<HttpRule>,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRule {
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Any of these must match.
    #[serde(default = "default_matches")]
    pub matches: Vec<HttpMatch>,
    /// What is done to requests and responses.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub filters: Vec<HttpFilter>,
    /// Where requests go.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub backend_refs: Vec<BackendRef<HttpFilter>>,
    /// Bounds on time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<TimeoutsSpec>,
    /// Retries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetrySpec>,
    /// Whether and how a client keeps its endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_persistence: Option<SessionPersistence>,
}

/// Conditions that must all hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpMatch {
    /// On the path.
    #[serde(default)]
    pub path: PathSpec,
    /// On headers.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub headers: Vec<NameValueMatch>,
    /// On query parameters.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub query_params: Vec<NameValueMatch>,
    /// On the method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<MethodSpec>,
}

/// A condition on the path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathSpec {
    /// How it is compared.
    #[serde(rename = "type", default)]
    pub match_type: PathType,
    /// With what.
    #[serde(default = "root")]
    pub value: String,
}

/// How a path is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "Gateway API's own words")]
pub enum PathType {
    Exact,
    #[default]
    PathPrefix,
    RegularExpression,
}

/// A method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "what they are called")]
pub enum MethodSpec {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
}

/// Bounds on time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TimeoutsSpec {
    /// For the whole request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Span>,
    /// For one try.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend_request: Option<Span>,
}

/// Retries (GEP-1731).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetrySpec {
    /// Statuses after which a request is tried again, beside failures of the connection.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub codes: Vec<u16>,
    /// Tries after the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// Shortest wait between tries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Span>,
}

/// Retries of a second that a rule's own `retry` is always allowed.
const RETRIES_PER_SECOND: u32 = 100;

fn root() -> String {
    "/".to_owned()
}

fn default_matches() -> Vec<HttpMatch> {
    vec![HttpMatch::default()]
}

fn default_rules() -> Vec<HttpRule> {
    vec![HttpRule {
        name: None,
        matches: default_matches(),
        filters: Vec::new(),
        backend_refs: Vec::new(),
        timeouts: None,
        retry: None,
        session_persistence: None,
    }]
}

impl Default for PathSpec {
    fn default() -> Self {
        Self {
            match_type: PathType::PathPrefix,
            value: root(),
        }
    }
}

impl HttpRouteSpec {
    pub(crate) fn check(&mut self, c: &mut Check<'_>) {
        c.at("spec", |c| {
            let scope = self.use_default_gateways;
            check_parents(&mut self.parent_refs, scope, c);
            check_hostnames(&self.hostnames, &self.parent_refs, scope, c);
            self.rules(c, &mut unresolved);
        });
    }

    /// The rules of the model; the check stands at `spec`.
    pub(crate) fn rules(&self, c: &mut Check<'_>, resolve: &mut Resolve<'_>) -> Vec<Rule> {
        c.each("rules", &self.rules, |c, rule| rule.to_model(c, resolve))
    }
}

impl HttpRule {
    fn to_model(&self, c: &mut Check<'_>, resolve: &mut Resolve<'_>) -> Rule {
        let everything = [HttpMatch::default()];
        let matches: &[HttpMatch] = match self.matches.as_slice() {
            [] => &everything,
            written => written,
        };
        let one_prefix = matches.len() == 1 && matches[0].path.match_type == PathType::PathPrefix;
        Rule {
            name: self.name.clone(),
            matches: c
                .each("matches", matches, |c, m| m.to_model(c))
                .into_iter()
                .flatten()
                .collect(),
            filters: filters(&self.filters, one_prefix, c, resolve),
            backends: backends(&self.backend_refs, one_prefix, c, resolve),
            timeouts: self
                .timeouts
                .as_ref()
                .map_or_else(Timeouts::default, TimeoutsSpec::to_model),
            retry: self
                .retry
                .as_ref()
                .map(|r| c.at("retry", |c| r.to_model(c))),
            session: self
                .session_persistence
                .as_ref()
                .map(|s| c.at("sessionPersistence", |c| s.to_model(c))),
        }
    }
}

impl HttpMatch {
    fn to_model(&self, c: &mut Check<'_>) -> Option<Match> {
        let path = c.at("path", |c| self.path.to_model(c));
        let headers = header_matches(&self.headers, c);
        let query = self.query(c);
        Some(Match {
            path: path?,
            headers,
            query,
            method: self.method.map(MethodSpec::to_model),
        })
    }

    fn query(&self, c: &mut Check<'_>) -> Vec<QueryMatch> {
        c.each("queryParams", &self.query_params, |c, param| {
            Some(QueryMatch {
                name: param.name.clone(),
                value: value_match(param, c)?,
            })
        })
        .into_iter()
        .flatten()
        .collect()
    }
}

impl PathSpec {
    fn to_model(&self, c: &mut Check<'_>) -> Option<PathMatch> {
        if self.match_type == PathType::RegularExpression {
            return pattern("value", &self.value, c).map(PathMatch::Regex);
        }
        if self.match_type == PathType::Exact {
            return Some(PathMatch::Exact(self.value.clone()));
        }
        let trimmed = self.value.trim_end_matches('/');
        let prefix = if trimmed.is_empty() { "/" } else { trimmed };
        Some(PathMatch::Prefix(prefix.to_owned()))
    }
}

/// RFC 3986 3.3: `pchar` and '/'.
pub(crate) fn path_characters_ok(path: &[u8]) -> bool {
    let mut bytes = path.iter();
    while let Some(b) = bytes.next() {
        let ok = match b {
            b'%' => [bytes.next(), bytes.next()]
                .iter()
                .all(|d| d.is_some_and(u8::is_ascii_hexdigit)),
            b => b.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@".contains(b),
        };
        if !ok {
            return false;
        }
    }
    true
}

impl MethodSpec {
    pub(crate) fn to_model(self) -> Method {
        match self {
            Self::Get => Method::GET,
            Self::Head => Method::HEAD,
            Self::Post => Method::POST,
            Self::Put => Method::PUT,
            Self::Delete => Method::DELETE,
            Self::Connect => Method::CONNECT,
            Self::Options => Method::OPTIONS,
            Self::Trace => Method::TRACE,
            Self::Patch => Method::PATCH,
        }
    }
}

impl TimeoutsSpec {
    fn to_model(&self) -> Timeouts {
        Timeouts {
            request: self.request.as_ref().map(Span::get),
            per_try: self.backend_request.as_ref().map(Span::get),
        }
    }
}

impl RetrySpec {
    fn to_model(&self, c: &mut Check<'_>) -> retry::Policy {
        let mut policy = retry::Policy::default();
        // Gateway API knows no budget here: what is asked for is done, but to a server that is
        // down altogether.
        policy.budget.min_per_second = policy.budget.min_per_second.max(RETRIES_PER_SECOND);
        for code in &self.codes {
            let condition = retry::Condition::Status(*code);
            if !policy.on.contains(&condition) {
                policy.on.push(condition);
            }
        }
        if let Some(attempts) = self.attempts {
            check_attempts(attempts, c);
            policy.attempts = attempts;
        }
        if let Some(backoff) = &self.backoff {
            policy.backoff = retry::Backoff {
                base: backoff.get(),
                max: backoff.get() * 10,
            };
        }
        policy
    }
}

/// More tries than this help nobody.
pub(crate) fn check_attempts(attempts: u32, c: &mut Check<'_>) {
    if attempts > 100 {
        c.error_at(
            "attempts",
            format!("{attempts} is more than 100"),
            "use a small number",
        );
    }
}
