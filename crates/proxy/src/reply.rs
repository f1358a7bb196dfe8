//! Responses that the proxy itself makes, always with the reason: `Proxy-Status` for programs
//! (RFC 9209), a line of text for people, `grpc-status` for gRPC clients.

use model::Reason;
use wire::Fields;

use crate::error::{Failure, Manner};
use crate::headers::{PEER_FAILURE, PROXY_STATUS};
use crate::http::{Outgoing, Reply};

/// Longest `details`, so that no peer's text makes a header too large.
const DETAILS_LIMIT: usize = 400;

/// The response to a request that failed in the proxy's hands.
pub(crate) fn failure(failure: &Failure, grpc: bool) -> Reply {
    let mut fields = Fields::new();
    let reason = failure.reason;
    let (status, text) = if grpc {
        grpc_fields(failure, &mut fields);
        (200, String::new())
    } else {
        fields.append("content-type", b"text/plain; charset=utf-8");
        let text = format!(
            "tulle: {reason}: {}\n{}\n{}\n",
            failure.details,
            reason.meaning(),
            reason.remedy()
        );
        (failure.status(), text)
    };
    fields.append(PROXY_STATUS, proxy_status(failure).as_bytes());
    match &failure.manner {
        Manner::With(more) => {
            for (name, value) in more.iter() {
                fields.append(&String::from_utf8_lossy(name), value);
            }
        }
        Manner::Reset => return Reply::bare_of(status, fields, Outgoing::Reset),
        Manner::Usual | Manner::Grpc(_) => {}
    }
    Reply::own(status, fields, text)
}

/// Tells the calling proxy why, and whether it may try elsewhere.
pub(crate) fn tell_peer(reply: &mut Reply, failure: &Failure) {
    let fields = &mut reply.head.fields;
    fields.set(PEER_FAILURE, failure.for_peer().as_bytes());
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
fn grpc_fields(failure: &Failure, fields: &mut Fields) {
    fields.append("content-type", b"application/grpc");
    fields.append("grpc-status", grpc_status(failure).to_string().as_bytes());
    let message: String = format!("tulle: {}: {}", failure.reason, failure.details)
        .chars()
        .take(DETAILS_LIMIT)
        .map(|c| if c == '%' { '?' } else { printable(c) })
        .collect();
    fields.append("grpc-message", message.as_bytes());
}

/// The gRPC status for a reason, as Envoy maps the HTTP status it would have sent.
fn grpc_status(failure: &Failure) -> u16 {
    if let Manner::Grpc(status) = failure.manner {
        return status.into();
    }
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
        assert_eq!(reply.head.status, 503);
        assert_eq!(
            reply.head.fields.get_str(PROXY_STATUS).expect("told"),
            "tulle; error=destination_unavailable; details=\"no_endpoints: service 'a/b'?has none\""
        );
    }

    #[test]
    fn a_grpc_client_gets_a_grpc_status() {
        let reply = failure(&Failure::new(Reason::NoEndpoints, "none"), true);
        assert_eq!(reply.head.status, 200);
        assert_eq!(reply.head.fields.get("grpc-status"), Some(&b"14"[..]));
    }
}
