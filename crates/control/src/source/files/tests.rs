use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use config::{ObjectKey, ObjectKind};

use super::*;
use crate::source::follow;
use crate::testing::{World, puts};

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: a}}\nspec: {{selector: {{app: {name}}}, ports: [{{port: {port}}}]}}\n"
    )
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(ObjectKind::Service, "a", name)
}

/// A source over a directory, applied to a world step by step.
struct Bench {
    world: World,
    files: Files,
    dir: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        let files = Files::watch(vec![dir.path().to_owned()], Vec::new()).expect("watches");
        let mut bench = Self {
            world: World::new().await,
            files,
            dir,
        };
        bench.step().await;
        bench
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).expect("written");
    }

    async fn step(&mut self) {
        if let Some(set) = self.files.look(true) {
            let result = self.world.state.apply(set).await;
            self.files.applied(&result);
            result.expect("applied");
        }
    }

    fn there(&self, name: &str) -> bool {
        self.world.state.find(&key(name)).is_some()
    }

    fn port(&self, name: &str) -> u16 {
        let entry = self.world.state.find(&key(name)).expect("there");
        match &entry.object.spec {
            config::Spec::Service(spec) => spec.ports[0].port,
            _ => 0,
        }
    }

    fn errors(&self) -> Vec<String> {
        let all = self.files.report().all();
        let all = all.iter().flat_map(|f| &f.diagnostics);
        all.filter(|d| d.is_error())
            .map(ToString::to_string)
            .collect()
    }
}

#[tokio::test]
async fn files_come_change_and_go() {
    let mut bench = Bench::new().await;
    fs::create_dir(bench.dir.path().join("deeper")).expect("made");
    bench.write(
        "a.yaml",
        &format!("{}---\n{}", service("one", 1), service("two", 2)),
    );
    bench.write("deeper/b.yml", &service("three", 3));
    bench.write("notes.txt", "kind: Nothing");
    bench.write(".hidden.yaml", "nonsense: [");
    bench.step().await;
    assert!(bench.there("one") && bench.there("two") && bench.there("three"));
    assert_eq!(bench.errors(), Vec::<String>::new());

    bench.write("a.yaml", &service("one", 11));
    bench.step().await;
    assert_eq!(bench.port("one"), 11);
    assert!(!bench.there("two"), "what left the file is gone");

    fs::remove_file(bench.dir.path().join("deeper/b.yml")).expect("removed");
    bench.step().await;
    assert!(!bench.there("three"));
}

#[tokio::test]
async fn a_broken_file_keeps_its_last_good_state_until_it_is_mended() {
    let mut bench = Bench::new().await;
    bench.write(
        "a.yaml",
        &format!("{}---\n{}", service("one", 1), service("two", 2)),
    );
    bench.step().await;

    let broken = service("one", 1).replace("selector", "selektor");
    bench.write("a.yaml", &broken);
    bench.write("b.yaml", &service("three", 3));
    bench.step().await;
    assert!(bench.there("one") && bench.there("two"), "last good state");
    assert!(bench.there("three"), "other files go on");
    let errors = bench.errors();
    assert_eq!(errors.len(), 1, "{errors:?}");
    let path = bench.dir.path().join("a.yaml").display().to_string();
    assert!(errors[0].starts_with(&format!("{path}:")), "{errors:?}");
    assert!(
        errors[0].contains("selektor") && errors[0].contains("selector"),
        "{errors:?}"
    );

    bench.write("a.yaml", &service("one", 5));
    bench.step().await;
    assert_eq!(bench.errors(), Vec::<String>::new());
    assert_eq!(bench.port("one"), 5);
    assert!(!bench.there("two"));
}

#[tokio::test]
async fn a_file_broken_at_restart_keeps_what_the_store_has() {
    let mut bench = Bench::new().await;
    bench.write("a.yaml", &service("one", 1));
    bench.write("b.yaml", &service("two", 2));
    bench.step().await;
    bench.write("a.yaml", "kind: [");
    fs::remove_file(bench.dir.path().join("b.yaml")).expect("removed");

    let Bench { world, dir, files } = bench;
    drop(files);
    let world = world.restart().await;
    let kept = world
        .state
        .of_files()
        .into_iter()
        .map(|e| e.object)
        .collect();
    let files = Files::watch(vec![dir.path().to_owned()], kept).expect("watches");
    let mut bench = Bench { world, files, dir };
    bench.step().await;
    assert!(bench.there("one"), "broken, so kept");
    assert!(!bench.there("two"), "deleted while nobody looked");
    assert_eq!(bench.errors().len(), 1, "{:?}", bench.errors());
}

