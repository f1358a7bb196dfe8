//! What a Gateway shows to backends that ask for a certificate
//! (`spec.tls.backend.clientCertificateRef`), with nginx as such a backend.

use std::net::SocketAddr;

use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, Issuer};

use super::*;
use crate::front::nginx_command;

/// An authority that vouches for both sides.
struct Authority {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        Self {
            certificate,
            issuer,
        }
    }

    /// Certificate and key in PEM.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let names = &mut params.distinguished_name;
        names.push(rcgen::DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// The Secret `ours`, with a certificate of this name.
fn ours(authority: &Authority, name: &str) -> String {
    let (certificate, key) = authority.issue(name);
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: ours, namespace: shop}}\ntype: kubernetes.io/tls\nstringData:\n  tls.crt: |\n{}  tls.key: |\n{}---\n",
        indented(&certificate),
        indented(&key)
    )
}

/// A server that takes none but those whom the authority vouches for, and says whom it sees.
fn strict(authority: &Authority, dir: &DataDir) -> Option<(Process, u16)> {
    if Command::new("nginx").arg("-v").output().is_err() {
        eprintln!("skipped: nginx as a backend: it is not installed (apt-get install nginx)");
        return None;
    }
    let (certificate, key) = authority.issue("backend.example");
    let certificate = dir.write("server.crt", certificate);
    let key = dir.write("server.key", key);
    let ca = dir.write("ca.crt", authority.certificate.pem());
    let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let http = format!(
        "server {{ listen {addr} ssl; ssl_certificate {}; ssl_certificate_key {}; \
         ssl_client_certificate {}; ssl_verify_client on; \
         location / {{ return 200 \"$ssl_client_s_dn\"; }} }}",
        certificate.display(),
        key.display(),
        ca.display()
    );
    let process = Process::spawn("nginx", &mut nginx_command(dir, &http), dir.path());
    testkit::wait_for("nginx", SOON, || Raw::connect(addr).ok());
    Some((process, addr.port()))
}

/// Two Gateways before the same backend; only `web` has something to show.
fn world(authority: &Authority, web: u16, bare: u16, endpoint: u16) -> Vec<(&'static str, String)> {
    let gateway = |name: &str, port: u16, tls: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  gatewayClassName: tulle\n{tls}  listeners: [{{name: http, port: {port}, protocol: HTTP}}]\n---\n"
        )
    };
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r, namespace: shop}\nspec: {parentRefs: [{name: web}, {name: bare}], rules: [{backendRefs: [{name: s, port: 80}]}]}\n---\n";
    let policy = "apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\nmetadata: {name: p, namespace: shop}\nspec: {targetRefs: [{group: '', kind: Service, name: s}], validation: {caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}], hostname: backend.example}}\n---\n";
    let ca = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: ca, namespace: shop}}\ndata:\n  ca.crt: |\n{}---\n",
        indented(&authority.certificate.pem())
    );
    let shows = "  tls: {backend: {clientCertificateRef: {name: ours}}}\n";
    let rest = [
        gateway("web", web, shows),
        gateway("bare", bare, ""),
        service("s", "http", endpoint),
        route.to_owned(),
        policy.to_owned(),
        ca,
    ];
    vec![("rest.yaml", rest.concat())]
}

#[test]
fn a_backend_sees_the_gateways_certificate_and_its_successor() {
    let authority = Authority::new();
    let dir = DataDir::new("strict");
    let Some((_server, endpoint)) = strict(&authority, &dir) else {
        return;
    };
    let (web, bare) = (free_port(), free_port());
    let mut files = world(&authority, web, bare, endpoint);
    files.push(("secret.yaml", ours(&authority, "first.example")));
    let proxy = Static::start("shown", &files, web);
    for _ in 0..3 {
        assert_eq!(get(web, "a"), (200, "CN=first.example".to_owned()));
        // Another Gateway has nothing to show, and no use of the connection above.
        assert_eq!(get(bare, "a").0, 400, "nginx: no certificate was sent");
    }

    proxy.write("secret.yaml", &ours(&authority, "second.example"));
    testkit::wait_for("the new certificate", SOON, || {
        (get(web, "a").1 == "CN=second.example").then_some(())
    });
    assert_eq!(get(web, "a").1, "CN=second.example");
}

#[test]
fn without_the_secret_nothing_is_sent_and_the_reason_is_said() {
    let authority = Authority::new();
    let server = Upstream::start(|_| vec![Step::ReadToEnd]);
    let (web, bare) = (free_port(), free_port());
    let files = world(&authority, web, bare, server.port());
    let proxy = Static::start("unshown", &files, web);
    let (status, body) = get(web, "a");
    assert_eq!(status, 503, "{body}");
    for part in ["tls_failed", "shop/web", "Secret \"ours\" does not exist"] {
        assert!(body.contains(part), "no {part} in {body}");
    }
    assert!(server.received(0).is_empty(), "it was sent something");
    let said = proxy.proxy.stderr();
    assert!(
        said.contains("spec.tls.backend.clientCertificateRef: Secret \"ours\" does not exist"),
        "{said}"
    );
}
