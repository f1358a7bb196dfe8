//! `GRPCRoute` (Gateway API v1) with Gateways and Services (GAMMA) as parents. A method is a path.

use model::pattern::Pattern;
use model::route::{Match, PathMatch, Rule, Timeouts};
use serde::{Deserialize, Serialize};

use super::backend::{
    BackendRef, NameValueMatch, Resolve, ValueMatchType, backends, check_hostnames, header_matches,
    pattern, unresolved,
};
use super::filter::{GrpcFilter, HttpFilter, filters};
use super::gateway::DefaultScope;
use super::session::SessionPersistence;
use crate::check::Check;
use crate::reference::{ParentRef, check_parents};

/// `spec` of a `GRPCRoute`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrpcRouteSpec {
    /// The Gateways and Services whose requests it steers.
    #[serde(default)]
    pub parent_refs: Vec<ParentRef>,
    /// Whether it is attached to default Gateways too.
    #[serde(skip_serializing_if = "DefaultScope::is_none", default)]
    pub use_default_gateways: DefaultScope,
    /// Hosts, for Gateways.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub hostnames: Vec<String>,
    /// Its rules.
    #[serde(default)]
    pub rules: Vec<GrpcRule>,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrpcRule {
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Any of these must match; without any, all calls do.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub matches: Vec<GrpcMatch>,
    /// What is done to requests and responses.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub filters: Vec<GrpcFilter>,
    /// Where requests go.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub backend_refs: Vec<BackendRef<GrpcFilter>>,
    /// Whether and how a client keeps its endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_persistence: Option<SessionPersistence>,
}

/// Conditions that must all hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GrpcMatch {
    /// On the method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<MethodMatch>,
    /// On headers.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub headers: Vec<NameValueMatch>,
}

/// A condition on service and method.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MethodMatch {
    /// How they are compared.
    #[serde(rename = "type", default)]
    pub match_type: ValueMatchType,
    /// The service, with its package.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
}

impl GrpcRouteSpec {
    pub(crate) fn check(&mut self, c: &mut Check<'_>) {
        c.at("spec", |c| {
            let scope = self.use_default_gateways;
            check_parents(&mut self.parent_refs, scope, c);
            check_hostnames(&self.hostnames, &self.parent_refs, scope, c);
            if self.rules.is_empty() {
                c.warn_at(
                    "rules",
                    "without rules the route takes no call",
                    "add a rule",
                );
            }
            self.rules(c, &mut unresolved);
        });
    }

    /// The rules of the model; the check stands at `spec`.
    pub(crate) fn rules(&self, c: &mut Check<'_>, resolve: &mut Resolve<'_>) -> Vec<Rule> {
        c.each("rules", &self.rules, |c, rule| rule.to_model(c, resolve))
    }
}

impl GrpcRule {
    fn to_model(&self, c: &mut Check<'_>, resolve: &mut Resolve<'_>) -> Rule {
        let mut matches: Vec<Match> = c
            .each("matches", &self.matches, |c, m| m.to_model(c))
            .into_iter()
            .flatten()
            .collect();
        if self.matches.is_empty() {
            matches.push(Match::default());
        }
        let list: Vec<HttpFilter> = self.filters.iter().map(HttpFilter::from).collect();
        Rule {
            name: self.name.clone(),
            matches,
            filters: filters(&list, false, c, resolve),
            backends: backends(&self.backend_refs, false, c, resolve),
            timeouts: Timeouts::default(),
            retry: None,
            session: self
                .session_persistence
                .as_ref()
                .map(|s| c.at("sessionPersistence", |c| s.to_model(c))),
        }
    }
}

impl GrpcMatch {
    fn to_model(&self, c: &mut Check<'_>) -> Option<Match> {
        let path = match &self.method {
            Some(method) => c.at("method", |c| method.to_model(c)),
            None => Some(PathMatch::default()),
        };
        let headers = header_matches(&self.headers, c);
        Some(Match {
            path: path?,
            headers,
            query: Vec::new(),
            method: None,
        })
    }
}

impl MethodMatch {
    fn to_model(&self, c: &mut Check<'_>) -> Option<PathMatch> {
        let service = self.service.as_deref().filter(|s| !s.is_empty());
        let method = self.method.as_deref().filter(|s| !s.is_empty());
        match self.match_type {
            ValueMatchType::Exact => exact(service, method),
            ValueMatchType::RegularExpression => expression(service, method, c),
        }
    }
}

fn exact(service: Option<&str>, method: Option<&str>) -> Option<PathMatch> {
    match (service, method) {
        (Some(service), Some(method)) => Some(PathMatch::Exact(format!("/{service}/{method}"))),
        (Some(service), None) => Some(PathMatch::Prefix(format!("/{service}"))),
        (None, Some(method)) => Some(PathMatch::GrpcMethod(method.to_owned())),
        // Refused by the CRD.
        (None, None) => None,
    }
}

fn expression(service: Option<&str>, method: Option<&str>, c: &mut Check<'_>) -> Option<PathMatch> {
    // Each must be an expression of its own: "a)|(b" would escape the group it is put into.
    let parts = [("service", service), ("method", method)].map(|(field, text)| match text {
        Some(text) => pattern(field, text, c).map(|p| format!("(?:{})", p.source())),
        None => Some("[^/]+".to_owned()),
    });
    let [Some(service), Some(method)] = parts else {
        return None;
    };
    match Pattern::new(&format!("/{service}/{method}")) {
        Ok(pattern) => Some(PathMatch::Regex(pattern)),
        Err(error) => {
            c.error(error.to_string(), "make it simpler");
            None
        }
    }
}
