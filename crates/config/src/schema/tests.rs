//! The schemas are whole: all are read, every rule is compiled, knows its functions, and is broken by
//! some case; what is said of it exists.

#[rustfmt::skip]
mod cases;

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::shape::Schema;
use super::*;
use crate::kind::{GATEWAY_GROUP, ObjectKind};
use crate::yaml;

thread_local! {
    static BROKEN: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
}

/// Remembers that a rule was broken.
pub(super) fn broken(rule: &str) {
    BROKEN.with_borrow_mut(|broken| broken.insert(rule.to_owned()));
}

/// All schemas, each part of each.
fn each(f: &mut dyn FnMut(&str, &Schema)) {
    fn below(kind: &str, schema: &Schema, f: &mut dyn FnMut(&str, &Schema)) {
        f(kind, schema);
        let parts = schema.properties.values();
        let parts = parts.chain(schema.items.as_deref());
        let parts = parts.chain(schema.additional_properties.as_deref());
        let parts = parts.chain(&schema.one_of).chain(&schema.any_of);
        let parts = parts.chain(&schema.all_of).chain(schema.not.as_deref());
        parts.for_each(|part| below(kind, part, f));
    }
    for (kind, text) in FILES {
        let file: File = serde_json::from_str(text).unwrap_or_else(|e| panic!("{kind}: {e}"));
        for schema in &file.content.schemas {
            below(kind, schema, f);
        }
    }
}

fn rules() -> BTreeSet<(String, String)> {
    let mut rules = BTreeSet::new();
    each(&mut |_, schema| {
        let all = schema.rules.iter();
        rules.extend(all.map(|r| (r.text.to_string(), r.message.to_string())));
    });
    assert!(rules.len() > 80, "only {} rules were found", rules.len());
    rules
}

/// What is wrong with a specification, each as `field: message`.
fn judged(kind: &str, version: &str, spec: &str) -> Vec<String> {
    let mut spec = yaml::parse(spec, 0).unwrap_or_else(|e| panic!("{e}\n{spec}"));
    let found = Schemas::shared().fill_and_judge(kind, version, &mut spec);
    let line = |f: Found| format!("{}: {}", f.problem.field, f.problem.message);
    found.into_iter().map(line).collect()
}

#[test]
fn every_rule_compiles_and_knows_its_functions() {
    let functions = Functions::new();
    for (rule, _) in rules() {
        let program = Program::compile(&rule).unwrap_or_else(|e| panic!("{rule}: {e}"));
        let unknown = program.unknown_functions(&functions);
        assert!(unknown.is_empty(), "{rule}: {unknown:?}");
    }
}

#[test]
fn every_pattern_compiles() {
    each(&mut |kind, schema| {
        if let Some(pattern) = &schema.pattern {
            assert!(pattern::matches(pattern, "").is_some(), "{kind}: {pattern}");
        }
    });
}

