//! Responses that the proxy itself makes, always with the reason: `Proxy-Status` for programs
//! (RFC 9209), a line of text for people, `grpc-status` for gRPC clients.

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use model::Reason;

use crate::body::ResponseBody;
use crate::error::Failure;
use crate::headers::{PEER_FAILURE, PROXY_STATUS};

/// Longest `details`, so that no peer's text makes a header too large.
const DETAILS_LIMIT: usize = 400;

/// The response to a request that failed in the proxy's hands.
pub(crate) fn failure(failure: &Failure, grpc: bool) -> Response<ResponseBody> {
    let reason = failure.reason;
    let mut response = if grpc {
        grpc_reply(failure)
    } else {
        let text = format!(
            "tulle: {reason}: {}\n{}\n{}\n",
            failure.details,
            reason.meaning(),
            reason.remedy()
        );
        let mut response = Response::new(ResponseBody::text(text));
        *response.status_mut() =
            StatusCode::from_u16(failure.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.headers_mut().insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        response
    };
    if let Ok(value) = HeaderValue::try_from(proxy_status(failure)) {
        response.headers_mut().insert(PROXY_STATUS, value);
    }
    response
}

/// Tells the calling proxy why, and whether it may try elsewhere.
pub(crate) fn tell_peer(response: &mut Response<ResponseBody>, failure: &Failure) {
    if let Ok(value) = HeaderValue::try_from(failure.for_peer()) {
        response.headers_mut().insert(PEER_FAILURE, value);
    }
}

/// The value of `Proxy-Status`.
pub(crate) fn proxy_status(failure: &Failure) -> String {
    let details: String = failure
        .details
        .chars()
        .take(DETAILS_LIMIT)
        .map(printable)
        .collect();
    format!(
        "tulle; error={}; details=\"{}: {details}\"",
        failure.reason.proxy_error(),
        failure.reason
    )
}

/// RFC 8941 strings hold printable ASCII; quotes and backslashes would need escapes.
fn printable(c: char) -> char {
    match c {
        '"' => '\'',
        '\\' => '/',
        ' '..='~' => c,
        _ => '?',
    }
}

/// gRPC over HTTP/2: errors are told in a trailers-only response with HTTP status 200.
fn grpc_reply(failure: &Failure) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(grpc_status(failure)));
    let message: String = format!("tulle: {}: {}", failure.reason, failure.details)
        .chars()
        .take(DETAILS_LIMIT)
        .map(|c| if c == '%' { '?' } else { printable(c) })
        .collect();
    if let Ok(value) = HeaderValue::try_from(message) {
        headers.insert("grpc-message", value);
    }
    response
}

/// The gRPC status for a reason, as Envoy maps the HTTP status it would have sent.
fn grpc_status(failure: &Failure) -> u16 {
    match failure.reason {
        Reason::RequestTimeout | Reason::TryTimeout | Reason::StreamIdleTimeout => 4,
        Reason::NoRoute if failure.status() == 404 => 12,
        Reason::Denied => 7,
        Reason::Unauthenticated => 16,
        Reason::RateLimited | Reason::Overloaded | Reason::CircuitOpen => 8,
        Reason::BadRequest
        | Reason::HeaderTooLarge
        | Reason::BodyTooLarge
        | Reason::Internal
        | Reason::ExtensionFailed => 13,
        Reason::ClientDisconnected => 1,
        _ => 14,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_names_the_reason_for_programs_and_people() {
        let reply = failure(
            &Failure::new(Reason::NoEndpoints, "service \"a/b\"\nhas none"),
            false,
        );
        assert_eq!(reply.status(), 503);
        assert_eq!(
            reply.headers()[PROXY_STATUS],
            "tulle; error=destination_unavailable; details=\"no_endpoints: service 'a/b'?has none\""
        );
    }

    #[test]
    fn a_grpc_client_gets_a_grpc_status() {
        let reply = failure(&Failure::new(Reason::NoEndpoints, "none"), true);
        assert_eq!(reply.status(), 200);
        assert_eq!(reply.headers()["grpc-status"], "14");
    }
}
