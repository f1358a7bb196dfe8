use std::net::Ipv4Addr;

use model::request::{Algorithm, Condition, Key};

use super::*;

fn limit(name: &str, failure: FailureMode) -> Limit {
    Limit {
        name: name.to_owned(),
        condition: Condition::default(),
        key: vec![Key::Header("x-user".parse().expect("valid"))],
        requests: 5,
        per: Duration::from_mins(1),
        burst: 5,
        algorithm: Algorithm::FixedWindow,
        scope: Scope::Global(failure),
    }
}

fn limits(all: &[Limit], counter: &str) -> Limits {
    Limits {
        limits: all.to_vec(),
        headers: true,
        service: Some(RateLimitService {
            name: counter.parse().expect("valid"),
            port: 8081,
            timeout: Duration::from_millis(20),
        }),
    }
}

fn question(limits: &Limits, policy: &str) -> Question {
    let shown = format!("RateLimitPolicy {policy}");
    let global = Global::new(policy, &shown, "Service shop/s".to_owned(), limits);
    let (method, mut fields) = (Method::GET, Fields::new());
    fields.append("x-user", b"ann");
    let request = RequestView {
        method: &method,
        path: "/",
        query: None,
        authority: "s",
        headers: &fields,
    };
    let asker = Asker {
        identity: "",
        address: Ipv4Addr::LOCALHOST.into(),
    };
    let question = global.expect("some are global").question(&request, asker);
    *question.expect("it matches")
}

fn status(remaining: u32) -> Status {
    Status {
        over: remaining == 0,
        remaining,
        reset: Duration::from_secs(30),
    }
}

#[test]
fn what_is_counted_is_told_by_policy_target_limit_and_key() {
    let local = Limit {
        scope: Scope::Local,
        ..limit("local", FailureMode::Open)
    };
    let all = [local, limit("per-user", FailureMode::Open)];
    let question = question(&limits(&all, "shop/counter"), "shop/few");
    let asked: Vec<_> = question.parts[0].asked.iter().map(|(_, d)| d).collect();
    assert_eq!(asked.len(), 1, "what is local is not asked");
    let entries: Vec<_> = asked[0]
        .entries
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(
        entries,
        [
            ("policy", "shop/few"),
            ("target", "Service shop/s"),
            ("limit", "per-user"),
            ("header:x-user", "ann"),
        ]
    );
}

#[test]
fn secrets_and_what_is_long_or_no_text_go_as_hashes() {
    let of = |value: &[u8], secret| {
        text(&Entry {
            name: "x".into(),
            value: value.to_vec().into(),
            secret,
        })
    };
    assert_eq!(of(b"ann", false), "ann");
    // As `printf ann | sha256sum` says.
    assert!(
        of(b"ann", true).starts_with("sha256:49915e0d"),
        "{}",
        of(b"ann", true)
    );
    for value in [&b"\xff"[..], &[b'x'; PLAIN + 1]] {
        let text = of(value, false);
        assert!(text.starts_with("sha256:") && text.len() == 71, "{text}");
    }
}

#[test]
fn one_answer_is_about_all_and_the_first_that_is_over_refuses() {
    let open = limit("open", FailureMode::Open);
    let mut first = question(
        &limits(&[open.clone(), open.clone()], "shop/counter"),
        "a/one",
    );
    let same = question(
        &limits(std::slice::from_ref(&open), "shop/counter"),
        "a/two",
    );
    let other = question(&limits(&[open], "shop/other"), "a/three");
    assert!(
        first.join(Box::new(same)).is_none(),
        "one question to one service"
    );
    assert!(first.join(Box::new(other)).is_some());

    let mut told = None;
    let fine = first.judge(&[status(3), status(2), status(1)], &mut told);
    assert!(fine.is_ok());
    let mut fields = Fields::new();
    told.expect("told").write(&mut fields);
    assert_eq!(
        fields.get_str("ratelimit"),
        Some("\"open\";r=3;t=30, \"open\";r=2;t=30, \"open\";r=1;t=30")
    );
    let refused = first.judge(&[status(3), status(1), status(0)], &mut None);
    let failure = refused.expect_err("over");
    assert_eq!(failure.reason, Reason::RateLimited);
    assert!(
        failure.details.contains("RateLimitPolicy a/two"),
        "{failure}"
    );
}
