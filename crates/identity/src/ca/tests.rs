use std::fs;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::svid::PendingKey;
use crate::trust::Anchors;
use crate::verify::{self, PeerRole, VerifyError};

const REVIEWS: &str = "spiffe://mesh.local/ns/bookshop/sa/reviews";

fn domain() -> TrustDomain {
    TrustDomain::default()
}

fn id(text: &str) -> SpiffeId {
    text.parse().unwrap()
}

fn open(dir: &TempDir, now: SystemTime) -> Result<Authority, CaError> {
    Authority::open(dir.path(), &domain(), None, now)
}

fn with_passphrase(dir: &TempDir, text: &str) -> Result<Authority, CaError> {
    let passphrase = Some(Passphrase::new(text).unwrap());
    Authority::open(dir.path(), &domain(), passphrase, SystemTime::now())
}

/// Verifies a chain against the authority as a peer would.
fn verified(
    authority: &Authority,
    chain: &[Vec<u8>],
    now: SystemTime,
) -> Result<SpiffeId, VerifyError> {
    let chain: Vec<_> = chain
        .iter()
        .map(|c| CertificateDer::from(c.as_slice()))
        .collect();
    let anchors = Anchors::new(&authority.trust_bundle());
    verify::chain(&chain[0], &chain[1..], &anchors, PeerRole::Server, now)
}

#[test]
fn an_authority_is_the_same_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let first = open(&dir, now).unwrap();
    let svid = first.issue(&id(REVIEWS), DEFAULT_TTL, now).unwrap();
    let second = open(&dir, now).unwrap();
    assert_eq!(first.root_pin(), second.root_pin());
    assert_eq!(first.trust_bundle(), second.trust_bundle());
    assert_eq!(verified(&second, &svid.chain_der(), now), Ok(id(REVIEWS)));
    for name in ["authority.json", "authority.key"] {
        let mode = fs::metadata(dir.path().join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn no_private_key_stands_in_the_file_in_the_open() {
    let dir = tempfile::tempdir().unwrap();
    let authority = open(&dir, SystemTime::now()).unwrap();
    let text = fs::read_to_string(dir.path().join("authority.json")).unwrap();
    let material = authority.store.lock().unwrap().load().unwrap().unwrap();
    for key in [&material.root_key, &material.intermediate_key] {
        use base64::Engine;
        // The private scalar begins at byte 36 of PKCS#8; three offsets cover base64's grouping.
        for from in 36..39 {
            let part =
                base64::engine::general_purpose::STANDARD.encode(&key.pkcs8()[from..from + 12]);
            assert!(!text.contains(&part));
        }
    }
}

#[test]
fn a_damaged_or_foreign_authority_is_an_error_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    open(&dir, now).unwrap();
    let path = dir.path().join("authority.json");
    let key = dir.path().join("authority.key");
    let good = fs::read_to_string(&path).unwrap();
    let mut other_mesh: serde_json::Value = serde_json::from_str(&good).unwrap();
    let foreign = {
        let dir = tempfile::tempdir().unwrap();
        open(&dir, now).unwrap();
        let text = fs::read(dir.path().join("authority.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&text).unwrap()
    };
    other_mesh["root"] = foreign["root"].clone();
    let mut swapped: serde_json::Value = serde_json::from_str(&good).unwrap();
    let root_key = swapped["root"]["key"].clone();
    let root_nonce = swapped["root"]["nonce"].clone();
    swapped["intermediate"]["key"] = root_key;
    swapped["intermediate"]["nonce"] = root_nonce;

    let cases: [(&str, String); 8] = [
        ("damaged", String::new()),
        ("damaged", "nonsense".into()),
        ("damaged", good[..good.len() / 2].into()),
        ("damaged", good.replace("\"nonce\"", "\"once\"")),
        ("format 7", good.replace("\"version\": 1", "\"version\": 7")),
        (
            "of trust domain \"elsewhere\"",
            good.replace("\"mesh.local\"", "\"elsewhere\""),
        ),
        ("root key", other_mesh.to_string()),
        ("intermediate key", swapped.to_string()),
    ];
    for (expected, text) in cases {
        fs::write(&path, &text).unwrap();
        let error = open(&dir, now).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text, "untouched");
    }
    fs::write(&path, &good).unwrap();

    let secret = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    assert!(matches!(open(&dir, now), Err(CaError::KeyMissing { .. })));
    assert!(
        !key.exists(),
        "no new key is made for an authority that is there"
    );
    fs::write(&key, b"AAAA").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(open(&dir, now), Err(CaError::Damaged { .. })));
    fs::write(
        &key,
        [b'A'; 43].iter().copied().chain(*b"=").collect::<Vec<_>>(),
    )
    .unwrap();
    assert!(matches!(
        open(&dir, now),
        Err(CaError::Undecryptable { .. })
    ));
    fs::write(&key, secret).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(open(&dir, now), Err(CaError::File(_))));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    open(&dir, now).unwrap();
}

