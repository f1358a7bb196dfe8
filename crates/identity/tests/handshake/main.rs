//! Two members of the mesh, or a member and an impostor, shake hands in memory.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod session;

use std::fmt::Debug;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::ca::Authority;
use identity::svid::{PendingKey, Svid};
use identity::tls::{
    ClientAuth, Credentials, Expected, InvalidRoots, VerifyError, anchored_client_config,
    client_config, peer_id, pinned_client_config, server_config, verify_error,
};
use model::mesh::TrustBundle;
use model::{SpiffeId, TrustDomain};
use rcgen::{ExtendedKeyUsagePurpose, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, HandshakeKind, NamedGroup, ProtocolVersion,
    ServerConfig, ServerConnection,
};
use tempfile::TempDir;
use testkit::certs::{Forge, Forged, Leaf, anonymous_client_config};

const HOUR: Duration = Duration::from_hours(1);
const ALPN: &[&[u8]] = &[b"tulle-h2"];
const SHOP: &str = "spiffe://mesh.local/ns/bookshop/sa/storefront";
const REVIEWS: &str = "spiffe://mesh.local/ns/bookshop/sa/reviews";

struct Mesh {
    authority: Authority,
    _dir: TempDir,
}

impl Mesh {
    fn new(domain: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let domain = TrustDomain::new(domain).unwrap();
        let now = SystemTime::now();
        Self {
            authority: Authority::open(dir.path(), &domain, None, now).unwrap(),
            _dir: dir,
        }
    }

    /// As a workload gets it: key made here, certificate signed there.
    fn svid(&self, id: &str) -> Svid {
        self.svid_at(id, HOUR, SystemTime::now())
    }

    fn svid_at(&self, id: &str, ttl: Duration, now: SystemTime) -> Svid {
        let key = PendingKey::generate().unwrap();
        let csr = key.csr_der().unwrap();
        let chain = self.authority.sign(&csr, &self::id(id), ttl, now).unwrap();
        key.into_svid(chain).unwrap()
    }

    fn member(&self, id: &str) -> Arc<Credentials> {
        Credentials::new(self.svid(id), self.authority.trust_bundle())
    }
}

fn id(text: &str) -> SpiffeId {
    text.parse().unwrap()
}

fn calls(caller: &Arc<Credentials>, expected: &str) -> Arc<ClientConfig> {
    client_config(caller, Expected::Id(id(expected)), ALPN)
}

fn serves(server: &Arc<Credentials>) -> Arc<ServerConfig> {
    server_config(server, ALPN, ClientAuth::Required)
}

struct Pair {
    client: ClientConnection,
    server: ServerConnection,
}

#[derive(Debug)]
enum Refused {
    ByClient(rustls::Error),
    ByServer(rustls::Error),
}

impl Refused {
    fn reason(&self) -> VerifyError {
        let (Self::ByClient(error) | Self::ByServer(error)) = self;
        verify_error(error).unwrap_or_else(|| panic!("no verification error: {self:?}"))
    }

    fn by_client(&self) -> VerifyError {
        assert!(matches!(self, Self::ByClient(_)), "{self:?}");
        self.reason()
    }

    fn by_server(&self) -> VerifyError {
        assert!(matches!(self, Self::ByServer(_)), "{self:?}");
        self.reason()
    }
}

impl Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an established connection")
    }
}

impl Pair {
    fn shake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Result<Self, Refused> {
        let name = ServerName::try_from("9080.reviews-v1-0.bookshop.tulle").unwrap();
        let mut pair = Self {
            client: ClientConnection::new(client, name).unwrap(),
            server: ServerConnection::new(server).unwrap(),
        };
        pair.exchange()?;
        assert!(!pair.client.is_handshaking() && !pair.server.is_handshaking());
        Ok(pair)
    }

