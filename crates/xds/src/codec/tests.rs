//! What is encoded decodes to the same; whatever else comes decodes to an error.

mod generate;

use model::mesh::{Mesh, TrustBundle};
use model::resource::{Kind, Resource};
use proptest::prelude::*;

use super::{MAX_RESOURCE_BYTES, decode, encode, kind_of, type_url};
use crate::proto::v1;
use generate::resource;

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_encoded_decodes_to_the_same(resource in resource()) {
        let bytes = encode(&resource);
        prop_assert_eq!(&bytes, &encode(&resource.clone()));
        prop_assert_eq!(decode(resource.kind(), &bytes), Ok(resource));
    }

    #[test]
    fn no_bytes_make_decoding_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        for kind in Kind::ALL {
            let _ = decode(kind, &bytes);
        }
    }

    #[test]
    fn damaged_messages_do_not_make_decoding_panic(
        resource in resource(),
        kind in proptest::sample::select(Kind::ALL.to_vec()),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = encode(&resource);
        for (index, value) in damage {
            if !bytes.is_empty() {
                let at = index.index(bytes.len());
                bytes[at] = value;
            }
        }
        // What can still be read must be fit to be sent on.
        for kind in [kind, resource.kind()] {
            if let Ok(read) = decode(kind, &bytes) {
                prop_assert_eq!(decode(kind, &encode(&read)), Ok(read));
            }
        }
    }
}

#[test]
fn type_urls_name_the_messages() {
    for kind in Kind::ALL {
        assert_eq!(kind_of(type_url(kind)), Some(kind));
        assert!(type_url(kind).ends_with(&format!(".{kind}")));
    }
    assert_eq!(kind_of("type.googleapis.com/tulle.v1.Cache"), None);
}

fn refusal(kind: Kind, message: &impl prost::Message) -> String {
    decode(kind, &message.encode_to_vec())
        .expect_err("refused")
        .to_string()
}

#[test]
fn an_error_names_kind_and_field() {
    let route = v1::Route {
        kind: v1::route::Kind::Http.into(),
        name: "a/b".to_owned(),
        parent: "a/c".to_owned(),
        rules: vec![
            v1::RouteRule {
                matches: vec![v1::RouteMatch {
                    path: Some(v1::route_match::Path::PathPrefix("/".to_owned())),
                    ..Default::default()
                }],
                ..Default::default()
            },
            v1::RouteRule {
                matches: vec![v1::RouteMatch {
                    path: Some(v1::route_match::Path::PathRegex("(".to_owned())),
                    ..Default::default()
                }],
                ..Default::default()
            },
        ],
        ..Default::default()
    };
    let error = refusal(Kind::Route, &route);
    assert!(
        error.starts_with("Route: rules[1].matches[0].path_regex: regular expression \"(\""),
        "{error}"
    );
}

#[test]
fn what_the_model_rules_out_is_refused() {
    let endpoint = v1::Endpoint {
        service: "a/b".to_owned(),
        workload: "a/c".to_owned(),
        identity: "spiffe://mesh.local/ns/a/sa/b".to_owned(),
        weight: 1,
        ..Default::default()
    };
    assert!(decode(Kind::Endpoint, &prost::Message::encode_to_vec(&endpoint)).is_ok());
    let bad = |change: fn(&mut v1::Endpoint)| {
        let mut endpoint = endpoint.clone();
        change(&mut endpoint);
        refusal(Kind::Endpoint, &endpoint)
    };
    assert!(bad(|e| e.weight = 0).contains("weight"));
    assert!(bad(|e| e.health = 9).contains("health: has the value 9"));
    assert!(bad(|e| e.identity = "spiffe://x".to_owned()).contains("identity"));
    assert!(bad(|e| e.addresses = vec![vec![1, 2, 3]]).contains("addresses[0]: has 3 bytes"));
    assert!(bad(|e| e.ports = [(80, 70_000)].into()).contains("ports[80]: 70000 is not a port"));
    assert!(bad(|e| e.tunnel = Some(v1::Tunnel::default())).contains("tunnel"));
}

#[test]
fn sizes_are_bounded() {
    let error = decode(Kind::Mesh, &vec![0; MAX_RESOURCE_BYTES + 1]).expect_err("too large");
    assert!(error.to_string().contains("1048577 bytes"), "{error}");
}

#[test]
fn singletons_survive() {
    for resource in [
        Resource::Mesh(Mesh::default()),
        Resource::TrustBundle(TrustBundle::default()),
    ] {
        assert_eq!(decode(resource.kind(), &encode(&resource)), Ok(resource));
    }
}
