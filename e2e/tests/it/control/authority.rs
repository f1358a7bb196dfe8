//! The authority's keys: for their owner only, encrypted, and of one trust domain for good.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

const FREE: [&str; 8] = [
    "--xds",
    "127.0.0.1:0",
    "--api",
    "127.0.0.1:0",
    "--metrics",
    "127.0.0.1:0",
    "--otlp",
    "127.0.0.1:0",
];

fn control(dir: &DataDir, passphrase: Option<&str>, more: &[&str]) -> Command {
    let mut command = tulle(dir.path());
    command.arg("control").args(FREE).args(more);
    if let Some(passphrase) = passphrase {
        command.env("TULLE_CA_PASSPHRASE", passphrase);
    }
    command
}

/// Starts, waits until it is ready, and ends in order.
#[track_caller]
fn starts(dir: &DataDir, passphrase: Option<&str>) {
    let mut process = Process::spawn("control", &mut control(dir, passphrase, &[]), dir.path());
    process.wait_stderr("control plane is ready", 2 * SOON);
    assert!(process.terminate(SOON).success());
}

#[track_caller]
fn refused(dir: &DataDir, passphrase: Option<&str>, more: &[&str], parts: &[&str]) {
    let mut command = control(dir, passphrase, more);
    let run = Process::run("refused", &mut command, dir.path(), 2 * SOON);
    assert!(matches!(run.code(), 1 | 2), "{}", run.stderr);
    has(&run.stderr, parts);
}

#[test]
fn what_it_keeps_is_for_its_owner_only() {
    let plane = Plane::start("modes");
    let (_client, _) = plane.client("caller", &[]);
    let mut directories = vec![plane.dir.path().to_owned()];
    let mut secrets = 0;
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("listed").flatten() {
            let path = entry.path();
            let mode = entry.metadata().expect("there").permissions().mode() & 0o777;
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let name = entry.file_name().to_string_lossy().into_owned();
            let secret = ["key", "pem", "token", "db", "sock"];
            if secret.iter().any(|s| name.contains(s)) && !name.contains(".log") {
                assert_eq!(mode, 0o600, "{} has mode {mode:o}", path.display());
                secrets += 1;
            }
            let text = fs::read(&path).unwrap_or_default();
            let plain = String::from_utf8_lossy(&text).contains("PRIVATE KEY");
            assert!(
                !plain || name == "svid.pem",
                "{} holds a key in the clear",
                path.display()
            );
        }
    }
    assert!(secrets >= 4, "only {secrets} files were looked at");
}

#[test]
fn without_the_right_passphrase_the_keys_stay_shut() {
    let dir = DataDir::new("passphrase");
    starts(&dir, Some("correct horse"));
    refused(&dir, Some("battery staple"), &[], &["passphrase"]);
    refused(&dir, None, &[], &["TULLE_CA_PASSPHRASE"]);
    starts(&dir, Some("correct horse"));
}

#[test]
fn a_mesh_keeps_its_trust_domain() {
    let dir = DataDir::new("domain");
    starts(&dir, None);
    refused(
        &dir,
        None,
        &["--trust-domain", "other.mesh"],
        &["mesh.local", "other.mesh"],
    );
    starts(&dir, None);
}

#[test]
fn damaged_keys_are_told_and_not_replaced() {
    let dir = DataDir::new("keys");
    starts(&dir, None);
    let before = fs::read_dir(dir.join("ca")).expect("listed").flatten();
    let files: Vec<PathBuf> = before.map(|e| e.path()).filter(|p| p.is_file()).collect();
    for path in &files {
        let whole = fs::read(path).expect("read");
        fs::write(path, b"damaged").expect("written");
        let mut command = control(&dir, None, &[]);
        let run = Process::run("damaged", &mut command, dir.path(), SOON);
        assert_eq!(run.code(), 1, "{} damaged: {}", path.display(), run.stderr);
        has(&run.stderr, &[&path.display().to_string()]);
        assert_eq!(fs::read(path).expect("still there"), b"damaged");
        fs::write(path, whole).expect("restored");
    }
    assert!(!files.is_empty());
    starts(&dir, None);
}
