use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use model::request::{
    Abort, Algorithm, Condition, Effect, Fault, Faults, Key, Limit, Parent, RequestPolicy, Scope,
    Section,
};
use model::route::{
    self, Fraction, HeaderMatch, Match, PathMatch, Route, RouteKind, Rule, Timeouts, ValueMatch,
};
use proptest::prelude::*;
use wire::Fields;

use super::fault::{Injected, meet, meet_connection};
use super::limit::{State, entries, identify};
use super::*;

fn policy(name: &str, created: u64, section: Section) -> RequestPolicy {
    RequestPolicy {
        name: name.parse().expect("valid"),
        created,
        parent: Parent::Service("shop/s".parse().expect("valid")),
        section,
        effect: Effect::Faults(Faults::default()),
    }
}

fn rule(name: Option<&str>) -> Rule {
    Rule {
        name: name.map(str::to_owned),
        matches: vec![Match::default()],
        filters: Vec::new(),
        backends: Vec::new(),
        timeouts: Timeouts::default(),
        retry: None,
        session: None,
    }
}

fn of_route(rule: Option<&str>) -> Section {
    Section::Route {
        kind: RouteKind::Http,
        name: "shop/r".parse().expect("valid"),
        rule: rule.map(str::to_owned),
    }
}

fn a_route() -> Arc<Route> {
    Arc::new(Route {
        kind: RouteKind::Http,
        name: "shop/r".parse().expect("valid"),
        parent: route::Parent::Service("shop/s".parse().expect("valid")),
        port: None,
        created: 0,
        rules: vec![rule(Some("slow")), rule(None)],
    })
}

#[test]
fn the_most_specific_policy_holds_then_the_older() {
    let policies = [
        policy("shop/whole", 1, Section::Whole),
        policy("shop/young", 9, Section::Port(80)),
        policy("shop/old", 5, Section::Port(80)),
        policy("shop/other", 0, Section::Port(81)),
        policy("shop/route", 7, of_route(None)),
        policy("shop/rule", 8, of_route(Some("slow"))),
    ];
    let table = |port| {
        let named = policies.iter().map(|p| (p, p.name.name().to_owned()));
        Table::compile(named, Here::Port(port)).expect("there are some")
    };
    let route = a_route();
    let at = |port, rule: Option<usize>| {
        let decided = rule.map(|r| (&*route, &route.rules[r]));
        table(port).find(decided).cloned().expect("one holds")
    };
    assert_eq!(at(80, Some(0)), "rule");
    assert_eq!(at(80, Some(1)), "route");
    assert_eq!(at(80, None), "old");
    assert_eq!(at(82, None), "whole");
    let none = policies[3..4].iter().map(|p| (p, ()));
    assert!(Table::compile(none, Here::Port(80)).is_none());
    assert!(Table::compile([(&policies[0], ())].into_iter(), Here::Listener("web")).is_some());
}

fn view<'a>(method: &'a Method, path: &'a str, headers: &'a Fields) -> RequestView<'a> {
    RequestView {
        method,
        path,
        query: None,
        authority: "s.shop",
        headers,
    }
}

const NOBODY: Asker<'_> = Asker {
    identity: "",
    address: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
};

fn fault(path: &str, delay: u64, abort: Option<Abort>) -> Fault {
    Fault {
        condition: Condition {
            matched: Match {
                path: PathMatch::Prefix(path.to_owned()),
                ..Match::default()
            },
            identities: Vec::new(),
        },
        share: Fraction::ALL,
        delay: (delay > 0).then(|| Duration::from_secs(delay)),
        abort,
        bandwidth: None,
    }
}

#[test]
fn all_faults_that_match_take_effect_up_to_the_first_answer() {
    let abort = Abort::Http(StatusCode::IM_A_TEAPOT);
    let mut slow = fault("/", 0, None);
    slow.bandwidth = Some(100);
    let mut slower = fault("/", 0, None);
    slower.bandwidth = Some(10);
    let faults = Faults {
        faults: vec![
            slow,
            slower,
            fault("/", 1, None),
            fault("/a", 2, Some(abort)),
            fault("/", 4, Some(Abort::Reset)),
        ],
        until: Some(100),
    };
    let (method, fields) = (Method::GET, Fields::new());
    let met = |path, now| meet(&faults, &view(&method, path, &fields), NOBODY, now, || 0);
    let expected = Injected {
        delay: Duration::from_secs(3),
        abort: Some(abort),
        bandwidth: Some(10),
    };
    assert_eq!(met("/a/b", 99), expected);
    let other = met("/b", 99);
    assert_eq!(
        (other.delay.as_secs(), other.abort),
        (5, Some(Abort::Reset))
    );
    assert!(met("/a/b", 100).is_nothing(), "it is over");
    let connection = meet_connection(&faults, NOBODY, 99, || 0);
    // What asks for a path is for no connection.
    assert_eq!(connection.abort, Some(Abort::Reset));
    assert_eq!(connection.delay.as_secs(), 5);
}

