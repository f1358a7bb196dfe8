//! Certificates of a Gateway's clients (GEP-91): who is taken, who is not, and what a change of
//! roots does.

use std::sync::Arc;

use rustls::ClientConfig;
use testkit::certs::{Forge, Leaf, around_now};

use super::*;

const NAME: &str = "a.com";

/// A Gateway with one HTTPS listener; `frontend` is its `tls.frontend` in YAML's flow style.
fn verifying(port: u16, frontend: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: web, namespace: shop}}\nspec:\n  gatewayClassName: tulle\n  tls: {{frontend: {frontend}}}\n  listeners: [{{name: a, port: {port}, protocol: HTTPS, tls: {{certificateRefs: [{{name: a}}]}}}}]\n---\n"
    )
}

/// `validation` by the roots in a ConfigMap of this name.
fn validation(roots: &str, mode: &str) -> String {
    format!(
        "{{validation: {{mode: {mode}, caCertificateRefs: [{{group: '', kind: ConfigMap, name: {roots}}}]}}}}"
    )
}

/// A ConfigMap with the root of an authority.
fn config_map(name: &str, authority: &Forge) -> String {
    let text = pem(authority.root_der());
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: shop}}\ndata:\n  ca.crt: |\n{}---\n",
        indented(&text)
    )
}

fn client() -> Leaf {
    Leaf::of("spiffe://example.com/client").dns("client.example.com")
}

/// What a client gets that shows this: a status, or the TLS alert.
fn ask(port: u16, config: &Arc<ClientConfig>) -> Result<u16, Ended> {
    let mut raw = Raw::connect_tls(("127.0.0.1", port), Arc::clone(config), NAME)?;
    // In TLS 1.3 the refusal comes with the first read, or is quicker than the request.
    let _ = raw.send(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n"));
    raw.response(SOON).map(|response| response.status)
}

#[track_caller]
fn refused(port: u16, config: &Arc<ClientConfig>, who: &str) {
    let asked = ask(port, config);
    assert!(
        matches!(&asked, Err(Ended::Tls(rustls::Error::AlertReceived(_)))),
        "{who}: {asked:?}"
    );
}

fn world(port: u16, server: &Upstream, frontend: &str) -> Vec<(&'static str, String)> {
    let rest = [
        service("s", "http", server.port()),
        http_route("r", "", "s"),
        secret("a", NAME),
    ];
    vec![
        ("gateway.yaml", verifying(port, frontend)),
        ("rest.yaml", rest.concat()),
    ]
}

#[test]
fn only_clients_that_the_roots_vouch_for_are_served() {
    let (ours, theirs) = (Forge::new("example.com"), Forge::new("example.com"));
    let server = Upstream::start(|_| Step::answer("hello"));
    let port = free_port();
    let frontend = format!("{{default: {}}}", validation("ca", "AllowValidOnly"));
    let mut files = world(port, &server, &frontend);
    files.push(("ca.yaml", config_map("ca", &ours)));
    let proxy = Static::start("clients", &files, port);

    let alpn: &[&[u8]] = &[b"http/1.1"];
    let known = ours.sign(&client()).client_config(alpn);
    assert_eq!(ask(port, &known), Ok(200));
    // Resumed: by a ticket of the session before.
    assert_eq!(ask(port, &known), Ok(200));

    let (begin, _) = around_now();
    let day = Duration::from_hours(24);
    let expired = client().valid(begin - day, begin);
    let server_only = [rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let nobody = anonymous_client_config(alpn);
    let before = server.requests();
    for (who, config) in [
        ("nobody", &nobody),
        (
            "of another authority",
            &theirs.sign(&client()).client_config(alpn),
        ),
        ("expired", &ours.sign(&expired).client_config(alpn)),
        (
            "a server's",
            &ours
                .sign(&client().extended_key_usages(&server_only))
                .client_config(alpn),
        ),
    ] {
        refused(port, config, who);
    }
    assert_eq!(server.requests(), before, "nobody else came through");

    // Other roots: from then on others are taken, and no ticket of before helps.
    let other = theirs.sign(&client()).client_config(alpn);
    proxy.write("ca.yaml", &config_map("ca", &theirs));
    testkit::wait_for("the new roots", SOON, || ask(port, &other).ok());
    refused(port, &known, "whom the roots of before vouched for");
}

#[test]
fn whoever_cannot_be_verified_is_taken_where_that_is_asked_for() {
    let (ours, theirs) = (Forge::new("example.com"), Forge::new("example.com"));
    let server = Upstream::start(|_| Step::answer("hello"));
    let port = free_port();
    let mode = validation("ca", "AllowInsecureFallback");
    let mut files = world(port, &server, &format!("{{default: {mode}}}"));
    files.push(("ca.yaml", config_map("ca", &ours)));
    let _proxy = Static::start("fallback", &files, port);
    let alpn: &[&[u8]] = &[b"http/1.1"];
    for config in [
        ours.sign(&client()).client_config(alpn),
        theirs.sign(&client()).client_config(alpn),
        anonymous_client_config(alpn),
    ] {
        assert_eq!(ask(port, &config), Ok(200));
    }
}

#[test]
fn a_port_of_its_own_has_rules_of_its_own() {
    let ours = Forge::new("example.com");
    let server = Upstream::start(|_| Step::answer("hello"));
    let port = free_port();
    let frontend = format!(
        "{{default: {}, perPort: [{{port: {port}, tls: {{}}}}]}}",
        validation("ca", "AllowValidOnly")
    );
    let mut files = world(port, &server, &frontend);
    files.push(("ca.yaml", config_map("ca", &ours)));
    let _proxy = Static::start("per-port", &files, port);
    let nobody = anonymous_client_config(&[b"http/1.1"]);
    assert_eq!(ask(port, &nobody), Ok(200));
}

#[test]
fn without_roots_the_listener_stays_closed() {
    let server = Upstream::start(|_| Step::answer("hello"));
    let (port, marker) = (free_port(), free_port());
    let frontend = format!("{{default: {}}}", validation("nowhere", "AllowValidOnly"));
    let mut files = world(port, &server, &frontend);
    let open = http_listener(marker).replace("name: web", "name: open");
    files.push(("open.yaml", open));
    let proxy = Static::start("rootless", &files, marker);
    let nobody = anonymous_client_config(&[b"http/1.1"]);
    assert!(ask(port, &nobody).is_err());
    assert_eq!(server.requests(), 0);
    let said = proxy.proxy.stderr();
    assert!(
        said.contains("ConfigMap \"nowhere\" does not exist"),
        "{said}"
    );
}
