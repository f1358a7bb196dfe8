use std::time::Duration;

use config::{ObjectKey, ObjectKind, Spec};
use tonic::{Code, Request};
use xds::proto::v1::registry_server::Registry as RegistryRpc;
use xds::proto::v1::{DeregisterRequest, HeartbeatRequest, Mode, Port, Protocol, RegisterRequest};

use super::*;
use crate::change::Origin;
use crate::testing::{World, puts};

const LOCAL: Caller = Caller::Local { uid: 1000 };

fn reviews() -> RegisterRequest {
    RegisterRequest {
        service: "reviews".to_owned(),
        namespace: "bookshop".to_owned(),
        labels: [("version".to_owned(), "v1".to_owned())].into(),
        ports: vec![Port {
            name: "http".to_owned(),
            number: 9080,
            protocol: Protocol::Http.into(),
        }],
        mode: Mode::Explicit.into(),
        tunnel_port: 40_001,
        instance: Some("reviews-0".to_owned()),
        ..RegisterRequest::default()
    }
}

fn from<T>(caller: &Caller, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(caller.clone());
    request.extensions_mut().insert(Peer::default());
    request
}

fn with_token<T>(token: &str, message: T) -> Request<T> {
    let mut request = from(&Caller::Anonymous, message);
    let value = format!("Bearer {token}").parse().expect("ascii");
    request.metadata_mut().insert("authorization", value);
    request
}

fn beat(ready: bool) -> HeartbeatRequest {
    HeartbeatRequest {
        workload: "bookshop/reviews-0".to_owned(),
        ready,
        proxy_ports: [("admin".to_owned(), 40_002)].into(),
    }
}

fn key(kind: ObjectKind, name: &str) -> ObjectKey {
    ObjectKey::new(kind, "bookshop", name)
}

fn ready(world: &World) -> Option<bool> {
    let entry = world.state.find(&key(ObjectKind::Workload, "reviews-0"))?;
    match &entry.object.spec {
        Spec::Workload(spec) => Some(spec.ready),
        _ => None,
    }
}

async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_registration_makes_a_workload_and_a_service() {
    let world = World::new().await;
    let service = RegistryService(world.registry.clone());
    let answer = service
        .register(from(&LOCAL, reviews()))
        .await
        .expect("registered");
    let answer = answer.into_inner();
    assert_eq!(answer.workload_name, "bookshop/reviews-0");
    assert_eq!(
        answer.identity,
        "spiffe://mesh.local/ns/bookshop/sa/reviews"
    );
    assert_eq!(answer.control_address, "127.0.0.1:15012");
    assert!(
        world
            .authority
            .check_token(&answer.join_token)
            .await
            .is_ok()
    );

    let workload = world
        .state
        .find(&key(ObjectKind::Workload, "reviews-0"))
        .expect("made");
    assert_eq!(workload.object.metadata.labels["app"], "reviews");
    assert_eq!(workload.object.metadata.labels["version"], "v1");
    assert_eq!(ready(&world), Some(false), "not before the program is");
    let made = world
        .state
        .find(&key(ObjectKind::Service, "reviews"))
        .expect("made");
    assert_eq!(
        made.object.metadata.labels["tulle.dev/managed-by"],
        "registry"
    );
    let Spec::Service(spec) = &made.object.spec else {
        panic!("a service")
    };
    assert_eq!(
        spec.ports.iter().map(|p| p.port).collect::<Vec<_>>(),
        [80, 9080]
    );

    service
        .heartbeat(from(&LOCAL, beat(true)))
        .await
        .expect("renewed");
    assert_eq!(ready(&world), Some(true));
    let lease = world.registry.lease("bookshop/reviews-0").expect("leased");
    assert_eq!(lease.proxy_ports["admin"], 40_002);

    let gone = DeregisterRequest {
        workload: "bookshop/reviews-0".to_owned(),
    };
    service
        .deregister(from(&LOCAL, gone))
        .await
        .expect("forgotten");
    assert_eq!(ready(&world), None);
    assert!(
        world
            .state
            .find(&key(ObjectKind::Service, "reviews"))
            .is_some(),
        "its address stays"
    );
}

