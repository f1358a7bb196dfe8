//! Routes: which requests to a service go where, changed how.
//!
//! `HTTPRoute` and `GRPCRoute` become the same [`Route`]; a gRPC method is a path. Precedence
//! between matches is Gateway API's and lives in the `policy` crate.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};

use crate::gateway::{Attachment, GatewayName};
use crate::name::{ObjectName, ServiceName};
use crate::pattern::Pattern;
use crate::retry;
use crate::session;

/// The kind of object a route was written as.
///
/// Routes for connections and datagrams are among these where a service is their parent: all that
/// belongs to a service travels in one collection. Those of a Gateway's listeners are
/// [`StreamRoute`](crate::gateway::StreamRoute)s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteKind {
    /// `HTTPRoute`.
    Http,
    /// `GRPCRoute`.
    Grpc,
    /// `TLSRoute`.
    Tls,
    /// `TCPRoute`.
    Tcp,
    /// `UDPRoute`.
    Udp,
}

impl RouteKind {
    /// The kind as Gateway API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTPRoute",
            Self::Grpc => "GRPCRoute",
            Self::Tls => "TLSRoute",
            Self::Tcp => "TCPRoute",
            Self::Udp => "UDPRoute",
        }
    }

    /// Whether it is for requests, which its rules tell apart; the others have one rule for all.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Grpc)
    }
}

impl fmt::Display for RouteKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A route as attached to one parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// What it was written as.
    pub kind: RouteKind,
    /// Its own name.
    pub name: ObjectName,
    /// Whose requests it steers.
    pub parent: Parent,
    /// The port of the service that is its parent; `None` for all ports, and for Gateways.
    pub port: Option<u16>,
    /// Seconds since 1970 at which it was created: older routes win ties.
    pub created: u64,
    /// Rules, in the order written.
    pub rules: Vec<Rule>,
}

impl Route {
    /// The namespace whose clients alone it steers: its own, where its parent is a service of
    /// another. That makes it a consumer route (GEP-1426, Namespace boundaries); one in its
    /// service's own namespace, a producer route, is for clients of every namespace.
    pub fn consumers(&self) -> Option<&str> {
        let service = self.parent.service()?;
        let own = self.name.namespace();
        (own != service.namespace()).then_some(own)
    }
}

/// Whose requests a route steers.
#[derive(Clone, PartialEq, Eq)]
pub enum Parent {
    /// Those of a service's clients; of which namespace, [`Route::consumers`] says.
    Service(ServiceName),
    /// Those that come in through a Gateway.
    Gateway {
        /// The Gateway.
        gateway: GatewayName,
        /// The listeners it is attached to; at least one.
        attachments: Vec<Attachment>,
    },
}

impl Parent {
    /// The service, if it is one.
    pub fn service(&self) -> Option<&ServiceName> {
        match self {
            Self::Service(name) => Some(name),
            Self::Gateway { .. } => None,
        }
    }

    /// The Gateway, if it is one.
    pub fn gateway(&self) -> Option<&GatewayName> {
        match self {
            Self::Service(_) => None,
            Self::Gateway { gateway, .. } => Some(gateway),
        }
    }
}

impl fmt::Debug for Parent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => fmt::Debug::fmt(name, f),
            Self::Gateway {
                gateway,
                attachments,
            } => f
                .debug_struct("Gateway")
                .field("gateway", gateway)
                .field("attachments", attachments)
                .finish(),
        }
    }
}

/// One rule of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Name, if the user gave one.
    pub name: Option<String>,
    /// Any of these must match; never empty (a rule without matches has one that takes all).
    pub matches: Vec<Match>,
    /// Applied in the order written.
    pub filters: Vec<Filter>,
    /// Where requests go, by weight. Empty: answered with 500 unless a filter answers.
    pub backends: Vec<Backend>,
    /// Bounds on time.
    pub timeouts: Timeouts,
    /// Retries; `None` leaves it to the backend's policy.
    pub retry: Option<retry::Policy>,
    /// Whether and how a client keeps its endpoint.
    pub session: Option<session::Persistence>,
}