    /// Carries bytes to and fro until there are none.
    fn exchange(&mut self) -> Result<(), Refused> {
        let mut moved = true;
        while moved {
            moved = false;
            let mut bytes = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut bytes).unwrap();
            }
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                moved = true;
                self.server.read_tls(&mut rest).unwrap();
                self.server
                    .process_new_packets()
                    .map_err(Refused::ByServer)?;
            }
            let mut bytes = Vec::new();
            while self.server.wants_write() {
                self.server.write_tls(&mut bytes).unwrap();
            }
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                moved = true;
                self.client.read_tls(&mut rest).unwrap();
                self.client
                    .process_new_packets()
                    .map_err(Refused::ByClient)?;
            }
        }
        Ok(())
    }

    fn says(&mut self, text: &str) -> String {
        self.client.writer().write_all(text.as_bytes()).unwrap();
        self.exchange().unwrap();
        let mut heard = vec![0; text.len()];
        self.server.reader().read_exact(&mut heard).unwrap();
        String::from_utf8(heard).unwrap()
    }

    fn resumed(&self) -> bool {
        self.client.handshake_kind() == Some(HandshakeKind::Resumed)
    }
}

#[test]
fn members_prove_who_they_are_over_a_hybrid_key_exchange() {
    let mesh = Mesh::new("mesh.local");
    let (shop, reviews) = (mesh.member(SHOP), mesh.member(REVIEWS));
    let mut pair = Pair::shake(calls(&shop, REVIEWS), serves(&reviews)).unwrap();

    assert_eq!(
        pair.client.protocol_version(),
        Some(ProtocolVersion::TLSv1_3)
    );
    let group = |g: Option<&'static dyn rustls::crypto::SupportedKxGroup>| {
        g.map(rustls::crypto::SupportedKxGroup::name)
    };
    let hybrid = Some(NamedGroup::X25519MLKEM768);
    assert_eq!(group(pair.client.negotiated_key_exchange_group()), hybrid);
    assert_eq!(group(pair.server.negotiated_key_exchange_group()), hybrid);
    assert_eq!(
        pair.client.handshake_kind(),
        Some(HandshakeKind::Full),
        "the first flight carries the right key share, no retry"
    );
    assert_eq!(pair.client.alpn_protocol(), Some(ALPN[0]));
    assert_eq!(
        peer_id(pair.client.peer_certificates().unwrap()),
        Ok(id(REVIEWS))
    );
    assert_eq!(
        peer_id(pair.server.peer_certificates().unwrap()),
        Ok(id(SHOP))
    );
    assert_eq!(pair.says("one book"), "one book");
}

#[test]
fn a_genuine_peer_at_the_wrong_place_is_an_identity_mismatch() {
    let mesh = Mesh::new("mesh.local");
    let (shop, reviews) = (mesh.member(SHOP), mesh.member(REVIEWS));
    let refused = Pair::shake(calls(&shop, SHOP), serves(&reviews)).unwrap_err();
    let reason = refused.by_client();
    assert!(reason.is_identity_mismatch());
    assert_eq!(
        reason.to_string(),
        format!("expected {SHOP}, the peer is {REVIEWS}")
    );

    let same_domain = client_config(&shop, Expected::TrustDomain, ALPN);
    Pair::shake(same_domain, serves(&reviews)).unwrap();
}

#[test]
fn a_foreign_root_is_not_believed_by_either_side() {
    let (mesh, other) = (Mesh::new("mesh.local"), Mesh::new("mesh.local"));
    let (shop, impostor) = (mesh.member(SHOP), other.member(REVIEWS));
    let refused = Pair::shake(calls(&shop, REVIEWS), serves(&impostor)).unwrap_err();
    assert!(matches!(refused.by_client(), VerifyError::Untrusted { .. }));

    let credulous = other.svid(REVIEWS);
    let text = saved(&credulous);
    let client = Forged::from_pem(&text).client_config(ALPN);
    let refused = Pair::shake(client, serves(&shop)).unwrap_err();
    assert!(matches!(refused.by_server(), VerifyError::Untrusted { .. }));
}

fn saved(svid: &Svid) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("svid.pem");
    svid.save(&path).unwrap();
    std::fs::read(path).unwrap()
}