#[tokio::test]
async fn one_name_in_two_files_is_reported_and_the_first_holds() {
    let mut bench = Bench::new().await;
    bench.write("a.yaml", &service("one", 1));
    bench.write("b.yaml", &service("one", 2));
    bench.step().await;
    assert_eq!(bench.port("one"), 1);
    let errors = bench.errors();
    assert!(
        errors.len() == 1 && errors[0].contains("b.yaml") && errors[0].contains("a.yaml:1"),
        "{errors:?}"
    );

    fs::remove_file(bench.dir.path().join("a.yaml")).expect("removed");
    bench.step().await;
    assert_eq!(bench.port("one"), 2, "the other takes over");
    assert_eq!(bench.errors(), Vec::<String>::new());
}

#[tokio::test]
async fn what_the_api_owns_is_left_alone_until_it_is_deleted_there() {
    let mut bench = Bench::new().await;
    let own = puts(&service("one", 7), &Origin::Api);
    bench.world.state.apply(own).await.expect("applied");
    bench.write("a.yaml", &service("one", 1));
    bench.step().await;
    assert_eq!(bench.port("one"), 7);
    let errors = bench.errors();
    assert!(
        errors.len() == 1 && errors[0].contains("tulle delete service one -n a"),
        "{errors:?}"
    );

    let gone = ChangeSet {
        changes: vec![Change::Delete {
            key: key("one"),
            origin: Origin::Api,
        }],
        ..ChangeSet::default()
    };
    bench.world.state.apply(gone).await.expect("deleted");
    bench.step().await;
    assert_eq!(bench.port("one"), 1);
    assert_eq!(bench.errors(), Vec::<String>::new());
}

#[tokio::test]
async fn a_mounted_configmap_is_switched_as_a_whole() {
    let mut bench = Bench::new().await;
    let dir = bench.dir.path().to_owned();
    let version = |name: &str, port: u16| {
        fs::create_dir(dir.join(name)).expect("made");
        fs::write(dir.join(name).join("a.yaml"), service("one", port)).expect("written");
        fs::write(dir.join(name).join("b.yaml"), service("two", port)).expect("written");
    };
    version("..v1", 1);
    symlink("..v1", dir.join("..data")).expect("linked");
    symlink("..data/a.yaml", dir.join("a.yaml")).expect("linked");
    symlink("..data/b.yaml", dir.join("b.yaml")).expect("linked");
    bench.step().await;
    assert_eq!((bench.port("one"), bench.port("two")), (1, 1));
    assert_eq!(bench.errors(), Vec::<String>::new(), "read once, not twice");

    version("..v2", 2);
    symlink("..v2", dir.join("..tmp")).expect("linked");
    fs::rename(dir.join("..tmp"), dir.join("..data")).expect("switched");
    bench.step().await;
    assert_eq!((bench.port("one"), bench.port("two")), (2, 2));
}

#[tokio::test]
async fn a_path_that_vanishes_keeps_its_objects() {
    let mut bench = Bench::new().await;
    bench.write("a.yaml", &service("one", 1));
    bench.step().await;
    let away = bench.dir.path().with_extension("away");
    fs::rename(bench.dir.path(), &away).expect("moved");
    bench.step().await;
    assert!(bench.there("one"));
    assert!(!bench.errors().is_empty());
    fs::rename(&away, bench.dir.path()).expect("moved back");
    bench.step().await;
    assert_eq!(bench.errors(), Vec::<String>::new());
}

#[tokio::test]
async fn links_that_lead_in_circles_and_odd_files_end() {
    let mut bench = Bench::new().await;
    symlink(bench.dir.path(), bench.dir.path().join("again")).expect("linked");
    symlink("nowhere", bench.dir.path().join("broken.yaml")).expect("linked");
    fs::write(bench.dir.path().join("latin.yaml"), [0xff, 0xfe]).expect("written");
    fs::create_dir(bench.dir.path().join("dir.yaml")).expect("made");
    bench.write("a.yaml", &service("one", 1));
    bench.step().await;
    assert!(bench.there("one"));
    let errors = bench.errors();
    assert!(
        errors
            .iter()
            .any(|e| e.contains("latin.yaml") && e.contains("UTF-8")),
        "{errors:?}"
    );
    assert!(
        errors.iter().any(|e| e.contains("broken.yaml")),
        "{errors:?}"
    );
}

#[tokio::test]
async fn a_change_is_noticed_by_itself() {
    let bench = Bench::new().await;
    let state = bench.world.state.clone();
    let path: &Path = &bench.dir.path().join("a.yaml");
    let task = tokio::spawn(follow(bench.files, state.clone()));
    let mut revision = state.revision();
    fs::write(path, service("one", 1)).expect("written");
    let there = async {
        while state.find(&key("one")).is_none() {
            revision.changed().await.expect("state lives");
        }
    };
    tokio::time::timeout(Duration::from_secs(30), there)
        .await
        .expect("noticed");
    task.abort();
}

#[test]
fn a_path_that_is_not_there_is_refused_at_start() {
    let Err(error) = Files::watch(vec!["/nowhere/at/all".into()], Vec::new()) else {
        panic!("watches nothing");
    };
    assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
}
