//! Certificates that are not the mesh's own get a TLS alert, at the control plane and at a
//! workload's proxy; and nobody else notices.

use identity::ca::Authority;
use model::{SpiffeId, TrustDomain};
use rustls::ClientConfig;
use rustls::Error::AlertReceived;
use std::sync::Arc;
use std::time::SystemTime;
use testkit::certs::{Forge, Forged, Leaf, anonymous_client_config};
use testkit::raw::Ended;
use testkit::upstream::{Step, Upstream};

use super::*;

const CALLER: &str = "spiffe://mesh.local/ns/shop/sa/caller";

/// A certificate that the plane's own authority issued at another time.
fn genuine(plane: &Plane, now: SystemTime) -> Forged {
    let domain = TrustDomain::new("mesh.local").expect("a name");
    let authority = Authority::load_or_create(&plane.dir.join("ca"), &domain, SystemTime::now());
    let id = SpiffeId::of_service_account(&domain, "shop", "caller").expect("an id");
    let svid = authority
        .expect("the authority's keys")
        .issue(&id, Duration::from_hours(1), now)
        .expect("issued");
    let path = plane.dir.join("issued.pem");
    svid.save(&path).expect("saved");
    Forged::from_pem(&fs::read(path).expect("saved"))
}

/// What is wrong, and who shows it.
fn impostors(plane: &Plane) -> Vec<(&'static str, Forged)> {
    let hours = |n| Duration::from_hours(n);
    let now = SystemTime::now();
    let forge = Forge::new("mesh.local");
    let two_names = Leaf::of(CALLER).uri("spiffe://mesh.local/ns/bank/sa/vault");
    let mut appended = forge.svid(CALLER);
    appended.chain.extend(genuine(plane, now).chain);
    vec![
        ("forged", forge.svid(CALLER)),
        (
            "of another mesh",
            Forge::new("other.mesh").svid("spiffe://other.mesh/ns/shop/sa/caller"),
        ),
        ("forged, with a genuine chain after it", appended),
        ("without a name", forge.sign(&Leaf::of(CALLER).nameless())),
        ("with two names", forge.sign(&two_names)),
        ("an authority's", forge.sign(&Leaf::of(CALLER).authority())),
        ("expired", genuine(plane, now - hours(3))),
        ("not valid yet", genuine(plane, now + hours(3))),
    ]
}

/// How the peer ends a connection with this configuration, on which a request is sent.
fn ending(address: SocketAddr, config: Arc<ClientConfig>, sni: &str) -> Ended {
    let mut raw = match Raw::connect_tls(address, config, sni) {
        Ok(raw) => raw,
        Err(ended) => return ended,
    };
    // The refusal may be quicker.
    let _ = raw.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let (received, ended) = raw.read_to_end(SOON);
    assert_eq!(String::from_utf8_lossy(&received), "", "it was answered");
    ended
}

#[test]
fn impostors_get_an_alert_and_nobody_else_notices() {
    let plane = Plane::start("impostor");
    let program = Upstream::start(|_| Step::answer("reviews"));
    let _reviews = plane.serve("reviews", "reviews-0", program.port());
    let (_caller, proxy) = plane.client("caller", &[]);
    wait_through(proxy, "reviews.shop", "reviews");
    // A connection of before, which must live on.
    let mut kept = Raw::connect(("127.0.0.1", proxy)).expect("the proxy listens");
    let ask = "GET http://reviews.shop/ HTTP/1.1\r\nhost: reviews.shop\r\n\r\n";
    assert_eq!(kept.request(ask).status, 200);
    let requests = program.requests();

    let tunnel = plane
        .proxy_port("reviews-0", "tunnel")
        .expect("a tunnel port");
    let tunnel = SocketAddr::from(([127, 0, 0, 1], tunnel));
    let sni = format!("{}.reviews-0.shop.tulle", program.port());
    let impostors = impostors(&plane);
    for (what, who) in &impostors {
        for alpn in [
            &b"tulle-h1"[..],
            b"tulle-h2",
            b"tulle-tcp",
            b"tulle-mux",
            b"h2",
        ] {
            let ended = ending(tunnel, who.client_config(&[alpn]), &sni);
            assert!(
                matches!(ended, Ended::Tls(AlertReceived(_))),
                "a certificate {what} at the proxy: {ended:?}"
            );
        }
        let ended = ending(
            plane.address("xds"),
            who.client_config(&[b"h2"]),
            "control.tulle",
        );
        assert!(
            matches!(ended, Ended::Tls(AlertReceived(_))),
            "a certificate {what} at the control plane: {ended:?}"
        );
    }
    let ended = ending(tunnel, anonymous_client_config(&[b"tulle-h1"]), &sni);
    assert!(
        matches!(ended, Ended::Tls(AlertReceived(_))),
        "none at the proxy: {ended:?}"
    );
    assert_eq!(
        program.requests(),
        requests,
        "an impostor reached the program"
    );
    assert_eq!(kept.request(ask).status, 200);
    wait_through(proxy, "reviews.shop", "reviews");

    // The other way round proves that the refusals were for the certificates.
    let genuine = Forged::from_pem(&plane.svid("caller"));
    let mut raw =
        Raw::connect_tls(tunnel, genuine.client_config(&[b"tulle-h1"]), &sni).expect("taken");
    assert_eq!(raw.get("reviews.shop", "/").text(), "reviews");
    // It is for this workload and no other, whoever asks.
    for other in ["reviews-1.shop", "reviews-0.bank"] {
        let sni = format!("{}.{other}.tulle", program.port());
        let raw = Raw::connect_tls(tunnel, genuine.client_config(&[b"tulle-h1"]), &sni);
        if let Ok(mut raw) = raw {
            let _ = raw.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
            let (text, _) = raw.read_to_end(SOON);
            assert!(
                !String::from_utf8_lossy(&text).contains(" 200 "),
                "{other} was answered"
            );
        }
    }
}

#[test]
fn a_workloads_own_certificate_renews_it_and_opens_nothing_else() {
    let plane = Plane::start("renew");
    let (_caller, _) = plane.client("caller", &[]);
    let own = Forged::from_pem(&plane.svid("caller"));
    rpc::runtime().block_on(async {
        let mut signer = rpc::signer(&plane, Some(&own));
        let mut request = rpc::request("");
        request.join_token = None;
        let chain = signer
            .sign(request)
            .await
            .expect("renewed")
            .into_inner()
            .chain_der;
        plane.dir.write("renewed.der", &chain[0]);
    });
    let shown = plane.json(&["cert", "show", "renewed.der"]);
    assert_eq!(shown[0]["ids"][0], CALLER);

    // The HTTP API is not for those who come over TLS, but for what is public.
    let ask = |path: &str, method: &str| {
        let config = own.client_config(&[b"http/1.1"]);
        let mut raw =
            Raw::connect_tls(plane.address("xds"), config, "control.tulle").expect("taken");
        raw.request(format!(
            "{method} {path} HTTP/1.1\r\nhost: control.tulle\r\ncontent-length: 0\r\n\r\n"
        ))
        .status
    };
    assert_eq!(ask("/api/v1/trust", "GET"), 200);
    assert_eq!(ask("/api/v1/status", "GET"), 403);
    assert_eq!(ask("/api/v1/tokens", "POST"), 403);
    assert_eq!(
        ask("/api/v1/resources/workloads/shop/caller", "DELETE"),
        403
    );
}