#[test]
fn an_authority_cannot_speak_for_another_trust_domain() {
    // "partner" is trusted for partner.example, and signs an identity of mesh.local.
    let mesh = Mesh::new("mesh.local");
    let partner = Forge::new("partner.example");
    let reviews = mesh.member(REVIEWS);
    let mut bundle: TrustBundle = mesh.authority.trust_bundle();
    bundle.roots.extend(partner.trust_bundle().roots);
    reviews.set_bundle(bundle);

    let honest = partner.svid("spiffe://partner.example/ns/x/sa/y");
    Pair::shake(honest.client_config(ALPN), serves(&reviews)).unwrap();

    let forged = partner.svid(SHOP);
    let refused = Pair::shake(forged.client_config(ALPN), serves(&reviews)).unwrap_err();
    assert!(matches!(refused.by_server(), VerifyError::Untrusted { .. }));

    let stranger = Forge::new("stranger.example").svid("spiffe://stranger.example/ns/x/sa/y");
    let refused = Pair::shake(stranger.client_config(ALPN), serves(&reviews)).unwrap_err();
    assert!(matches!(
        refused.by_server(),
        VerifyError::UntrustedDomain { .. }
    ));
}

#[test]
fn certificates_out_of_their_time_are_refused_and_the_peer_is_told() {
    let mesh = Mesh::new("mesh.local");
    let (now, bundle) = (SystemTime::now(), mesh.authority.trust_bundle());
    let shop = mesh.member(SHOP);
    let at = |when| Credentials::new(mesh.svid_at(REVIEWS, HOUR, when), bundle.clone());

    let expired = at(now - 2 * HOUR);
    let refused = Pair::shake(calls(&shop, REVIEWS), serves(&expired)).unwrap_err();
    assert!(matches!(refused.by_client(), VerifyError::Expired { .. }));

    let early = at(now + HOUR);
    let refused = Pair::shake(calls(&shop, REVIEWS), serves(&early)).unwrap_err();
    assert!(matches!(
        refused.by_client(),
        VerifyError::NotYetValid { .. }
    ));

    // The authority's clock is four minutes ahead of the peer's: back-dating covers it.
    let skewed = at(now + Duration::from_mins(4));
    Pair::shake(calls(&shop, REVIEWS), serves(&skewed)).unwrap();

    // Whoever comes with an expired certificate receives the alert that says so.
    let mut pair = Pair {
        client: ClientConnection::new(
            calls(&expired, SHOP),
            ServerName::try_from("80.shop.bookshop.tulle").unwrap(),
        )
        .unwrap(),
        server: ServerConnection::new(serves(&shop)).unwrap(),
    };
    assert!(matches!(
        pair.exchange().unwrap_err().by_server(),
        VerifyError::Expired { .. }
    ));
    let mut alert = Vec::new();
    pair.server.write_tls(&mut alert).unwrap();
    pair.client.read_tls(&mut alert.as_slice()).unwrap();
    let error = pair.client.process_new_packets().unwrap_err();
    let expired = rustls::Error::AlertReceived(AlertDescription::CertificateExpired);
    assert_eq!(error, expired);
}