#[test]
fn a_header_and_an_identity_must_both_fit() {
    let condition = Condition {
        matched: Match {
            headers: vec![HeaderMatch {
                name: "x-chaos".parse().expect("valid"),
                value: ValueMatch::Exact("yes".to_owned()),
            }],
            ..Match::default()
        },
        identities: vec!["spiffe://mesh.local/ns/shop/*".parse().expect("valid")],
    };
    let mut with = Fields::new();
    with.append("x-chaos", b"yes");
    let without = Fields::new();
    let web = Asker {
        identity: "spiffe://mesh.local/ns/shop/sa/web",
        ..NOBODY
    };
    let method = Method::GET;
    for (fields, asker, fits) in [
        (&with, web, true),
        (&with, NOBODY, false),
        (&without, web, false),
    ] {
        assert_eq!(holds(&condition, &view(&method, "/", fields), asker), fits);
    }
    assert!(!holds_for_connection(&condition, web));
}

#[test]
fn paths_of_conditions_are_read_as_those_of_requests() {
    let mut condition = fault("/%7Ebob", 0, None).condition;
    normalize(&mut condition);
    assert_eq!(
        condition.matched.path,
        PathMatch::Prefix("/~bob".to_owned())
    );
}

fn limit(requests: u32, per: Duration, burst: u32, algorithm: Algorithm) -> Limit {
    Limit {
        name: "l".to_owned(),
        condition: Condition::default(),
        key: Vec::new(),
        requests,
        per,
        burst,
        algorithm,
        scope: Scope::Local,
    }
}

#[test]
fn a_bucket_says_how_much_is_left_and_when_there_is_more() {
    let limit = limit(60, Duration::from_mins(1), 2, Algorithm::TokenBucket);
    let mut state = State::default();
    let at = Duration::from_secs(100);
    let first = state.take(&limit, at);
    assert!(first.allowed && first.remaining == 1 && first.retry_after.is_zero());
    assert_eq!(first.reset, Duration::from_secs(1));
    let second = state.take(&limit, at);
    assert!(second.allowed && second.remaining == 0);
    let third = state.take(&limit, at + Duration::from_millis(250));
    assert!(!third.allowed);
    assert_eq!(third.retry_after, Duration::from_millis(750));
    assert!(state.take(&limit, at + Duration::from_secs(1)).allowed);
    assert!(state.is_fresh(&limit, at + Duration::from_secs(9)));
}

#[test]
fn a_window_says_when_there_is_more() {
    let limit = limit(4, Duration::from_secs(8), 4, Algorithm::SlidingWindow);
    let mut state = State::default();
    for _ in 0..4 {
        assert!(state.take(&limit, Duration::from_secs(80)).allowed);
    }
    let refused = state.take(&limit, Duration::from_secs(84));
    // A quarter of the last window must be out of sight, two seconds into the next one.
    assert!(!refused.allowed);
    assert_eq!(refused.retry_after, Duration::from_secs(6));
    let just = Duration::from_secs(90);
    assert!(
        !state
            .take(&limit, Duration::from_nanos(89_999_999_999))
            .allowed
    );
    assert!(state.take(&limit, just).allowed);
}

#[test]
fn a_fixed_window_forgets_the_last_one() {
    let limit = limit(2, Duration::from_secs(10), 2, Algorithm::FixedWindow);
    let mut state = State::default();
    let at = Duration::from_secs;
    assert!(state.take(&limit, at(38)).allowed);
    let second = state.take(&limit, at(38));
    assert!(second.allowed && second.remaining == 0);
    assert_eq!(second.reset, at(2));
    let third = state.take(&limit, at(39));
    assert!(!third.allowed);
    assert_eq!(third.retry_after, at(1));
    assert!(!state.is_fresh(&limit, at(39)) && state.is_fresh(&limit, at(40)));
    assert_eq!(state.take(&limit, at(40)).remaining, 1);
}

#[test]
fn a_service_is_told_what_a_request_has_and_what_of_it_is_secret() {
    let mut limit = limit(1, Duration::from_secs(1), 1, Algorithm::FixedWindow);
    limit.key = vec![
        Key::Header("x-user".parse().expect("valid")),
        Key::Header("authorization".parse().expect("valid")),
        Key::Header("absent".parse().expect("valid")),
        Key::Cookie("id".to_owned()),
        Key::Identity,
        Key::SourceIp,
        Key::Path,
        Key::Method,
    ];
    let mut fields = Fields::new();
    for (name, value) in [
        ("x-user", "ann"),
        ("x-user", "bob"),
        ("authorization", "Bearer x"),
        ("cookie", "a=1; id=y"),
    ] {
        fields.append(name, value.as_bytes());
    }
    let request = view(&Method::GET, "/p", &fields);
    let found = entries(&limit, &request, NOBODY);
    let found: Vec<_> = found
        .iter()
        .map(|e| (&*e.name, String::from_utf8_lossy(&e.value), e.secret))
        .collect();
    let address = NOBODY.address.to_string();
    assert_eq!(
        found,
        [
            ("header:x-user", "ann,bob".into(), false),
            ("header:authorization", "Bearer x".into(), true),
            ("cookie:id", "y".into(), true),
            ("remote_address", address.as_str().into(), false),
            ("path", "/p".into(), false),
            ("method", "GET".into(), false),
        ]
    );
}

