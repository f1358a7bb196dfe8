//! HTTPS, TLS that is ended and TLS that is passed on, all on one port (TLSRouteModeMixed), and
//! requests that came over a connection for another host
//! (GatewayHTTPSListenerDetectMisdirectedRequests).

use super::*;

fn https(name: &str, port: u16, host: &str) -> String {
    let host = match host {
        "" => String::new(),
        host => format!(", hostname: \"{host}\""),
    };
    format!(
        "{{name: {name}, port: {port}, protocol: HTTPS{host}, tls: {{certificateRefs: [{{name: cert}}]}}}}"
    )
}

#[test]
fn one_port_ends_tls_for_some_names_and_passes_it_on_for_others() {
    let echo = Upstream::start(|_| vec![Step::Echo]);
    let web = Upstream::start(|_| Step::answer("hello"));
    let port = free_port();
    let text = [
        gateway(&[
            https("web", port, "web.com"),
            format!("{{name: ended, port: {port}, protocol: TLS, hostname: ended.com, tls: {{mode: Terminate, certificateRefs: [{{name: cert}}]}}}}"),
            format!("{{name: passed, port: {port}, protocol: TLS, hostname: passed.com, tls: {{mode: Passthrough}}}}"),
        ]),
        secret("cert", "web.com"),
        service("echo", "tcp", echo.port()),
        service("web", "http", web.port()),
        http_route("web", "web.com", "web"),
        stream_route("TLSRoute", "ended", "ended", "ended.com", "echo"),
        stream_route("TLSRoute", "passed", "passed", "passed.com", "echo"),
    ]
    .concat();
    let _proxy = Static::start("tls-modes", &[("all.yaml", text)], port);
    assert_eq!(get_tls(port, "web.com", "web.com").1, "hello");

    // What is sent inside TLS comes back: it was ended here.
    let config = anonymous_client_config(&[]);
    let mut ended = Raw::connect_tls(("127.0.0.1", port), config, "ended.com").unwrap();
    ended.send("over and out").unwrap();
    assert_eq!(ended.read_exact(12, SOON).unwrap(), b"over and out");

    // The ClientHello itself comes back: nobody has opened it.
    let name = "passed.com".try_into().unwrap();
    let mut session = rustls::ClientConnection::new(anonymous_client_config(&[]), name).unwrap();
    let mut hello = Vec::new();
    session.write_tls(&mut hello).unwrap();
    let mut passed = Raw::connect(("127.0.0.1", port)).unwrap();
    passed.send(&hello).unwrap();
    assert_eq!(passed.read_exact(hello.len(), SOON).unwrap(), hello);
}

#[test]
fn a_request_for_another_listeners_host_is_misdirected_and_one_for_nobodys_is_not_found() {
    let server = Upstream::start(|_| Step::answer("hello"));
    let port = free_port();
    let route = |name: &str, host: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{parentRefs: [{{name: web, sectionName: {name}}}], {host}rules: [{{backendRefs: [{{name: s, port: 80}}]}}]}}\n---\n"
        )
    };
    let text = [
        gateway(&[
            https("any", port, ""),
            https("second", port, "second.org"),
            https("wild", port, "*.wild.org"),
            https("fourth", port, "fourth.wild.org"),
        ]),
        secret("cert", "second.org"),
        service("s", "http", server.port()),
        route("any", "hostnames: [first.org], "),
        route("second", ""),
        route("wild", ""),
        route("fourth", ""),
    ]
    .concat();
    let _proxy = Static::start("misdirected", &[("all.yaml", text)], port);
    for (name, host, status) in [
        ("first.org", "first.org", 200),
        ("first.org", "second.org", 421),
        ("first.org", "unknown.org", 404),
        ("second.org", "second.org", 200),
        ("second.org", "first.org", 421),
        ("second.org", "unknown.org", 421),
        ("third.wild.org", "fifth.wild.org", 200),
        ("third.wild.org", "fourth.wild.org", 421),
        ("fourth.wild.org", "fourth.wild.org", 200),
        ("fourth.wild.org", "fifth.wild.org", 421),
        ("unknown.org", "first.org", 200),
        ("unknown.org", "unknown.org", 404),
    ] {
        assert_eq!(get_tls(port, name, host).0, status, "{host} over {name}");
    }
}

#[test]
fn a_listener_speaks_no_more_of_tls_than_its_options_say() {
    const X25519MLKEM768: u16 = 0x11ec;
    const X25519: u16 = 0x1d;
    let server = Upstream::start(|_| Step::answer("hello"));
    let (plain, strict) = (free_port(), free_port());
    let options =
        "options: {tulle.dev/min-version: \"1.3\", tulle.dev/key-exchange-groups: X25519MLKEM768}";
    let text = [
        gateway(&[
            https("plain", plain, "a.com"),
            https("strict", strict, "a.com").replace("tls: {", &format!("tls: {{{options}, ")),
        ]),
        secret("cert", "a.com"),
        service("s", "http", server.port()),
        http_route("r", "a.com", "s"),
    ]
    .concat();
    let _proxy = Static::start("tls-options", &[("all.yaml", text)], plain);
    let (v12, v13) = (&rustls::version::TLS12, &rustls::version::TLS13);
    for (port, version, group, taken) in [
        (plain, v13, X25519MLKEM768, true),
        (plain, v13, X25519, true),
        (plain, v12, X25519, true),
        (strict, v13, X25519MLKEM768, true),
        (strict, v13, X25519, false),
        (strict, v12, X25519, false),
    ] {
        let config = narrow_client_config(version, group);
        let answered =
            Raw::connect_tls(("127.0.0.1", port), config, "a.com").is_ok_and(|mut raw| {
                let sent = raw.send("GET / HTTP/1.1\r\nHost: a.com\r\n\r\n");
                sent.is_ok() && raw.response(SOON).is_ok_and(|answer| answer.status == 200)
            });
        assert_eq!(
            answered,
            taken,
            "{version:?} {group:#x}, strict: {}",
            port == strict
        );
    }
}