#[test]
fn certificates_that_are_no_svids_are_refused() {
    use VerifyError::{Malformed, NotSvid, Untrusted};
    let forge = Forge::new("mesh.local");
    let server = Credentials::new(Mesh::new("mesh.local").svid(REVIEWS), forge.trust_bundle());
    let proper = || Leaf::of(SHOP);
    let svid = |leaf: Leaf| forge.sign(&leaf);
    Pair::shake(
        svid(proper().dns("shop.example")).client_config(ALPN),
        serves(&server),
    )
    .unwrap();

    let not_svid: [(&str, Leaf); 10] = [
        ("2 URI names", proper().uri(REVIEWS)),
        ("no URI name", proper().nameless().dns("shop.example")),
        ("not a SPIFFE ID", Leaf::of("https://mesh.local/ns/a/sa/b")),
        (
            "not a SPIFFE ID",
            Leaf::of("spiffe://mesh.local/ns/a/../sa/b"),
        ),
        ("of an authority", proper().authority()),
        ("no key usage", proper().key_usages(&[])),
        (
            "digitalSignature",
            proper().key_usages(&[KeyUsagePurpose::KeyAgreement]),
        ),
        (
            "may sign certificates",
            proper().key_usages(&[
                KeyUsagePurpose::DigitalSignature,
                KeyUsagePurpose::KeyCertSign,
            ]),
        ),
        (
            "may sign certificates or revocation lists",
            proper().key_usages(&[KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign]),
        ),
        (
            "TLS clients and TLS servers",
            proper().extended_key_usages(&[ExtendedKeyUsagePurpose::ServerAuth]),
        ),
    ];
    for (what, leaf) in not_svid {
        let refused = Pair::shake(svid(leaf).client_config(ALPN), serves(&server)).unwrap_err();
        let reason = refused.by_server();
        assert!(
            matches!(&reason, NotSvid(problem) if problem.contains(what)),
            "{what}: {reason}"
        );
    }

    // A leaf that signs another one.
    let mut chain = svid(proper());
    chain.chain.pop();
    let refused = Pair::shake(chain.client_config(ALPN), serves(&server)).unwrap_err();
    assert!(
        matches!(refused.by_server(), Untrusted { .. }),
        "no intermediate"
    );

    let mut long = svid(proper());
    let intermediate = long.chain[1].clone();
    long.chain.extend(std::iter::repeat_n(intermediate, 10));
    let refused = Pair::shake(long.client_config(ALPN), serves(&server)).unwrap_err();
    assert!(matches!(refused.by_server(), Malformed(_)));

    let dates = (SystemTime::now() - HOUR, SystemTime::now() + HOUR);
    let unfit = Forge::with_intermediate("mesh.local", dates, &[KeyUsagePurpose::CrlSign]);
    server.set_bundle(unfit.trust_bundle());
    let refused = Pair::shake(unfit.svid(SHOP).client_config(ALPN), serves(&server)).unwrap_err();
    assert!(
        matches!(refused.by_server(), Untrusted { .. }),
        "the signer may not sign"
    );

    let dates = (SystemTime::now() - 2 * HOUR, SystemTime::now() - HOUR);
    let old = Forge::with_intermediate("mesh.local", dates, &[KeyUsagePurpose::KeyCertSign]);
    server.set_bundle(old.trust_bundle());
    let refused = Pair::shake(old.svid(SHOP).client_config(ALPN), serves(&server)).unwrap_err();
    assert!(
        matches!(refused.by_server(), VerifyError::Expired { .. }),
        "expired intermediate"
    );
}

#[test]
fn a_tampered_chain_is_refused() {
    let mesh = Mesh::new("mesh.local");
    let reviews = mesh.member(REVIEWS);
    let genuine = Forged::from_pem(&saved(&mesh.svid(SHOP)));
    Pair::shake(genuine.client_config(ALPN), serves(&reviews)).unwrap();

    // Another name in the same certificate: as long, so that the structure holds.
    let mut forged = genuine.clone();
    let mut der = forged.chain[0].to_vec();
    let at = der.windows(10).position(|w| w == b"storefront").unwrap();
    der[at..at + 10].copy_from_slice(b"controller");
    forged.chain[0] = CertificateDer::from(der);
    let refused = Pair::shake(forged.client_config(ALPN), serves(&reviews)).unwrap_err();
    assert!(matches!(refused.by_server(), VerifyError::Untrusted { .. }));

    // Every byte of the leaf's signature and of what it covers counts.
    for at in (0..genuine.chain[0].len()).step_by(7) {
        let mut forged = genuine.clone();
        let mut der = forged.chain[0].to_vec();
        der[at] ^= 1;
        forged.chain[0] = CertificateDer::from(der);
        // Where the key no longer fits, rustls refuses to start.
        let client = std::panic::catch_unwind(|| forged.client_config(ALPN));
        if let Ok(client) = client {
            Pair::shake(client, serves(&reviews)).unwrap_err();
        }
    }
}

#[test]
fn a_stolen_certificate_without_its_key_is_worth_nothing() {
    let mesh = Mesh::new("mesh.local");
    let own = PendingKey::generate().unwrap();
    let error = own.into_svid(mesh.svid(SHOP).chain_der()).unwrap_err();
    assert!(error.to_string().contains("another private key"), "{error}");
}

#[test]
fn a_client_without_certificate_is_refused_where_one_is_required() {
    let mesh = Mesh::new("mesh.local");
    let reviews = mesh.member(REVIEWS);
    let refused = Pair::shake(anonymous_client_config(ALPN), serves(&reviews)).unwrap_err();
    assert_eq!(refused.by_server(), VerifyError::NoCertificate);

    let optional = server_config(&reviews, ALPN, ClientAuth::Optional);
    let pair = Pair::shake(anonymous_client_config(ALPN), Arc::clone(&optional)).unwrap();
    assert!(pair.server.peer_certificates().is_none());

    let foreign = Forge::new("mesh.local").svid(SHOP);
    let refused = Pair::shake(foreign.client_config(ALPN), optional).unwrap_err();
    assert!(
        matches!(refused.by_server(), VerifyError::Untrusted { .. }),
        "optional does not mean that a bad certificate passes"
    );
}

