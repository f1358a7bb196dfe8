//! What both kinds of routes have in common: references to backends, matches on headers, names of
//! rules, hostnames.

use http::HeaderName;
use model::pattern::Pattern;
use model::route::{Backend, HeaderMatch, Target, ValueMatch};
use serde::{Deserialize, Serialize};

use super::filter::{HttpFilter, HttpFilterType, filters, header_name};
use super::gateway::DefaultScope;
use crate::check::Check;
use crate::kind::{GATEWAY_GROUP, MCS_GROUP, ObjectKind};
use crate::reference::{ParentRef, check_name, check_namespace};

/// Where a rule sends requests. `F` is the route's kind of filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendRef<F> {
    /// API group; empty for a Service.
    #[serde(default)]
    pub group: String,
    /// Kind.
    #[serde(default = "kind_service")]
    pub kind: String,
    /// Namespace; that of the route if `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// Port of the Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Share of the requests.
    #[serde(default = "one")]
    pub weight: u32,
    /// Applied to requests that go here.
    #[serde(skip_serializing_if = "Vec::is_empty", default = "Vec::new")]
    pub filters: Vec<F>,
}

/// A reference to a backend, without a share of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendObjectRef {
    /// API group; empty for a Service.
    #[serde(default)]
    pub group: String,
    /// Kind.
    #[serde(default = "kind_service")]
    pub kind: String,
    /// Namespace; that of the route if `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// Port of the Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

impl<F> BackendRef<F> {
    pub(crate) fn target(&self) -> BackendTarget<'_> {
        BackendTarget {
            group: &self.group,
            kind: &self.kind,
            namespace: self.namespace.as_deref(),
            name: &self.name,
            port: self.port,
        }
    }
}

impl BackendObjectRef {
    pub(crate) fn target(&self) -> BackendTarget<'_> {
        BackendTarget {
            group: &self.group,
            kind: &self.kind,
            namespace: self.namespace.as_deref(),
            name: &self.name,
            port: self.port,
        }
    }
}

fn kind_service() -> String {
    "Service".to_owned()
}

fn one() -> u32 {
    1
}

/// A condition on a header (or, in an `HTTPRoute`, on a query parameter).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameValueMatch {
    /// How the value is compared.
    #[serde(rename = "type", default)]
    pub match_type: ValueMatchType,
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
}

/// How a value is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "Gateway API's own words")]
pub enum ValueMatchType {
    #[default]
    Exact,
    RegularExpression,
}

/// The part of a reference that resolving it takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BackendTarget<'a> {
    pub(crate) group: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) namespace: Option<&'a str>,
    pub(crate) name: &'a str,
    pub(crate) port: Option<u16>,
}

impl BackendTarget<'_> {
    /// Checks the reference's fields, at which the check stands, and follows it.
    pub(crate) fn check(self, c: &mut Check<'_>, resolve: &mut Resolve<'_>) -> Target {
        check_name("name", self.name, c);
        if let Some(namespace) = self.namespace {
            check_namespace("namespace", namespace, c);
        }
        resolve(c, self)
    }
}

/// Finds what a reference leads to. The check stands at the reference.
pub(crate) type Resolve<'r> = dyn FnMut(&mut Check<'_>, BackendTarget<'_>) -> Target + 'r;

/// For reading: remembers the places of references, which only the translation can follow.
pub(crate) fn unresolved(c: &mut Check<'_>, _: BackendTarget<'_>) -> Target {
    c.mark();
    Target::Invalid { reason: "".into() }
}

/// The backends of a rule, in the field `backendRefs`.
pub(crate) fn backends<F>(
    list: &[BackendRef<F>],
    one_prefix: bool,
    c: &mut Check<'_>,
    resolve: &mut Resolve<'_>,
) -> Vec<Backend>
where
    for<'f> HttpFilter: From<&'f F>,
{
    if !list.is_empty() && list.iter().all(|backend| backend.weight == 0) {
        c.warn_at(
            "backendRefs",
            "all have weight 0: every request gets a 500",
            "give one of them a weight",
        );
    }
    c.each("backendRefs", list, |c, backend| {
        let target = backend.target().check(c, resolve);
        let list: Vec<HttpFilter> = backend.filters.iter().map(HttpFilter::from).collect();
        c.each("filters", &list, |c, filter| {
            let answers = [HttpFilterType::RequestRedirect, HttpFilterType::Cors];
            if answers.contains(&filter.filter_type) {
                c.error(
                    "answers requests, which a rule does before it chooses a backend",
                    "put it among the rule's filters",
                );
            }
        });
        Backend {
            target,
            weight: backend.weight,
            filters: filters(&list, one_prefix, c, resolve),
        }
    })
}

impl From<&HttpFilter> for HttpFilter {
    fn from(filter: &HttpFilter) -> Self {
        filter.clone()
    }
}

/// Conditions on headers, in the field `headers`. Of names that differ only in case the first
/// counts (Gateway API).
pub(crate) fn header_matches(list: &[NameValueMatch], c: &mut Check<'_>) -> Vec<HeaderMatch> {
    let mut seen: Vec<(HeaderName, &str)> = Vec::new();
    c.each("headers", list, |c, header| {
        let name = header_name("name", &header.name, c)?;
        let value = value_match(header, c)?;
        if let Some((_, text)) = seen.iter().find(|(n, _)| *n == name) {
            if *text != header.name {
                c.warn_at(
                    "name",
                    format!("is the same header as \"{text}\", which alone counts"),
                    "take one out",
                );
            }
            return None;
        }
        seen.push((name.clone(), &header.name));
        Some(HeaderMatch { name, value })
    })
    .into_iter()
    .flatten()
    .collect()
}

/// The value of a condition.
pub(crate) fn value_match(spec: &NameValueMatch, c: &mut Check<'_>) -> Option<ValueMatch> {
    match spec.match_type {
        ValueMatchType::Exact => Some(ValueMatch::Exact(spec.value.clone())),
        ValueMatchType::RegularExpression => {
            pattern("value", &spec.value, c).map(ValueMatch::Regex)
        }
    }
}

/// A regular expression.
pub(crate) fn pattern(field: &'static str, text: &str, c: &mut Check<'_>) -> Option<Pattern> {
    match Pattern::new(text) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            c.error_at(
                field,
                error.to_string(),
                "write it in RE2 syntax; it must match the whole value",
            );
            None
        }
    }
}

/// `spec.hostnames`, which mean nothing where the parent is a Service.
pub(crate) fn check_hostnames(
    list: &[String],
    parents: &[ParentRef],
    scope: DefaultScope,
    c: &mut Check<'_>,
) {
    if list.is_empty() || !scope.is_none() || parents.iter().any(ParentRef::has_listeners) {
        return;
    }
    c.warn_at(
        "hostnames",
        "have no effect on a route whose parent is a Service",
        "take them out",
    );
}

/// The kind of a service that a reference leads to; `None` where it leads to something else.
pub(crate) fn service_kind(group: &str, kind: &str) -> Option<ObjectKind> {
    match (kind, group) {
        ("Service", "" | "core") => Some(ObjectKind::Service),
        ("ServiceImport", MCS_GROUP) => Some(ObjectKind::ServiceImport),
        _ => None,
    }
}

/// The group of routes, for grants.
pub(crate) const ROUTE_GROUP: &str = GATEWAY_GROUP;
