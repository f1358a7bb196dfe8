use std::time::SystemTime;

use identity::ca::Authority;
use identity::tls::{ClientAuth, Credentials, Expected, client_config, server_config};
use model::TrustDomain;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;

const WAIT: Duration = Duration::from_secs(5);
const HOUR: Duration = Duration::from_hours(1);

struct Mesh {
    authority: Authority,
    _directory: tempfile::TempDir,
}

fn id(account: &str) -> SpiffeId {
    format!("spiffe://mesh.local/ns/shop/sa/{account}")
        .parse()
        .unwrap()
}

impl Mesh {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let domain = TrustDomain::default();
        let authority = Authority::open(directory.path(), &domain, None, SystemTime::now());
        Self {
            authority: authority.unwrap(),
            _directory: directory,
        }
    }

    fn member(&self, account: &str) -> Arc<Credentials> {
        self.member_since(account, SystemTime::now())
    }

    fn member_since(&self, account: &str, since: SystemTime) -> Arc<Credentials> {
        let svid = self.authority.issue(&id(account), HOUR, since).unwrap();
        Credentials::new(svid, self.authority.trust_bundle())
    }
}

fn sni() -> ServerName<'static> {
    ServerName::try_from("9080.reviews-0.shop.tulle").unwrap()
}

type Handshake<T> = Result<(T, Peer), TlsError>;

async fn shake(
    client: &Arc<Credentials>,
    server: &Arc<Credentials>,
    expected: Expected,
) -> (
    Handshake<client::TlsStream<tokio::io::DuplexStream>>,
    Handshake<server::TlsStream<tokio::io::DuplexStream>>,
) {
    let (near, far) = duplex(64 * 1024);
    let out = client_config(client, expected, &[b"tulle-h2", b"h2"]);
    let into = server_config(server, &[b"tulle-h2"], ClientAuth::Required);
    tokio::join!(connect(near, out, sni(), WAIT), accept(far, into, WAIT))
}

#[tokio::test]
async fn both_sides_learn_who_the_other_is_and_what_was_agreed() {
    let mesh = Mesh::new();
    let (storefront, reviews) = (mesh.member("storefront"), mesh.member("reviews"));
    let (client, server) = shake(&storefront, &reviews, Expected::Id(id("reviews"))).await;
    let ((mut out, seen_by_client), (mut into, seen_by_server)) =
        (client.unwrap(), server.unwrap());
    let peer = |account| Peer {
        id: Some(id(account)),
        alpn: Some(b"tulle-h2".to_vec()),
        sni: Some("9080.reviews-0.shop.tulle".into()),
        kx_group: "X25519MLKEM768",
        version: "TLSv1.3",
    };
    assert_eq!(seen_by_client, peer("reviews"));
    assert_eq!(seen_by_server, peer("storefront"));
    out.write_all(b"hello").await.unwrap();
    out.shutdown().await.unwrap();
    let mut got = String::new();
    into.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "hello");
}

#[tokio::test]
async fn somebody_else_is_told_from_a_stranger_and_from_the_expired() {
    let mesh = Mesh::new();
    let client = mesh.member("storefront");
    let other = mesh.member("ratings");
    let (e, refused) = shake(&client, &other, Expected::Id(id("reviews"))).await;
    let e = e.unwrap_err();
    assert!(e.is_identity_mismatch() && e.is_about_identity(), "{e:?}");
    let refused = refused.unwrap_err();
    assert!(
        matches!(refused, TlsError::Refused(_)),
        "the server learns of it: {refused:?}"
    );

    let stranger = Mesh::new().member("reviews");
    let (e, _) = shake(&client, &stranger, Expected::Id(id("reviews"))).await;
    let e = e.unwrap_err();
    assert!(matches!(e, TlsError::Untrusted(_)), "{e:?}");

    let expired = mesh.member_since("reviews", SystemTime::now() - 10 * HOUR);
    let (e, _) = shake(&client, &expired, Expected::Id(id("reviews"))).await;
    let e = e.unwrap_err();
    assert!(matches!(e, TlsError::Expired(_)), "{e:?}");
}

#[tokio::test]
async fn a_server_tells_why_it_refuses_and_the_client_learns_at_its_first_read() {
    let mesh = Mesh::new();
    let expired = mesh.member_since("storefront", SystemTime::now() - 10 * HOUR);
    let (client, e) = shake(&expired, &mesh.member("reviews"), Expected::TrustDomain).await;
    let e = e.unwrap_err();
    assert!(matches!(e, TlsError::Expired(_)), "{e:?}");
    let (mut out, _) = client.expect("TLS 1.3: the client is done before the server has looked");
    let e = TlsError::from_io(out.read_u8().await.unwrap_err());
    assert!(matches!(e, TlsError::Refused(_)), "{e:?}");
}

#[tokio::test]
async fn a_client_without_certificate_is_refused_or_nameless() {
    let mesh = Mesh::new();
    let reviews = mesh.member("reviews");
    let mut anonymous = (*client_config(&reviews, Expected::TrustDomain, &[])).clone();
    anonymous.client_auth_cert_resolver = Arc::new(NoCertificate);
    let anonymous = Arc::new(anonymous);
    for (policy, welcome) in [(ClientAuth::Required, false), (ClientAuth::Optional, true)] {
        let (near, far) = duplex(64 * 1024);
        let into = server_config(&reviews, &[], policy);
        let (_out, server) = tokio::join!(
            connect(near, Arc::clone(&anonymous), sni(), WAIT),
            accept(far, into, WAIT)
        );
        match server {
            Ok((_, peer)) => assert!(welcome && peer.id.is_none() && peer.alpn.is_none()),
            Err(e) => assert!(!welcome && matches!(e, TlsError::NoCertificate), "{e:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn garbage_silence_and_hanging_up_are_told_apart() {
    let mesh = Mesh::new();
    let reviews = mesh.member("reviews");
    let config = || server_config(&reviews, &[], ClientAuth::Required);

    let (mut near, far) = duplex(1024);
    near.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let e = accept(far, config(), WAIT).await.unwrap_err();
    assert!(
        matches!(e, TlsError::Protocol(_)) && !e.is_about_identity(),
        "{e:?}"
    );

    let (_near, far) = duplex(1024);
    let e = accept(far, config(), WAIT).await.unwrap_err();
    assert!(matches!(e, TlsError::Timeout(WAIT)), "{e:?}");

    let (mut near, far) = duplex(1024);
    near.write_all(&[22, 3, 1, 1, 0, 1]).await.unwrap();
    drop(near);
    let e = accept(far, config(), WAIT).await.unwrap_err();
    assert!(matches!(e, TlsError::Eof), "{e:?}");
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(
        &self,
        _: &[&[u8]],
        _: &[rustls::SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}
