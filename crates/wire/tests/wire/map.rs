//! To and from the `http` crate: what HTTP/2 may say, and what must not reach HTTP/1.
use http::{HeaderMap, HeaderValue, Request, Response};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use wire::map::{
    map_from_trailers, request_from_parts, request_to_http, response_from_parts, response_to_http,
    take_map, trailers_from_map,
};
use wire::{
    Fields, HeadError, Length, Method, RequestHead, ResponseHead, Scheme, Target, Version,
    encode_request,
};

use crate::show;

fn read(method: &str, uri: &str, fields: &[(&str, &str)]) -> String {
    let mut request = Request::builder()
        .method(method)
        .uri(uri)
        .version(Version::HTTP_2);
    for (name, value) in fields {
        request = request.header(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    let (mut parts, ()) = request.body(()).unwrap().into_parts();
    let mut head = RequestHead::new();
    if let Err(error) = request_from_parts(&mut parts, &mut head) {
        return show::refused(&error);
    }
    let scheme = head.scheme.map_or("-", Scheme::as_str);
    let fields = show::fields(&head.fields);
    format!(
        "{} {scheme} <{}> {}{fields}",
        head.method, head.authority, head.path
    )
}

#[test]
fn requests_of_rfc_9113_section_8() {
    for (name, method, uri, fields, expected) in [
        (
            "plain",
            "GET",
            "https://a:1/b?c",
            &[("x", "y")][..],
            "GET https <a:1> /b?c {x: y}",
        ),
        (
            "no path in the URI",
            "GET",
            "http://a",
            &[],
            "GET http <a> / {}",
        ),
        (
            "Host instead of :authority (8.3.1)",
            "GET",
            "/b",
            &[("host", "a")],
            "GET - <a> /b {host: a}",
        ),
        (
            "equal Host (8.3.1)",
            "GET",
            "http://a:1/b",
            &[("host", "A:1")],
            "GET http <a:1> /b {host: A:1}",
        ),
        (
            "another Host (8.3.1)",
            "GET",
            "http://a/b",
            &[("host", "c")],
            "400 BadHost",
        ),
        (
            "Host with another port",
            "GET",
            "http://a:1/b",
            &[("host", "a")],
            "400 BadHost",
        ),
        (
            "two Hosts",
            "GET",
            "http://a/b",
            &[("host", "a"), ("host", "a")],
            "400 BadHost",
        ),
        ("bad Host", "GET", "/b", &[("host", "a b")], "400 BadHost"),
        (
            "user in :authority",
            "GET",
            "http://u@a/b",
            &[],
            "400 BadHost",
        ),
        ("neither", "GET", "/b", &[], "GET - <> /b {}"),
        ("another scheme", "GET", "ftp://a/b", &[], "400 BadTarget"),
        (
            "asterisk",
            "OPTIONS",
            "*",
            &[("host", "a")],
            "OPTIONS - <a> * {host: a}",
        ),
        (
            "asterisk of GET",
            "GET",
            "*",
            &[("host", "a")],
            "400 BadTarget",
        ),
        (
            "bytes beyond ASCII in the path",
            "GET",
            "http://a/\u{e9}",
            &[],
            "400 BadTarget",
        ),
        (
            "CONNECT (8.5)",
            "CONNECT",
            "a:443",
            &[],
            "CONNECT - <a:443>  {}",
        ),
        (
            "extended CONNECT (RFC 8441)",
            "CONNECT",
            "https://a/chat",
            &[],
            "CONNECT https <a> /chat {}",
        ),
        ("GET of an authority", "GET", "a:443", &[], "400 BadTarget"),
        (
            "connection (8.2.2)",
            "GET",
            "http://a/",
            &[("connection", "close")],
            "400 BadField",
        ),
        (
            "keep-alive",
            "GET",
            "http://a/",
            &[("keep-alive", "1")],
            "400 BadField",
        ),
        (
            "proxy-connection",
            "GET",
            "http://a/",
            &[("proxy-connection", "close")],
            "400 BadField",
        ),
        (
            "transfer-encoding (H2.TE)",
            "POST",
            "http://a/",
            &[("transfer-encoding", "chunked")],
            "400 BadField",
        ),
        (
            "upgrade",
            "GET",
            "http://a/",
            &[("upgrade", "websocket")],
            "400 BadField",
        ),
        (
            "http2-settings",
            "GET",
            "http://a/",
            &[("http2-settings", "x")],
            "400 BadField",
        ),
        (
            "te: trailers (8.2.2)",
            "GET",
            "http://a/",
            &[("te", "trailers")],
            "GET http <a> / {te: trailers}",
        ),
        (
            "te: gzip",
            "GET",
            "http://a/",
            &[("te", "gzip")],
            "400 BadField",
        ),
        (
            "te: trailers, gzip",
            "GET",
            "http://a/",
            &[("te", "trailers, gzip")],
            "400 BadField",
        ),
        (
            "length",
            "POST",
            "http://a/",
            &[("content-length", "5")],
            "POST http <a> / {content-length: 5}",
        ),
        (
            "signed length (H2.CL)",
            "POST",
            "http://a/",
            &[("content-length", "+5")],
            "400 BadLength",
        ),
        (
            "two lengths",
            "POST",
            "http://a/",
            &[("content-length", "5"), ("content-length", "5")],
            "400 BadLength",
        ),
        (
            "blank around a length",
            "POST",
            "http://a/",
            &[("content-length", " 5")],
            "400 BadLength",
        ),
        (
            "expectation",
            "POST",
            "http://a/",
            &[("expect", "x")],
            "417 BadExpect",
        ),
        (
            "blanks around a value",
            "GET",
            "http://a/",
            &[("x", " \ty ")],
            "GET http <a> / {x: y}",
        ),
        (
            "proxy-authorization",
            "GET",
            "http://a/",
            &[("proxy-authorization", "x")],
            "GET http <a> / {}",
        ),
        (
            "cookies (8.2.3)",
            "GET",
            "http://a/",
            &[
                ("cookie", "a=1"),
                ("x", "y"),
                ("cookie", "b=2"),
                ("cookie", "c=3"),
            ],
            "GET http <a> / {cookie: a=1; b=2; c=3, x: y}",
        ),
    ] {
        assert_eq!(read(method, uri, fields), expected, "{name}");
    }
}

/// The downgrade to HTTP/1 cannot make a second request out of a field (RFC 9113 10.3).
#[test]
fn a_downgraded_request_is_one_request() {
    let (mut parts, ()) = Request::builder()
        .uri("http://a/b")
        .header("x", "y")
        .header("te", "trailers")
        .body(())
        .unwrap()
        .into_parts();
    let mut head = RequestHead::new();
    request_from_parts(&mut parts, &mut head).unwrap();
    head.fields.append("x-evil", b"1\r\n\r\nGET /2 HTTP/1.1");
    let mut out = Vec::new();
    let target = Target {
        authority: &head.authority,
        path: &head.path,
    };
    encode_request(&head, &target, Length::None, false, true, &mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "GET /b HTTP/1.1\r\nHost: a\r\nx: y\r\nx-evil: 1    GET /2 HTTP/1.1\r\nTE: trailers\r\nConnection: te\r\n\r\n"
    );
}

#[test]
fn responses_of_rfc_9113_section_8() {
    let read = |name: &str, value: &str| {
        let (mut parts, ()) = Response::builder()
            .status(418)
            .header(name, value)
            .body(())
            .unwrap()
            .into_parts();
        let mut head = ResponseHead::new();
        response_from_parts(&mut parts, &mut head)
            .map(|()| format!("{}{}", head.status, show::fields(&head.fields)))
    };
    assert_eq!(read("x", "y"), Ok("418 {x: y}".to_owned()));
    assert_eq!(read("content-length", "x"), Err(HeadError::BadLength));
    assert!(matches!(
        read("connection", "close"),
        Err(HeadError::BadField { .. })
    ));
    assert!(matches!(
        read("transfer-encoding", "chunked"),
        Err(HeadError::BadField { .. })
    ));
}

#[test]
fn requests_go_out_without_fields_of_the_connection() {
    let mut head = RequestHead::new();
    for (name, value) in [
        ("Host", "old"),
        ("X-Upper", "1"),
        ("Connection", "close"),
        ("Upgrade", "x"),
        ("TE", "trailers"),
        ("Transfer-Encoding", "chunked"),
        ("Content-Length", "3"),
        ("x-upper", "2"),
    ] {
        head.fields.append(name, value.as_bytes());
    }
    let target = Target {
        authority: "new:1",
        path: "/p?q<r>`",
    };
    let request = request_to_http(&head, &target, Scheme::Https, HeaderMap::new()).unwrap();
    assert_eq!(request.uri(), "https://new:1/p?q%3Cr%3E%60");
    let expected: HeaderMap = [
        ("x-upper", "1"),
        ("x-upper", "2"),
        ("content-length", "3"),
        ("te", "trailers"),
    ]
    .into_iter()
    .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
    .fold(HeaderMap::new(), |mut map, (name, value)| {
        let name: http::HeaderName = name;
        map.append(name, value);
        map
    });
    assert_eq!(request.headers(), &expected);

    head.method = Method::CONNECT;
    let tunnel = request_to_http(
        &head,
        &Target {
            authority: "a:443",
            path: "",
        },
        Scheme::Http,
        HeaderMap::new(),
    )
    .unwrap();
    assert_eq!(tunnel.uri(), "a:443");
    head.protocol = Some("websocket".to_owned());
    let extended = request_to_http(
        &head,
        &Target {
            authority: "a",
            path: "/chat",
        },
        Scheme::Https,
        HeaderMap::new(),
    )
    .unwrap();
    assert_eq!(extended.uri(), "https://a/chat");
    head.method = Method::OPTIONS;
    let asterisk = request_to_http(
        &head,
        &Target {
            authority: "a",
            path: "*",
        },
        Scheme::Http,
        HeaderMap::new(),
    );
    assert_eq!(asterisk.unwrap().uri().path(), "*");
}

#[test]
fn ids_of_requests_are_kept_out_of_the_peers_table() {
    let mut head = RequestHead::new();
    for (name, value) in [
        ("traceparent", "00-1"),
        ("x-request-id", "1"),
        ("accept", "*"),
    ] {
        head.fields.append(name, value.as_bytes());
    }
    let target = Target {
        authority: "a",
        path: "/",
    };
    let request = request_to_http(&head, &target, Scheme::Http, HeaderMap::new()).unwrap();
    let sensitive = |name: &str| request.headers()[name].is_sensitive();
    assert!(sensitive("traceparent") && sensitive("x-request-id"));
    assert!(!sensitive("accept"));
}

#[test]
fn a_target_that_is_no_uri_is_an_error_and_no_panic() {
    let head = RequestHead::new();
    for (authority, path) in [("a b", "/"), ("a", "/\r\n"), ("", "/"), ("a", "b")] {
        assert!(
            request_to_http(
                &head,
                &Target { authority, path },
                Scheme::Http,
                HeaderMap::new()
            )
            .is_err(),
            "{authority} {path}"
        );
    }
}

#[test]
fn responses_go_out_without_fields_of_the_connection() {
    let mut head = ResponseHead::new();
    head.status = 204;
    head.fields.append("Keep-Alive", b"1");
    head.fields.append("Set-Cookie", b"a");
    head.fields.append("set-cookie", b"b");
    let response = response_to_http(&head, HeaderMap::new()).unwrap();
    assert_eq!(response.status(), 204);
    assert_eq!(response.headers().len(), 2);
    assert!(!response.headers().contains_key("keep-alive"));
    head.status = 42;
    assert!(response_to_http(&head, HeaderMap::new()).is_err());
}

#[test]
fn fields_survive_the_way_through_a_map() {
    let mut fields = Fields::new();
    for (name, value) in [
        ("A", "1"),
        ("b", "\u{e9}"),
        ("a", "2"),
        ("Connection", "close"),
    ] {
        fields.append(name, value.as_bytes());
    }
    let map = map_from_trailers(fields);
    let mut back = Fields::new();
    for (name, value) in &map {
        back.append(name.as_str(), value.as_bytes());
    }
    assert_eq!(
        show::fields(&back),
        " {a: 1, a: 2, b: \\xc3\\xa9, connection: close}"
    );
}

#[test]
fn trailers_that_may_not_be_trailers_are_left_out() {
    let mut map = HeaderMap::new();
    for name in [
        "grpc-status",
        "content-length",
        "transfer-encoding",
        "host",
        "te",
        "x-tulle-failure",
        "x-sum",
    ] {
        map.append(name, HeaderValue::from_static("1"));
    }
    let fields = trailers_from_map(map);
    assert_eq!(show::fields(&fields), " {grpc-status: 1, x-sum: 1}");
}

/// Whatever HTTP/1 lets into a target can leave by HTTP/2, and comes back as the same resource.
#[test]
fn every_byte_of_a_target_survives_http_2() {
    for byte in (0x21..0x7f).filter(|&byte| byte != b'#') {
        let sent = format!("/a{0}b?{0}", char::from(byte));
        let target = Target {
            authority: "h",
            path: &sent,
        };
        let request =
            request_to_http(&RequestHead::new(), &target, Scheme::Http, HeaderMap::new()).unwrap();
        let mut head = RequestHead::new();
        request_from_parts(&mut request.into_parts().0, &mut head).unwrap();
        let expected = sent
            .replace('"', "%22")
            .replace('<', "%3C")
            .replace('>', "%3E")
            .replace('`', "%60");
        assert_eq!(head.path, expected);
    }
}

/// What is done to fields on their way through a proxy.
#[derive(Clone, Debug)]
enum Change {
    Append(&'static str, String),
    Set(&'static str, String),
    Remove(&'static str),
    Retain(&'static str),
}

fn change() -> impl Strategy<Value = Change> {
    let name = || {
        select(vec![
            "a",
            "B",
            "cookie",
            "te",
            "x-request-id",
            "Host",
            "upgrade",
        ])
    };
    let value = || "[a-z \t\r]{0,3}|trailers";
    prop_oneof![
        (name(), value()).prop_map(|(name, value)| Change::Append(name, value)),
        (name(), value()).prop_map(|(name, value)| Change::Set(name, value)),
        name().prop_map(Change::Remove),
        name().prop_map(Change::Retain),
    ]
}

/// A field of HTTP/2.
fn sent() -> impl Strategy<Value = (&'static str, String)> {
    prop_oneof![
        6 => (select(vec!["a", "b", "cookie", "x-request-id"]), "[a-z]{0,3}| b"),
        1 => (Just("te"), Just("trailers".to_owned())),
        1 => (Just("host"), Just("a".to_owned())),
    ]
}

/// Each name's values, in order.
fn sorted(map: &HeaderMap) -> Vec<(String, Vec<u8>, bool)> {
    let mut all: Vec<_> = map
        .iter()
        .map(|(name, value)| {
            let unique = value.is_sensitive();
            (name.as_str().to_owned(), value.as_bytes().to_vec(), unique)
        })
        .collect();
    all.sort_by(|one, other| one.0.cmp(&other.0));
    all
}

proptest! {
    /// A map that was kept and followed all changes is the one that would have been made anew.
    #[test]
    fn a_kept_map_says_what_the_fields_say(
        sent in vec(sent(), 0..8),
        changes in vec(change(), 0..8),
    ) {
        let (mut parts, ()) = Request::get("http://a/").body(()).unwrap().into_parts();
        for (name, value) in &sent {
            parts.headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let mut head = RequestHead::new();
        prop_assume!(request_from_parts(&mut parts, &mut head).is_ok());
        for change in &changes {
            match change {
                Change::Append(name, value) => head.fields.append(name, value.as_bytes()),
                Change::Set(name, value) => head.fields.set(name, value.as_bytes()),
                Change::Remove(name) => drop(head.fields.remove(name)),
                Change::Retain(name) => head.fields.retain(|n, _| !n.eq_ignore_ascii_case(name.as_bytes())),
            }
        }
        let target = Target { authority: "a", path: "/" };
        let send = |head: &RequestHead, map| {
            let request = request_to_http(head, &target, Scheme::Http, map).unwrap();
            sorted(request.headers())
        };
        let anew = send(&head, HeaderMap::new());
        let kept = take_map(&mut head.fields);
        let followed = changes
            .iter()
            .all(|change| !matches!(change, Change::Retain(_) | Change::Set("te", _)));
        let plain = sent.iter().all(|(name, value)| *name != "host" && !value.starts_with(' '));
        prop_assert!(kept.is_some() || !followed || !plain);
        prop_assert_eq!(send(&head, kept.unwrap_or_default()), anew);
    }
}