/// Conditions that must all hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Match {
    /// On the path.
    pub path: PathMatch,
    /// On headers, each name once.
    pub headers: Vec<HeaderMatch>,
    /// On query parameters, each name once.
    pub query: Vec<QueryMatch>,
    /// On the method.
    pub method: Option<Method>,
}

/// A condition on the path (without its query).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    /// The whole path.
    Exact(String),
    /// Whole path elements from the start; `/` takes all. Never ends in `/` otherwise.
    Prefix(String),
    /// A regular expression over the whole path.
    Regex(Pattern),
    /// A gRPC method of whatever service: the path's last element.
    GrpcMethod(String),
}

impl Default for PathMatch {
    fn default() -> Self {
        Self::Prefix("/".into())
    }
}

/// A condition on a header; several values count as one, joined by commas (RFC 9110 5.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderMatch {
    /// Name.
    pub name: HeaderName,
    /// Value.
    pub value: ValueMatch,
}

/// A condition on a query parameter; only its first occurrence counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryMatch {
    /// Name, decoded.
    pub name: String,
    /// Value.
    pub value: ValueMatch,
}

/// A condition on a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueMatch {
    /// The same bytes.
    Exact(String),
    /// A regular expression over the whole value.
    Regex(Pattern),
}

/// A change to a request or response, or an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// Changes headers of the request.
    RequestHeaders(HeaderChange),
    /// Changes headers of the response.
    ResponseHeaders(HeaderChange),
    /// Answers with a redirect.
    Redirect(Redirect),
    /// Changes host or path of the request.
    Rewrite(Rewrite),
    /// Answers browsers that ask whether pages of other origins may send such a request, and says so
    /// in the responses to those that do.
    Cors(Cors),
    /// Sends a copy of the request elsewhere too, whose response nobody sees.
    Mirror(Mirror),
}

/// Where copies of requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// To whom.
    pub target: Target,
    /// Of how many requests.
    pub share: Fraction,
}

/// A share of requests, drawn for each by chance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fraction {
    numerator: u32,
    denominator: u32,
}

/// What is written is no share: more than all, or of none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no share: the denominator must be at least 1 and the numerator at most as large")]
pub struct FractionError;

impl Fraction {
    /// All of them.
    pub const ALL: Self = Self {
        numerator: 1,
        denominator: 1,
    };

    /// So many of so many.
    pub fn new(numerator: u32, denominator: u32) -> Result<Self, FractionError> {
        if denominator == 0 || numerator > denominator {
            return Err(FractionError);
        }
        Ok(Self {
            numerator,
            denominator,
        })
    }

    /// So many.
    pub fn numerator(self) -> u32 {
        self.numerator
    }

    /// Of so many.
    pub fn denominator(self) -> u32 {
        self.denominator
    }

    /// Whether a request that drew this number is among them; all numbers are as likely.
    pub fn takes(self, drawn: u32) -> bool {
        // A multiplication in place of a remainder: no number of the range is favoured.
        let place = (u64::from(drawn) * u64::from(self.denominator)) >> 32;
        place < u64::from(self.numerator)
    }
}

/// Cross-origin resource sharing (Fetch Standard 3.3). A list that is [`All`](Listed::All) takes
/// everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// Pages of which origins.
    pub origins: Listed<OriginMatch>,
    /// Whether they may send cookies and other credentials.
    pub credentials: bool,
    /// Methods beside `GET`, `HEAD` and `POST`.
    pub methods: Listed<Method>,
    /// Request headers.
    pub headers: Listed<HeaderName>,
    /// Response headers that scripts may read.
    pub exposed: Listed<HeaderName>,
    /// For how many seconds the answer may be kept.
    pub max_age: u32,
}

/// A list, or everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed<T> {
    /// `*`.
    All,
    /// These.
    Only(Vec<T>),
}

