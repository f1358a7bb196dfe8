//! `RateLimitPolicy` (`tulle.dev/v1alpha1`): how many requests there may be.
//!
//! Each proxy counts for itself (`scope: Local`), or a service does for the whole mesh (`Global`), in
//! the fixed windows and units of Envoy's protocol. Limits of a Service travel with the workloads
//! behind it, whose proxies hold them: no caller can get around them. Those of Gateways and routes
//! hold where the route is decided.

use std::collections::BTreeSet;
use std::time::Duration;

use http::HeaderName;
use model::request::{self, Key, Limits, Scope};
use serde::{Deserialize, Serialize};

use crate::check::Check;
use crate::duration::Span;
use crate::kind::rate_limit_service::RateLimitServiceSpec;
use crate::kind::request_match::{RequestMatch, check_request_targets};
use crate::reference::{LABEL_RULE, TargetRef, shorten};

/// `spec` of a `RateLimitPolicy`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RateLimitPolicySpec {
    /// What it is for.
    #[serde(default)]
    pub target_refs: Vec<TargetRef>,
    /// A request must be within all that match.
    #[serde(default)]
    pub limits: Vec<LimitSpec>,
    /// Whether responses say how much is left.
    #[serde(default = "yes")]
    pub headers: bool,
    /// Who counts what is `Global`; the MeshConfig says, if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<RateLimitServiceSpec>,
}

/// A limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitSpec {
    /// Name, which clients and logs see; made up from its place if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Which requests are counted; all, if left out.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    pub matched: Option<RequestMatch>,
    /// What tells those apart that are counted apart.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub key: Vec<KeySpec>,
    /// So many.
    pub requests: u32,
    /// In so much time.
    pub per: Span,
    /// As many at once; as many as `requests`, if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// How it is counted: as a token bucket, or in fixed windows where it is `Global`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<LimitAlgorithm>,
    /// Who counts.
    #[serde(default)]
    pub scope: LimitScope,
    /// What becomes of requests while nobody counts what is `Global`: they pass, if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_mode: Option<FailureMode>,
}

/// A part of what tells requests apart: one of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KeySpec {
    /// The value of this header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// The value of this cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie: Option<String>,
    /// Who asks, as its certificate says.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub identity: bool,
    /// The address that the request came from.
    #[serde(rename = "sourceIP", skip_serializing_if = "std::ops::Not::not")]
    pub source_ip: bool,
    /// The path, without query.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub path: bool,
    /// The method.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub method: bool,
}

/// How requests are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "each is the model's algorithm of the same name"
)]
pub enum LimitAlgorithm {
    TokenBucket,
    SlidingWindow,
    FixedWindow,
}

/// Who counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum LimitScope {
    /// Each proxy for itself.
    #[default]
    Local,
    /// A service for the whole mesh.
    Global,
}

/// What becomes of requests while the service that decides about them does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureMode {
    /// They pass.
    Open,
    /// They are refused.
    Closed,
}

/// The windows that Envoy's protocol knows.
const UNITS: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_mins(1),
    Duration::from_hours(1),
    Duration::from_hours(24),
];

fn yes() -> bool {
    true
}

impl RateLimitPolicySpec {
    pub(crate) fn check(&self, namespace: &str, c: &mut Check<'_>) {
        c.at("spec", |c| {
            check_request_targets(&self.target_refs, c);
            c.at("limits", Check::mark);
            if let Some(service) = &self.service {
                c.at("service", |c| {
                    c.at("backendRef", Check::mark);
                });
                let mut scopes = self.limits.iter().map(|limit| limit.scope);
                if !scopes.any(|scope| scope == LimitScope::Global) {
                    let backend = &service.backend_ref.name;
                    let message = format!(
                        "no limit is Global, so \"{}\" counts nothing",
                        shorten(backend)
                    );
                    c.error_at("service", message, "take it out, or write `scope: Global`");
                }
            }
            self.to_model(namespace, c);
        });
    }

    /// The limits; the check stands at `spec`.
    pub(crate) fn to_model(&self, namespace: &str, c: &mut Check<'_>) -> Limits {
        c.at_most("limits", self.limits.len(), 16);
        if self.limits.is_empty() {
            c.error_at(
                "limits",
                "a policy without a limit does nothing",
                "say how many there may be: `limits: [{requests: 100, per: 1m}]`",
            );
        }
        let mut names: BTreeSet<String> = BTreeSet::new();
        let mut at = 0..;
        let service = self.service.as_ref();
        Limits {
            service: service
                .and_then(|service| c.at("service", |c| service.to_model(Some(namespace), c))),
            limits: c
                .each("limits", &self.limits, |c, limit| {
                    let made = format!("limit-{}", at.next().unwrap_or(0));
                    let limit = limit.to_model(made, c)?;
                    if !names.insert(limit.name.clone()) {
                        let message = format!("\"{}\" is there twice", limit.name);
                        c.error_at("name", message, "give each limit a name of its own");
                    }
                    Some(limit)
                })
                .into_iter()
                .flatten()
                .collect(),
            headers: self.headers,
        }
    }
}

