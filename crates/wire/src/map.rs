//! Heads to and from the types of the `http` crate, for the HTTP/2 and HTTP/3 edges.
//!
//! What comes from there is held to the rules of HTTP/1 too (RFC 9113 8.2.1, 10.3): it may leave by
//! HTTP/1, where a field or path that ends a line would be a second request. What the `http` types
//! cannot hold (upper case, pseudo-header fields) the engine below has refused.
use http::header::{self, InvalidHeaderName};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, request,
    response, uri,
};

use crate::Fields;
use crate::grammar::{self, is_target_byte};
use crate::h1::{self, HeadError, Target};
use crate::head::{RequestHead, ResponseHead, Scheme};
use crate::host;
use crate::name::{self, InTrailer, Special};

/// Reads a request's parts into `head`, which is cleared first.
///
/// `TE: trailers` stays in the fields, as does `Host`; several `cookie` fields become one (RFC 9113
/// 8.2.3). `:protocol` is not in the parts: for an extended `CONNECT` the caller sets
/// [`RequestHead::protocol`].
///
/// The map of the parts is kept beside the fields, for [`take_map`].
pub fn request_from_parts(
    parts: &mut request::Parts,
    head: &mut RequestHead,
) -> Result<(), HeadError> {
    head.clear();
    head.method.clone_from(&parts.method);
    head.version = parts.version;
    head.scheme = match parts.uri.scheme_str() {
        None => None,
        Some("http") => Some(Scheme::Http),
        Some("https") => Some(Scheme::Https),
        Some(_) => return Err(HeadError::BadTarget("its scheme is neither http nor https")),
    };
    let whole = take_fields(&mut parts.headers, &mut head.fields)?;
    take_authority(parts, head)?;
    take_path(parts, head)?;
    keep(&mut parts.headers, &mut head.fields, whole);
    head.uri = std::mem::take(&mut parts.uri);
    join_cookies(&mut head.fields);
    Ok(())
}

/// Reads a response's parts into `head`, which is cleared first. The map of the parts is kept beside
/// the fields, for [`take_map`].
pub fn response_from_parts(
    parts: &mut response::Parts,
    head: &mut ResponseHead,
) -> Result<(), HeadError> {
    head.clear();
    head.status = parts.status.as_u16();
    head.version = parts.version;
    let whole = take_fields(&mut parts.headers, &mut head.fields)?;
    keep(&mut parts.headers, &mut head.fields, whole);
    Ok(())
}

/// The map that a head's fields were read from, with all that was changed since, without what may not
/// stand in HTTP/2. `None` if they come from elsewhere, or were changed in ways that are not followed.
pub fn take_map(fields: &mut Fields) -> Option<HeaderMap> {
    let (mut map, known) = fields.take_kept()?;
    add(fields, known, &mut map, passes);
    Some(map)
}

/// The fields of a trailer section as a map: names in lower case, order kept among fields of one name.
/// A field that a map cannot hold (none that was read from the wire) is left out, and so are those
/// beyond what a map can hold.
pub fn map_from_trailers(mut fields: Fields) -> HeaderMap {
    let (mut map, known) = fields.take_kept().unwrap_or_default();
    add(&fields, known, &mut map, |_| true);
    map
}

/// The fields of a trailer section, without those that a trailer may not say (RFC 9110 6.5.1). Where
/// one of them would frame or route, that is all that is done about it: HTTP/2 frames by itself.
pub fn trailers_from_map(map: HeaderMap) -> Fields {
    let mut fields = Fields::new();
    let mut whole = true;
    for (name, sent) in &map {
        let value = grammar::trim(sent.as_bytes());
        let kept = name::in_trailer(name.as_str().as_bytes()) == InTrailer::Keep;
        if kept {
            fields.append(name.as_str(), value);
        }
        whole &= kept && value.len() == sent.len();
    }
    if whole && fields.len() == map.len() {
        fields.keep_map(map);
    }
    fields
}

