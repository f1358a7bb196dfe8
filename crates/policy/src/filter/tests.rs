//! Gateway API's own tables, and what filters must leave alone.

use super::*;
use http::{HeaderValue, Method};
use proptest::prelude::*;

fn prefix(path: &str) -> Match {
    Match {
        path: PathMatch::Prefix(path.to_owned()),
        ..Match::default()
    }
}

fn change_of_headers(
    set: &[(&'static str, &'static str)],
    add: &[(&'static str, &'static str)],
    remove: &[&'static str],
) -> HeaderChange {
    let pair = |&(n, v): &(&'static str, &'static str)| {
        (HeaderName::from_static(n), HeaderValue::from_static(v))
    };
    HeaderChange {
        set: set.iter().map(pair).collect(),
        add: add.iter().map(pair).collect(),
        remove: remove.iter().map(|n| HeaderName::from_static(n)).collect(),
    }
}

fn headers(pairs: &[(&'static str, &'static str)]) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in pairs {
        fields.append(name, value.as_bytes());
    }
    fields
}

#[test]
fn headers_are_set_then_added_then_removed() {
    let mut map = headers(&[
        ("x-set", "old"),
        ("x-add", "old"),
        ("x-gone", "1"),
        ("x-stay", "1"),
    ]);
    let change = change_of_headers(
        &[("x-set", "new"), ("x-new", "1")],
        &[("x-add", "new"), ("x-more", "1")],
        &["x-gone", "x-absent"],
    );
    apply_headers(&mut map, &change);
    let all = |name| {
        let values = map.get_all(name);
        values
            .map(|v| std::str::from_utf8(v).expect("text"))
            .collect::<Vec<_>>()
    };
    assert_eq!(all("x-set"), ["new"]);
    assert_eq!(all("x-new"), ["1"]);
    assert_eq!(all("x-add"), ["old", "new"]);
    assert_eq!(all("x-more"), ["1"]);
    assert!(all("x-gone").is_empty());
    assert_eq!(all("x-stay"), ["1"]);
}

#[test]
fn what_frames_the_message_is_left_alone() {
    let given = headers(&[
        ("host", "reviews"),
        ("te", "trailers"),
        ("content-length", "3"),
    ]);
    let mut map = given.clone();
    let change = change_of_headers(
        &[
            ("host", "evil"),
            ("content-length", "9"),
            ("connection", "close"),
        ],
        &[
            ("transfer-encoding", "chunked"),
            ("host", "second"),
            ("keep-alive", "1"),
        ],
        &["te", "content-length", "host"],
    );
    apply_headers(&mut map, &change);
    assert!(map.iter().eq(given.iter()), "{map:?}");
}

/// The table of `HTTPPathModifier.replacePrefixMatch`, and cases between its lines.
const REPLACED: [(&str, &str, &str, &str); 17] = [
    ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
    ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
    ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
    ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
    ("/foo", "/foo", "/xyz", "/xyz"),
    ("/foo/", "/foo", "/xyz", "/xyz/"),
    ("/foo/bar", "/foo", "", "/bar"),
    ("/foo/", "/foo", "", "/"),
    ("/foo", "/foo", "", "/"),
    ("/foo/", "/foo", "/", "/"),
    ("/foo", "/foo", "/", "/"),
    ("/", "/", "/xyz", "/xyz/"),
    ("/bar", "/", "/xyz", "/xyz/bar"),
    ("/bar", "/", "/", "/bar"),
    ("/a/b/c/", "/a/b", "/x/y", "/x/y/c/"),
    ("/foo/bar", "/foo", "xyz", "/xyz/bar"),
    ("/foo/foo", "/foo", "/bar", "/bar/foo"),
];

#[test]
fn a_prefix_is_replaced_as_the_table_says() {
    for (path, matched, new, want) in REPLACED {
        let change = Rewrite {
            hostname: None,
            path: Some(PathChange::Prefix(new.to_owned())),
        };
        let result = rewrite(&change, path, Some("q=1"), &prefix(matched)).expect("valid");
        let result = result.map_or(format!("{path}?q=1"), |p| p.to_string());
        assert_eq!(result, format!("{want}?q=1"), "{path} {matched} {new}");
    }
}

#[test]
fn a_full_path_replaces_all_but_the_query() {
    let change = Rewrite {
        hostname: None,
        path: Some(PathChange::Full("/new".to_owned())),
    };
    let with = |query| {
        rewrite(&change, "/old/path", query, &prefix("/"))
            .expect("valid")
            .map(|p| p.to_string())
    };
    assert_eq!(with(Some("a=b")).as_deref(), Some("/new?a=b"));
    assert_eq!(with(None).as_deref(), Some("/new"));
}

#[test]
fn a_rewrite_of_the_host_alone_leaves_the_path() {
    let change = Rewrite {
        hostname: Some("other".to_owned()),
        path: None,
    };
    assert_eq!(rewrite(&change, "/a", None, &prefix("/")), Ok(None));
}