#[test]
fn a_passphrase_protects_and_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let pin = with_passphrase(&dir, "correct horse").unwrap().root_pin();
    assert!(!dir.path().join("authority.key").exists());
    assert_eq!(
        with_passphrase(&dir, "correct horse").unwrap().root_pin(),
        pin
    );
    let wrong = with_passphrase(&dir, "battery staple").unwrap_err();
    assert!(matches!(wrong, CaError::Undecryptable { .. }));
    assert!(matches!(
        open(&dir, now),
        Err(CaError::PassphraseMissing { .. })
    ));
    assert!(matches!(Passphrase::new(""), Err(CaError::PassphraseEmpty)));

    let plain = tempfile::tempdir().unwrap();
    open(&plain, now).unwrap();
    let unexpected = with_passphrase(&plain, "x").unwrap_err();
    assert!(matches!(unexpected, CaError::PassphraseUnexpected { .. }));
}

#[test]
fn two_that_found_at_once_agree() {
    let dir = tempfile::tempdir().unwrap();
    let pins: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| open(&dir, SystemTime::now()).unwrap().root_pin()))
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(pins.iter().all(|p| *p == pins[0]), "{pins:?}");
}

#[test]
fn the_intermediate_is_renewed_in_time_and_old_svids_stay_good() {
    let dir = tempfile::tempdir().unwrap();
    let start = SystemTime::now();
    let authority = open(&dir, start).unwrap();
    let old_end = authority.intermediate_not_after();
    assert!(!authority.renew_if_due(start + 200 * DAY).unwrap());

    let later = start + 300 * DAY;
    let before = authority.issue(&id(REVIEWS), MAX_TTL, later).unwrap();
    assert!(authority.renew_if_due(later).unwrap());
    assert!(!authority.renew_if_due(later).unwrap());
    assert!(authority.intermediate_not_after() > old_end);
    let after = authority.issue(&id(REVIEWS), DEFAULT_TTL, later).unwrap();
    assert_ne!(before.chain_der()[1], after.chain_der()[1]);
    for svid in [&before, &after] {
        assert_eq!(
            verified(&authority, &svid.chain_der(), later),
            Ok(id(REVIEWS))
        );
    }
    // Found again at a start, and made at a start that comes late.
    assert_eq!(
        open(&dir, later).unwrap().intermediate_not_after(),
        authority.intermediate_not_after()
    );
    let much_later = later + 400 * DAY;
    assert!(matches!(
        authority.issue(&id(REVIEWS), DEFAULT_TTL, much_later),
        Err(SignError::AuthorityExpired(_))
    ));
    let reopened = open(&dir, much_later).unwrap();
    assert!(reopened.intermediate_not_after() > much_later);
    assert!(matches!(
        open(&dir, start + 4000 * DAY),
        Err(CaError::RootExpired(_))
    ));
}

