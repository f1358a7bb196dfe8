//! Whatever the text, `parse` answers, and what it gives can be put to work.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::translate::{Change, Defaults, Translator};
use config::{MAX_INPUT_BYTES, Object, parse};
use proptest::prelude::*;

const SEED: &str = include_str!("../testdata/http_route/canary/in.yaml");

fn digest(text: &str) {
    let parsed = parse("any", text);
    for d in &parsed.diagnostics {
        assert!(
            !d.message.is_empty() && !d.to_string().contains('\n'),
            "{d:?}"
        );
    }
    let changes = parsed.objects.into_iter().map(|o| Change::Put(Arc::new(o)));
    Translator::new(Defaults::default()).apply(changes.collect());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_is_answered(text in "\\PC{0,400}") {
        digest(&text);
    }

    #[test]
    fn text_of_yaml_marks_is_answered(text in "[-:{}\\[\\]&*!|>'\"%@#, \n\ta-c0-2.~?]{0,300}") {
        digest(&text);
    }

    #[test]
    fn a_damaged_file_is_answered(at in any::<prop::sample::Index>(), length in 0usize..40, with in "\\PC{0,12}") {
        let from = at.index(SEED.len());
        let to = (from + length).min(SEED.len());
        // The seed is ASCII.
        digest(&format!("{}{with}{}", &SEED[..from], &SEED[to..]));
    }

    #[test]
    fn any_json_is_refused_or_read_back(json in json()) {
        match Object::from_json("any", json) {
            Ok(object) => {
                let again = serde_json::to_value(&object).expect("text keys");
                prop_assert!(Object::from_json("again", again).is_ok());
            }
            Err(diagnostics) => prop_assert!(diagnostics.iter().any(config::Diagnostic::is_error)),
        }
    }
}

/// JSON with the words that objects are made of, so that some of it gets far.
fn json() -> impl Strategy<Value = serde_json::Value> {
    let word = prop_oneof![
        Just("Service"),
        Just("HTTPRoute"),
        Just("a"),
        Just("/x"),
        Just("10s"),
        Just("Exact"),
        Just("PathPrefix"),
        Just("URLRewrite"),
        Just(""),
    ];
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        (-1i64..70_000).prop_map(Into::into),
        word.prop_map(Into::into),
    ];
    let key = prop_oneof![
        Just("name"),
        Just("port"),
        Just("ports"),
        Just("type"),
        Just("path"),
        Just("value"),
        Just("weight"),
        Just("rules"),
        Just("matches"),
        Just("filters"),
        Just("backendRefs"),
        Just("parentRefs"),
        Just("kind"),
        Just("group"),
        Just("urlRewrite"),
        Just("timeouts"),
        Just("request"),
        Just("selector"),
        Just("headers"),
    ];
    let value = leaf.prop_recursive(5, 60, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..5).prop_map(|map| {
                map.into_iter()
                    .map(|(k, v)| (k.to_owned(), v))
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            }),
        ]
    });
    let kind = prop_oneof![
        Just(("v1", "Service")),
        Just(("gateway.networking.k8s.io/v1", "HTTPRoute")),
        Just(("tulle.dev/v1alpha1", "Workload")),
        Just(("tulle.dev/v1alpha1", "TrafficPolicy")),
    ];
    (kind, value).prop_map(|((version, kind), spec)| {
        serde_json::json!({"apiVersion": version, "kind": kind, "metadata": {"name": "a"}, "spec": spec})
    })
}

#[test]
fn a_file_of_ten_megabytes_is_read_in_seconds() {
    let mut text = String::new();
    for i in 0.. {
        if text.len() > 10 << 20 {
            break;
        }
        write!(
            text,
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: s{i}\n  annotations:\n    note: {}\n\
             spec:\n  selector: {{app: s{i}}}\n  ports: [{{port: 80, targetPort: 8080}}]\n---\n",
            "x".repeat(300)
        )
        .expect("memory");
    }
    let start = Instant::now();
    let parsed = parse("large", &text);
    assert!(parsed.diagnostics.is_empty());
    assert!(parsed.objects.len() > 20_000);
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn hostile_texts_are_refused_quickly() {
    let start = Instant::now();
    let too_long = "#".repeat(MAX_INPUT_BYTES + 1);
    assert!(parse("x", &too_long).has_errors());
    for text in [
        "[".repeat(MAX_INPUT_BYTES),
        "[],".repeat(MAX_INPUT_BYTES / 3),
        "? ".repeat(MAX_INPUT_BYTES / 2),
        "- ".repeat(MAX_INPUT_BYTES / 2),
        "a: &a [*a, *a]\n".repeat(1_000),
        "---\nx\n".repeat(MAX_INPUT_BYTES / 6),
        "\"".repeat(MAX_INPUT_BYTES),
        "\u{0}".repeat(1_000),
    ] {
        let parsed = parse("x", &text);
        assert!(parsed.has_errors(), "{text:.20}");
        assert!(parsed.diagnostics.len() < 1_100);
    }
    assert!(
        start.elapsed() < Duration::from_mins(1),
        "{:?}",
        start.elapsed()
    );
}
