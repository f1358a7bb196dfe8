//! Generated policies about requests.

use model::request::{
    Abort, Algorithm, Condition, Effect, FailureMode, Fault, Faults, IdentityMatch, Key, Limit,
    Limits, Parent, RateLimitService, RequestPolicy, Scope, Section,
};

use super::*;

pub(super) fn policy() -> impl Strategy<Value = RequestPolicy> {
    (name(), any::<u64>(), parent(), section(), effect()).prop_map(
        |(name, created, parent, section, effect)| RequestPolicy {
            name,
            created,
            parent,
            section,
            effect,
        },
    )
}

fn parent() -> impl Strategy<Value = Parent> {
    prop_oneof![
        name().prop_map(Parent::Service),
        name().prop_map(Parent::Gateway),
    ]
}

fn section() -> impl Strategy<Value = Section> {
    let kind = select(vec![RouteKind::Http, RouteKind::Grpc, RouteKind::Tcp]);
    prop_oneof![
        Just(Section::Whole),
        port().prop_map(Section::Port),
        "[a-z]{1,6}".prop_map(Section::Listener),
        (kind, name(), of("[a-z]{1,6}")).prop_map(|(kind, name, rule)| Section::Route {
            kind,
            name,
            rule
        }),
    ]
}

fn effect() -> impl Strategy<Value = Effect> {
    prop_oneof![
        (vec(fault(), 0..3), of(any::<u64>()))
            .prop_map(|(faults, until)| Effect::Faults(Faults { faults, until })),
        limits().prop_map(Effect::Limits),
    ]
}

fn condition() -> impl Strategy<Value = Condition> {
    let identity = select(vec![
        "spiffe://mesh.local/ns/a/sa/b",
        "spiffe://mesh.local/*",
    ]);
    (a_match(), vec(identity, 0..3)).prop_map(|(matched, identities)| Condition {
        matched,
        identities: identities
            .iter()
            .map(|text| text.parse::<IdentityMatch>().expect("valid"))
            .collect(),
    })
}

fn fault() -> impl Strategy<Value = Fault> {
    let abort = prop_oneof![
        (200..=599u16).prop_map(|s| Abort::Http(StatusCode::from_u16(s).expect("valid"))),
        (1..=16u8).prop_map(Abort::Grpc),
        Just(Abort::Reset),
    ];
    let share = (0..=1000u32, 1..=1000u32)
        .prop_map(|(one, other)| Fraction::new(one.min(other), one.max(other)).expect("a share"));
    (
        condition(),
        share,
        of(duration()),
        of(abort),
        of(1..u64::MAX),
    )
        .prop_map(|(condition, share, delay, abort, bandwidth)| Fault {
            condition,
            share,
            delay,
            abort,
            bandwidth,
        })
}

pub(super) fn limits() -> impl Strategy<Value = Limits> {
    let service = (name(), port(), duration()).prop_map(|(name, port, timeout)| RateLimitService {
        name,
        port,
        timeout,
    });
    (vec(limit(), 0..3), any::<bool>(), of(service)).prop_map(|(limits, headers, service)| Limits {
        limits,
        headers,
        service,
    })
}

fn limit() -> impl Strategy<Value = Limit> {
    let key = prop_oneof![
        header_name().prop_map(Key::Header),
        "[a-z]{1,6}".prop_map(Key::Cookie),
        select(vec![Key::Identity, Key::SourceIp, Key::Path, Key::Method]),
    ];
    (
        "[a-z]{1,6}",
        condition(),
        vec(key, 0..3),
        any::<u32>(),
        duration().prop_filter("not 0", |per| !per.is_zero()),
        1..u32::MAX,
        select(vec![
            Algorithm::TokenBucket,
            Algorithm::SlidingWindow,
            Algorithm::FixedWindow,
        ]),
        select(vec![
            Scope::Local,
            Scope::Global(FailureMode::Open),
            Scope::Global(FailureMode::Closed),
        ]),
    )
        .prop_map(
            |(name, condition, key, requests, per, burst, algorithm, scope)| Limit {
                name,
                condition,
                key,
                requests,
                per,
                burst,
                algorithm,
                scope,
            },
        )
}
