//! Session persistence (GEP-1619): a client with a token goes where it was before.

use super::*;

/// A Service with several endpoints.
fn scaled(name: &str, endpoints: &[u16]) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{ports: [{{name: main, port: 80, appProtocol: http}}]}}\n---\n"
    );
    for port in endpoints {
        let _ = write!(
            text,
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}-{port}, namespace: shop, labels: {{kubernetes.io/service-name: {name}}}}}\naddressType: IPv4\nports: [{{name: main, port: {port}}}]\nendpoints: [{{addresses: [127.0.0.1]}}]\n---\n"
        );
    }
    text
}

/// A route with a rule for each of these: a path, what it says of sessions, its backends.
fn rules(rules: &[(&str, &str, &str)]) -> String {
    let rules: Vec<String> = rules
        .iter()
        .map(|(path, session, backends)| {
            format!("{{matches: [{{path: {{value: {path}}}}}], sessionPersistence: {session}, backendRefs: [{backends}]}}")
        })
        .collect();
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r, namespace: shop}}\nspec: {{parentRefs: [{{name: web}}], rules: [{}]}}\n---\n",
        rules.join(", ")
    )
}

/// Servers that answer with their number.
fn servers<const N: usize>() -> ([Upstream; N], [u16; N]) {
    let servers = std::array::from_fn(|i| Upstream::start(move |_| Step::answer(&i.to_string())));
    let ports = std::array::from_fn(|i: usize| {
        let server: &Upstream = &servers[i];
        server.port()
    });
    (servers, ports)
}

/// One request on a connection of its own: the body, and the value of a header of the response.
fn ask(port: u16, path: &str, field: &str, header: &str) -> (String, Option<String>) {
    let mut raw = Raw::connect(("127.0.0.1", port)).unwrap();
    let response = raw.request(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{field}\r\n"));
    assert_eq!(response.status, 200, "{}", response.text());
    (response.text(), response.header(header).map(str::to_owned))
}

/// `Cookie` for a `Set-Cookie`.
fn cookie(set: &str) -> String {
    format!("Cookie: other=1; {}\r\n", set.split(';').next().unwrap())
}

#[test]
fn a_cookie_leads_to_the_same_endpoint_as_long_as_that_is_there() {
    let (_servers, ports) = servers::<4>();
    let port = free_port();
    let rest = http_listener(port)
        + &rules(&[
            ("/a", "{sessionName: mine}", "{name: s, port: 80}"),
            ("/b", "{}", "{name: s, port: 80}"),
        ]);
    let files = [("rest.yaml", rest), ("s.yaml", scaled("s", &ports))];
    let proxy = Static::start("session", &files, port);

    let (home, set) = ask(port, "/a", "", "set-cookie");
    let set = set.expect("a new client gets a cookie");
    assert!(set.starts_with("mine="), "{set}");
    assert!(
        set.contains("; Path=/a") && set.contains("; HttpOnly"),
        "{set}"
    );
    assert!(
        !set.contains("Max-Age") && !set.contains("Expires"),
        "{set}"
    );
    let mine = cookie(&set);
    for _ in 0..20 {
        // Nothing new is told while nothing changes.
        assert_eq!(ask(port, "/a", &mine, "set-cookie"), (home.clone(), None));
    }
    // Those of other rules are none here, and the other way round.
    let (_, theirs) = ask(port, "/b", &mine, "set-cookie");
    let theirs = theirs.expect("a cookie of its own");
    assert!(theirs.starts_with("tulle-session-"), "{theirs}");
    let forged = theirs.split_once('=').unwrap().1;
    assert!(
        ask(
            port,
            "/a",
            &format!("Cookie: mine={forged}\r\n"),
            "set-cookie"
        )
        .1
        .is_some()
    );

    // Others come and go.
    let at: usize = home.parse().unwrap();
    let other = ports[(at + 1) % 4];
    proxy.write("s.yaml", &scaled("s", &[other, ports[at]]));
    testkit::wait_for("the others to be gone", SOON, || {
        let seen = (0..20).all(|_| {
            let body: usize = ask(port, "/b", "", "set-cookie").0.parse().unwrap();
            body == at || body == (at + 1) % 4
        });
        seen.then_some(())
    });
    for _ in 0..20 {
        assert_eq!(ask(port, "/a", &mine, "set-cookie"), (home.clone(), None));
    }
    // When its own is gone, the client moves and is told.
    proxy.write("s.yaml", &scaled("s", &[other]));
    let moved = testkit::wait_for("the session to move", SOON, || {
        let (body, set) = ask(port, "/a", &mine, "set-cookie");
        (body != home).then(|| set.expect("a new cookie"))
    });
    assert_eq!(ask(port, "/a", &cookie(&moved), "set-cookie").1, None);
}

#[test]
fn a_session_stays_with_its_backend_whatever_the_weights_become() {
    let (_servers, ports) = servers::<2>();
    let port = free_port();
    let route = |a: u32, b: u32| {
        rules(&[(
            "/",
            "{type: Header, sessionName: X-Session}",
            &format!("{{name: a, port: 80, weight: {a}}}, {{name: b, port: 80, weight: {b}}}"),
        )])
    };
    let rest = [
        http_listener(port),
        scaled("a", &ports[..1]),
        scaled("b", &ports[1..]),
    ]
    .concat();
    let files = [("rest.yaml", rest), ("route.yaml", route(1, 0))];
    let proxy = Static::start("session-weights", &files, port);
    let (body, token) = ask(port, "/", "", "x-session");
    assert_eq!(body, "0");
    let mine = format!(
        "X-Session: {}\r\n",
        token.expect("a new client gets a token")
    );
    proxy.write("route.yaml", &route(0, 1));
    testkit::wait_for("the new weights", SOON, || {
        (ask(port, "/", "", "x-session").0 == "1").then_some(())
    });
    for _ in 0..10 {
        assert_eq!(ask(port, "/", &mine, "x-session"), ("0".to_owned(), None));
    }
}

#[test]
fn a_permanent_cookie_says_how_long_it_lasts_and_a_session_ends_with_its_timeout() {
    let (_servers, ports) = servers::<1>();
    let port = free_port();
    let text = [
        http_listener(port),
        scaled("s", &ports),
        rules(&[
            (
                "/kept",
                "{absoluteTimeout: 5m, cookieConfig: {lifetimeType: Permanent}}",
                "{name: s, port: 80}",
            ),
            ("/short", "{absoluteTimeout: 1s}", "{name: s, port: 80}"),
        ]),
    ]
    .concat();
    let _proxy = Static::start("session-time", &[("all.yaml", text)], port);
    let kept = ask(port, "/kept", "", "set-cookie").1.expect("a cookie");
    assert!(kept.contains("; Max-Age=300"), "{kept}");
    let short = ask(port, "/short", "", "set-cookie").1.expect("a cookie");
    assert!(!short.contains("Max-Age"), "{short}");
    testkit::wait_for("the session to end", SOON, || {
        ask(port, "/short", &cookie(&short), "set-cookie").1
    });
}
