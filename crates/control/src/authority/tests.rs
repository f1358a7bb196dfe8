use std::time::Duration;

use identity::svid::PendingKey;
use identity::token::JoinToken;
use tonic::{Code, Request};
use xds::client::CertificateAuthorityClient;
use xds::proto::v1::certificate_authority_server::CertificateAuthorityServer;

use super::*;
use crate::testing::World;

const HOUR: Duration = Duration::from_hours(1);

fn csr() -> (PendingKey, Vec<u8>) {
    let key = PendingKey::generate().expect("a key");
    let csr = key.csr_der().expect("a request");
    (key, csr)
}

fn ask(token: Option<&str>) -> (PendingKey, SignRequest) {
    let (key, csr_der) = csr();
    let request = SignRequest {
        csr_der,
        join_token: token.map(str::to_owned),
        ..SignRequest::default()
    };
    (key, request)
}

async fn token(world: &World) -> String {
    let issued = world
        .authority
        .issue_token("bookshop", "reviews", HOUR, "test")
        .await;
    issued.expect("issued").0.to_string()
}

async fn sign(
    world: &World,
    caller: &Caller,
    request: SignRequest,
) -> Result<SignResponse, Status> {
    let mut request = Request::new(request);
    request.extensions_mut().insert(caller.clone());
    let service = AuthorityService(Arc::clone(&world.authority));
    service.sign(request).await.map(Response::into_inner)
}

#[tokio::test]
async fn nobody_gets_the_control_planes_own_identity() {
    let world = World::new().await;
    let authority = &world.authority;
    let token = authority.issue_token("tulle-system", "control", HOUR, "test");
    let token = token.await.expect("issued").0.to_string();
    let own = "spiffe://mesh.local/ns/tulle-system/sa/control";
    let holder = Caller::Workload(own.parse().expect("an id"));
    for (caller, token) in [(Caller::Anonymous, Some(&*token)), (holder, None)] {
        let status = sign(&world, &caller, ask(token).1)
            .await
            .expect_err("reserved");
        assert_eq!(status.code(), Code::PermissionDenied);
        assert!(
            status.message().contains("another service account"),
            "{status}"
        );
    }
}

#[tokio::test]
async fn a_join_token_earns_the_identity_that_it_was_issued_for() {
    let world = World::new().await;
    let token = token(&world).await;
    let (key, request) = ask(Some(&token));
    let response = sign(&world, &Caller::Anonymous, request)
        .await
        .expect("signed");
    let svid = key.into_svid(response.chain_der).expect("fits the key");
    assert_eq!(
        svid.id().as_str(),
        "spiffe://mesh.local/ns/bookshop/sa/reviews"
    );
    assert!(response.trust_bundle.is_some());

    let (_, request) = ask(Some(&token));
    let status = sign(&world, &Caller::Anonymous, request)
        .await
        .expect_err("replayed");
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.message().contains("used already"), "{status}");
    let text = world
        .metrics
        .registry
        .render(telemetry::metrics::Format::negotiate(None));
    assert!(text.contains("tulle_certificate_issued_total 1"), "{text}");
    assert!(
        text.contains(r#"tulle_certificate_refused_total{reason="token_replayed"} 1"#),
        "{text}"
    );
}