#[test]
fn an_impossible_path_is_an_error_and_not_a_panic() {
    let change = Rewrite {
        hostname: None,
        path: Some(PathChange::Full("/a b\r\nx: y".to_owned())),
    };
    let error = rewrite(&change, "/", None, &prefix("/")).expect_err("a space");
    assert!(error.to_string().contains("escape"), "{error}");
}

#[derive(Clone, Copy)]
enum Change {
    Full(&'static str),
    Prefix(&'static str),
}

struct Case {
    scheme: Option<&'static str>,
    hostname: Option<&'static str>,
    port: Option<u16>,
    path: Option<Change>,
    origin: (&'static str, &'static str, u16),
    want: &'static str,
}

fn location(case: &Case) -> (StatusCode, String) {
    let spec = Redirect {
        scheme: case.scheme.map(str::to_owned),
        hostname: case.hostname.map(str::to_owned),
        path: case.path.map(|change| match change {
            Change::Full(path) => PathChange::Full(path.to_owned()),
            Change::Prefix(path) => PathChange::Prefix(path.to_owned()),
        }),
        port: case.port,
        status: StatusCode::FOUND,
    };
    let empty = Fields::new();
    let request = RequestView {
        method: &Method::GET,
        path: "/foo/bar",
        query: Some("q=1"),
        authority: "",
        headers: &empty,
    };
    let (scheme, authority, port) = case.origin;
    let origin = Origin {
        scheme,
        authority,
        port,
    };
    redirect(&spec, &request, &origin, &prefix("/foo"))
}

#[test]
fn a_location_is_made_of_what_is_given_and_what_came_in() {
    let plain = Case {
        scheme: None,
        hostname: None,
        port: None,
        path: None,
        origin: ("http", "shop.example", 80),
        want: "http://shop.example/foo/bar?q=1",
    };
    let cases = [
        Case {
            hostname: Some("example.org"),
            want: "http://example.org/foo/bar?q=1",
            ..plain
        },
        // The port it came to, and the ports that go without saying.
        Case {
            origin: ("http", "shop:8080", 8080),
            want: "http://shop:8080/foo/bar?q=1",
            ..plain
        },
        Case {
            origin: ("https", "shop:443", 443),
            want: "https://shop/foo/bar?q=1",
            ..plain
        },
        Case {
            origin: ("http", "shop", 443),
            want: "http://shop:443/foo/bar?q=1",
            ..plain
        },
        Case {
            port: Some(80),
            origin: ("http", "shop:8080", 8080),
            want: "http://shop/foo/bar?q=1",
            ..plain
        },
        Case {
            port: Some(8443),
            want: "http://shop.example:8443/foo/bar?q=1",
            ..plain
        },
        // A new scheme brings its own port.
        Case {
            scheme: Some("https"),
            want: "https://shop.example/foo/bar?q=1",
            ..plain
        },
        Case {
            scheme: Some("https"),
            origin: ("http", "shop:8080", 8080),
            want: "https://shop/foo/bar?q=1",
            ..plain
        },
        Case {
            scheme: Some("http"),
            origin: ("https", "shop", 443),
            want: "http://shop/foo/bar?q=1",
            ..plain
        },
        Case {
            scheme: Some("https"),
            port: Some(80),
            want: "https://shop.example:80/foo/bar?q=1",
            ..plain
        },
        // Paths.
        Case {
            path: Some(Change::Full("/new")),
            want: "http://shop.example/new?q=1",
            ..plain
        },
        Case {
            path: Some(Change::Prefix("/xyz/")),
            want: "http://shop.example/xyz/bar?q=1",
            ..plain
        },
        // IPv6.
        Case {
            origin: ("http", "[::1]:9000", 9000),
            want: "http://[::1]:9000/foo/bar?q=1",
            ..plain
        },
        Case {
            origin: ("http", "[::1]", 80),
            want: "http://[::1]/foo/bar?q=1",
            ..plain
        },
    ];
    for case in cases {
        let (status, location) = location(&case);
        assert_eq!(location, case.want);
        assert_eq!(status, StatusCode::FOUND);
    }
    assert_eq!(location(&plain).1, plain.want);
}

proptest! {
    #[test]
    fn a_replaced_prefix_is_always_an_absolute_path(
        elements in prop::collection::vec("[a-c]{0,2}", 0..4),
        rest in prop::collection::vec("[a-c]{0,2}", 0..3),
        new in "/?[x-z/]{0,5}",
    ) {
        let matched = format!("/{}", elements.join("/"));
        let mut path = matched.trim_end_matches('/').to_owned();
        for element in rest {
            path.push('/');
            path.push_str(&element);
        }
        let path = if path.is_empty() { "/".to_owned() } else { path };
        let change = Rewrite { hostname: None, path: Some(PathChange::Prefix(new)) };
        if let Some(result) = rewrite(&change, &path, None, &prefix(&matched)).expect("plain letters") {
            prop_assert!(result.path().starts_with('/'));
        }
    }
}