#[test]
fn a_newcomer_believes_only_the_pinned_root() {
    let (mesh, other) = (Mesh::new("mesh.local"), Mesh::new("mesh.local"));
    let control = |mesh: &Mesh, id: &SpiffeId| {
        let svid = mesh.authority.issue(id, HOUR, SystemTime::now()).unwrap();
        let credentials = Credentials::new(svid, mesh.authority.trust_bundle());
        server_config(&credentials, ALPN, ClientAuth::Optional)
    };
    let control_id = identity::control_id(mesh.authority.trust_domain());
    let pin = mesh.authority.root_pin();
    let newcomer = |expected| pinned_client_config(&pin, expected, ALPN).unwrap();

    for expected in [None, Some(control_id.clone())] {
        let pair = Pair::shake(newcomer(expected), control(&mesh, &control_id)).unwrap();
        assert_eq!(pair.client.alpn_protocol(), Some(ALPN[0]));
    }
    let refused = Pair::shake(newcomer(None), control(&other, &control_id)).unwrap_err();
    assert_eq!(refused.by_client(), VerifyError::PinMismatch);
    // A workload of the same mesh cannot play the control plane.
    let refused = Pair::shake(newcomer(None), control(&mesh, &id(SHOP))).unwrap_err();
    assert!(refused.by_client().is_identity_mismatch());

    // Nor can an impostor who appends the genuine root to a chain of its own.
    let mut forged = Forge::new("mesh.local").svid(control_id.as_str());
    forged.chain.push(mesh.authority.root_der().to_vec().into());
    let refused = Pair::shake(newcomer(None), forged.server_config(ALPN)).unwrap_err();
    assert!(matches!(refused.by_client(), VerifyError::Untrusted { .. }));

    assert!(pinned_client_config("short", None, ALPN).is_err());
}

#[test]
fn a_newcomer_with_the_roots_believes_any_of_them_and_no_other() {
    let (mesh, other) = (Mesh::new("mesh.local"), Mesh::new("mesh.local"));
    let control_id = identity::control_id(mesh.authority.trust_domain());
    let control = |mesh: &Mesh| {
        let svid = mesh
            .authority
            .issue(&control_id, HOUR, SystemTime::now())
            .unwrap();
        let credentials = Credentials::new(svid, mesh.authority.trust_bundle());
        server_config(&credentials, ALPN, ClientAuth::Optional)
    };
    let pem = |mesh: &Mesh| identity::trust::to_pem(&mesh.authority.trust_bundle());
    let newcomer = |pem: &str| anchored_client_config(pem, None, ALPN);

    let both = pem(&other) + &pem(&mesh);
    for mesh in [&mesh, &other] {
        Pair::shake(newcomer(&both).unwrap(), control(mesh)).unwrap();
    }
    let refused = Pair::shake(newcomer(&pem(&other)).unwrap(), control(&mesh)).unwrap_err();
    assert_eq!(refused.by_client(), VerifyError::PinMismatch);

    assert_eq!(newcomer("").unwrap_err(), InvalidRoots::Empty);
    assert!(newcomer(&both.replace("MII", "MIX")).is_err());
    assert_eq!(
        newcomer(&pem(&mesh).repeat(17)).unwrap_err(),
        InvalidRoots::TooMany(17)
    );
}

#[test]
fn without_the_hybrid_group_the_handshake_falls_back_to_x25519() {
    let mesh = Mesh::new("mesh.local");
    let reviews = mesh.member(REVIEWS);
    let mut provider = (*identity::tls::provider()).clone();
    provider
        .kx_groups
        .retain(|g| g.name() == NamedGroup::X25519);
    let mut old = ClientConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    old.alpn_protocols = vec![ALPN[0].to_vec()];
    // It gets as far as looking at the certificate, which its empty store refuses.
    let server = server_config(&reviews, ALPN, ClientAuth::Optional);
    let refused = Pair::shake(Arc::new(old), server).unwrap_err();
    assert!(matches!(
        refused,
        Refused::ByClient(rustls::Error::InvalidCertificate(_))
    ));
}
