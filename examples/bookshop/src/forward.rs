//! What a traced application passes on from the request it serves to those it makes.

use http::{HeaderMap, HeaderName, HeaderValue};
use tonic::Request;
use tonic::metadata::MetadataMap;

/// Trace context in its usual forms, the request's id, and the shop's own user.
const HEADERS: [&str; 11] = [
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "x-request-id",
    "x-user",
];

/// Headers to pass on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Forward(HeaderMap);

impl Forward {
    /// Those of a request.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut out = HeaderMap::new();
        for name in HEADERS {
            for value in headers.get_all(name) {
                out.append(HeaderName::from_static(name), value.clone());
            }
        }
        Self(out)
    }

    /// With one more.
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.0.insert(name, value);
        }
        self
    }

    /// Adds them to an HTTP request.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        headers.extend(self.0.clone());
    }

    /// A gRPC request with them.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let metadata = MetadataMap::from_headers(self.0.clone());
        Request::from_parts(metadata, tonic::Extensions::default(), message)
    }
}
