//! What is said of a request: who takes it, what is made of it, where it goes, and why not elsewhere.

use model::Reason;
use serde::Serialize;

/// The way of one request.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
#[serde(rename_all = "camelCase")]
pub struct Simulation {
    /// The request.
    pub request: String,
    /// Whether it would be answered by a backend, or by a rule's own redirect.
    pub served: bool,
    /// The listener that takes it, at a Gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<ListenerTaken>,
    /// The Service that its host names, in the mesh: `namespace/name:port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The rule that takes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<RouteTaken>,
    /// The rule's filters, in words, in the order in which they are applied.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<String>,
    /// What the rule answers by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    /// Where it may go.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backends: Vec<BackendTaken>,
    /// Faults and limits that it meets, in words, in the order in which it meets them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<PolicyMet>,
    /// Why it would not be served, or not always.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// What was considered and did not take it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_taken: Vec<NotTaken>,
    /// What else is worth knowing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Whether only the outcome is asked for: not who else was considered, but all that bounds the
    /// request, also where it is as it is by default.
    #[serde(skip)]
    pub(crate) brief: bool,
}

/// A listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerTaken {
    /// Its Gateway.
    pub gateway: String,
    /// Its name there.
    pub name: String,
    /// What it speaks.
    pub protocol: String,
    /// Its port.
    pub port: u16,
    /// Its hosts; `*` for all.
    pub hostname: String,
    /// What it asks of clients and believes of them, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<String>,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteTaken {
    /// Kind of the route.
    pub kind: String,
    /// `namespace/name` of the route.
    pub name: String,
    /// Index of the rule.
    #[serde(rename = "rule")]
    pub rule_index: usize,
    /// Name of the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule_name: Option<String>,
    /// Index of the match; none for routes of connections.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    pub match_index: Option<usize>,
    /// What the match asks for, in words.
    pub condition: String,
}

/// A rule's own answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its header fields.
    pub headers: Vec<(String, String)>,
}

/// A backend and what it would get.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendTaken {
    /// `namespace/name:port`; none for a reference that leads nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Share of the requests in percent.
    pub percent: f64,
    /// Its weight.
    pub weight: u32,
    /// The request as it is sent on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// The fields of the request as they are sent on, where filters have changed them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<Vec<(String, String)>>,
    /// Filters of this backend alone, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<String>,
    /// Bounds on time, retries and such, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<String>,
    /// Its endpoints.
    pub endpoints: Vec<EndpointTaken>,
    /// Why requests that go here are not served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// A fault or limit that a request meets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyMet {
    /// Kind of the policy.
    pub kind: String,
    /// `namespace/name` of the policy.
    pub name: String,
    /// Where it holds.
    pub place: String,
    /// What it does.
    pub effect: String,
}

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointTaken {
    /// `namespace/name` of the workload.
    pub workload: String,
    /// Address and port.
    pub address: String,
    /// Whether it may be chosen; otherwise why not.
    pub state: String,
}

/// Why a request is not served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// The proxy's word for it; none where no proxy takes the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The status of the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What and why.
    pub details: String,
    /// What to do about it.
    pub remedy: String,
}

/// Something that did not take the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NotTaken {
    /// What: a listener, a route, or a rule with its match.
    pub what: String,
    /// The first thing that kept it from the request.
    pub why: String,
}

impl Failure {
    pub(crate) fn new(reason: Reason, details: impl Into<String>) -> Self {
        Self::with_status(reason, reason.status(), details)
    }

    pub(crate) fn with_status(reason: Reason, status: u16, details: impl Into<String>) -> Self {
        Self {
            reason: Some(reason.as_str().to_owned()),
            status: Some(status),
            details: details.into(),
            remedy: reason.remedy().to_owned(),
        }
    }

    /// Gateway API wants 500 for rules that lead nowhere.
    pub(crate) fn no_backend(details: impl Into<String>) -> Self {
        Self::with_status(Reason::NoRoute, 500, details)
    }

    /// Where no proxy takes the connection.
    pub(crate) fn no_connection(details: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            reason: None,
            status: None,
            details: details.into(),
            remedy: remedy.into(),
        }
    }

    pub(crate) fn remedy(self, remedy: impl Into<String>) -> Self {
        Self {
            remedy: remedy.into(),
            ..self
        }
    }
}

impl NotTaken {
    pub(crate) fn new(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            why: why.into(),
        }
    }
}
