//! Heads to and from the types of the `http` crate, for the HTTP/2 and HTTP/3 edges.
//!
//! What comes from there is held to the rules of HTTP/1 too (RFC 9113 8.2.1, 10.3): it may leave by
//! HTTP/1, where a field or path that ends a line would be a second request. What the `http` types
//! cannot hold (upper case, pseudo-header fields) the engine below has refused.
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, request, response};

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
pub fn request_from_parts(parts: &request::Parts, head: &mut RequestHead) -> Result<(), HeadError> {
    head.clear();
    head.method.clone_from(&parts.method);
    head.version = parts.version;
    head.scheme = match parts.uri.scheme_str() {
        None => None,
        Some("http") => Some(Scheme::Http),
        Some("https") => Some(Scheme::Https),
        Some(_) => return Err(HeadError::BadTarget("its scheme is neither http nor https")),
    };
    check_fields(&parts.headers)?;
    take_authority(parts, head)?;
    take_path(parts, head)?;
    fields_from_map(&parts.headers, &mut head.fields);
    head.fields.remove("proxy-authorization");
    join_cookies(&parts.headers, &mut head.fields);
    Ok(())
}

/// Reads a response's parts into `head`, which is cleared first.
pub fn response_from_parts(
    parts: &response::Parts,
    head: &mut ResponseHead,
) -> Result<(), HeadError> {
    head.clear();
    head.status = parts.status.as_u16();
    head.version = parts.version;
    check_fields(&parts.headers)?;
    fields_from_map(&parts.headers, &mut head.fields);
    Ok(())
}

/// Adds all fields of a map. Blanks at the ends of values are left out, as HTTP/1 has it.
pub fn fields_from_map(map: &HeaderMap, out: &mut Fields) {
    for (name, value) in map {
        out.append(name.as_str(), grammar::trim(value.as_bytes()));
    }
}

/// The fields as a map: names in lower case, order kept among fields of one name. A field that a map
/// cannot hold (none that was read from the wire) is left out, and so are those beyond what a map can
/// hold.
pub fn map_from_fields(fields: &Fields) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(fields.len().min(1024));
    add(fields, &mut map, |_| true);
    map
}

/// Adds the trailer fields of a map, without those that a trailer may not say (RFC 9110 6.5.1). Where
/// one of them would frame or route, that is all that is done about it: HTTP/2 frames by itself.
pub fn trailers_from_map(map: &HeaderMap, out: &mut Fields) {
    for (name, value) in map {
        if name::in_trailer(name.as_str().as_bytes()) == InTrailer::Keep {
            out.append(name.as_str(), grammar::trim(value.as_bytes()));
        }
    }
}

/// A request for HTTP/2 or HTTP/3. `Host` and the fields of a connection are left out (RFC 9113
/// 8.2.2, 8.3.1), `TE: trailers` is kept.
pub fn request_to_http(
    head: &RequestHead,
    target: &Target<'_>,
    scheme: Scheme,
) -> Result<http::Request<()>, http::Error> {
    let mut uri = Uri::builder().authority(target.authority);
    if head.method != Method::CONNECT || head.protocol.is_some() {
        uri = uri
            .scheme(scheme.as_str())
            .path_and_query(path_for_uri(target.path));
    }
    let mut request = Request::builder()
        .method(head.method.clone())
        .version(http::Version::HTTP_2)
        .uri(uri.build()?)
        .body(())?;
    let te = head.fields.get_all("te").any(is_trailers);
    add(&head.fields, request.headers_mut(), passes);
    if te {
        request
            .headers_mut()
            .insert(http::header::TE, HeaderValue::from_static("trailers"));
    }
    Ok(request)
}

/// A response for HTTP/2 or HTTP/3, without the fields of a connection (RFC 9113 8.2.2).
pub fn response_to_http(head: &ResponseHead) -> Result<http::Response<()>, http::Error> {
    let mut response = Response::builder()
        .status(head.status)
        .version(http::Version::HTTP_2)
        .body(())?;
    add(&head.fields, response.headers_mut(), passes);
    Ok(response)
}

/// Whether a field may stand in HTTP/2, `TE` aside.
fn passes(name: &[u8]) -> bool {
    matches!(
        name::special(name),
        None | Some(Special::ContentLength | Special::Expect)
    )
}

fn add(fields: &Fields, map: &mut HeaderMap, passes: impl Fn(&[u8]) -> bool) {
    for (name, value) in fields {
        if !passes(name) {
            continue;
        }
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            // Fails only when the map is full.
            let _ = map.try_append(name, value);
        }
    }
}

/// RFC 9113 8.2.2: fields of a connection make a message malformed. RFC 9113 8.1.1: so does a length
/// that is none.
fn check_fields(map: &HeaderMap) -> Result<(), HeadError> {
    let mut lengths = 0;
    for (name, value) in map {
        match name::special(name.as_str().as_bytes()) {
            None | Some(Special::Host) => {}
            Some(Special::ContentLength) => {
                lengths += 1;
                if lengths > 1 || h1::parse_length(value.as_bytes()).is_none() {
                    return Err(HeadError::BadLength);
                }
            }
            Some(Special::Expect) => {
                if !value.as_bytes().eq_ignore_ascii_case(b"100-continue") {
                    return Err(HeadError::BadExpect);
                }
            }
            Some(Special::Te) => {
                if !is_trailers(value.as_bytes()) {
                    return Err(HeadError::field(
                        b"te",
                        "only `trailers` may stand in it in HTTP/2",
                    ));
                }
            }
            Some(
                Special::TransferEncoding
                | Special::Connection
                | Special::Upgrade
                | Special::HopByHop,
            ) => {
                // Clients of a proxy may send this one; it is dropped as in HTTP/1.
                if name != http::header::PROXY_AUTHORIZATION {
                    return Err(HeadError::field(
                        name.as_str().as_bytes(),
                        "it concerns a connection of HTTP/1 and may not stand in HTTP/2",
                    ));
                }
            }
        }
    }
    Ok(())
}

fn is_trailers(value: &[u8]) -> bool {
    value.eq_ignore_ascii_case(b"trailers")
}

/// RFC 9113 8.3.1: `:authority`, which `Host` must not contradict, else `Host`.
fn take_authority(parts: &request::Parts, head: &mut RequestHead) -> Result<(), HeadError> {
    let mut hosts = parts.headers.get_all(http::header::HOST).iter();
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
fn join_cookies(map: &HeaderMap, fields: &mut Fields) {
    let mut cookies = map.get_all(http::header::COOKIE).iter();
    let (Some(first), Some(second)) = (cookies.next(), cookies.next()) else {
        return;
    };
    let mut joined = grammar::trim(first.as_bytes()).to_vec();
    for cookie in std::iter::once(second).chain(cookies) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(grammar::trim(cookie.as_bytes()));
    }
    fields.set("cookie", &joined);
}

/// The few visible characters that `http::Uri` does not take are percent-encoded, which names the same
/// resource (RFC 3986 6.2.2.2 does not list them as reserved).
fn path_for_uri(path: &str) -> String {
    if path.is_empty() {
        return "/".to_owned();
    }
    let mut out = String::with_capacity(path.len());
    for letter in path.chars() {
        match letter {
            '"' => out.push_str("%22"),
            '<' => out.push_str("%3C"),
            '>' => out.push_str("%3E"),
            '`' => out.push_str("%60"),
            _ => out.push(letter),
        }
    }
    out
}
