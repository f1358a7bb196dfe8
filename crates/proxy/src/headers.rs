//! Header fields that the proxy itself reads or writes. What concerns only one connection is taken
//! out by the codec (`wire::h1`).

use wire::Fields;

/// Set by a proxy on a response that it made in the application's stead, for the calling proxy:
/// the reason, and whether the request may be sent to another endpoint. Never passed on to an
/// application, and taken out of what applications answer.
pub(crate) const PEER_FAILURE: &str = "x-tulle-failure";
/// In a stream of `tulle-mux`: what follows, by the name that ALPN has for it.
pub(crate) const FORM: &str = "x-tulle-form";
pub(crate) const REQUEST_ID: &str = "x-request-id";
pub(crate) const PROXY_STATUS: &str = "proxy-status";
const GRPC: &[u8] = b"application/grpc";
const GRPC_WEB: &[u8] = b"application/grpc-web";

/// Whether the request is a gRPC call, whose errors travel in trailers.
pub(crate) fn is_grpc(fields: &Fields) -> bool {
    fields
        .get("content-type")
        .is_some_and(|v| v.starts_with(GRPC) && !v.starts_with(GRPC_WEB))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_web_is_not_grpc() {
        for (value, grpc) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc-web+proto", false),
            ("text/plain", false),
        ] {
            let mut fields = Fields::new();
            fields.append("Content-Type", value.as_bytes());
            assert_eq!(is_grpc(&fields), grpc, "{value}");
        }
    }
}
