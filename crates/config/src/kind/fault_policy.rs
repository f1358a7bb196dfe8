//! `FaultPolicy` (`tulle.dev/v1alpha1`): failures made on purpose, to see what they lead to.
//!
//! One object becomes one policy of the model for each target, for a route one for each of its
//! parents. Every fault may be bound in time (`until`, `for`), so that a forgotten one ends by itself.

use http::StatusCode;
use model::request::{Abort, Fault, Faults};
use model::route::Fraction;
use serde::{Deserialize, Serialize};

use crate::check::Check;
use crate::duration::Span;
use crate::kind::request_match::{RequestMatch, check_request_targets};
use crate::object::timestamp;
use crate::reference::{TargetRef, shorten};

/// Parts of which a share of 100 percent has.
const MILLION: u32 = 1_000_000;

/// `spec` of a `FaultPolicy`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultPolicySpec {
    /// What it is for.
    #[serde(default)]
    pub target_refs: Vec<TargetRef>,
    /// The faults; all that match take effect, in this order.
    #[serde(default)]
    pub faults: Vec<FaultSpec>,
    /// From then on there are none any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// The same, counted from the object's creation.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    pub lasting: Option<Span>,
}

/// A fault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaultSpec {
    /// Which requests it is for; all, if left out.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    pub matched: Option<RequestMatch>,
    /// How many of them meet it.
    #[serde(default = "all")]
    pub percent: f64,
    /// They wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<Span>,
    /// They are answered in the application's stead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort: Option<AbortSpec>,
    /// The response comes no faster than this many bytes a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<u64>,
}

/// How a request is answered in the application's stead: one of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AbortSpec {
    /// With this status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// With this gRPC status: its number or name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<GrpcStatus>,
    /// Not at all: the stream, or in HTTP/1 the connection, breaks off.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub reset: bool,
}

/// A status of gRPC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "must be the number or the name of a gRPC status"
)]
pub enum GrpcStatus {
    /// Its number.
    Number(u8),
    /// Its name.
    Name(String),
}

/// gRPC's statuses from 1 on, as its documentation names them.
const GRPC: [&str; 16] = [
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

fn all() -> f64 {
    100.0
}

impl FaultPolicySpec {
    pub(crate) fn check(&self, c: &mut Check<'_>) {
        c.at("spec", |c| {
            check_request_targets(&self.target_refs, c);
            if self.until.is_some() && self.lasting.is_some() {
                c.error_at("for", "cannot stand beside `until`", "take one of them out");
            }
            if let Some(text) = &self.until
                && timestamp::parse(text).is_none()
            {
                let message = format!("\"{}\" is not a time", shorten(text));
                c.error_at("until", message, "write it like 2026-12-01T10:30:00Z");
            }
            self.to_model(None, c);
        });
    }

    /// The faults, as of an object that was created then; the check stands at `spec`.
    pub(crate) fn to_model(&self, created: Option<u64>, c: &mut Check<'_>) -> Faults {
        c.at_most("faults", self.faults.len(), 32);
        if self.faults.is_empty() {
            c.error_at(
                "faults",
                "a policy without a fault does nothing",
                "say what goes wrong: `faults: [{percent: 1, abort: {httpStatus: 503}}]`",
            );
        }
        Faults {
            faults: c
                .each("faults", &self.faults, |c, fault| fault.to_model(c))
                .into_iter()
                .flatten()
                .collect(),
            until: self.ends(created),
        }
    }

    /// Seconds since 1970 at which it ends. What is counted from a creation that nobody knows has
    /// ended: a fault must not last for ever by mistake.
    pub(crate) fn ends(&self, created: Option<u64>) -> Option<u64> {
        match (&self.until, &self.lasting) {
            (Some(until), _) => timestamp::parse(until),
            (None, Some(span)) => {
                Some(created.map_or(0, |created| created.saturating_add(span.get().as_secs())))
            }
            (None, None) => None,
        }
    }
}

impl FaultSpec {
    fn to_model(&self, c: &mut Check<'_>) -> Option<Fault> {
        let condition = RequestMatch::to_model(self.matched.as_ref(), c);
        let share = share(self.percent);
        if share.is_none() {
            let message = format!("{} is not a percentage", self.percent);
            c.error_at(
                "percent",
                message,
                "use a number from 0 to 100; decimals may follow",
            );
        }
        if self.delay.is_none() && self.abort.is_none() && self.bandwidth.is_none() {
            c.error(
                "does nothing",
                "say what goes wrong: `delay`, `abort` or `bandwidth`",
            );
        }
        if self.bandwidth == Some(0) {
            c.error_at(
                "bandwidth",
                "must not be 0: nothing would ever come",
                "to break off, write `abort: {reset: true}`",
            );
        }
        let abort = match &self.abort {
            Some(abort) => Some(c.at("abort", |c| abort.to_model(c))?),
            None => None,
        };
        if abort.is_some() && self.bandwidth.is_some() {
            c.error_at(
                "bandwidth",
                "has no effect beside `abort`, which leaves no response",
                "take one of them out, or make two faults of them",
            );
        }
        Some(Fault {
            condition,
            share: share?,
            delay: self.delay.as_ref().map(Span::get),
            abort,
            bandwidth: self.bandwidth,
        })
    }
}

/// Of a million, as Envoy's `FractionalPercent` has it.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is from 0 to a million"
)]
fn share(percent: f64) -> Option<Fraction> {
    if !(0.0..=100.0).contains(&percent) {
        return None;
    }
    let parts = (percent * f64::from(MILLION / 100)).round() as u32;
    Fraction::new(parts, MILLION).ok()
}

impl AbortSpec {
    fn to_model(&self, c: &mut Check<'_>) -> Option<Abort> {
        match (self.http_status, &self.grpc_status, self.reset) {
            (Some(status), None, false) => {
                let status = StatusCode::from_u16(status).ok();
                let status = status.filter(|status| (200..600).contains(&status.as_u16()));
                if status.is_none() {
                    c.error_at("httpStatus", "is not a final status", "use 200 to 599");
                }
                status.map(Abort::Http)
            }
            (None, Some(status), false) => c.at("grpcStatus", |c| status.to_model(c)),
            (None, None, true) => Some(Abort::Reset),
            _ => {
                c.error(
                    "must say one thing",
                    "write one of `httpStatus`, `grpcStatus` and `reset: true`",
                );
                None
            }
        }
    }
}

impl GrpcStatus {
    fn to_model(&self, c: &mut Check<'_>) -> Option<Abort> {
        let number = match self {
            Self::Number(number) => *number,
            Self::Name(name) => GRPC
                .iter()
                .position(|known| known.eq_ignore_ascii_case(name))
                .and_then(|at| u8::try_from(at + 1).ok())
                .unwrap_or_default(),
        };
        if (1..=16).contains(&number) {
            return Some(Abort::Grpc(number));
        }
        c.error(
            "is not a gRPC status of a failure",
            "use 1 to 16, or a name such as UNAVAILABLE",
        );
        None
    }
}

/// The name of a gRPC status, for those who read.
pub fn grpc_name(status: u8) -> &'static str {
    let at = usize::from(status).checked_sub(1);
    at.and_then(|at| GRPC.get(at)).copied().unwrap_or("OK")
}

/// A time in seconds since 1970, for those who read.
pub fn written_time(seconds: u64) -> Option<String> {
    timestamp::format(seconds)
}
