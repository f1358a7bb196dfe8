//! Spans, with the attributes of OpenTelemetry's semantic conventions for HTTP (1.23 and later).

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use model::Reason;

use super::Context;

/// Which end of a call a span describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Work inside the process.
    Internal,
    /// A request that was received.
    Server,
    /// A request that was sent.
    Client,
}

/// How a span ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Status {
    /// Nothing went wrong.
    #[default]
    Unset,
    /// It failed, and why.
    Error(Cow<'static, str>),
}

/// An attribute's value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Text.
    Text(Arc<str>),
    /// Text known at build time.
    Word(&'static str),
    /// Number.
    Int(i64),
    /// Number.
    Float(f64),
    /// Yes or no.
    Bool(bool),
}

/// A finished span.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Its place in the trace.
    pub context: Context,
    /// The span above it.
    pub parent: Option<[u8; 8]>,
    /// What was done; few different ones.
    pub name: Cow<'static, str>,
    /// Which end of the call.
    pub kind: Kind,
    /// When it began.
    pub start: SystemTime,
    /// When it ended.
    pub end: SystemTime,
    /// More about it.
    pub attributes: Vec<(&'static str, Value)>,
    /// How it ended.
    pub status: Status,
}

/// What is known of an HTTP request and its response.
#[derive(Debug, Clone, Default)]
pub struct Http<'a> {
    /// Method.
    pub method: &'a str,
    /// `http` or `https`, as the application spoke it.
    pub scheme: &'static str,
    /// Host and port that were asked for.
    pub authority: &'a str,
    /// Path; a query is cut off here.
    pub path: &'a str,
    /// `1.1` or `2`.
    pub version: &'static str,
    /// Status of the response; 0 if there is none.
    pub status: u16,
    /// `grpc-status` of the response; makes it an RPC span.
    pub grpc_status: Option<u8>,
    /// Route that matched; empty if none.
    pub route: &'a str,
    /// The other end of the connection.
    pub peer: Option<SocketAddr>,
    /// `user-agent`.
    pub user_agent: &'a str,
    /// `x-request-id`.
    pub request_id: &'a str,
    /// Body bytes of the request.
    pub request_bytes: u64,
    /// Body bytes of the response.
    pub response_bytes: u64,
    /// Tries made before this one.
    pub resends: u32,
    /// Why the proxy failed it.
    pub reason: Option<Reason>,
}

impl Span {
    /// A span that is `context`, below `parent`.
    pub fn new(context: Context, parent: Option<[u8; 8]>, kind: Kind, start: SystemTime) -> Self {
        Self {
            context,
            parent,
            name: Cow::Borrowed(""),
            kind,
            start,
            end: start,
            attributes: Vec::with_capacity(20),
            status: Status::Unset,
        }
    }

    /// Adds an attribute.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        self.attributes.push((key, value.into()));
    }

    /// Sets name, status and attributes from a request.
    pub fn http(&mut self, http: &Http<'_>) {
        let path = http.path.split(['?', '#']).next().unwrap_or_default();
        if let Some(code) = http.grpc_status {
            self.grpc(path, code);
        } else {
            // The route's name is a name of few values, the path is not.
            self.name = if http.route.is_empty() {
                http.method.to_owned().into()
            } else {
                format!("{} {}", http.method, http.route).into()
            };
        }
        self.set("http.request.method", http.method);
        self.set("url.scheme", http.scheme);
        self.set("url.path", cut(path));
        self.address(http.authority);
        self.set("network.protocol.name", "http");
        if !http.version.is_empty() {
            self.set("network.protocol.version", http.version);
        }
        if http.status != 0 {
            self.set("http.response.status_code", i64::from(http.status));
        }
        if !http.route.is_empty() {
            self.set("tulle.route", http.route);
        }
        if let Some(peer) = http.peer {
            self.set("network.peer.address", peer.ip().to_string().as_str());
            self.set("network.peer.port", i64::from(peer.port()));
        }
        if !http.user_agent.is_empty() {
            self.set("user_agent.original", cut(http.user_agent));
        }
        if !http.request_id.is_empty() {
            self.set("tulle.request_id", cut(http.request_id));
        }
        self.set("http.request.body.size", http.request_bytes as i64);
        self.set("http.response.body.size", http.response_bytes as i64);
        if http.resends > 0 {
            self.set("http.request.resend_count", i64::from(http.resends));
        }
        self.outcome(http);
    }

    fn grpc(&mut self, path: &str, code: u8) {
        let full = path.trim_start_matches('/');
        self.name = cut(full).to_owned().into();
        self.set("rpc.system", "grpc");
        if let Some((service, method)) = full.split_once('/') {
            self.set("rpc.service", cut(service));
            self.set("rpc.method", cut(method));
        }
        self.set("rpc.grpc.status_code", i64::from(code));
    }

    fn address(&mut self, authority: &str) {
        let host = authority.rsplit_once('@').map_or(authority, |(_, h)| h);
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !name.is_empty() && !name.ends_with(':') => {
                (name, port.parse::<u16>().ok())
            }
            _ => (host, None),
        };
        let (name, port) = if port.is_none() {
            (host, None)
        } else {
            (name, port)
        };
        if !name.is_empty() {
            self.set("server.address", cut(name));
        }
        if let Some(port) = port {
            self.set("server.port", i64::from(port));
        }
    }

    /// HTTP: a server's span fails from 500 on, a client's from 400. gRPC: a client's on any code
    /// but 0, a server's on those that are the server's fault.
    fn outcome(&mut self, http: &Http<'_>) {
        let failed = match (http.grpc_status, self.kind) {
            (Some(code), Kind::Server) => matches!(code, 2 | 4 | 12 | 13 | 14 | 15),
            (Some(code), _) => code != 0,
            (None, Kind::Server) => http.status >= 500,
            (None, _) => http.status >= 400,
        };
        if let Some(reason) = http.reason {
            self.set("error.type", reason.as_str());
            self.set("tulle.reason", reason.as_str());
            self.status = Status::Error(reason.as_str().into());
        } else if failed {
            let kind = http.grpc_status.map_or(http.status, u16::from).to_string();
            self.set("error.type", kind.as_str());
            self.status = Status::Error("".into());
        }
    }
}

