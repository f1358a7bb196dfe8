//! Golden cases: `testdata/<feature>/<case>/in.yaml` is read and translated; the model and the
//! statuses stand in `model.snap`, all findings in `diagnostics.snap`.
//!
//! A case whose file is in a folder `ok` must have no error. What each object serialises to must
//! read back as the same object.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use config::translate::{Change, Condition, Defaults, Translator};
use config::{Object, parse};
use rcgen::{CertifiedKey, KeyPair};

#[test]
fn golden_cases_translate_as_recorded() {
    let mut differing = Vec::new();
    for path in cases() {
        // Every case is run, so that one failure does not hide the others.
        if std::panic::catch_unwind(|| translate(&path)).is_err() {
            differing.push(path);
        }
    }
    assert!(differing.is_empty(), "not as recorded: {differing:#?}");
}

/// Every `testdata/<feature>/<case>/in.yaml`, in order.
fn cases() -> Vec<PathBuf> {
    let below = |folder: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).expect("readable");
        let mut paths: Vec<_> = entries.map(|e| e.expect("readable").path()).collect();
        paths.sort();
        paths
    };
    let features = below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata"));
    let cases: Vec<_> = features.iter().flat_map(|feature| below(feature)).collect();
    assert!(!cases.is_empty(), "there are cases");
    cases.iter().map(|case| case.join("in.yaml")).collect()
}

fn translate(path: &Path) {
    let text = certified(&std::fs::read_to_string(path).expect("readable"));
    let parsed = parse("in.yaml", &text);
    let mut diagnostics = parsed.diagnostics.clone();
    for object in &parsed.objects {
        assert_reads_back(object);
    }

    let mut translator = Translator::new(Defaults::default());
    let changes = parsed
        .objects
        .iter()
        .cloned()
        .map(|o| Change::Put(Arc::new(o)));
    let outcome = translator.apply(changes.collect());
    diagnostics.extend(outcome.diagnostics);

    let mut model = String::new();
    for (key, resource) in &outcome.resources {
        let resource = resource.as_ref().expect("nothing was there to be removed");
        // The defaults of the mesh are the same everywhere.
        if key.kind == model::resource::Kind::Mesh
            && *resource == model::resource::Resource::Mesh(model::mesh::Mesh::default())
        {
            continue;
        }
        let text = compact(&format!("{resource:#?}"));
        writeln!(model, "{key}: {text}\n").expect("memory");
    }
    for (key, status) in &outcome.statuses {
        for condition in &status.conditions {
            let about = condition.parent.as_ref().map(|p| {
                let port = p.port.map(|p| format!(":{p}")).unwrap_or_default();
                let section = p.section_name.as_deref().map(|s| format!("#{s}"));
                format!(
                    " for {} {}{port}{}",
                    p.kind,
                    p.name,
                    section.unwrap_or_default()
                )
            });
            let shown = show(condition);
            writeln!(model, "{key}{}: {shown}", about.unwrap_or_default()).expect("memory");
        }
        for listener in &status.listeners {
            let kinds = listener.supported_kinds.iter().map(|k| k.kind.as_str());
            let kinds: Vec<&str> = kinds.collect();
            writeln!(
                model,
                "{key}#{}: {} routes of [{}], {}",
                listener.name,
                listener.attached_routes,
                kinds.join(", "),
                listener
                    .resource
                    .as_ref()
                    .map_or_else(|| "no resource".to_owned(), ToString::to_string),
            )
            .expect("memory");
            for condition in &listener.conditions {
                let shown = show(condition);
                writeln!(model, "{key}#{}: {shown}", listener.name).expect("memory");
            }
        }
        if let Some(sets @ 1..) = status.attached_listener_sets {
            writeln!(model, "{key}: {sets} ListenerSets").expect("memory");
        }
    }
    let mut lines = String::new();
    for d in &diagnostics {
        let severity = if d.is_error() { "error" } else { "warning" };
        writeln!(lines, "{severity} {d}").expect("memory");
    }
    record(path, "model", &model);
    record(path, "diagnostics", &lines);
}

/// Cases that need a certificate that can be used have `{{certificate}}` and its `{{key}}`, in a
/// string in quotes; `{{other key}}` belongs to none.
fn certified(text: &str) -> String {
    static PAIR: LazyLock<CertifiedKey<KeyPair>> = LazyLock::new(|| {
        rcgen::generate_simple_self_signed(["www.example.com".to_owned()]).expect("a valid name")
    });
    let quoted = |pem: String| pem.replace("\r\n", "\n").replace('\n', "\\n");
    let other = KeyPair::generate().expect("randomness");
    text.replace("{{certificate}}", &quoted(PAIR.cert.pem()))
        .replace("{{key}}", &quoted(PAIR.signing_key.serialize_pem()))
        .replace("{{other key}}", &quoted(other.serialize_pem()))
}

fn show(c: &Condition) -> String {
    let sign = if c.status { '+' } else { '-' };
    let foreign = if c.foreign { "foreign " } else { "" };
    format!("{foreign}{sign}{} {} ({})", c.kind, c.reason, c.message)
}

/// Puts what fits on a line on one line.
fn compact(pretty: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in pretty.lines() {
        lines.push(line.to_owned());
        if !line.trim_start().starts_with(['}', ']', ')']) {
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        let opens =
            |l: &String| l.len() - l.trim_start().len() == indent && l.ends_with(['{', '[', '(']);
        let Some(start) = lines.iter().rposition(opens) else {
            continue;
        };
        let mut joined = lines[start].clone();
        for (i, part) in lines[start + 1..].iter().enumerate() {
            let closing = start + 1 + i == lines.len() - 1;
            if closing && joined.ends_with(',') {
                joined.pop();
            }
            let braces =
                joined.ends_with('{') || joined.ends_with(',') || (closing && part.contains('}'));
            joined.push_str(if braces { " " } else { "" });
            joined.push_str(part.trim_start());
        }
        if joined.len() <= 100 {
            lines.truncate(start);
            lines.push(joined);
        }
    }
    lines.join("\n")
}

fn record(path: &Path, name: &str, text: &str) {
    let folder = path.parent().expect("a case has a folder");
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(folder);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_snapshot_suffix("");
    settings.remove_snapshot_suffix();
    settings.remove_input_file();
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

fn assert_reads_back(object: &Object) {
    let json = serde_json::to_value(object).expect("objects have text keys");
    let again =
        Object::from_json("again", json.clone()).unwrap_or_else(|d| panic!("{d:?}\n{json:#}"));
    assert!(again.says_the_same(object), "{json:#}");
    assert_eq!(serde_json::to_value(&again).expect("as before"), json);
}