impl LimitSpec {
    fn to_model(&self, made: String, c: &mut Check<'_>) -> Option<request::Limit> {
        let name = self.name.clone().unwrap_or(made);
        if !model::name::is_label(&name) {
            let message = format!("\"{}\" is not a valid name", shorten(&name));
            c.error_at("name", message, LABEL_RULE);
        }
        for (field, zero) in [
            ("requests", self.requests == 0),
            ("burst", self.burst == Some(0)),
        ] {
            if zero {
                let message = "must not be 0: nothing would ever get through";
                c.error_at(field, message, "use 1 or more");
            }
        }
        let per = self.per.get();
        if per < Duration::from_millis(1) {
            c.error_at("per", "must be at least 1ms", "write it like 1s or 1m");
        }
        let scope = self.scope(c);
        let algorithm = match (self.algorithm, scope) {
            (Some(LimitAlgorithm::SlidingWindow), _) => request::Algorithm::SlidingWindow,
            (Some(LimitAlgorithm::FixedWindow), _) | (None, Scope::Global(_)) => {
                request::Algorithm::FixedWindow
            }
            (Some(LimitAlgorithm::TokenBucket), _) | (None, Scope::Local) => {
                request::Algorithm::TokenBucket
            }
        };
        if self.burst.is_some() && algorithm != request::Algorithm::TokenBucket {
            let message = format!(
                "has no meaning with {algorithm:?}, where a window's requests may all come at once"
            );
            c.error_at("burst", message, "take it out");
        }
        let condition = RequestMatch::to_model(self.matched.as_ref(), c);
        c.at_most("key", self.key.len(), 8);
        let key = c.each("key", &self.key, |c, key| key.to_model(c));
        if self.requests == 0 || self.burst == Some(0) || per.is_zero() {
            return None;
        }
        Some(request::Limit {
            name,
            condition,
            key: key.into_iter().flatten().collect(),
            requests: self.requests,
            per,
            burst: self.burst.unwrap_or(self.requests),
            algorithm,
            scope,
        })
    }

    /// Who counts, and whether that can be done as it is written.
    fn scope(&self, c: &mut Check<'_>) -> Scope {
        if self.scope == LimitScope::Local {
            if self.failure_mode.is_some() {
                let message = "has no meaning with `scope: Local`: there is nobody to be asked";
                c.error_at("failureMode", message, "take it out");
            }
            return Scope::Local;
        }
        let per = self.per.get();
        if !UNITS.contains(&per) {
            c.error_at(
                "per",
                "is no window of a Global limit: Envoy's protocol has those of a second, a minute, an hour and a day",
                "write 1s, 1m, 1h or 24h",
            );
        }
        if let Some(algorithm) = self.algorithm.filter(|a| *a != LimitAlgorithm::FixedWindow) {
            let message = format!("{algorithm:?} is not served for a Global limit");
            c.error_at("algorithm", message, "take it out: it is FixedWindow");
        }
        Scope::Global(match self.failure_mode {
            None | Some(FailureMode::Open) => request::FailureMode::Open,
            Some(FailureMode::Closed) => request::FailureMode::Closed,
        })
    }
}

impl KeySpec {
    fn to_model(&self, c: &mut Check<'_>) -> Option<Key> {
        let mut found = Vec::new();
        if let Some(text) = &self.header {
            let Ok(name) = text.parse::<HeaderName>() else {
                let message = format!("\"{}\" is not the name of a header", shorten(text));
                c.error_at("header", message, "use letters, digits and '-'");
                return None;
            };
            found.push(Key::Header(name));
        }
        found.extend(self.cookie.clone().map(Key::Cookie));
        for (set, key) in [
            (self.identity, Key::Identity),
            (self.source_ip, Key::SourceIp),
            (self.path, Key::Path),
            (self.method, Key::Method),
        ] {
            found.extend(set.then_some(key));
        }
        if found.len() == 1 {
            return found.pop();
        }
        c.error(
            "must say one thing",
            "write one of header, cookie, identity, sourceIP, path and method; several make a list",
        );
        None
    }
}