#[test]
fn a_request_decides_nothing_but_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let authority = open(&dir, now).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut greedy = CertificateParams::default();
    greedy.subject_alt_names = vec![
        uri("spiffe://mesh.local/ns/tulle-system/sa/control").unwrap(),
        SanType::DnsName("bank.example".try_into().unwrap()),
    ];
    greedy.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    greedy.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let csr = greedy.serialize_request(&key).unwrap();
    let chain = authority
        .sign(csr.der(), &id(REVIEWS), DEFAULT_TTL, now)
        .unwrap();
    assert_eq!(verified(&authority, &chain, now), Ok(id(REVIEWS)));
    let text = String::from_utf8_lossy(&chain[0]).into_owned();
    assert!(
        !text.contains("control") && !text.contains("bank"),
        "{text}"
    );
    assert!(!crate::inspect::describe(&chain[0], now).unwrap()[0].authority);
    assert_eq!(Svid::new(key, chain).unwrap().id(), &id(REVIEWS));
}

#[test]
fn requests_that_are_not_acceptable_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let authority = open(&dir, now).unwrap();
    let sign = |csr: &[u8]| authority.sign(csr, &id(REVIEWS), DEFAULT_TTL, now);
    let good = PendingKey::generate().unwrap().csr_der().unwrap();
    sign(&good).unwrap();

    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert!(matches!(
        sign(&forged),
        Err(SignError::NotSignedByItsKey | SignError::Malformed(_))
    ));
    let mut longer = good.clone();
    longer.push(0);
    assert!(matches!(sign(&longer), Err(SignError::Malformed(_))));
    assert!(matches!(
        sign(&vec![0x30; MAX_CSR + 1]),
        Err(SignError::Malformed(_))
    ));
    assert!(matches!(sign(&[]), Err(SignError::Malformed(_))));

    for (algorithm, accepted) in [
        (&rcgen::PKCS_ECDSA_P384_SHA384, true),
        (&rcgen::PKCS_ECDSA_P521_SHA512, false),
        (&rcgen::PKCS_ED25519, false),
        (&rcgen::PKCS_RSA_SHA256, false),
    ] {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let csr = CertificateParams::default()
            .serialize_request(&key)
            .unwrap();
        assert_eq!(sign(csr.der()).is_ok(), accepted, "{algorithm:?}");
    }
    let foreign = id("spiffe://elsewhere/ns/bookshop/sa/reviews");
    let error = authority
        .sign(&good, &foreign, DEFAULT_TTL, now)
        .unwrap_err();
    assert!(matches!(error, SignError::ForeignId { .. }));
}

#[test]
fn validity_is_back_dated_and_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let now = SystemTime::UNIX_EPOCH + Duration::from_hours(500_000);
    let authority = open(&dir, now).unwrap();
    for (asked, backdate, life) in [
        (DEFAULT_TTL, BACKDATE, DEFAULT_TTL),
        (Duration::ZERO, BACKDATE, DEFAULT_TTL),
        (
            Duration::from_mins(1),
            Duration::from_secs(5),
            Duration::from_mins(1),
        ),
        (Duration::MAX, BACKDATE, MAX_TTL),
    ] {
        let svid = authority.issue(&id(REVIEWS), asked, now).unwrap();
        assert_eq!(svid.not_before(), now - backdate, "{asked:?}");
        assert_eq!(svid.not_after(), now + life, "{asked:?}");
        // Renewal falls well after now and well before the end.
        for random in [0.0, 0.5, 1.0, f64::NAN, -7.0] {
            let at = svid.renew_at(random);
            assert!(
                at > now + life / 2 - life / 100 && at < now + life * 4 / 5,
                "{asked:?} {random}"
            );
        }
    }
    // An SVID does not outlive its signer.
    let late = authority.intermediate_not_after() - Duration::from_mins(1);
    let svid = authority.issue(&id(REVIEWS), DEFAULT_TTL, late).unwrap();
    assert_eq!(svid.not_after(), authority.intermediate_not_after());
}

