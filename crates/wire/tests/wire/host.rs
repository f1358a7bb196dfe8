//! Parts of an authority.
use wire::RequestHead;
use wire::host::is_authority;

#[test]
fn host_and_port_are_told_apart() {
    for (authority, host, port) in [
        ("a", "a", None),
        ("a:80", "a", Some(80)),
        ("a:", "a", None),
        ("[::1]", "[::1]", None),
        ("[::1]:8443", "[::1]", Some(8443)),
        ("10.0.0.1:65535", "10.0.0.1", Some(65535)),
        ("", "", None),
        ("[::1", "[::1", None),
        ("a:65536", "a", None),
    ] {
        let mut head = RequestHead::new();
        head.authority = authority.to_owned();
        assert_eq!((head.host(), head.port()), (host, port), "{authority}");
    }
}

#[test]
fn path_and_query_are_told_apart() {
    for (path, only, query) in [
        ("/a", "/a", None),
        ("/a?", "/a", Some("")),
        ("/a?b?c", "/a", Some("b?c")),
        ("", "", None),
    ] {
        let mut head = RequestHead::new();
        head.path = path.to_owned();
        assert_eq!((head.path_only(), head.query()), (only, query));
    }
}

#[test]
fn empty_and_binary_authorities_are_none() {
    assert!(!is_authority(b""));
    assert!(!is_authority(b"\xff"));
    assert!(!is_authority(b"a:000080"));
    assert!(is_authority(b"a:00080"));
}
