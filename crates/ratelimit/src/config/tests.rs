use std::path::Path;

use super::*;
use crate::limit::Unit;

const SHOP: &str = "domain: shop
descriptors:
  - key: path
    value: /api/*
    rate_limit: {unit: minute, requests_per_unit: 3, name: api}
  - key: path
    value: /api/slow*
    rate_limit: {unit: hour, requests_per_unit: 2}
  - key: path
    value: /api/slow/one
    rate_limit: {unlimited: true, replaces: [{name: api}]}
  - key: user
    descriptors:
      - key: plan
        value: gold
        shadow_mode: true
        rate_limit: {unit: DAY, requests_per_unit: 9}
      - key: plan
        rate_limit: {unit: second, requests_per_unit: 1}
";

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse([(Path::new("shop.yaml"), text)])
}

#[test]
fn the_most_exact_entry_decides_at_each_level() {
    let config = parse(SHOP).expect("valid");
    let find = |domain: &str, entries: &[(&str, &str)]| {
        let found = config.find(domain, entries.iter().copied());
        found.map(|limit| (limit.requests, limit.unit, limit.shadow))
    };
    let of = |requests, unit| Some((Some(requests), unit, false));
    assert_eq!(find("shop", &[("path", "/api/x")]), of(3, Unit::Minute));
    assert_eq!(find("shop", &[("path", "/api/slower")]), of(2, Unit::Hour));
    assert_eq!(
        find("shop", &[("path", "/api/slow/one")]),
        Some((None, Unit::Second, false))
    );
    assert_eq!(find("shop", &[("path", "/")]), None);
    assert_eq!(find("other", &[("path", "/api/x")]), None);
    assert_eq!(
        find("shop", &[("user", "ann"), ("plan", "gold")]),
        Some((Some(9), Unit::Day, true))
    );
    assert_eq!(
        find("shop", &[("user", "ann"), ("plan", "")]),
        of(1, Unit::Second)
    );
    // One that ends before a limit, and one that goes beyond, has none.
    assert_eq!(find("shop", &[("user", "ann")]), None);
    let beyond = [("path", "/api/x"), ("user", "ann")];
    assert_eq!(find("shop", &beyond), None);
}

#[test]
fn what_is_wrong_is_refused_with_its_line() {
    for (text, line, part) in [
        ("domain: ''", 1, "domain"),
        ("domain: a\nlimits: []", 2, "limits"),
        (
            "domain: a\ndescriptors:\n- key: b\n  detailed_metric: true",
            4,
            "detailed_metric",
        ),
        ("domain: a\ndescriptors:\n- key: ''", 3, "key"),
        ("domain: a\ndescriptors:\n- key: b\n- key: b", 4, "twice"),
        (
            "domain: a\ndescriptors:\n- key: b\n  rate_limit:\n    requests_per_unit: 1\n    unit: week",
            6,
            "week",
        ),
        (
            "domain: a\ndescriptors:\n- {key: b, rate_limit: {unlimited: true, unit: day}}",
            3,
            "unlimited",
        ),
        (
            "domain: a\ndescriptors:\n- {key: b, rate_limit: {unit: day}}",
            3,
            "requests_per_unit",
        ),
        (
            "domain: a\ndescriptors:\n- {key: b, shadow_mode: true}",
            3,
            "shadow_mode",
        ),
        (
            "domain: a\ndescriptors:\n- {key: b, rate_limit: {unit: day, requests_per_unit: 1, name: x, replaces: [{name: x}]}}",
            3,
            "replaces",
        ),
        (": : :", 1, ""),
    ] {
        match parse(text) {
            Err(ConfigError::Invalid {
                line: at, message, ..
            }) => {
                assert!(message.contains(part), "{text}: {message}");
                assert_eq!(at, line, "{text}: {message}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
    let twice = [
        (Path::new("a.yaml"), "domain: a"),
        (Path::new("b.yaml"), "domain: a"),
    ];
    let error = Config::parse(twice).expect_err("twice").to_string();
    assert!(
        error.contains("b.yaml:1") && error.contains("a.yaml already"),
        "{error}"
    );
}
