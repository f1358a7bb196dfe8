//! Golden cases: `testdata/<command>/<case>/` holds what goes in, and beside it what comes out.
//!
//! `simulate`: `in.yaml` and `requests.txt`, one request a line with its options behind `|`;
//! `analyze`: `in.yaml`; `diff`: `old.yaml` and `new.yaml`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use config::Parsed;
use config::translate::Defaults;
use explain::{Caller, Request, Simulation, World};

/// A moment shortly before the certificate in `analyze/listeners` is over: 2026-12-08.
const NOW: Duration = Duration::from_hours(499_080);

#[test]
fn simulations_are_as_recorded() {
    each("simulate", |folder| {
        let (world, parsed) = read(&folder.join("in.yaml"));
        assert!(!parsed.has_errors(), "{:?}", parsed.diagnostics);
        let lines = std::fs::read_to_string(folder.join("requests.txt")).expect("readable");
        let said: Vec<Simulation> = lines.lines().map(|line| simulate(&world, line)).collect();
        let settings = settings(folder);
        settings.bind(|| insta::assert_yaml_snapshot!("said", said));
    });
}

#[test]
fn findings_are_as_recorded() {
    each("analyze", |folder| {
        let (world, parsed) = read(&folder.join("in.yaml"));
        let now = SystemTime::UNIX_EPOCH + NOW;
        let mut text = String::new();
        for finding in explain::analyze(&world, &parsed.diagnostics, now) {
            writeln!(text, "{} [{}] {finding}", finding.severity, finding.check).expect("memory");
        }
        settings(folder).bind(|| insta::assert_snapshot!("findings", text));
    });
}

#[test]
fn differences_are_as_recorded() {
    each("diff", |folder| {
        let (old, _) = read(&folder.join("old.yaml"));
        let (new, _) = read(&folder.join("new.yaml"));
        let changes = explain::diff(&old, &new);
        settings(folder).bind(|| insta::assert_yaml_snapshot!("changes", changes));
        assert!(explain::diff(&new, &new).is_empty());
    });
}

fn simulate(world: &World, line: &str) -> Simulation {
    let mut parts = line.split('|').map(str::trim);
    let request = parts.next().expect("a line has a request");
    let (mut headers, mut gateway) = (Vec::new(), None);
    let mut caller = Caller::Somebody {
        namespace: "shop".to_owned(),
    };
    for part in parts {
        match part.split_once(' ') {
            Some(("--gateway", name)) => gateway = Some(name.parse().expect("a name")),
            Some(("--from", "plain")) => {
                caller = Caller::Plain {
                    namespace: "shop".to_owned(),
                };
            }
            Some(("--from", id)) => caller = Caller::Identity(id.parse().expect("an identity")),
            _ => headers.push(part.to_owned()),
        }
    }
    let request = Request::parse(request, &headers).expect("a request");
    explain::simulate(world, &request, &caller, gateway.as_ref())
}

fn read(path: &Path) -> (World, Parsed) {
    let text = std::fs::read_to_string(path).expect("readable");
    let name = path.file_name().expect("a file").to_string_lossy();
    let parsed = config::parse(&name, &text);
    let objects = parsed.objects.iter().cloned().map(Arc::new);
    (World::new(objects, Defaults::default()), parsed)
}

fn each(command: &str, run: impl Fn(&Path) + std::panic::RefUnwindSafe) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("testdata")
        .join(command);
    let entries = std::fs::read_dir(folder).expect("readable");
    let mut cases: Vec<PathBuf> = entries.map(|e| e.expect("readable").path()).collect();
    cases.sort();
    assert!(!cases.is_empty(), "there are cases");
    // Every case is run, so that one failure does not hide the others.
    cases.retain(|case| std::panic::catch_unwind(|| run(case)).is_err());
    assert!(cases.is_empty(), "not as recorded: {cases:#?}");
}

fn settings(folder: &Path) -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(folder);
    settings.set_prepend_module_to_snapshot(false);
    settings.remove_snapshot_suffix();
    settings.remove_input_file();
    settings.set_omit_expression(true);
    settings
}