#[tokio::test]
async fn a_certificate_renews_itself_and_nothing_else() {
    let world = World::new().await;
    let caller = Caller::Workload("spiffe://mesh.local/ns/a/sa/b".parse().expect("an id"));
    let (key, mut request) = ask(None);
    request.requested_ttl = Some(prost_types::Duration {
        seconds: 120,
        nanos: 0,
    });
    let response = sign(&world, &caller, request).await.expect("signed");
    let svid = key.into_svid(response.chain_der).expect("fits the key");
    assert_eq!(svid.id().as_str(), "spiffe://mesh.local/ns/a/sa/b");
    let left = svid
        .not_after()
        .duration_since(SystemTime::now())
        .expect("in the future");
    assert!(left <= Duration::from_secs(121), "{left:?}");

    let foreign = Caller::Workload("spiffe://elsewhere/ns/a/sa/b".parse().expect("an id"));
    let status = sign(&world, &foreign, ask(None).1)
        .await
        .expect_err("another domain");
    assert_eq!(status.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn each_bad_token_is_refused_for_its_own_reason() {
    let world = World::new().await;
    let good = token(&world).await;
    let parsed: JoinToken = good.parse().expect("a token");
    let other = JoinToken::generate(parsed.pin()).expect("made").to_string();
    let other_parts: Vec<&str> = other.split('.').collect();
    let parts: Vec<&str> = good.split('.').collect();
    let forged = [parts[0], parts[1], other_parts[2], parts[3]].join(".");
    let elsewhere = World::new().await;
    let foreign = token(&elsewhere).await;
    let (short, record) = world
        .authority
        .issue_token("bookshop", "reviews", Duration::from_secs(1), "test")
        .await
        .expect("issued");
    // Made to have ended a minute ago.
    let mut ended = record.clone();
    ended.id = record.id.clone();
    ended.expires = now() - 60;
    world
        .state
        .store()
        .write(move |t| {
            t.execute("DELETE FROM tokens WHERE id = ?1", [&ended.id])?;
            token::add(t, &ended)
        })
        .await
        .expect("written");
    let expired = short.to_string();

    for (text, code, want) in [
        ("", Code::InvalidArgument, "not a join token"),
        ("tulle1.x.y.z", Code::InvalidArgument, "join token"),
        (&other, Code::Unauthenticated, "not known here"),
        (&forged, Code::Unauthenticated, "forged"),
        (&foreign, Code::Unauthenticated, "another mesh"),
        (&expired, Code::Unauthenticated, "expired"),
    ] {
        let status = sign(&world, &Caller::Anonymous, ask(Some(text)).1)
            .await
            .expect_err(want);
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(want), "{want}: {status}");
        assert!(
            !status.message().contains(parts[2]),
            "the secret is not repeated"
        );
    }
    let status = sign(&world, &Caller::Anonymous, ask(None).1)
        .await
        .expect_err("no proof");
    assert_eq!(status.code(), Code::Unauthenticated);
    sign(&world, &Caller::Anonymous, ask(Some(&good)).1)
        .await
        .expect("still good");
}

#[tokio::test]
async fn a_broken_request_does_not_cost_the_token() {
    let world = World::new().await;
    let token = token(&world).await;
    for broken in [vec![], vec![0x30, 0x03, 1, 2, 3], vec![0; 100_000]] {
        let request = SignRequest {
            csr_der: broken,
            join_token: Some(token.clone()),
            ..SignRequest::default()
        };
        let status = sign(&world, &Caller::Anonymous, request)
            .await
            .expect_err("no request");
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    sign(&world, &Caller::Anonymous, ask(Some(&token)).1)
        .await
        .expect("still good");
}

#[tokio::test]
async fn of_two_at_once_one_gets_the_certificate() {
    let world = World::new().await;
    let token = token(&world).await;
    let (first, second) = tokio::join!(
        sign(&world, &Caller::Anonymous, ask(Some(&token)).1),
        sign(&world, &Caller::Anonymous, ask(Some(&token)).1),
    );
    assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
}

#[tokio::test]
async fn who_asks_too_often_waits() {
    let world = World::new().await;
    let caller = Caller::Workload("spiffe://mesh.local/ns/a/sa/b".parse().expect("an id"));
    let mut refused = None;
    for _ in 0..1000 {
        let request = SignRequest {
            csr_der: vec![1],
            ..SignRequest::default()
        };
        let status = sign(&world, &caller, request)
            .await
            .expect_err("no request");
        if status.code() == Code::ResourceExhausted {
            refused = Some(status);
            break;
        }
    }
    let status = refused.expect("limited");
    assert!(status.message().contains("try again in"), "{status}");
}

/// The same over gRPC, through a pipe.
#[tokio::test]
async fn the_service_speaks_grpc() {
    let world = World::new().await;
    let token = token(&world).await;
    let service = CertificateAuthorityServer::new(AuthorityService(Arc::clone(&world.authority)));
    let mut client = CertificateAuthorityClient::new(service);
    let (key, request) = ask(Some(&token));
    let response = client.sign(request).await.expect("signed").into_inner();
    key.into_svid(response.chain_der).expect("fits the key");
}

#[tokio::test]
async fn a_service_account_is_whom_kubernetes_says_it_is() {
    const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln";
    let world = World::new().await;
    let (_, request) = ask(Some(TOKEN));
    let status = sign(&world, &Caller::Anonymous, request)
        .await
        .expect_err("there is no Kubernetes to ask");
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.message().contains("--store kubernetes"), "{status}");

    world
        .authority
        .take_accounts(Reviewer::new(|token| async move {
            match token.as_str() {
                TOKEN => Ok(account::Account {
                    namespace: "shop".to_owned(),
                    name: "web-tulle".to_owned(),
                }),
                "ey.slow.server" => Err(AccountError::Unavailable("timed out".to_owned())),
                _ => Err(AccountError::Refused("it expired".to_owned())),
            }
        }));
    // The same token is good again, as long as Kubernetes says so.
    for _ in 0..2 {
        let (key, request) = ask(Some(TOKEN));
        let response = sign(&world, &Caller::Anonymous, request)
            .await
            .expect("signed");
        let svid = key.into_svid(response.chain_der).expect("fits the key");
        let id = "spiffe://mesh.local/ns/shop/sa/web-tulle";
        assert_eq!(svid.id().as_str(), id);
    }
    for (token, code, says) in [
        ("ey.slow.server", Code::Unavailable, "timed out"),
        ("ey.an.old", Code::Unauthenticated, "it expired"),
    ] {
        let (_, request) = ask(Some(token));
        let status = sign(&world, &Caller::Anonymous, request)
            .await
            .expect_err(token);
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(says), "{status}");
    }
}
