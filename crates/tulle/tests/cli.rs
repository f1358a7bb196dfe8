//! The command line as a user meets it: stdout, stderr and exit code of the real binary.

use std::path::Path;
use std::process::{Command, Output};

/// Runs `tulle` in a directory of its own, where no control plane is.
fn tulle(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tulle"))
        .args(arguments)
        .current_dir(dir)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("TULLE_DATA_DIR", dir.join("state"))
        .env("NO_COLOR", "1")
        .env("COLUMNS", "100")
        .output()
        .expect("the binary starts")
}

/// What a user sees, with the directory's name taken out.
fn seen(dir: &Path, arguments: &[&str]) -> String {
    let output = tulle(dir, arguments);
    let text =
        |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&dir.display().to_string(), "DIR");
    format!(
        "$ tulle {}\nexit code: {}\n--- stdout\n{}--- stderr\n{}",
        arguments.join(" "),
        output.status.code().unwrap_or(-1),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn help_of_every_command_shows_an_example() {
    let dir = tempfile::tempdir().expect("temporary directory");
    for command in [
        "demo",
        "control",
        "run",
        "proxy",
        "apply",
        "get",
        "describe",
        "delete",
        "status",
        "token",
        "cert",
        "completions",
        "version",
    ] {
        let text = seen(dir.path(), &[command, "--help"]);
        assert!(text.contains("exit code: 0"), "{text}");
        assert!(text.contains("Example"), "{text}");
        assert!(text.contains(&format!("tulle {command}")), "{text}");
    }
}

#[test]
fn the_overview_lists_the_commands() {
    let dir = tempfile::tempdir().expect("temporary directory");
    insta::assert_snapshot!(seen(dir.path(), &["--help"]));
}

#[test]
fn no_arguments_is_a_usage_error() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let output = tulle(dir.path(), &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
}

#[test]
fn bad_usage_is_named() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let dir = dir.path();
    let all = [
        seen(dir, &["frobnicate"]),
        seen(dir, &["get", "servces"]),
        seen(dir, &["get", "services", "--control", "nonsense"]),
        seen(dir, &["run", "--service", "x"]),
        seen(
            dir,
            &["run", "--service", "x", "--port", "web", "--", "true"],
        ),
        seen(
            dir,
            &["run", "--service", "x", "--", "no-such-program-here"],
        ),
        seen(dir, &["token", "create", "-s", "x", "--ttl", "soon"]),
        seen(dir, &["apply", "-f", "missing.yaml"]),
        seen(dir, &["control", "--trust-domain", "Not A Domain"]),
        seen(dir, &["control", "--store", "floppy:a"]),
    ];
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn without_a_control_plane_every_command_says_what_to_do() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let dir = dir.path();
    std::fs::write(
        dir.join("ok.yaml"),
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n",
    )
    .expect("written");
    let all = [
        seen(dir, &["get", "services"]),
        seen(dir, &["status"]),
        seen(dir, &["delete", "service", "x"]),
        seen(dir, &["apply", "-f", "ok.yaml"]),
        seen(dir, &["run", "--service", "x", "--", "true"]),
        seen(dir, &["get", "services", "--control", "127.0.0.1:1"]),
    ];
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn a_broken_file_is_named_with_its_line_and_nothing_is_sent() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let dir = dir.path();
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec:\n  parentRefs: [{kind: Service, group: \"\", name: reviews}]\n  ruls: []\n";
    std::fs::write(dir.join("route.yaml"), route).expect("written");
    std::fs::write(dir.join("broken.yaml"), "kind: [\n").expect("written");
    std::fs::write(dir.join("empty.yaml"), "# nothing\n").expect("written");
    let all = [
        seen(dir, &["apply", "-f", "route.yaml"]),
        seen(dir, &["apply", "-f", "broken.yaml"]),
        seen(dir, &["apply", "-f", "empty.yaml"]),
    ];
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn completions_name_the_commands() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let output = tulle(dir.path(), &["completions", "bash"]);
    assert!(output.status.success());
    let script = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(script.contains("describe") && script.contains("_tulle"));
}