/// Bounds a text that a client chooses.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(crate::access_log::MAX_TEXT)]
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.into())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value.into())
    }
}

impl From<Arc<str>> for Value {
    fn from(value: Arc<str>) -> Self {
        Self::Text(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(kind: Kind, http: &Http<'_>) -> (Span, Vec<String>) {
        let mut span = Span::new(Context::root(true), None, kind, SystemTime::UNIX_EPOCH);
        span.http(http);
        let keys = span
            .attributes
            .iter()
            .map(|(k, v)| match v {
                Value::Text(t) => format!("{k}={t}"),
                Value::Word(t) => format!("{k}={t}"),
                Value::Int(n) => format!("{k}={n}"),
                Value::Float(n) => format!("{k}={n}"),
                Value::Bool(b) => format!("{k}={b}"),
            })
            .collect();
        (span, keys)
    }

    #[test]
    fn an_http_span_carries_the_conventions_attributes_and_no_query() {
        let (span, keys) = attributes(
            Kind::Server,
            &Http {
                method: "GET",
                scheme: "http",
                authority: "u:p@reviews.bookshop:80",
                path: "/reviews/1?token=secret",
                version: "1.1",
                status: 503,
                route: "bookshop/reviews",
                reason: Some(Reason::NoEndpoints),
                ..Http::default()
            },
        );
        assert_eq!(span.name, "GET bookshop/reviews");
        for want in [
            "http.request.method=GET",
            "url.path=/reviews/1",
            "server.address=reviews.bookshop",
            "server.port=80",
            "http.response.status_code=503",
            "error.type=no_endpoints",
        ] {
            assert!(keys.iter().any(|k| k == want), "{want} not in {keys:?}");
        }
        assert!(
            !keys
                .iter()
                .any(|k| k.contains("secret") || k.contains("u:p"))
        );
        assert_eq!(span.status, Status::Error("no_endpoints".into()));
    }

    #[test]
    fn client_and_server_differ_in_what_is_an_error() {
        let of = |kind, status| {
            let http = Http {
                status,
                ..Http::default()
            };
            attributes(kind, &http).0.status
        };
        assert_eq!(of(Kind::Server, 404), Status::Unset);
        assert_ne!(of(Kind::Client, 404), Status::Unset);
        assert_ne!(of(Kind::Server, 500), Status::Unset);
    }

    #[test]
    fn a_grpc_span_names_service_and_method() {
        let (span, keys) = attributes(
            Kind::Client,
            &Http {
                path: "/bookshop.v1.Catalogue/Get",
                authority: "[::1]:9080",
                grpc_status: Some(5),
                status: 200,
                ..Http::default()
            },
        );
        assert_eq!(span.name, "bookshop.v1.Catalogue/Get");
        assert!(keys.contains(&"rpc.method=Get".to_owned()), "{keys:?}");
        assert!(
            keys.contains(&"server.address=[::1]".to_owned()),
            "{keys:?}"
        );
        assert_ne!(span.status, Status::Unset);
    }
}
