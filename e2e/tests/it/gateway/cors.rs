//! Cross-origin requests, as Gateway API's conformance tests ask (HTTPRouteCORS).

use super::*;

fn route() -> String {
    let rule = |path: &str, cors: &str| {
        format!(
            "  - matches: [{{path: {{value: {path}}}}}]\n    filters: [{{type: CORS, cors: {cors}}}]\n    backendRefs: [{{name: s, port: 80}}]\n"
        )
    };
    let several = "{allowOrigins: ['https://www.foo.com', 'https://*.bar.com'], allowMethods: [GET, OPTIONS], allowHeaders: [x-header-1, x-header-2], exposeHeaders: [x-header-3, x-header-4], allowCredentials: true, maxAge: 3600}";
    let everything = "{allowOrigins: ['*'], allowMethods: ['*'], allowHeaders: ['*']}";
    let redirect = "  - matches: [{path: {value: /away}}]\n    filters: [{type: CORS, cors: {allowOrigins: ['*']}}, {type: RequestRedirect, requestRedirect: {hostname: away.example}}]\n";
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r, namespace: shop}}\nspec:\n  parentRefs: [{{name: web}}]\n  rules:\n{}{}{redirect}---\n",
        rule("/several", several),
        rule("/everything", everything),
    )
}

#[test]
fn browsers_are_told_what_pages_of_other_origins_may_do() {
    let server = Upstream::start(|_| {
        vec![
            Step::ReadUntil(b"\r\n\r\n".to_vec()),
            Step::Send(b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: https://own.example\r\nContent-Length: 2\r\n\r\nok".to_vec()),
        ]
    });
    let port = free_port();
    let text = [
        http_listener(port),
        service("s", "http", server.port()),
        route(),
    ]
    .concat();
    let _proxy = Static::start("cors", &[("all.yaml", text)], port);
    let ask = |method: &str, path: &str, lines: &str| {
        let mut raw = Raw::connect(("127.0.0.1", port)).unwrap();
        raw.request(format!(
            "{method} {path} HTTP/1.1\r\nHost: a\r\n{lines}\r\n"
        ))
    };
    let preflight = |path: &str, origin: &str| {
        let lines = format!(
            "Origin: {origin}\r\nAccess-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: x-a\r\n"
        );
        ask("OPTIONS", path, &lines)
    };
    for origin in ["https://www.foo.com", "https://xpto.www.bar.com"] {
        let answer = preflight("/several", origin);
        assert_eq!(answer.status, 200);
        for (name, value) in [
            ("access-control-allow-origin", origin),
            ("access-control-allow-methods", "GET, OPTIONS"),
            ("access-control-allow-headers", "x-header-1, x-header-2"),
            ("access-control-expose-headers", "x-header-3, x-header-4"),
            ("access-control-max-age", "3600"),
            ("access-control-allow-credentials", "true"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{name}");
        }
    }
    let refused = preflight("/several", "https://foobar.com");
    assert_eq!(refused.header("access-control-allow-origin"), None);
    let open = preflight("/everything", "https://foobar.com:12345");
    for (name, value) in [
        ("access-control-allow-origin", Some("*")),
        ("access-control-allow-methods", Some("PUT")),
        ("access-control-allow-headers", Some("x-a")),
        ("access-control-allow-credentials", None),
        ("access-control-max-age", Some("5")),
    ] {
        assert_eq!(open.header(name), value, "{name}");
    }
    assert_eq!(server.connections(), 0, "nobody else was asked");

    let answer = ask("GET", "/several", "Origin: https://www.foo.com\r\n");
    assert_eq!(answer.text(), "ok");
    let origin = answer.header("access-control-allow-origin");
    assert_eq!(origin, Some("https://www.foo.com"));
    assert_eq!(answer.header("vary"), Some("origin"));
    // What the application says stands where the route has nothing to say.
    let answer = ask("GET", "/several", "Origin: https://foobar.com\r\n");
    let origin = answer.header("access-control-allow-origin");
    assert_eq!(origin, Some("https://own.example"));
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    // A page follows a redirect only if that says so, too.
    let away = ask("GET", "/away", "Origin: https://foobar.com\r\n");
    assert_eq!(
        (away.status, away.header("access-control-allow-origin")),
        (302, Some("*"))
    );
}