/// A request for HTTP/2 or HTTP/3, its fields in `map`: what [`take_map`] gave, or an empty one to be
/// filled. `Host` and the fields of a connection are left out (RFC 9113 8.2.2, 8.3.1), `TE: trailers` is
/// kept.
pub fn request_to_http(
    head: &RequestHead,
    target: &Target<'_>,
    scheme: Scheme,
    mut map: HeaderMap,
) -> Result<http::Request<()>, http::Error> {
    let mut uri = uri::Parts::default();
    let sent = head.uri.authority();
    uri.authority = Some(
        match sent.filter(|sent| sent.as_str() == target.authority) {
            Some(sent) => sent.clone(),
            None => target.authority.try_into()?,
        },
    );
    if head.method != Method::CONNECT || head.protocol.is_some() {
        uri.scheme = Some(match scheme {
            Scheme::Http => uri::Scheme::HTTP,
            Scheme::Https => uri::Scheme::HTTPS,
        });
        let sent = head.uri.path_and_query();
        uri.path_and_query = Some(match sent.filter(|sent| sent.as_str() == target.path) {
            Some(sent) => sent.clone(),
            None => path_and_query(target.path)?,
        });
    }
    fill(&mut map, &head.fields);
    if head.fields.get_all("te").any(is_trailers) {
        map.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    let mut request = Request::new(());
    *request.method_mut() = head.method.clone();
    *request.version_mut() = http::Version::HTTP_2;
    *request.uri_mut() = Uri::from_parts(uri)?;
    *request.headers_mut() = map;
    Ok(request)
}

/// A response for HTTP/2 or HTTP/3, its fields in `map`: what [`take_map`] gave, or an empty one to be
/// filled. Fields of a connection are left out (RFC 9113 8.2.2).
pub fn response_to_http(
    head: &ResponseHead,
    mut map: HeaderMap,
) -> Result<http::Response<()>, http::Error> {
    fill(&mut map, &head.fields);
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(head.status)?;
    *response.version_mut() = http::Version::HTTP_2;
    *response.headers_mut() = map;
    Ok(response)
}

/// Whether a field may stand in HTTP/2, `TE` aside.
pub(crate) fn passes(special: Option<Special>) -> bool {
    matches!(
        special,
        None | Some(Special::ContentLength | Special::Expect)
    )
}

fn fill(map: &mut HeaderMap, fields: &Fields) {
    if map.is_empty() {
        add(fields, 0, map, passes);
    }
}

/// Adds the fields behind the first `known`.
fn add(
    fields: &Fields,
    known: usize,
    map: &mut HeaderMap,
    passes: impl Fn(Option<Special>) -> bool,
) {
    for (name, value, special) in fields.iter_known().skip(known) {
        if passes(special)
            && let Some((name, value)) = field(name, value)
        {
            // Fails only when the map is full.
            let _ = map.try_append(name, value);
        }
    }
}

/// A field in the words of `http`.
pub(crate) fn field(name: &[u8], value: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let mut value = HeaderValue::from_bytes(value).ok()?;
    value.set_sensitive(is_unique(name));
    Some((header_name(name).ok()?, value))
}

/// Whether the field says something else in each message: to index it would only drive others out of
/// the peer's table (RFC 7541 6.2.3).
fn is_unique(name: &[u8]) -> bool {
    matches!(name, b"traceparent" | b"x-request-id")
}

/// The name as `http` has it. Those that most messages have are ready: to make one costs a search, and
/// memory if `http` does not know it either.
fn header_name(name: &[u8]) -> Result<HeaderName, InvalidHeaderName> {
    Ok(match name {
        b"accept" => header::ACCEPT,
        b"accept-encoding" => header::ACCEPT_ENCODING,
        b"content-length" => header::CONTENT_LENGTH,
        b"content-type" => header::CONTENT_TYPE,
        b"date" => header::DATE,
        b"server" => header::SERVER,
        b"user-agent" => header::USER_AGENT,
        b"grpc-accept-encoding" => const { HeaderName::from_static("grpc-accept-encoding") },
        b"grpc-encoding" => const { HeaderName::from_static("grpc-encoding") },
        b"grpc-message" => const { HeaderName::from_static("grpc-message") },
        b"grpc-status" => const { HeaderName::from_static("grpc-status") },
        b"grpc-timeout" => const { HeaderName::from_static("grpc-timeout") },
        b"traceparent" => const { HeaderName::from_static("traceparent") },
        b"x-forwarded-for" => const { HeaderName::from_static("x-forwarded-for") },
        b"x-forwarded-host" => const { HeaderName::from_static("x-forwarded-host") },
        b"x-forwarded-proto" => const { HeaderName::from_static("x-forwarded-proto") },
        b"x-request-id" => const { HeaderName::from_static("x-request-id") },
        _ => return HeaderName::from_bytes(name),
    })
}

/// Adds all fields of a map; whether it says the same, and nothing that may not go on. Blanks at the ends of values are left out, as HTTP/1 has it. RFC 9113 8.2.2:
/// fields of a connection make a message malformed. RFC 9113 8.1.1: so does a length that is none.
fn take_fields(map: &mut HeaderMap, out: &mut Fields) -> Result<bool, HeadError> {
    let mut lengths = 0;
    let mut whole = true;
    for (name, sent) in &mut *map {
        let value = sent.as_bytes();
        let special = name::special(name.as_str().as_bytes());
        match special {
            Some(Special::Host) => whole = false,
            Some(Special::ContentLength) => {
                lengths += 1;
                if lengths > 1 || h1::parse_length(value).is_none() {
                    return Err(HeadError::BadLength);
                }
            }
            Some(Special::Expect) if !value.eq_ignore_ascii_case(b"100-continue") => {
                return Err(HeadError::BadExpect);
            }
            Some(Special::Te) if !is_trailers(value) => {
                return Err(HeadError::field(
                    b"te",
                    "only `trailers` may stand in it in HTTP/2",
                ));
            }
            None | Some(Special::Expect | Special::Te) => {}
            Some(
                Special::TransferEncoding
                | Special::Connection
                | Special::Upgrade
                | Special::Http2Settings
                | Special::HopByHop,
            ) => {
                // Clients of a proxy may send this one; it is dropped as in HTTP/1.
                if name == header::PROXY_AUTHORIZATION {
                    whole = false;
                    continue;
                }
                return Err(HeadError::field(
                    name.as_str().as_bytes(),
                    "it concerns a connection of HTTP/1 and may not stand in HTTP/2",
                ));
            }
        }
        let trimmed = grammar::trim(value);
        whole &= trimmed.len() == value.len();
        out.append_known(name.as_str(), trimmed, special);
        if is_unique(name.as_str().as_bytes()) {
            sent.set_sensitive(true);
        }
    }
    Ok(whole && out.len() == map.len())
}

/// Keeps a map beside the fields that were read from it, if it can go on as it is.
fn keep(map: &mut HeaderMap, fields: &mut Fields, whole: bool) {
    if whole {
        fields.keep_map(std::mem::take(map));
    }
}

fn is_trailers(value: &[u8]) -> bool {
    value.eq_ignore_ascii_case(b"trailers")
}

/// RFC 9113 8.3.1: `:authority`, which `Host` must not contradict, else `Host`.
fn take_authority(parts: &request::Parts, head: &mut RequestHead) -> Result<(), HeadError> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let named = hosts.next().map(|value| grammar::trim(value.as_bytes()));
    if hosts.next().is_some() {
        return Err(HeadError::BadHost);
    }
    let told = parts
        .uri
        .authority()
        .map(|authority| authority.as_str().as_bytes());
    let authority = match (told, named) {
        (Some(told), Some(named)) if !told.eq_ignore_ascii_case(named) => {
            return Err(HeadError::BadHost);
        }
        (Some(told), _) => told,
        (None, Some(named)) => named,
        (None, None) => b"",
    };
    if !authority.is_empty() && !host::is_authority(authority) {
        return Err(HeadError::BadHost);
    }
    let text = std::str::from_utf8(authority).map_err(|_| HeadError::BadHost)?;
    head.authority.push_str(text);
    Ok(())
}

