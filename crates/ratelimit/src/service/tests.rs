use std::path::Path;

use xds::proto::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::{
    Entry, RateLimitOverride,
};
use xds::proto::envoy::r#type::v3::RateLimitUnit;

use super::*;

const FILE: &str = "domain: shop
descriptors:
- {key: path, rate_limit: {unit: minute, requests_per_unit: 2, name: paths}}
- {key: user, value: root, rate_limit: {unlimited: true, replaces: [{name: paths}]}}
- {key: trial, shadow_mode: true, rate_limit: {unit: minute, requests_per_unit: 1}}
";

fn service() -> Service {
    let config = Config::parse([(Path::new("shop.yaml"), FILE)]).expect("valid");
    Service {
        config: Arc::new(ArcSwap::from_pointee(config)),
        store: Arc::new(Store::open("memory").expect("valid")),
        metrics: Metrics::default(),
        headers: true,
    }
}

fn descriptor(key: &str, value: &str) -> RateLimitDescriptor {
    RateLimitDescriptor {
        entries: vec![Entry {
            key: key.to_owned(),
            value: value.to_owned(),
        }],
        limit: None,
        hits_addend: None,
    }
}

fn question(descriptors: &[RateLimitDescriptor]) -> RateLimitRequest {
    RateLimitRequest {
        domain: "shop".to_owned(),
        descriptors: descriptors.to_vec(),
        hits_addend: 0,
    }
}

async fn ask(service: &Service, question: &RateLimitRequest, second: u64) -> RateLimitResponse {
    let answer = service.answer(question, Duration::from_secs(second)).await;
    answer.expect("answered")
}

fn remaining(answer: &RateLimitResponse) -> Vec<(Code, u32)> {
    let statuses = answer.statuses.iter();
    statuses.map(|s| (s.code(), s.limit_remaining)).collect()
}

#[tokio::test]
async fn what_is_over_is_said_until_the_window_ends() {
    let service = service();
    let question = question(&[descriptor("path", "/"), descriptor("nothing", "")]);
    for left in [1, 0] {
        let answer = ask(&service, &question, 61).await;
        assert_eq!(remaining(&answer)[0], (Code::Ok, left));
        assert_eq!(answer.overall_code(), Code::Ok);
    }
    let answer = ask(&service, &question, 61).await;
    assert_eq!(answer.overall_code(), Code::OverLimit);
    assert_eq!(remaining(&answer), [(Code::OverLimit, 0), (Code::Ok, 0)]);
    let status = &answer.statuses[0];
    assert_eq!(status.duration_until_reset.expect("told").seconds, 59);
    assert_eq!(
        status
            .current_limit
            .as_ref()
            .expect("told")
            .requests_per_unit,
        2
    );
    let headers = answer.response_headers_to_add.iter();
    let headers: Vec<_> = headers
        .map(|h| (h.key.as_str(), h.value.as_str()))
        .collect();
    assert_eq!(
        headers,
        [
            ("ratelimit-policy", "\"paths\";q=2;w=60"),
            ("ratelimit", "\"paths\";r=0;t=59"),
            ("retry-after", "59"),
        ]
    );
    assert_eq!(ask(&service, &question, 120).await.overall_code(), Code::Ok);
}

#[tokio::test]
async fn hits_shadows_replacements_and_what_comes_with_the_question_count() {
    let service = service();
    let mut many = question(&[descriptor("path", "/a")]);
    many.hits_addend = 3;
    assert_eq!(
        ask(&service, &many, 1).await.overall_code(),
        Code::OverLimit
    );
    let root = question(&[descriptor("path", "/a"), descriptor("user", "root")]);
    assert_eq!(
        remaining(&ask(&service, &root, 1).await),
        [(Code::Ok, 0), (Code::Ok, u32::MAX)]
    );
    let trial = question(&[descriptor("trial", "x")]);
    for _ in 0..3 {
        assert_eq!(ask(&service, &trial, 1).await.overall_code(), Code::Ok);
    }
    // No file says anything of this one.
    let own = RateLimitDescriptor {
        limit: Some(RateLimitOverride {
            requests_per_unit: 1,
            unit: RateLimitUnit::Hour.into(),
        }),
        hits_addend: Some(0),
        ..descriptor("policy", "shop/few")
    };
    let peek = question(std::slice::from_ref(&own));
    let counts = question(&[RateLimitDescriptor {
        hits_addend: None,
        ..own
    }]);
    let codes = async |question| remaining(&ask(&service, question, 1).await)[0];
    assert_eq!(codes(&peek).await, (Code::Ok, 1));
    assert_eq!(codes(&counts).await, (Code::Ok, 0));
    assert_eq!(codes(&counts).await, (Code::OverLimit, 0));
}

#[tokio::test]
async fn a_question_that_is_none_is_refused() {
    let service = service();
    let fine = question(&[descriptor("path", "/")]);
    let no_unit = RateLimitDescriptor {
        limit: Some(RateLimitOverride::default()),
        ..descriptor("path", "/")
    };
    let empty = RateLimitDescriptor::default();
    for wrong in [
        question(&[]),
        question(&[empty]),
        question(&[no_unit]),
        question(&vec![descriptor("path", "/"); DESCRIPTORS + 1]),
        question(&[descriptor("path", &"x".repeat(TEXT + 1))]),
        RateLimitRequest {
            domain: String::new(),
            ..fine.clone()
        },
    ] {
        let error = service.answer(&wrong, Duration::ZERO).await;
        let error = error.expect_err("refused");
        assert_eq!(error.code(), tonic::Code::InvalidArgument, "{error}");
    }
    // Nothing of that was counted.
    let answer = ask(&service, &fine, 0).await;
    assert_eq!(remaining(&answer), [(Code::Ok, 1)]);
}
