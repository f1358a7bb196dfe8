//! Names of fields that this crate has an opinion about.
//!
//! RFC 9110 7.6.1: what concerns only one connection is consumed by the side that receives it, and
//! so is what the sender names in `Connection`, except fields that a client's word may not remove.

/// A field that framing, routing or the connection depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Special {
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    Upgrade,
    Te,
    Expect,
    Http2Settings,
    /// Concerns one connection only and says nothing that is needed here.
    HopByHop,
}

/// Looks at length and first byte before it compares: for most names that is all.
pub(crate) fn special(name: &[u8]) -> Option<Special> {
    let first = name.first()?.to_ascii_lowercase();
    let (expected, special): (&[u8], Special) = match (name.len(), first) {
        (2, b't') => (b"te", Special::Te),
        (4, b'h') => (b"host", Special::Host),
        (6, b'e') => (b"expect", Special::Expect),
        (7, b'u') => (b"upgrade", Special::Upgrade),
        (10, b'c') => (b"connection", Special::Connection),
        (10, b'k') => (b"keep-alive", Special::HopByHop),
        (14, b'c') => (b"content-length", Special::ContentLength),
        (14, b'h') => (b"http2-settings", Special::Http2Settings),
        (16, b'p') => (b"proxy-connection", Special::HopByHop),
        (17, b't') => (b"transfer-encoding", Special::TransferEncoding),
        (19, b'p') => (b"proxy-authorization", Special::HopByHop),
        _ => return None,
    };
    name.eq_ignore_ascii_case(expected).then_some(special)
}

/// Whether a field of a request never gets beyond the codec: it concerns one connection only, and
/// whoever looks at a request's fields does not find it, whatever the client sent.
pub fn is_consumed(name: &str) -> bool {
    matches!(
        special(name.as_bytes()),
        Some(
            Special::TransferEncoding
                | Special::Connection
                | Special::Http2Settings
                | Special::HopByHop
        )
    )
}

/// Fields that stay whatever `Connection` says: they route, authorise or tell who asks, and a sender
/// that could have them removed would change what the next hop believes.
pub(crate) fn is_end_to_end(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 12] = [
        b"host",
        b"authorization",
        b"cookie",
        b"set-cookie",
        b"cache-control",
        b"expect",
        b"forwarded",
        b"via",
        b"x-real-ip",
        b"x-request-id",
        b"traceparent",
        b"tracestate",
    ];
    const PREFIXES: [&[u8]; 4] = [b"content-", b"x-forwarded-", b"x-tulle-", b"x-envoy-"];
    NAMES.iter().any(|one| name.eq_ignore_ascii_case(one))
        || PREFIXES.iter().any(|one| starts_with(name, one))
}

/// Fields whose values are secrets.
pub(crate) fn is_secret(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 4] = [
        b"authorization",
        b"cookie",
        b"set-cookie",
        b"proxy-authorization",
    ];
    NAMES.iter().any(|one| name.eq_ignore_ascii_case(one))
}

/// What to do with a field of a trailer section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InTrailer {
    Keep,
    Drop,
    Refuse,
}

/// RFC 9110 6.5.1: a trailer must not frame, route, authenticate or say how to process content.
pub(crate) fn in_trailer(name: &[u8]) -> InTrailer {
    const DROPPED: [&[u8]; 38] = [
        b"te",
        b"trailer",
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"upgrade",
        b"http2-settings",
        b"expect",
        b"authorization",
        b"proxy-authorization",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"www-authenticate",
        b"authentication-info",
        b"content-encoding",
        b"content-type",
        b"content-range",
        b"content-location",
        b"cookie",
        b"set-cookie",
        b"age",
        b"cache-control",
        b"expires",
        b"date",
        b"location",
        b"retry-after",
        b"vary",
        b"warning",
        b"pragma",
        b"max-forwards",
        b"range",
        b"if-match",
        b"if-none-match",
        b"if-modified-since",
        b"if-unmodified-since",
        b"if-range",
        b"forwarded",
        b"via",
    ];
    const PREFIXES: [&[u8]; 3] = [b"x-forwarded-", b"x-tulle-", b"x-envoy-"];
    match special(name) {
        Some(Special::TransferEncoding | Special::ContentLength | Special::Host) => {
            InTrailer::Refuse
        }
        _ if DROPPED.iter().any(|one| name.eq_ignore_ascii_case(one))
            || PREFIXES.iter().any(|one| starts_with(name, one)) =>
        {
            InTrailer::Drop
        }
        _ => InTrailer::Keep,
    }
}

fn starts_with(name: &[u8], prefix: &[u8]) -> bool {
    name.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}