/// Which origins are meant: `<scheme>://<host>(:<port>)`, the host perhaps `*` or begun with `*.`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginMatch {
    https: bool,
    /// In lower case; begun with `.` it stands for all hosts that end so, and empty for all.
    host: String,
    port: u16,
}

/// What is written is no origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no origin: http or https, then \"://\", a host, and perhaps a port")]
pub struct OriginError;

impl OriginMatch {
    /// Whether it means this origin, as a request's `Origin` says it.
    pub fn matches(&self, origin: &str) -> bool {
        let Some((https, host, port)) = split_origin(origin) else {
            return false;
        };
        let host = host.to_ascii_lowercase();
        let named = match self.host.as_bytes() {
            [] => true,
            [b'.', ..] => host.len() > self.host.len() && host.ends_with(&self.host),
            _ => host == self.host,
        };
        named && https == self.https && port == self.port
    }
}

/// Scheme, host and port.
fn split_origin(text: &str) -> Option<(bool, &str, u16)> {
    let (https, rest) = match text.strip_prefix("https://") {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix("http://")?),
    };
    // A host in brackets has colons of its own.
    let colon = rest.rfind(':').filter(|at| !rest[*at..].contains(']'));
    let (host, port) = match colon {
        Some(at) => (&rest[..at], rest[at + 1..].parse().ok()?),
        None => (rest, if https { 443 } else { 80 }),
    };
    (!host.is_empty()).then_some((https, host, port))
}

impl FromStr for OriginMatch {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let (https, host, port) = split_origin(text).ok_or(OriginError)?;
        let host = match host.strip_prefix('*') {
            Some("") => "",
            Some(suffix) if suffix.starts_with('.') => suffix,
            Some(_) => return Err(OriginError),
            None => host,
        };
        let label = |label: &str| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        let labels = host.strip_prefix('.').unwrap_or(host);
        if port == 0 || !(host.is_empty() || labels.split('.').all(label)) {
            return Err(OriginError);
        }
        Ok(Self {
            https,
            host: host.to_ascii_lowercase(),
            port,
        })
    }
}

impl fmt::Display for OriginMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, usual) = if self.https {
            ("https", 443)
        } else {
            ("http", 80)
        };
        let star = match self.host.as_bytes() {
            [] | [b'.', ..] => "*",
            _ => "",
        };
        write!(f, "{scheme}://{star}{}", self.host)?;
        if self.port == usual {
            return Ok(());
        }
        write!(f, ":{}", self.port)
    }
}

/// Headers to set, add and remove, in that order of application: set, add, remove.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderChange {
    /// Replaced or added.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Added beside what is there.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Taken out.
    pub remove: Vec<HeaderName>,
}

/// A redirect; what is `None` stays as the request had it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<String>,
    /// Host without port.
    pub hostname: Option<String>,
    /// Path.
    pub path: Option<PathChange>,
    /// Port.
    pub port: Option<u16>,
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
}

/// A rewrite; what is `None` stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rewrite {
    /// New `Host`.
    pub hostname: Option<String>,
    /// New path.
    pub path: Option<PathChange>,
}

/// A change of path; the query stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathChange {
    /// This path instead.
    Full(String),
    /// This instead of the prefix that matched.
    Prefix(String),
}

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// The service, or why there is none.
    pub target: Target,
    /// Share of the requests; 0 gets none.
    pub weight: u32,
    /// Applied only to requests that go here.
    pub filters: Vec<Filter>,
}

/// The target of a backend reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A port of a service.
    Service {
        /// The service.
        name: ServiceName,
        /// Its port.
        port: u16,
    },
    /// A reference that leads nowhere: its share of the requests gets a 500 (Gateway API).
    Invalid {
        /// Why.
        reason: Arc<str>,
    },
}

/// Bounds on time; `None` leaves it to the backend's policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timeouts {
    /// From the request's arrival to the response's end, all tries included. Zero: none.
    pub request: Option<Duration>,
    /// For one try, to the response's headers and body. Zero: none.
    pub per_try: Option<Duration>,
}