#[tokio::test]
async fn a_service_that_somebody_wrote_is_enough() {
    let world = World::new().await;
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: all, namespace: bookshop}\nspec: {selector: {version: v1}, ports: [{port: 80}]}";
    world
        .state
        .apply(puts(text, &Origin::Api))
        .await
        .expect("applied");
    let service = RegistryService(world.registry.clone());
    service
        .register(from(&LOCAL, reviews()))
        .await
        .expect("registered");
    assert!(
        world
            .state
            .find(&key(ObjectKind::Service, "reviews"))
            .is_none()
    );
}

#[tokio::test]
async fn a_client_without_ports_gets_no_service() {
    let world = World::new().await;
    let service = RegistryService(world.registry.clone());
    let request = RegisterRequest {
        ports: Vec::new(),
        instance: None,
        ..reviews()
    };
    let answer = service
        .register(from(&LOCAL, request))
        .await
        .expect("registered");
    assert!(
        answer
            .into_inner()
            .workload_name
            .starts_with("bookshop/reviews-")
    );
    assert!(
        world
            .state
            .find(&key(ObjectKind::Service, "reviews"))
            .is_none()
    );
}

#[tokio::test]
async fn transparent_workloads_get_addresses_that_stay() {
    // Once for the process: another test that starts a control plane must not do it in between.
    crate::address::set_apart("any");
    let world = World::new().await;
    let service = RegistryService(world.registry.clone());
    let request = RegisterRequest {
        mode: Mode::Transparent.into(),
        ..reviews()
    };
    let first = service
        .register(from(&LOCAL, request.clone()))
        .await
        .expect("registered");
    let first = first.into_inner();
    assert_eq!(first.addresses.len(), 2, "{first:?}");
    assert!(first.addresses[0].starts_with("10.") && first.addresses[0].ends_with("/16"));
    assert!(first.gateways[0].ends_with(".0.1"), "{first:?}");
    let again = service
        .register(from(&LOCAL, request.clone()))
        .await
        .expect("again");
    assert_eq!(again.into_inner().addresses, first.addresses);
    let other = RegisterRequest {
        instance: Some("reviews-1".to_owned()),
        ..request
    };
    let other = service
        .register(from(&LOCAL, other))
        .await
        .expect("registered");
    assert_ne!(other.into_inner().addresses, first.addresses);
}

// The store works on a thread of its own, so that time cannot simply be paused: it would run on
// while a commit is waited for.
async fn advance(by: Duration) {
    tokio::time::pause();
    tokio::time::advance(by).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_workload_without_heartbeats_is_forgotten_after_its_lease() {
    let world = World::new().await;
    let service = RegistryService(world.registry.clone());
    service
        .register(from(&LOCAL, reviews()))
        .await
        .expect("registered");
    advance(Duration::from_secs(10)).await;
    service
        .heartbeat(from(&LOCAL, beat(false)))
        .await
        .expect("renewed");
    advance(Duration::from_secs(10)).await;
    world.registry.expire().await;
    assert!(ready(&world).is_some(), "renewed in time");
    advance(Duration::from_secs(6)).await;
    world.registry.expire().await;
    assert_eq!(ready(&world), None);
    let status = service
        .heartbeat(from(&LOCAL, beat(true)))
        .await
        .expect_err("too late");
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains("register again"), "{status}");
    service
        .register(from(&LOCAL, reviews()))
        .await
        .expect("registered again");
    assert_eq!(world.metrics.leases_expired.value(), 1);
}

#[tokio::test]
async fn after_a_restart_each_lease_has_its_full_time_once_more() {
    let world = World::new().await;
    let service = RegistryService(world.registry.clone());
    service
        .register(from(&LOCAL, reviews()))
        .await
        .expect("registered");
    service
        .heartbeat(from(&LOCAL, beat(true)))
        .await
        .expect("renewed");
    drop(service);
    advance(Duration::from_hours(1)).await;
    let world = world.restart().await;
    assert_eq!(
        ready(&world),
        Some(true),
        "the workload and its readiness are kept"
    );
    advance(Duration::from_secs(14)).await;
    world.registry.expire().await;
    assert_eq!(ready(&world), Some(true));
    advance(Duration::from_secs(2)).await;
    let sweeper = tokio::spawn(world.registry.clone().sweep());
    until(|| ready(&world).is_none()).await;
    sweeper.abort();
}

