//! Paths are brought into one form before they are matched, and forwarded in it: what a policy
//! reads is what the application reads. The rule is that of `policy::path`.

use testkit::origin::Origin;

use super::{SOON, sent};
use crate::front::{Front, Kind, Setup};

/// What is sent, and what the application gets.
const TABLE: &[(&str, &str)] = &[
    ("/", "/"),
    ("/a/b", "/a/b"),
    ("/a/b/", "/a/b/"),
    ("/a//b", "/a/b"),
    ("//", "/"),
    ("//a///", "/a/"),
    ("/a/./b", "/a/b"),
    ("/a/.", "/a/"),
    ("/a/..", "/"),
    ("/a/b/..", "/a/"),
    ("/a/b/../c", "/a/c"),
    ("/../../a", "/a"),
    ("/..", "/"),
    ("/a/%2e%2E/b", "/b"),
    ("/a/.%2e/b", "/b"),
    ("/a/%2e./b", "/b"),
    ("/%2e/a", "/a"),
    ("/%61dmin", "/admin"),
    ("/a%20b%c3%a9", "/a%20b%C3%A9"),
    ("/@scope%2fname", "/@scope%2Fname"),
    ("/a%5cb", "/a%5Cb"),
    ("/a\\..\\b", "/b"),
    ("/100%25", "/100%25"),
    ("/%252e%252e/", "/%252e%252e/"),
    ("/a;v=1/,b:c", "/a;v=1/,b:c"),
    ("/a/.hidden", "/a/.hidden"),
    ("/a/..b/...", "/a/..b/..."),
    // A query is the application's own.
    ("/a/../b?x=/../y//z%2e", "/b?x=/../y//z%2e"),
    ("/a?/../b", "/a?/../b"),
];

/// What is refused with 400.
const REFUSED: &[&str] = &[
    "/100%",
    "/%4",
    "/%zz",
    "/%+1",
    "/%%32e",
    "/a%00",
    "/a/..%2fb",
    "/a/%2e%2e%5cb",
    "/a%2f.",
    "/a/%2e%2e%2fb",
];

#[test]
fn a_path_has_one_form() {
    if Kind::chosen() != Kind::Tulle {
        return;
    }
    let origin = Origin::start();
    let front = Front::start(origin.addr());
    let mut wrong = Vec::new();
    for (given, wanted) in TABLE {
        let mut raw = sent(
            &front,
            &format!("GET {given} HTTP/1.1\r\nHost: app.local\r\n\r\n"),
        );
        let answer = raw.response(SOON).unwrap();
        if (answer.status, answer.text()) != (200, format!("GET {wanted}\n")) {
            wrong.push(format!("{given}: wanted {wanted}, got {answer:?}"));
        }
    }
    for given in REFUSED {
        let mut raw = sent(
            &front,
            &format!("GET {given} HTTP/1.1\r\nHost: app.local\r\n\r\n"),
        );
        let answer = raw.response(SOON).unwrap();
        if answer.status != 400 {
            wrong.push(format!("{given}: wanted 400, got {answer:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_rule_cannot_be_walked_around() {
    if Kind::chosen() != Kind::Tulle {
        return;
    }
    let origin = Origin::start();
    // `/private` is redirected away; everything else goes to the application.
    let objects = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: private, namespace: default}
spec:
  parentRefs: [{name: edge}]
  rules:
    - matches: [{path: {type: PathPrefix, value: /private}}]
      filters: [{type: RequestRedirect, requestRedirect: {hostname: login.local, statusCode: 302}}]
";
    let setup = Setup {
        objects: objects.to_owned(),
        ..Setup::default()
    };
    let front = Front::with(origin.addr(), &setup);
    let before = origin.count();
    for path in [
        "/private",
        "/private/",
        "/private/x",
        "//private",
        "/./private",
        "/x/../private",
        "/%70rivate",
        "/x/%2e%2e/private",
        "/x/..//private",
        "\\private",
        "/x\\..\\private",
        "/public/../private/x",
        "/%2e/private",
        "/private/../private/x",
        "/.//./private",
    ] {
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/{path}")
        };
        let mut raw = sent(
            &front,
            &format!("GET {path} HTTP/1.1\r\nHost: app.local\r\n\r\n"),
        );
        let status = raw.response(SOON).unwrap().status;
        assert!(status == 302 || status == 400, "{path}: {status}");
    }
    assert_eq!(origin.count(), before, "{:?}", origin.seen());
}