#[test]
fn every_case_is_judged_as_expected_and_every_rule_is_broken_by_one() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for group in cases::ALL {
        for (snippet, expected) in group.cases {
            count += 1;
            let spec = group.around.replace('@', snippet);
            let found = judged(group.kind, group.version, &spec);
            let wanted: Vec<&str> = expected.split(" | ").filter(|e| !e.is_empty()).collect();
            let same = found.len() == wanted.len()
                && found.iter().zip(&wanted).all(|(f, w)| f.starts_with(w));
            if !same {
                wrong.push(format!(
                    "{} {spec}\n  expected {wanted:#?}\n  found {found:#?}",
                    group.kind
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= 120, "only {count} cases");

    let matches = format!("matches: [{}{{}}]", "{}, ".repeat(63));
    let rules_of_64 = format!("{{rules: [{}]}}", format!("{{{matches}}}, ").repeat(3));
    let wanted = ["spec.rules: have more than 128 matches together"];
    assert_eq!(judged("HTTPRoute", "v1", &rules_of_64), wanted);
    assert_eq!(judged("GRPCRoute", "v1", &rules_of_64), wanted);

    // A change is what the one rule without a case is about.
    let (was, is) = (
        yaml::parse("controllerName: example.com/a", 0).expect("YAML"),
        yaml::parse("controllerName: example.com/b", 0).expect("YAML"),
    );
    let schemas = Schemas::shared();
    let schema = schemas.find("GatewayClass", "v1").expect("there is one");
    assert_eq!(judge::judge(&schemas, schema, &is, Some(&was)).len(), 1);
    assert!(judge::judge(&schemas, schema, &is, Some(&is)).is_empty());

    let broken = BROKEN.take();
    let never: Vec<_> = rules()
        .into_iter()
        .filter(|(rule, _)| !broken.contains(rule) && !cases::NEVER.contains(&rule.as_str()))
        .collect();
    assert!(never.is_empty(), "no case breaks {never:#?}");
}

#[test]
fn words_are_about_rules_and_patterns_that_exist() {
    let messages: BTreeSet<String> = rules().into_iter().map(|(_, message)| message).collect();
    for message in words::rules() {
        assert!(messages.contains(message), "no rule says {message:?}");
    }
    let mut patterns = BTreeSet::new();
    each(&mut |_, schema| patterns.extend(schema.pattern.clone()));
    for pattern in words::patterns() {
        assert!(patterns.contains(pattern), "there is no pattern {pattern}");
    }
}

#[test]
fn every_version_that_is_served_has_a_schema() {
    let schemas = Schemas::shared();
    for kind in ObjectKind::ALL {
        for version in ["v1", "v1beta1", "v1alpha2", "v1alpha3"] {
            if kind.serves_version(&format!("{GATEWAY_GROUP}/{version}")) {
                let found = schemas.find(kind.as_str(), version).is_some();
                assert!(found, "{kind} {version}");
            }
        }
    }
}

#[test]
fn defaults_are_filled_in_at_every_depth() {
    let text =
        "{parentRefs: [{name: a}], rules: [{backendRefs: [{name: b, port: 1, weight: null}]}]}";
    let mut spec = yaml::parse(text, 0).expect("YAML");
    let schemas = Schemas::shared();
    default::fill(
        schemas.find("HTTPRoute", "v1").expect("there is one"),
        &mut spec,
    );
    let wanted = "{
        parentRefs: [{name: a, group: gateway.networking.k8s.io, kind: Gateway}],
        rules: [{
            matches: [{path: {type: PathPrefix, value: /}}],
            backendRefs: [{name: b, port: 1, weight: 1, group: '', kind: Service}]
        }]
    }";
    let wanted = yaml::parse(wanted, 0).expect("YAML");
    assert!(spec.says_the_same(&wanted), "{spec:#?}");
}

/// Objects that are kept are read without their schema: what they lack then has the same default.
#[test]
fn the_shapes_have_the_defaults_of_the_schemas() {
    for (kind, version, spec) in [
        ("HTTPRoute", "v1", "{}"),
        (
            "HTTPRoute",
            "v1",
            "{parentRefs: [{name: a}], rules: [{backendRefs: [{name: b, port: 1}]}]}",
        ),
        (
            "HTTPRoute",
            "v1",
            "{parentRefs: [{name: a}], rules: [{matches: [{}, {path: {value: /a}}, {path: {type: Exact}}, {headers: [{name: a, value: b}]}]}]}",
        ),
        (
            "HTTPRoute",
            "v1",
            "{parentRefs: [{name: a}], rules: [{filters: [{type: RequestRedirect, requestRedirect: {}}]}]}",
        ),
        (
            "HTTPRoute",
            "v1",
            "{parentRefs: [{name: a}], rules: [{filters: [{type: CORS, cors: {allowOrigins: ['*']}}, {type: RequestMirror, requestMirror: {backendRef: {name: a, port: 1}, fraction: {numerator: 1}}}]}]}",
        ),
        (
            "GRPCRoute",
            "v1",
            "{parentRefs: [{name: a}], rules: [{matches: [{method: {service: a}}], backendRefs: [{name: b, port: 1}]}]}",
        ),
        (
            "TLSRoute",
            "v1",
            "{parentRefs: [{name: a}], hostnames: [a.example], rules: [{backendRefs: [{name: b, port: 1}]}]}",
        ),
        (
            "TCPRoute",
            "v1",
            "{parentRefs: [{name: a}], rules: [{backendRefs: [{name: b, port: 1}]}]}",
        ),
        (
            "Gateway",
            "v1",
            "{gatewayClassName: a, listeners: [{name: a, port: 1, protocol: HTTP}], addresses: [{value: 10.0.0.1}]}",
        ),
        (
            "Gateway",
            "v1",
            "{gatewayClassName: a, listeners: [{name: a, port: 1, protocol: HTTPS, tls: {certificateRefs: [{name: s}]}, allowedRoutes: {kinds: [{kind: HTTPRoute}]}}], tls: {frontend: {default: {validation: {caCertificateRefs: [{group: '', kind: ConfigMap, name: a}]}}}}}",
        ),
        ("GatewayClass", "v1", "{controllerName: a.b/c}"),
        (
            "BackendTLSPolicy",
            "v1",
            "{targetRefs: [{group: '', kind: Service, name: s}], validation: {hostname: a.example, wellKnownCACertificates: System}}",
        ),
    ] {
        let text = format!(
            "{{apiVersion: {GATEWAY_GROUP}/{version}, kind: {kind}, metadata: {{name: x}}, spec: {spec}}}"
        );
        let parsed = crate::parse("", &text);
        assert!(!parsed.has_errors(), "{text}: {:?}", parsed.diagnostics);
        let json = serde_saphyr::from_str(&text).expect("YAML is JSON enough");
        let kept = crate::Object::from_json("", json).unwrap_or_else(|e| panic!("{text}: {e:?}"));
        assert_eq!(kept.spec, parsed.objects[0].spec, "{text}");
    }
}
