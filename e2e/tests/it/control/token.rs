//! Join tokens and signing requests: what is not right is refused with its own reason, and a broken
//! request costs nobody their token.

use rcgen::{CertificateParams, KeyPair, SanType};
use tonic::{Code, Request, Status};
use xds::proto::v1::{Mode, RegisterRequest, SignRequest};

use super::*;

fn token(plane: &Plane, more: &[&str]) -> String {
    let arguments = [&["token", "create", "-s", "reviews", "-n", "shop"], more].concat();
    plane.cli(&arguments).success().trim().to_owned()
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, part: &str) {
    let status = result.expect_err("it is refused");
    assert_eq!(status.code(), code, "{status}");
    has(status.message(), &[part]);
}

#[test]
fn a_token_is_good_once_in_time_and_as_it_was_issued() {
    let plane = Plane::start("join");
    let short = token(&plane, &["--ttl", "1s"]);
    let issued = std::time::Instant::now();
    let good = token(&plane, &[]);
    let unused = token(&plane, &[]);
    let elsewhere = Plane::start("elsewhere");
    let foreign = token(&elsewhere, &[]);
    rpc::runtime().block_on(async {
        let mut signer = rpc::signer(&plane, None);
        let answer = signer
            .sign(rpc::request(&good))
            .await
            .expect("signed")
            .into_inner();
        assert_eq!(answer.chain_der.len(), 2);
        refused(
            signer.sign(rpc::request(&good)).await,
            Code::Unauthenticated,
            "was used already",
        );
        refused(
            signer.sign(rpc::request(&foreign)).await,
            Code::Unauthenticated,
            "of another mesh",
        );
        for bad in [
            "",
            "tulle1",
            "tulle1.a.b.c",
            "garbage \u{1f600}",
            &"x".repeat(100_000),
        ] {
            refused(
                signer.sign(rpc::request(bad)).await,
                Code::InvalidArgument,
                "token",
            );
        }

        let parts: Vec<&str> = unused.split('.').collect();
        let flipped = if parts[2].starts_with('A') { "B" } else { "A" };
        let forged = [
            parts[0],
            parts[1],
            &format!("{flipped}{}", &parts[2][1..]),
            parts[3],
        ]
        .join(".");
        refused(
            signer.sign(rpc::request(&forged)).await,
            Code::Unauthenticated,
            "forged",
        );
        let other = parts[1].chars().rev().collect::<String>();
        let unknown = [parts[0], &other, parts[2], parts[3]].join(".");
        refused(
            signer.sign(rpc::request(&unknown)).await,
            Code::Unauthenticated,
            "not known here",
        );

        let none = SignRequest {
            join_token: None,
            ..rpc::request("")
        };
        refused(
            signer.sign(none).await,
            Code::Unauthenticated,
            "this request had neither",
        );

        // Told in whole seconds.
        tokio::time::sleep_until((issued + Duration::from_millis(2100)).into()).await;
        refused(
            signer.sign(rpc::request(&short)).await,
            Code::Unauthenticated,
            "expired",
        );
        signer
            .sign(rpc::request(&unused))
            .await
            .expect("untouched by the forgeries");
    });
}

#[test]
fn one_of_many_who_come_at_once_gets_the_certificate() {
    let plane = Plane::start("race");
    let token = token(&plane, &[]);
    let signed = rpc::runtime().block_on(async {
        let calls: Vec<_> = (0..16)
            .map(|_| {
                let mut signer = rpc::signer(&plane, None);
                let request = rpc::request(&token);
                tokio::spawn(async move { signer.sign(request).await })
            })
            .collect();
        let mut signed = 0;
        for call in calls {
            match call.await.expect("no panic") {
                Ok(_) => signed += 1,
                Err(status) => has(status.message(), &["was used already"]),
            }
        }
        signed
    });
    assert_eq!(signed, 1);
}

#[test]
fn a_broken_signing_request_is_refused_and_costs_no_token() {
    let plane = Plane::start("csr");
    let token = token(&plane, &[]);
    let request = |csr_der: Vec<u8>| SignRequest {
        csr_der,
        ..rpc::request(&token)
    };
    rpc::runtime().block_on(async {
        let mut signer = rpc::signer(&plane, None);
        let whole = rpc::request(&token).csr_der;
        let mut changed = whole.clone();
        let last = changed.len() - 2;
        changed[last] ^= 1;
        for csr in [
            vec![],
            vec![0; 64],
            vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
            whole[..whole.len() / 2].to_vec(),
            changed,
            vec![0x30; 1 << 20],
        ] {
            let size = csr.len();
            let status = signer.sign(request(csr)).await.expect_err("it is refused");
            assert_eq!(
                status.code(),
                Code::InvalidArgument,
                "{size} bytes: {status}"
            );
        }
        // Larger than a message may be.
        signer
            .sign(request(vec![0x30; 9 << 20]))
            .await
            .expect_err("it is refused");
        // The token is still good; and whatever else the request wants to be called is ignored.
        let mut params = CertificateParams::default();
        let admin = "spiffe://mesh.local/ns/tulle-system/sa/control";
        params
            .subject_alt_names
            .push(SanType::URI(admin.try_into().expect("ASCII")));
        let key = KeyPair::generate().expect("a key");
        let csr = params.serialize_request(&key).expect("a request");
        let mut signer = rpc::signer(&plane, None);
        let answer = signer.sign(request(csr.der().to_vec())).await;
        plane.dir.write(
            "leaf.der",
            &answer.expect("signed").into_inner().chain_der[0],
        );
    });
    let shown = plane.json(&["cert", "show", "leaf.der"]);
    assert_eq!(
        shown[0]["ids"],
        serde_json::json!(["spiffe://mesh.local/ns/shop/sa/reviews"])
    );
}

#[test]
fn a_token_registers_what_it_was_issued_for_and_nothing_else() {
    let plane = Plane::start("scope");
    let token = token(&plane, &[]);
    let register = |namespace: &str, service: &str| {
        let mut request = Request::new(RegisterRequest {
            service: service.to_owned(),
            namespace: namespace.to_owned(),
            mode: Mode::Explicit.into(),
            tunnel_port: 40_000,
            ..RegisterRequest::default()
        });
        let bearer = format!("Bearer {token}").parse().expect("ASCII");
        request.metadata_mut().insert("authorization", bearer);
        request
    };
    rpc::runtime().block_on(async {
        let mut registry = rpc::registry(&plane, None);
        for (namespace, service) in [("bank", "reviews"), ("shop", "payments")] {
            let answer = registry.register(register(namespace, service)).await;
            refused(answer, Code::PermissionDenied, "good for");
        }
        let bare = Request::new(register("shop", "reviews").into_inner());
        refused(
            registry.register(bare).await,
            Code::Unauthenticated,
            "join token",
        );
        let answer = registry
            .register(register("shop", "reviews"))
            .await
            .expect("registered");
        assert_eq!(
            answer.into_inner().identity,
            "spiffe://mesh.local/ns/shop/sa/reviews"
        );
        refused(
            registry.register(register("shop", "reviews")).await,
            Code::Unauthenticated,
            "used already",
        );
    });
    assert!(
        plane.status()["workloads"]
            .as_array()
            .is_some_and(|w| w.len() == 1)
    );
}