#[test]
fn serial_numbers_differ() {
    let dir = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let authority = open(&dir, now).unwrap();
    let csr = PendingKey::generate().unwrap().csr_der().unwrap();
    let serial = || {
        let chain = authority
            .sign(&csr, &id(REVIEWS), DEFAULT_TTL, now)
            .unwrap();
        crate::inspect::describe(&chain[0], now).unwrap()[0]
            .serial
            .clone()
    };
    assert_ne!(serial(), serial());
}

#[test]
fn an_svid_is_kept_on_disk_whole() {
    let dir = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let authority = open(&dir, now).unwrap();
    let path = dir.path().join("svid.pem");
    let svid = authority.issue(&id(REVIEWS), DEFAULT_TTL, now).unwrap();
    svid.save(&path).unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let read = Svid::load(&path).unwrap();
    assert_eq!(read.id(), svid.id());
    assert_eq!(read.chain_der(), svid.chain_der());
    assert_eq!(read.not_after(), svid.not_after());

    let text = fs::read_to_string(&path).unwrap();
    let described = crate::inspect::describe(text.as_bytes(), now).unwrap();
    assert_eq!(described[0].ids, [REVIEWS]);
    assert_eq!(described[0].key_algorithm, "ECDSA 256 bit");
    assert_eq!(described.last().unwrap().pin, authority.root_pin());
    for cut in (0..text.len()).step_by(53) {
        fs::write(&path, &text[..cut]).unwrap();
        assert!(Svid::load(&path).is_err(), "cut at {cut}");
    }
    let other = authority.issue(&id(REVIEWS), DEFAULT_TTL, now).unwrap();
    other.save(&path).unwrap();
    let mixed = fs::read_to_string(&path).unwrap();
    let (key_at, other_key_at) = (
        text.find("-----BEGIN PRIVATE"),
        mixed.find("-----BEGIN PRIVATE"),
    );
    let mixed = format!(
        "{}{}",
        &mixed[..other_key_at.unwrap()],
        &text[key_at.unwrap()..]
    );
    fs::write(&path, mixed).unwrap();
    let error = Svid::load(&path).unwrap_err();
    assert!(error.to_string().contains("another private key"), "{error}");
}

#[test]
fn nothing_secret_is_shown_by_debug() {
    let dir = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let authority = open(&dir, now).unwrap();
    let svid = authority.issue(&id(REVIEWS), DEFAULT_TTL, now).unwrap();
    let shown = format!(
        "{authority:?} {svid:?} {:?} {:?}",
        PendingKey::generate().unwrap(),
        Passphrase::new("hush").unwrap()
    );
    assert!(shown.len() < 400 && !shown.contains("hush"), "{shown}");
}

#[test]
fn a_bundle_survives_its_text() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = open(&dir, SystemTime::now()).unwrap().trust_bundle();
    let text = crate::trust::to_pem(&bundle);
    assert_eq!(crate::trust::from_pem(&domain(), &text), Ok(bundle));
    assert!(crate::trust::from_pem(&domain(), "").is_err());
    assert!(crate::trust::from_pem(&domain(), &text.replace('M', "!")).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_are_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(requested_key(&bytes).is_err());
        let der = CertificateDer::from(bytes.as_slice());
        prop_assert!(verify::leaf(&der).is_err());
        prop_assert!(crate::inspect::describe(&bytes, SystemTime::now()).is_err());
    }

    #[test]
    fn a_changed_request_is_never_signed_for_another_key(at in 0usize..1000, bit in 0u8..8) {
        let key = PendingKey::generate().unwrap();
        let csr = key.csr_der().unwrap();
        let mut changed = csr.clone();
        let at = at % csr.len();
        changed[at] ^= 1 << bit;
        // Outside what is signed (the count of unused bits), a change may pass; the key stays.
        if let Ok(requested) = requested_key(&changed) {
            prop_assert_eq!(requested.subject_public_key_info(), key.spki());
        }
    }
}