#[test]
fn keys_are_told_apart_by_each_part() {
    use std::hash::{DefaultHasher, Hasher};
    let mut limit = limit(1, Duration::from_secs(1), 1, Algorithm::TokenBucket);
    limit.key = vec![
        Key::Header("a".parse().expect("valid")),
        Key::Cookie("id".to_owned()),
        Key::Path,
    ];
    let (method, mut seen) = (Method::GET, std::collections::BTreeSet::new());
    for (a, cookie, path) in [
        ("", "", "/"),
        ("x", "", "/"),
        ("", "k=1; id=x", "/"),
        ("", "id=y", "/"),
        ("", "id=y", "/x"),
    ] {
        let mut fields = Fields::new();
        for (name, value) in [("a", a), ("cookie", cookie)] {
            if !value.is_empty() {
                fields.append(name, value.as_bytes());
            }
        }
        let mut hasher = DefaultHasher::new();
        identify(&limit, &view(&method, path, &fields), NOBODY, &mut hasher);
        assert!(seen.insert(hasher.finish()), "{a} {cookie} {path}");
    }
}

proptest! {
    /// In no stretch of time more than the burst and what the pace adds to it.
    #[test]
    fn a_token_bucket_never_lets_more_through(
        requests in 1..1000u32,
        per in 1..10_000u64,
        burst in 1..50u32,
        steps in prop::collection::vec(0..200_000u64, 1..300),
    ) {
        let limit = limit(requests, Duration::from_millis(per), burst, Algorithm::TokenBucket);
        let (mut state, mut now) = (State::default(), Duration::from_secs(3));
        let mut passed: Vec<Duration> = Vec::new();
        for step in steps {
            now += Duration::from_micros(step);
            let verdict = state.take(&limit, now);
            if verdict.allowed {
                passed.push(now);
            } else {
                prop_assert!(!verdict.retry_after.is_zero());
                let mut later = state;
                prop_assert!(later.take(&limit, now + verdict.retry_after).allowed);
            }
        }
        for (at, from) in passed.iter().enumerate() {
            for (to_at, to) in passed.iter().enumerate().skip(at) {
                let count = (to_at - at + 1) as f64;
                let pace = f64::from(requests) / Duration::from_millis(per).as_secs_f64();
                let most = f64::from(burst) + pace * to.saturating_sub(*from).as_secs_f64();
                prop_assert!(count <= most + 1e-6, "{count} of {most}");
            }
        }
    }

    /// In no window more than the limit, nor in what is in sight of it and the last one's.
    #[test]
    fn a_sliding_window_never_lets_more_through(
        requests in 1..50u32,
        per in 1..1000u64,
        steps in prop::collection::vec(0..300_000u64, 1..300),
    ) {
        let length = Duration::from_millis(per);
        let limit = limit(requests, length, requests, Algorithm::SlidingWindow);
        let (mut state, mut now) = (State::default(), Duration::from_secs(3));
        let mut windows: std::collections::BTreeMap<u128, u32> = std::collections::BTreeMap::new();
        for step in steps {
            now += Duration::from_micros(step);
            let number = now.as_nanos() / length.as_nanos();
            let verdict = state.take(&limit, now);
            if verdict.allowed {
                *windows.entry(number).or_default() += 1;
                let current = windows[&number];
                let previous = windows.get(&(number - 1)).copied().unwrap_or(0);
                let gone = (now.as_nanos() % length.as_nanos()) as f64 / length.as_nanos() as f64;
                let in_sight = f64::from(previous) * (1.0 - gone) + f64::from(current);
                prop_assert!(in_sight <= f64::from(requests) + 1e-6);
            } else {
                let mut later = state;
                prop_assert!(later.take(&limit, now + verdict.retry_after).allowed);
            }
        }
        prop_assert!(windows.values().all(|count| *count <= requests));
    }

    /// Chance that is spread evenly hits a share's part, to within five standard deviations.
    #[test]
    fn a_share_is_met_by_its_part_of_requests(parts in 0..=1_000_000u32, seed in any::<u64>()) {
        let mut fault = fault("/", 1, None);
        fault.share = Fraction::new(parts, 1_000_000).expect("a share");
        let faults = Faults { faults: vec![fault], until: None };
        let (method, fields) = (Method::GET, Fields::new());
        let mut random = seed;
        let drawn = || {
            // SplitMix64.
            random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = random;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z >> 32) as u32
        };
        let mut drawn = drawn;
        let count = 20_000;
        let mut hit = 0u32;
        for _ in 0..count {
            let met = meet(&faults, &view(&method, "/", &fields), NOBODY, 0, &mut drawn);
            hit += u32::from(!met.is_nothing());
        }
        let share = f64::from(parts) / 1e6;
        let spread = (f64::from(count) * share * (1.0 - share)).sqrt();
        let off = (f64::from(hit) - f64::from(count) * share).abs();
        prop_assert!(off <= 5.0 * spread + 1.0, "{hit} of {count} at {share}");
    }
}
