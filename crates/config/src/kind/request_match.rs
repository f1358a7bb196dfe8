//! What `FaultPolicy` and `RateLimitPolicy` say of requests and of what they attach to, alike.
//!
//! A condition becomes the one that routes have; only callers' identities are beside it.

use std::collections::BTreeMap;

use http::HeaderName;
use model::request::{Condition, IdentityMatch};
use model::route::{HeaderMatch, Match, PathMatch, QueryMatch, ValueMatch};
use serde::{Deserialize, Serialize};

use crate::check::Check;
use crate::kind::GATEWAY_GROUP;
use crate::kind::http_route::{MethodSpec, path_characters_ok};
use crate::reference::{TargetRef, check_targets, shorten};

/// Which requests are meant: all that is written must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestMatch {
    /// The path; ended by `/*` it means all below it too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<MethodSpec>,
    /// Headers and their values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub headers: BTreeMap<String, String>,
    /// Query parameters and their values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub query_params: BTreeMap<String, String>,
    /// SPIFFE IDs of callers, any of these; one that ends in `*` means all that begin so.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub identities: Vec<String>,
}

/// `targetRefs` of both.
pub(crate) fn check_request_targets(targets: &[TargetRef], c: &mut Check<'_>) {
    let kinds = [
        ("", "Service"),
        (GATEWAY_GROUP, "Gateway"),
        (GATEWAY_GROUP, "HTTPRoute"),
        (GATEWAY_GROUP, "GRPCRoute"),
    ];
    let later = ["ExternalService", "TCPRoute", "TLSRoute", "UDPRoute"];
    check_targets(targets, &kinds, &later, c);
}

impl RequestMatch {
    /// The check stands at what the condition belongs to.
    pub(crate) fn to_model(written: Option<&Self>, c: &mut Check<'_>) -> Condition {
        written.map_or_else(Condition::default, |m| c.at("match", |c| m.condition(c)))
    }

    fn condition(&self, c: &mut Check<'_>) -> Condition {
        let path = self.path.as_deref().map(|text| path(text, c));
        c.at_most("identities", self.identities.len(), 64);
        let identities = c.each("identities", &self.identities, |c, text| {
            let read = text.parse::<IdentityMatch>();
            read.map_err(|error| {
                let message = format!("\"{}\" {error}", shorten(text));
                let hint = "write it like spiffe://mesh.local/ns/bookshop/sa/productpage";
                c.error(message, hint);
            })
            .ok()
        });
        Condition {
            matched: Match {
                path: path.flatten().unwrap_or_default(),
                headers: c.at("headers", |c| self.header_matches(c)),
                query: self
                    .query_params
                    .iter()
                    .map(|(name, value)| QueryMatch {
                        name: name.clone(),
                        value: ValueMatch::Exact(value.clone()),
                    })
                    .collect(),
                method: self.method.map(MethodSpec::to_model),
            },
            identities: identities.into_iter().flatten().collect(),
        }
    }

    fn header_matches(&self, c: &mut Check<'_>) -> Vec<HeaderMatch> {
        let mut found: Vec<HeaderMatch> = Vec::new();
        for (text, value) in &self.headers {
            c.at_key(text, |c| match text.parse::<HeaderName>() {
                Ok(name) if found.iter().any(|m| m.name == name) => {
                    c.error("names the same header twice", "take one out");
                }
                Ok(name) => found.push(HeaderMatch {
                    name,
                    value: ValueMatch::Exact(value.clone()),
                }),
                Err(_) => c.error(
                    format!("\"{}\" is not the name of a header", shorten(text)),
                    "use letters, digits and '-'",
                ),
            });
        }
        found
    }
}

fn path(text: &str, c: &mut Check<'_>) -> Option<PathMatch> {
    let (start, below) = match text.strip_suffix("/*") {
        Some(start) => (start, true),
        None => (text, false),
    };
    let absolute = start.starts_with('/') || (below && start.is_empty());
    if !absolute || start.contains('*') || !path_characters_ok(start.as_bytes()) {
        c.error_at(
            "path",
            format!("\"{}\" is not a path", shorten(text)),
            "write `/a/path`, or `/a/*` for all below it",
        );
        return None;
    }
    Some(match (below, start.trim_end_matches('/')) {
        (true, "") => PathMatch::default(),
        (true, start) => PathMatch::Prefix(start.to_owned()),
        (false, _) => PathMatch::Exact(start.to_owned()),
    })
}
