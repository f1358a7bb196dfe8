//! Headers that the proxy itself reads, writes or takes out.

use http::header::{
    CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Version, request};

/// Set by a proxy on a response that it made in the application's stead, for the calling proxy:
/// the reason, and whether the request may be sent to another endpoint. Never passed on to an
/// application, and taken out of what applications answer.
pub(crate) const PEER_FAILURE: HeaderName = HeaderName::from_static("x-tulle-failure");
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_AUTHORIZATION: HeaderName = HeaderName::from_static("proxy-authorization");

/// Takes out what concerns only one connection (RFC 9110 7.6.1), and says whether the message asks
/// for a change of protocol, in which case `Connection` and `Upgrade` stay.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) -> bool {
    let upgrade = headers.contains_key(UPGRADE)
        && headers
            .get_all(CONNECTION)
            .iter()
            .any(|v| lists(v, "upgrade"));
    // The common case: nothing to look for.
    if let Some(first) = headers.get(CONNECTION) {
        let plain = [b"keep-alive".as_slice(), b"close"]
            .iter()
            .any(|p| first.as_bytes().eq_ignore_ascii_case(p));
        if !plain || headers.get_all(CONNECTION).iter().count() > 1 {
            let named: Vec<HeaderName> = headers
                .get_all(CONNECTION)
                .iter()
                .filter_map(|v| v.to_str().ok())
                .flat_map(|v| v.split(','))
                .filter_map(|name| name.trim().parse().ok())
                .collect();
            for name in named {
                // RFC 9110 7.6.1: end-to-end fields must not be listed; these may not be removed
                // by a client's word.
                let kept = name == HOST
                    || name == http::header::CONTENT_LENGTH
                    || name == TRANSFER_ENCODING
                    || name == http::header::AUTHORIZATION
                    || (upgrade && name == UPGRADE)
                    || name == TE;
                if !kept {
                    headers.remove(name);
                }
            }
        }
        headers.remove(CONNECTION);
    }
    headers.remove(PROXY_CONNECTION);
    headers.remove(KEEP_ALIVE);
    headers.remove(PROXY_AUTHORIZATION);
    if !upgrade {
        headers.remove(UPGRADE);
    }
    // Of TE only `trailers` may pass (RFC 9113 8.2.2).
    if let Some(te) = headers.get(TE)
        && !te.as_bytes().eq_ignore_ascii_case(b"trailers")
    {
        if lists(te, "trailers") {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        } else {
            headers.remove(TE);
        }
    }
    upgrade
}

/// Puts back what asks for a change of protocol.
pub(crate) fn ask_upgrade(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
}

fn lists(value: &HeaderValue, token: &str) -> bool {
    value
        .to_str()
        .is_ok_and(|v| v.split(',').any(|t| t.trim().eq_ignore_ascii_case(token)))
}

/// The authority that a request is for: of the request target, else of `Host`. `None` where there
/// is neither, or where `Host` is no authority or given twice (RFC 9112 3.2).
pub(crate) fn authority(uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    if let Some(authority) = uri.authority() {
        return Some(authority.clone());
    }
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next()?;
    if hosts.next().is_some() {
        return None;
    }
    Authority::try_from(host.as_bytes()).ok()
}

/// Puts the authority of an HTTP/2 request where rules that match on `host` look for it.
pub(crate) fn ensure_host(headers: &mut HeaderMap, authority: &Authority) {
    if !headers.contains_key(HOST)
        && let Ok(value) = HeaderValue::from_str(authority.as_str())
    {
        headers.insert(HOST, value);
    }
}

/// Puts a request into the form that `version` has on the wire: origin-form and `Host` for
/// HTTP/1.1, scheme and `:authority` for HTTP/2.
pub(crate) fn set_target(
    head: &mut request::Parts,
    authority: &Authority,
    path: PathAndQuery,
    version: Version,
) {
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = Some(path);
    if version == Version::HTTP_2 {
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(authority.clone());
        head.headers.remove(HOST);
        head.headers.remove(TRANSFER_ENCODING);
    } else if head
        .headers
        .get(HOST)
        .is_none_or(|h| h.as_bytes() != authority.as_str().as_bytes())
        && let Ok(value) = HeaderValue::from_str(authority.as_str())
    {
        head.headers.insert(HOST, value);
    }
    // The parts are those of a valid request, so they make a valid URI; if they did not, the
    // request would go out as it came.
    if let Ok(uri) = Uri::from_parts(parts) {
        head.uri = uri;
    }
    head.version = version;
}

/// Whether the request is a gRPC call, whose errors travel in trailers.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(http::header::CONTENT_TYPE).is_some_and(|v| {
        v.as_bytes().starts_with(b"application/grpc")
            && !v.as_bytes().starts_with(b"application/grpc-web")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(n, v)| {
                (
                    n.parse::<HeaderName>().expect("name"),
                    v.parse::<HeaderValue>().expect("value"),
                )
            })
            .fold(HeaderMap::new(), |mut map, (n, v)| {
                map.append(n, v);
                map
            })
    }

    #[test]
    fn what_concerns_one_connection_is_not_passed_on() {
        let mut headers = map(&[
            ("connection", "close, x-secret"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip, trailers"),
            ("upgrade", "h2c"),
            ("x-kept", "1"),
        ]);
        assert!(!strip_hop_by_hop(&mut headers));
        assert_eq!(headers, map(&[("te", "trailers"), ("x-kept", "1")]));
    }

    #[test]
    fn a_client_cannot_have_end_to_end_fields_removed() {
        let mut headers = map(&[
            ("connection", "host, authorization, x"),
            ("host", "a"),
            ("authorization", "b"),
            ("x", "y"),
        ]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&[("host", "a"), ("authorization", "b")]));
    }

    #[test]
    fn a_websocket_upgrade_stays() {
        let mut headers = map(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
        ]);
        assert!(strip_hop_by_hop(&mut headers));
        assert_eq!(headers.get("upgrade").expect("kept"), "websocket");
    }

    #[test]
    fn two_hosts_are_no_authority() {
        let uri: Uri = "/".parse().expect("uri");
        assert_eq!(authority(&uri, &map(&[("host", "a"), ("host", "b")])), None);
        assert_eq!(authority(&uri, &map(&[("host", "a b")])), None);
        assert_eq!(
            authority(&uri, &map(&[("host", "a:80")])).map(|a| a.to_string()),
            Some("a:80".into())
        );
    }
}