/// RFC 9113 8.3.1: a path that HTTP/1 could carry; none for a plain `CONNECT`.
fn take_path(parts: &request::Parts, head: &mut RequestHead) -> Result<(), HeadError> {
    let Some(path) = parts.uri.path_and_query() else {
        return if parts.method == Method::CONNECT {
            Ok(())
        } else {
            Err(HeadError::BadTarget("there is no path"))
        };
    };
    if !path.as_str().bytes().all(is_target_byte) {
        return Err(HeadError::BadTarget(
            "it holds a control character, a byte beyond ASCII or `#`",
        ));
    }
    if !h1::is_origin_form(path.as_str(), &parts.method) {
        return Err(HeadError::BadTarget("the path does not begin with `/`"));
    }
    head.path.push_str(path.as_str());
    Ok(())
}

/// RFC 9113 8.2.3: what HTTP/2 may split for compression is one field elsewhere.
fn join_cookies(fields: &mut Fields) {
    let mut cookies = fields.get_all("cookie");
    let (Some(first), Some(second)) = (cookies.next(), cookies.next()) else {
        return;
    };
    let mut joined = first.to_vec();
    for cookie in std::iter::once(second).chain(cookies) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(cookie);
    }
    fields.set("cookie", &joined);
}

/// The few visible characters that `http::Uri` does not take are percent-encoded, which names the same
/// resource (RFC 3986 6.2.2.2 does not list them as reserved).
fn path_and_query(path: &str) -> Result<uri::PathAndQuery, uri::InvalidUri> {
    const OTHERS: [char; 4] = ['"', '<', '>', '`'];
    if path.is_empty() {
        return Ok(uri::PathAndQuery::from_static("/"));
    }
    if !path.contains(OTHERS) {
        return path.try_into();
    }
    let mut out = String::with_capacity(path.len() + 8);
    for letter in path.chars() {
        match letter {
            '"' => out.push_str("%22"),
            '<' => out.push_str("%3C"),
            '>' => out.push_str("%3E"),
            '`' => out.push_str("%60"),
            _ => out.push(letter),
        }
    }
    out.try_into()
}
