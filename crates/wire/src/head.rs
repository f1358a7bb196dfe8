//! The heads of requests and responses, whichever version of HTTP they came by.
pub use http::{Method, Version};

use http::Uri;

use crate::Fields;
use crate::host;

/// The scheme of a target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scheme {
    /// `http`
    Http,
    /// `https`
    Https,
}

impl Scheme {
    /// As it is written in a URI.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// What a request says before its content.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// The method; its case is kept.
    pub method: Method,
    /// The version of the message that was read.
    pub version: Version,
    /// Only if the message said so: absolute-form or `:scheme`.
    pub scheme: Option<Scheme>,
    /// Of the target (absolute-form, authority-form, `:authority`), else of `Host`; empty if neither
    /// says one. As sent: letter case and an explicit default port are kept.
    pub authority: String,
    /// Path and query beginning with `/`, or `*`; empty for `CONNECT`.
    pub path: String,
    /// `:protocol` of an extended `CONNECT` (RFC 8441 4).
    pub protocol: Option<String>,
    /// What remained after the fields of the connection were consumed; `Host` among them in HTTP/1.
    pub fields: Fields,
    /// As the engine of HTTP/2 or HTTP/3 read it: what has not changed leaves as it came.
    pub(crate) uri: Uri,
}

impl RequestHead {
    /// A head that holds nothing yet.
    pub fn new() -> Self {
        Self {
            method: Method::GET,
            version: Version::HTTP_11,
            scheme: None,
            authority: String::new(),
            path: String::new(),
            protocol: None,
            fields: Fields::new(),
            uri: Uri::default(),
        }
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.method = Method::GET;
        self.version = Version::HTTP_11;
        self.scheme = None;
        self.authority.clear();
        self.path.clear();
        self.protocol = None;
        self.fields.clear();
        self.uri = Uri::default();
    }

    /// The path without the query.
    pub fn path_only(&self) -> &str {
        self.path
            .split_once('?')
            .map_or(&self.path, |(path, _)| path)
    }

    /// What stands behind the first `?`, if there is one.
    pub fn query(&self) -> Option<&str> {
        self.path.split_once('?').map(|(_, query)| query)
    }

    /// The authority without its port; an IPv6 address keeps its brackets.
    pub fn host(&self) -> &str {
        host::host(&self.authority)
    }

    /// The port of the authority, if it says one.
    pub fn port(&self) -> Option<u16> {
        host::number(&self.authority)
    }
}

impl Default for RequestHead {
    fn default() -> Self {
        Self::new()
    }
}

/// What a response says before its content.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// 100 to 999.
    pub status: u16,
    /// The version of the message that was read.
    pub version: Version,
    /// The phrase as sent; may be empty.
    pub reason: String,
    /// What remained after the fields of the connection were consumed.
    pub fields: Fields,
}

impl ResponseHead {
    /// An empty `200`.
    pub fn new() -> Self {
        Self {
            status: 200,
            version: Version::HTTP_11,
            reason: String::new(),
            fields: Fields::new(),
        }
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.status = 200;
        self.version = Version::HTTP_11;
        self.reason.clear();
        self.fields.clear();
    }
}

impl Default for ResponseHead {
    fn default() -> Self {
        Self::new()
    }
}
