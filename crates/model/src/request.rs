//! Policies about single requests and connections: which of them meet a fault that was made on
//! purpose, and how many of them there may be.
//!
//! A policy hangs on its parent, a service or a Gateway, as routes do, and says for which part of
//! it it is. One for a route is there once for each parent of the route. Who decides, and in which
//! order, is told by the `policy` crate.

use std::fmt;
use std::time::Duration;

use http::{HeaderName, StatusCode};

use crate::gateway::GatewayName;
use crate::name::{ObjectName, ServiceName};
use crate::route::{Fraction, Match, RouteKind};

/// A policy about requests as attached to one parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestPolicy {
    /// Its own name.
    pub name: ObjectName,
    /// Seconds since 1970 at which it was created: older policies win.
    pub created: u64,
    /// Whose requests it is about.
    pub parent: Parent,
    /// Which of them.
    pub section: Section,
    /// What is done.
    pub effect: Effect,
}

/// Whose requests a policy is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Parent {
    /// Those of a service's clients.
    Service(ServiceName),
    /// Those that come in through a Gateway.
    Gateway(GatewayName),
}

/// A part of a parent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Section {
    /// All of it.
    Whole,
    /// A port of a service.
    Port(u16),
    /// A listener of a Gateway, by the name that the model has for it.
    Listener(String),
    /// A route, or one rule of it.
    Route {
        /// What it was written as.
        kind: RouteKind,
        /// Its name.
        name: ObjectName,
        /// The rule's name; `None` for all of its rules.
        rule: Option<String>,
    },
}

/// What is done to requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A `FaultPolicy`.
    Faults(Faults),
    /// A `RateLimitPolicy`.
    Limits(Limits),
}

impl Effect {
    /// The kind of the object that it was written as.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Faults(_) => "FaultPolicy",
            Self::Limits(_) => "RateLimitPolicy",
        }
    }
}

/// Faults that are made on purpose.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Faults {
    /// All that match take effect, in this order.
    pub faults: Vec<Fault>,
    /// Seconds since 1970 from which on there are none any more.
    pub until: Option<u64>,
}

/// One fault. What it does, it does in the order of its fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Which requests it is for.
    pub condition: Condition,
    /// How many of them meet it.
    pub share: Fraction,
    /// They wait.
    pub delay: Option<Duration>,
    /// They are answered in the application's stead.
    pub abort: Option<Abort>,
    /// The response, or a connection both ways, comes no faster than this many bytes a second.
    pub bandwidth: Option<u64>,
}

/// How a request is answered in the application's stead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abort {
    /// With this status.
    Http(StatusCode),
    /// With this gRPC status, 1 to 16.
    Grpc(u8),
    /// With none: the stream, or in HTTP/1 the connection, breaks off.
    Reset,
}

/// Which requests are meant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Condition {
    /// As routes match.
    pub matched: Match,
    /// Who asks: any of these; empty for everybody.
    pub identities: Vec<IdentityMatch>,
}

impl Condition {
    /// Whether all requests are meant, and connections with them.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it asks for nothing that only a request has.
    pub fn is_for_connections(&self) -> bool {
        self.matched == Match::default()
    }
}

/// A condition on an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityMatch(String);

/// What is written is no identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no SPIFFE ID: `spiffe://`, then a trust domain and a path, perhaps ended by `*`")]
pub struct IdentityMatchError;

impl IdentityMatch {
    /// Whether it means this identity; nobody's is empty.
    pub fn takes(&self, identity: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(start) => identity.starts_with(start),
            None => identity == self.0,
        }
    }
}

impl std::str::FromStr for IdentityMatch {
    type Err = IdentityMatchError;

    fn from_str(text: &str) -> Result<Self, IdentityMatchError> {
        let rest = text.strip_prefix("spiffe://").ok_or(IdentityMatchError)?;
        let body = rest.strip_suffix('*').unwrap_or(rest);
        let valid = |b: u8| b.is_ascii_alphanumeric() || b"-._/".contains(&b);
        if rest.is_empty() || text.len() > 2048 || !body.bytes().all(valid) {
            return Err(IdentityMatchError);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for IdentityMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How many requests there may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// A request must be within all that match.
    pub limits: Vec<Limit>,
    /// Whether responses say how much is left.
    pub headers: bool,
    /// Who counts what is counted for the whole mesh; `None` where nobody does.
    pub service: Option<RateLimitService>,
}

/// A service that counts for the whole mesh, in Envoy's protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimitService {
    /// Its name.
    pub name: ServiceName,
    /// Its port.
    pub port: u16,
    /// For one answer.
    pub timeout: Duration,
}

impl fmt::Display for RateLimitService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, namespace) = (self.name.name(), self.name.namespace());
        write!(f, "{name}.{namespace}:{}", self.port)
    }
}

/// One limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// Name, for logs and clients.
    pub name: String,
    /// Which requests are counted.
    pub condition: Condition,
    /// What tells those apart that are counted apart; empty: all are counted together.
    pub key: Vec<Key>,
    /// So many.
    pub requests: u32,
    /// In so much time; not 0.
    pub per: Duration,
    /// As many at once, at least 1.
    pub burst: u32,
    /// How it is counted; in fixed windows, if for the whole mesh.
    pub algorithm: Algorithm,
    /// Who counts.
    pub scope: Scope,
}

impl Limits {
    /// Whether some of it is counted for the whole mesh.
    pub fn has_global(&self) -> bool {
        let mut limits = self.limits.iter();
        limits.any(|limit| limit.scope != Scope::Local)
    }
}

/// Who counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scope {
    /// Each proxy for itself.
    #[default]
    Local,
    /// A service for the whole mesh.
    Global(FailureMode),
}

/// What becomes of requests while a service that decides about them does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FailureMode {
    /// They pass.
    #[default]
    Open,
    /// They are refused.
    Closed,
}

/// A part of what tells requests apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// The value of a header.
    Header(HeaderName),
    /// The value of a cookie.
    Cookie(String),
    /// Who asks, as its certificate says.
    Identity,
    /// The address that the request came from.
    SourceIp,
    /// The path, without query.
    Path,
    /// The method.
    Method,
}

/// How requests are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Algorithm {
    /// A bucket of `burst` tokens, refilled at an even pace.
    #[default]
    TokenBucket,
    /// This window's requests and a share of the last one's, by how much of it is still in sight.
    SlidingWindow,
    /// This window's requests alone.
    FixedWindow,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_taken_whole_or_by_their_start() {
        let one: IdentityMatch = "spiffe://mesh.local/ns/shop/sa/web".parse().expect("valid");
        let all: IdentityMatch = "spiffe://mesh.local/ns/shop/*".parse().expect("valid");
        for (identity, by_one, by_all) in [
            ("spiffe://mesh.local/ns/shop/sa/web", true, true),
            ("spiffe://mesh.local/ns/shop/sa/web2", false, true),
            ("spiffe://mesh.local/ns/shop2/sa/web", false, false),
            ("", false, false),
        ] {
            assert_eq!((one.takes(identity), all.takes(identity)), (by_one, by_all));
        }
        for wrong in ["", "web", "spiffe://", "spiffe://a/*/b", "spiffe://a b"] {
            assert!(wrong.parse::<IdentityMatch>().is_err(), "{wrong}");
        }
    }
}