#[tokio::test]
async fn a_token_holder_registers_what_the_token_is_for() {
    let world = World::new().await;
    let service = RegistryService(world.registry.clone());
    let hour = Duration::from_hours(1);
    let (token, _) = world
        .authority
        .issue_token("bookshop", "reviews", hour, "test")
        .await
        .expect("issued");
    let token = token.to_string();

    let mut other = reviews();
    other.service_account = "payments".to_owned();
    let status = service
        .register(with_token(&token, other))
        .await
        .expect_err("another account");
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("bookshop/payments"), "{status}");

    service
        .register(with_token(&token, reviews()))
        .await
        .expect("its own");
    let status = service
        .register(with_token(&token, reviews()))
        .await
        .expect_err("used");
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.message().contains("used already"), "{status}");

    // The spent token goes on to prove who sends the heartbeats.
    service
        .heartbeat(with_token(&token, beat(true)))
        .await
        .expect("its own lease");
    let status = service
        .heartbeat(from(&Caller::Anonymous, beat(true)))
        .await
        .expect_err("nobody");
    assert_eq!(status.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_certificate_registers_its_own_account_only() {
    let world = World::new().await;
    let service = RegistryService(world.registry.clone());
    let id = |s: &str| Caller::Workload(s.parse().expect("an id"));
    let own = id("spiffe://mesh.local/ns/bookshop/sa/reviews");
    let other = id("spiffe://mesh.local/ns/bookshop/sa/ratings");
    let status = service
        .register(from(&other, reviews()))
        .await
        .expect_err("not its own");
    assert_eq!(status.code(), Code::PermissionDenied);
    service
        .register(from(&own, reviews()))
        .await
        .expect("its own");
    let status = service
        .heartbeat(from(&other, beat(true)))
        .await
        .expect_err("not its own");
    assert_eq!(status.code(), Code::PermissionDenied);
    let gone = DeregisterRequest {
        workload: "bookshop/reviews-0".to_owned(),
    };
    service
        .deregister(from(&other, gone))
        .await
        .expect_err("not its own");
    let status = service
        .register(from(&Caller::Anonymous, reviews()))
        .await
        .expect_err("nobody");
    assert_eq!(status.code(), Code::Unauthenticated);

    let mut thief = reviews();
    thief.service_account = "ratings".to_owned();
    let status = service
        .register(from(&other, thief))
        .await
        .expect_err("the name is taken");
    assert_eq!(status.code(), Code::AlreadyExists);
}

#[tokio::test]
async fn nonsense_is_refused_in_words() {
    let world = World::new().await;
    let service = RegistryService(world.registry.clone());
    let port = |number| Port {
        name: String::new(),
        number,
        protocol: 0,
    };
    let cases: Vec<(RegisterRequest, &str)> = vec![
        (
            RegisterRequest {
                service: "No Such".to_owned(),
                ..reviews()
            },
            "service",
        ),
        (
            RegisterRequest {
                service: String::new(),
                ..reviews()
            },
            "service",
        ),
        (
            RegisterRequest {
                namespace: "a/b".to_owned(),
                ..reviews()
            },
            "namespace",
        ),
        (
            RegisterRequest {
                tunnel_port: 0,
                ..reviews()
            },
            "tunnel port",
        ),
        (
            RegisterRequest {
                tunnel_port: 70_000,
                ..reviews()
            },
            "70000",
        ),
        (
            RegisterRequest {
                mode: 0,
                ..reviews()
            },
            "mode",
        ),
        (
            RegisterRequest {
                mode: 77,
                ..reviews()
            },
            "mode",
        ),
        (
            RegisterRequest {
                ports: vec![port(0)],
                ..reviews()
            },
            "port 0",
        ),
        (
            RegisterRequest {
                ports: vec![port(1), port(1)],
                ..reviews()
            },
            "twice",
        ),
        (
            RegisterRequest {
                ports: (1..200).map(port).collect(),
                ..reviews()
            },
            "at most",
        ),
        (
            RegisterRequest {
                labels: [("b ad".to_owned(), "x".to_owned())].into(),
                ..reviews()
            },
            "label",
        ),
    ];
    for (request, want) in cases {
        let status = service
            .register(from(&LOCAL, request))
            .await
            .expect_err(want);
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(want), "{want}: {status}");
    }
    assert!(world.registry.leases().is_empty());
}
