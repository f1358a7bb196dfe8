//! The control plane's own files (`-f DIR`): taken as a whole, kept when broken, and nobody else's.

use super::*;

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  ports: [{{port: {port}}}]\n"
    )
}

fn port(plane: &Plane, name: &str) -> Option<u64> {
    let response = plane.http(
        "GET",
        &format!("/api/v1/resources/services/shop/{name}"),
        "",
    );
    let object: Value = serde_json::from_slice(&response.body).ok()?;
    object.pointer("/spec/ports/0/port")?.as_u64()
}

fn plane_with(files: &[(&str, &str)]) -> Plane {
    let dir = DataDir::new("files");
    for (name, text) in files {
        dir.write(format!("mesh/{name}"), text);
    }
    Plane::start_in(dir, "127.0.0.1", &["-f", "mesh"])
}

#[test]
fn a_broken_file_keeps_its_last_good_state_until_it_is_mended() {
    let mut plane = plane_with(&[
        ("a.yaml", &service("a", 80)),
        ("sub/b.yaml", &service("b", 80)),
    ]);
    assert_eq!((port(&plane, "a"), port(&plane, "b")), (Some(80), Some(80)));

    // Half of the file is right: nothing of it is taken, while other files go on.
    let broken = format!(
        "{}---\n{}",
        service("a", 81),
        service("c", 80).replace("ports", "prots")
    );
    plane.dir.write("mesh/a.yaml", broken);
    plane.dir.write("mesh/sub/b.yaml", service("b", 81));
    wait_for("the other file's change", SOON, || {
        (port(&plane, "b") == Some(81)).then_some(())
    });
    let line = plane.process.wait_stderr("spec.prots", SOON);
    has(
        &line,
        &[
            "spec.prots",
            "did you mean \"ports\"?",
            "last good state stays in force",
        ],
    );
    assert_eq!((port(&plane, "a"), port(&plane, "c")), (Some(80), None));
    let status = plane.cli(&["status"]).success();
    has(
        &status,
        &[
            "Look at:",
            "mesh/a.yaml:11",
            "spec.prots",
            "did you mean \"ports\"?",
        ],
    );

    assert_eq!(plane.metric("tulle_config_errors"), 1);

    // It stays so over a restart.
    plane.kill_and_restart();
    assert_eq!((port(&plane, "a"), port(&plane, "c")), (Some(80), None));
    has(&plane.cli(&["status"]).success(), &["mesh/a.yaml:11"]);

    plane.dir.write(
        "mesh/a.yaml",
        format!("{}---\n{}", service("a", 82), service("c", 80)),
    );
    wait_for("the mended file", SOON, || {
        (port(&plane, "c") == Some(80)).then_some(())
    });
    assert_eq!(port(&plane, "a"), Some(82));
    plane
        .process
        .wait_stderr("file is mended and in force", SOON);
    assert_eq!(plane.metric("tulle_config_errors"), 0);
    assert!(!plane.cli(&["status"]).success().contains("mesh/a.yaml"));
}

#[test]
fn a_change_of_many_files_is_taken_as_a_whole() {
    let names: Vec<String> = (0..40).map(|n| format!("s{n}")).collect();
    let files: Vec<_> = names
        .iter()
        .map(|n| (format!("{n}.yaml"), service(n, 80)))
        .collect();
    let files: Vec<_> = files
        .iter()
        .map(|(n, t)| (n.as_str(), t.as_str()))
        .collect();
    let plane = plane_with(&files);
    // A directory swapped in one step, as a mounted ConfigMap is.
    for name in &names {
        plane
            .dir
            .write(format!("next/{name}.yaml"), service(name, 81));
    }
    fs::rename(plane.dir.join("mesh"), plane.dir.join("last")).expect("renamed");
    fs::rename(plane.dir.join("next"), plane.dir.join("mesh")).expect("renamed");
    let mut seen = Vec::new();
    wait_for("all changes", SOON, || {
        let list = plane.http("GET", "/api/v1/resources/services?namespace=shop", "");
        let list: Value = serde_json::from_slice(&list.body).expect("JSON");
        let changed = list["items"].as_array().expect("items").iter();
        let changed = changed
            .filter(|s| s["spec"]["ports"][0]["port"] == 81)
            .count();
        seen.push(changed);
        (changed == 40).then_some(())
    });
    assert!(
        seen.iter().all(|n| [0, 40].contains(n)),
        "seen by half: {seen:?}"
    );
}

#[test]
fn what_files_own_is_changed_in_files_only() {
    let plane = plane_with(&[("a.yaml", &service("a", 80))]);
    let response = plane.http("DELETE", "/api/v1/resources/services/shop/a", "");
    assert_eq!(response.status, 409, "{response:?}");
    has(
        &response.text(),
        &["belongs to the file", "mesh/a.yaml", "edit that file"],
    );
    let response = plane.http("POST", "/api/v1/apply", &service("a", 90));
    assert_eq!(response.status, 409, "{response:?}");
    let run = plane.apply("again.yaml", &service("a", 90));
    assert_eq!(run.code(), 1);
    has(
        &run.stderr,
        &["Service shop/a", "belongs to the file", "edit that file"],
    );
    assert_eq!(port(&plane, "a"), Some(80));

    // The other way round: what `tulle apply` wrote is not taken over, and the file says so.
    plane.apply("own.yaml", &service("own", 80)).success();
    plane.dir.write("mesh/own.yaml", service("own", 91));
    wait_for("the conflict in status", SOON, || {
        let status = plane.cli(&["status"]).success();
        status.contains("belongs to the HTTP API").then_some(())
    });
    assert_eq!(port(&plane, "own"), Some(80));
    plane
        .cli(&["delete", "service", "own", "-n", "shop"])
        .success();
    wait_for("the file's own", SOON, || {
        (port(&plane, "own") == Some(91)).then_some(())
    });

    // A file that goes takes its objects with it.
    fs::remove_file(plane.dir.join("mesh/a.yaml")).expect("removed");
    wait_for("the end of a", SOON, || {
        port(&plane, "a").is_none().then_some(())
    });
}

#[test]
fn files_that_are_wrong_at_the_start_do_not_keep_it_from_starting() {
    let plane = plane_with(&[
        ("bad.yaml", "kind: [\n"),
        ("binary.yaml", "\u{0}\u{1}"),
        ("good.yaml", &service("a", 80)),
        ("twice.yaml", &service("a", 81)),
    ]);
    assert_eq!(port(&plane, "a"), Some(80));
    let status = plane.cli(&["status"]).success();
    has(
        &status,
        &[
            "mesh/bad.yaml",
            "mesh/binary.yaml",
            "mesh/twice.yaml",
            "is there twice",
        ],
    );
}
