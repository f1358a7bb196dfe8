//! Rotation, and what becomes of sessions by it.

use super::*;

#[test]
fn rotation_leaves_connections_alone_and_counts_from_the_next_one() {
    let mesh = Mesh::new("mesh.local");
    let (shop, reviews) = (mesh.member(SHOP), mesh.member(REVIEWS));
    let (client, server) = (calls(&shop, REVIEWS), serves(&reviews));
    let mut old = Pair::shake(Arc::clone(&client), Arc::clone(&server)).unwrap();

    let next = mesh.svid(REVIEWS);
    let leaf = next.chain_der()[0].clone();
    reviews.set_svid(next);
    assert_eq!(old.says("still here"), "still here");

    // The same configurations, kept by whoever holds them, show the new certificate.
    let new = Pair::shake(client, server).unwrap();
    assert_eq!(new.client.peer_certificates().unwrap()[0].as_ref(), leaf);
    assert!(!new.resumed());
}

#[test]
fn sessions_are_resumed_with_the_peers_identity() {
    let mesh = Mesh::new("mesh.local");
    let (shop, reviews) = (mesh.member(SHOP), mesh.member(REVIEWS));
    assert!(
        !Pair::shake(calls(&shop, REVIEWS), serves(&reviews))
            .unwrap()
            .resumed()
    );
    let again = Pair::shake(calls(&shop, REVIEWS), serves(&reviews)).unwrap();
    assert!(again.resumed());
    assert_eq!(
        peer_id(again.client.peer_certificates().unwrap()),
        Ok(id(REVIEWS))
    );
    assert_eq!(
        peer_id(again.server.peer_certificates().unwrap()),
        Ok(id(SHOP))
    );
    let group = again
        .client
        .negotiated_key_exchange_group()
        .map(rustls::crypto::SupportedKxGroup::name);
    assert_eq!(
        group,
        Some(NamedGroup::X25519MLKEM768),
        "fresh keys all the same"
    );

    // A session of one expectation serves no other.
    let refused = Pair::shake(calls(&shop, SHOP), serves(&reviews)).unwrap_err();
    assert!(refused.by_client().is_identity_mismatch());
    // Nor does one from where certificates are optional open the door where they are required.
    let optional = server_config(&reviews, ALPN, ClientAuth::Optional);
    let anonymous = anonymous_client_config(ALPN);
    Pair::shake(Arc::clone(&anonymous), Arc::clone(&optional)).unwrap();
    assert!(
        Pair::shake(Arc::clone(&anonymous), optional)
            .unwrap()
            .resumed()
    );
    let refused = Pair::shake(anonymous, serves(&reviews)).unwrap_err();
    assert_eq!(refused.by_server(), VerifyError::NoCertificate);
}

#[test]
fn no_session_outlives_the_trust_it_rests_on() {
    let mesh = Mesh::new("mesh.local");
    let other = Mesh::new("mesh.local");
    let (shop, reviews) = (mesh.member(SHOP), mesh.member(REVIEWS));
    let (client, server) = (calls(&shop, REVIEWS), serves(&reviews));
    let mut open = Pair::shake(Arc::clone(&client), Arc::clone(&server)).unwrap();

    // The caller no longer trusts the root: neither configurations that were kept nor new ones resume.
    shop.set_bundle(other.authority.trust_bundle());
    for client in [Arc::clone(&client), calls(&shop, REVIEWS)] {
        let refused = Pair::shake(client, Arc::clone(&server)).unwrap_err();
        assert!(matches!(refused.by_client(), VerifyError::Untrusted { .. }));
    }
    assert_eq!(open.says("drained in peace"), "drained in peace");

    // The same on the server's side.
    let shop = mesh.member(SHOP);
    Pair::shake(calls(&shop, REVIEWS), serves(&reviews)).unwrap();
    reviews.set_bundle(other.authority.trust_bundle());
    for server in [server, serves(&reviews)] {
        let refused = Pair::shake(calls(&shop, REVIEWS), server).unwrap_err();
        assert!(matches!(refused.by_server(), VerifyError::Untrusted { .. }));
    }
}

#[test]
fn a_peer_that_expired_meanwhile_is_refused_even_when_resumed() {
    let mesh = Mesh::new("mesh.local");
    let past = mesh.svid_at(SHOP, HOUR, SystemTime::now() - 2 * HOUR);
    let chain: Vec<_> = past
        .chain_der()
        .into_iter()
        .map(CertificateDer::from)
        .collect();
    assert!(matches!(peer_id(&chain), Err(VerifyError::Expired { .. })));
    assert_eq!(peer_id(&[]), Err(VerifyError::NoCertificate));
    let garbage = [CertificateDer::from(vec![0x30, 0x03, 0x02, 0x01, 0x01])];
    assert!(matches!(peer_id(&garbage), Err(VerifyError::Malformed(_))));
}

#[test]
fn setting_the_same_bundle_again_keeps_the_sessions() {
    let mesh = Mesh::new("mesh.local");
    let (shop, reviews) = (mesh.member(SHOP), mesh.member(REVIEWS));
    Pair::shake(calls(&shop, REVIEWS), serves(&reviews)).unwrap();
    shop.set_bundle(mesh.authority.trust_bundle());
    assert!(
        Pair::shake(calls(&shop, REVIEWS), serves(&reviews))
            .unwrap()
            .resumed()
    );
}
